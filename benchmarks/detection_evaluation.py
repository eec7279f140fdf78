"""How fast is COCO's evaluation of one cell, and in how much memory, against pycocotools and faster-coco-eval?

python benchmarks/detection_evaluation.py [--images 5000] [--rounds 3] [--without pycocotools] [--masks] [--matches]

Each candidate evaluates the same generated boxes (or masks of 640 x 480) from the same arrays, with ground truth
already read. The candidates take turns, in a new process each time, which also measures the peak memory.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import statistics
import time
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402
from _measure import setup_line  # noqa: E402

from dtn_det.metrics import average_precision  # noqa: E402
from dtn_det.robustness.detection.evaluation import CellDetections, CocoScorer  # noqa: E402
from dtn_det.robustness.detection.truth import CocoImage, CocoTruth  # noqa: E402

CANDIDATES = ("dtn-det", "faster-coco-eval", "pycocotools")


def generated(images: int, boxes: int, categories: int, masks: bool) -> tuple[CocoTruth, CellDetections]:
    """About seven objects in each image, a detection near most of them, and others anywhere."""
    rng = np.random.default_rng(0)
    found, labels, rows = [], [], []
    for number in range(images):
        sides = np.exp(rng.uniform(np.log(8), np.log(300), (rng.poisson(7.3), 2)))
        corners = rng.uniform(0, [340, 180], sides.shape)
        own = rng.integers(categories, size=len(sides))
        objects = []
        for (x, y), (width, height), label in zip(corners.tolist(), sides.tolist(), own.tolist(), strict=True):
            one = {"bbox": [x, y, width, height], "area": width * height, "category_id": label + 1}
            polygon = [x, y, x + width, y, x + width, y + height, x, y + height]
            objects.append({**one, "iscrowd": int(rng.random() < 0.02), "segmentation": [polygon]})
        rows.append(CocoImage(number + 1, f"{number}.jpg", 480, 640, json.dumps(objects), str(number + 1)))
        near = np.concatenate([corners, corners + sides], axis=1) + rng.normal(size=(len(sides), 4)) * 8
        far = rng.uniform(0, [300, 200], (max(0, boxes - len(near)), 2))
        far = np.concatenate([far, far + rng.uniform(5, 200, far.shape)], axis=1)
        found.append(np.concatenate([near, far])[:boxes])
        labels.append(np.concatenate([own, rng.integers(categories, size=len(far))])[:boxes])
    image = np.repeat(np.arange(images), [len(one) for one in found]).astype(np.int32)
    corners = np.concatenate(found).astype(np.float32)
    corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + 1)
    scores = rng.random(len(corners)).astype(np.float32)
    counts = _masks(corners) if masks else None
    truth = CocoTruth(tuple(rows), tuple((label + 1, str(label)) for label in range(categories)))
    return truth, CellDetections(0, image, corners, scores, np.concatenate(labels).astype(np.int32), counts, scores)


def _masks(corners: np.ndarray) -> np.ndarray:
    from pycocotools import mask

    x1, y1, x2, y2 = np.clip(corners, 0, [640, 480, 640, 480]).astype(np.float64).T
    polygons = np.stack([x1, y1, x2, y1, x2, y2, x1, y2], axis=1).tolist()
    return np.array([mask.frPyObjects([one], 480, 640)[0]["counts"] for one in polygons], object)


def _memory(field: str) -> float:
    """Memory of this process in MB: now (`VmRSS`), or its peak (`VmHWM`)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"expected {field} in /proc/self/status, got none: this script needs Linux")


def measure(candidate: str, options: argparse.Namespace) -> tuple[float, float, float]:
    """Return seconds, peak memory in MB above that of the data, and AP, of one candidate in this process."""
    kind = "segm" if options.masks else "bbox"
    small, large = (
        generated(images, options.boxes, options.categories, options.masks) for images in (4, options.images)
    )
    run = _prepared(candidate, *small, kind, options.matches)
    run()
    run = _prepared(candidate, *large, kind, options.matches)
    Path("/proc/self/clear_refs").write_text("5")  # the peak of the memory counts from here
    before = _memory("VmRSS")
    start = time.perf_counter()
    ap = run()
    return time.perf_counter() - start, _memory("VmHWM") - before, ap


def _prepared(candidate: str, truth: CocoTruth, found: CellDetections, kind: str, matches_alone: bool):  # noqa: ANN202
    """Read the ground truth; return what evaluates the detections and gives AP, or NaN for the matches alone."""
    if candidate == "dtn-det":
        scorer = CocoScorer(truth)
        scorer.matches(CellDetections(0, *(None if one is None else one[:0] for one in _arrays(found))), kind)

        def own() -> float:
            matches = scorer.matches(found, kind)
            return float("nan") if matches_alone else float(average_precision(matches)[0])

        return own
    from faster_coco_eval import COCO, COCOeval_faster
    from pycocotools import coco as pycocotools
    from pycocotools.cocoeval import COCOeval

    from dtn_det.robustness.detection.second_opinion import coco_content, coco_results

    evaluator_class = COCOeval_faster if candidate == "faster-coco-eval" else COCOeval
    with contextlib.redirect_stdout(io.StringIO()):
        coco = (COCO if candidate == "faster-coco-eval" else pycocotools.COCO)()
        coco.dataset = {**coco_content(truth), "info": {}}
        coco.createIndex()

    def other() -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            evaluator = evaluator_class(coco, coco.loadRes(coco_results(truth, found, kind)), kind)
            evaluator.evaluate()
            if matches_alone:
                return float("nan")
            evaluator.accumulate()
            evaluator.summarize()
        return float(evaluator.stats[0])

    return other


def _arrays(found: CellDetections) -> tuple:
    return found.image, found.boxes, found.scores, found.labels, found.masks, found.mask_scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--boxes", type=int, default=100, help="detections of an image")
    parser.add_argument("--categories", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--masks", action="store_true", help="evaluate masks")
    parser.add_argument("--matches", action="store_true", help="match alone, without the precision")
    parser.add_argument("--without", nargs="+", choices=CANDIDATES, default=[], metavar="NAME", help="leave out")
    options = parser.parse_args()
    print(setup_line())
    names = [name for name in CANDIDATES if name not in options.without]
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found[name].append(pool.apply(measure, (name, options)))
    print("| evaluator | seconds (median) | MB above the data | AP | times the time of dtn-det | times its memory |")
    print("|---|---|---|---|---|---|")
    own = found[names[0]]
    for name, runs in found.items():
        seconds, memory = (statistics.median(run[part] for run in runs) for part in (0, 1))
        ratios = [
            statistics.median(run[part] / mine[part] for run, mine in zip(runs, own, strict=True)) for part in (0, 1)
        ]
        print(f"| {name} | {seconds:.2f} | {memory:.0f} | {runs[0][2]:.10f} | {ratios[0]:.1f} | {ratios[1]:.1f} |")


if __name__ == "__main__":
    main()
