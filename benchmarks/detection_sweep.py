"""How much faster is `dtn-det mpc` than MMDetection's loop, which goes over the data set once for every cell?

python benchmarks/detection_sweep.py CONFIG CHECKPOINT --data-root DIR [--images 24] [--severities 3] [--workers 2]

Both evaluate the same detector on the same images under the same cells, in turn, in one process, with as many worker
processes. The loop is that of MMDetection's `test_robustness.py`: one Runner, and for each cell a new dataloader with
the corruption behind the loading of the image. It runs with `imagecorruptions`, as MMDetection's does, and with this
package's engine, which shows what the loop alone costs. Ours includes the start of its worker processes. Where other
work shares the machine, the seconds of cores tell more than those of the wall.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import logging
import os
import shutil
import tempfile
import time
from pathlib import Path

import torch
from _measure import setup_line
from mmengine.runner import Runner
from rich.console import Console

from dtn_det.corruptions.cells import Cell, sweep_cells
from dtn_det.reports.sweep_results import sweep_report
from dtn_det.robustness.detection.run import run_detection
from dtn_det.robustness.options import DetectionOptions, DetectorSource
from dtn_det.training import launch
from dtn_det.training.config import load_config

ALL_CELLS = 76


class Clock:
    """Seconds since it was made, by the wall and of all cores by this process and its children that have ended."""

    def __init__(self) -> None:
        self.start = time.perf_counter(), self._cpu()

    def read(self) -> tuple[float, float]:
        """Both so far."""
        return time.perf_counter() - self.start[0], self._cpu() - self.start[1]

    @staticmethod
    def _cpu() -> float:
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system


def small_set(root: Path, annotations: str, images: int, out: Path) -> str:
    """Write an annotation file with the first images; its path."""
    content = json.loads((root / annotations).read_text())
    content["images"] = sorted(content["images"], key=lambda image: image["id"])[:images]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] in kept]
    path = out / "annotations.json"
    path.write_text(json.dumps(content))
    return str(path)


def loop(
    config: str, checkpoint: str, root: str, annotations: str, cells: tuple[Cell, ...], backend: str, workers: int
) -> tuple[tuple[float, float], list[float]]:
    """MMDetection's loop: seconds by the wall and of all cores, and the AP of each cell."""
    cfg = load_config(config)
    launch.set_data_root(cfg, root)
    cfg.test_dataloader.dataset.ann_file = annotations
    cfg.test_evaluator.ann_file = annotations
    cfg.test_dataloader.update(batch_size=1, num_workers=workers, persistent_workers=False)
    cfg.load_from, cfg.work_dir, cfg.log_level = checkpoint, tempfile.mkdtemp(), "ERROR"
    clock = Clock()
    runner = Runner.from_cfg(cfg)
    found = []
    for corruption, severity in cells:
        settings = copy.deepcopy(cfg.test_dataloader)
        if severity:
            step = {"type": "ImageCorruption", "corruption": corruption, "severity": severity, "backend": backend}
            settings.dataset.pipeline.insert(1, step)
        runner.test_loop.dataloader = runner.build_dataloader(settings)
        found.append(runner.test()["coco/bbox_mAP"])
    return clock.read(), found


def ours(options: DetectionOptions) -> tuple[tuple[float, float], list[float]]:
    """Our sweep: seconds by the wall and of all cores, and the AP of each cell."""
    clock = Clock()
    swept = run_detection(options, Console(stderr=True))
    assert swept is not None
    report = sweep_report(swept.store, swept.names, processes=options.workers)
    seconds = clock.read()
    numbers = report.sections[0].numbers
    of_cells = numbers[(numbers["name"] == "AP") & ((numbers["severity"] > 0) | (numbers["scope"] == "clean"))]
    points = {(row.scope, row.severity): row.value / 100 for row in of_cells.itertuples()}
    return seconds, [points[cell] for cell in swept.store.manifest.cells]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("checkpoint")
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--severities", type=int, nargs="+", default=[3])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    cells = sweep_cells(severities=args.severities)
    work = Path(tempfile.mkdtemp())
    cfg = load_config(args.config)
    root = Path(args.data_root).resolve()
    annotations = small_set(root, cfg.test_dataloader.dataset.ann_file, args.images, work)
    print(f"{args.images} images under {len(cells)} cells, {args.workers} workers; {setup_line()}")
    for repeat in range(args.repeats):
        seconds, points = {}, {}
        options = DetectionOptions(
            models=[DetectorSource(args.config, args.checkpoint)],
            store=work / f"store{repeat}",
            data_root=str(root),
            severities=args.severities,
            workers=args.workers,
            cfg_options=[f"test_dataloader.dataset.ann_file={annotations}"],
        )
        # Ours first; every line comes as soon as it is known, for the loop takes long.
        for name in ("ours", "loop, imagecorruptions", "loop, dtn_det"):
            with contextlib.redirect_stdout(io.StringIO()):
                if name == "ours":
                    seconds[name], points[name] = ours(options)
                else:
                    backend = name.removeprefix("loop, ")
                    seconds[name], points[name] = loop(
                        args.config, args.checkpoint, str(root), annotations, cells, backend, args.workers
                    )
            wall, cores = seconds[name]
            rate = args.images * len(cells) / wall
            whole = wall * ALL_CELLS / len(cells) / 60
            print(
                f"{name:24} {wall:7.1f} s, {rate:5.1f} images/s, {whole:5.1f} min for 76 cells, "
                f"{wall / seconds['ours'][0]:.2f}x; {cores:7.1f} s of cores, {cores / seconds['ours'][1]:.2f}x; "
                f"mean AP {100 * sum(points[name]) / len(cells):.2f}",
                flush=True,
            )
        difference = max(abs(a - b) for a, b in zip(points["ours"], points["loop, dtn_det"], strict=True))
        print(f"largest difference in AP to the loop with the same pixels: {difference:.4f}")
    shutil.rmtree(work)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
