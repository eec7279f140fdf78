"""How much of the engine's speed is left in a whole sweep: decoding, transfer, a model that costs nothing, the store.

python benchmarks/sweep.py [--data DIR] [--workers 2] [--images 24] [--rounds 3]

Both sides corrupt the same images of 224 x 224 under 15 corruptions x 5 severities in as many processes, in turns.
Starting the processes is not counted on either side.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path

# Before NumPy and OpenCV are loaded.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402
import pyarrow as arrow  # noqa: E402
import torch  # noqa: E402
from _measure import setup_line  # noqa: E402
from corruptions import picture  # noqa: E402
from PIL import Image  # noqa: E402

from dtn_det.corruptions import Corruptor  # noqa: E402
from dtn_det.corruptions.cells import CLEAN, sweep_cells  # noqa: E402
from dtn_det.datasets.folders.class_folders import LabelledImages, list_images  # noqa: E402
from dtn_det.robustness.classification.images import CorruptedHere, read_clean  # noqa: E402
from dtn_det.robustness.classification.models.classifier import Classifier, View  # noqa: E402
from dtn_det.robustness.classification.task import ClassificationTask  # noqa: E402
from dtn_det.robustness.store import Store  # noqa: E402
from dtn_det.robustness.store.manifest import StoreManifest  # noqa: E402
from dtn_det.robustness.sweep import run_sweep  # noqa: E402

CELLS = sweep_cells()
UNIT = 8


def write_data(folder: Path, count: int) -> Path:
    """JPEG files like ImageNet's: 500 x 375."""
    for number in range(count):
        path = folder / "n01440764" / f"{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(picture(375, 500), 37 * number, 1)).save(path, quality=90)
    return folder


def corrupt_images(
    paths: list[str], ready: multiprocessing.synchronize.Barrier, seconds: multiprocessing.Queue
) -> None:
    """The engine alone: images that are in memory, pixels that nobody takes."""
    corruptor = Corruptor()
    clean = [read_clean(path, 224) for path in paths]
    names = [cell for cell in CELLS if cell != CLEAN]
    for name, severity in names:
        corruptor(clean[0], name, severity, "0")
    ready.wait()
    start = time.perf_counter()
    for key, image in enumerate(clean):
        for name, severity in names:
            corruptor(image, name, severity, key)
    seconds.put(time.perf_counter() - start)


def engine_rate(data: LabelledImages, workers: int) -> float:
    """Images a second, each under all cells."""
    context = multiprocessing.get_context("spawn")
    ready, seconds = context.Barrier(workers), context.Queue()
    paths = [image.path for image in data.images]
    parts = [paths[number::workers] for number in range(workers)]
    processes = [context.Process(target=corrupt_images, args=(part, ready, seconds)) for part in parts]
    for process in processes:
        process.start()
    slowest = max(seconds.get() for _ in processes)
    for process in processes:
        process.join()
    return len(paths) / slowest


def sweep_rate(data: LabelledImages, workers: int, folder: Path) -> float:
    """The same for a whole sweep, from its first image per worker on."""
    network = torch.nn.Identity()
    model = Classifier("nothing", "nothing", network, lambda images: torch.zeros(len(images), 1000), View(), {})
    times: list[float] = []
    task = ClassificationTask(
        data, CorruptedHere(Corruptor(), CELLS), 224, [model], torch.device("cpu"), 128, False, False, UNIT,
        lambda: times.append(time.perf_counter()),
    )  # fmt: skip
    manifest = StoreManifest("classification", "", "", len(data.images), "all", "", CELLS, UNIT)
    store = Store.create(folder, manifest, arrow.table({"key": [image.key for image in data.images]}))
    # What workers load and compile with their first images is not counted; those that they have made by then are.
    written: list[float] = []
    run_sweep(
        store, [store.add_model(model.manifest({}, {}))], task, workers=workers,
        on_unit=lambda number, records: written.append(time.perf_counter()),
    )  # fmt: skip
    first = 3 * workers
    return (len(times) - first) / (written[-1] - times[first - 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="class folders of ImageNet [generated images]")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(setup_line())
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.data or write_data(Path(temporary) / "data", args.images)
        data = list_images(folder, "imagenet", args.images)
        engine, sweep = [], []
        for number in range(args.rounds):
            engine.append(engine_rate(data, args.workers))
            sweep.append(sweep_rate(data, args.workers, Path(temporary) / f"store{number}"))
            print(f"round {number + 1}: engine {engine[-1]:.2f}, sweep {sweep[-1]:.2f} images/s x {len(CELLS)} cells")
    shares = [b / a for a, b in zip(engine, sweep, strict=True)]
    print(
        f"engine alone {statistics.median(engine):.2f} images/s, whole sweep {statistics.median(sweep):.2f}: "
        f"{statistics.median(shares):.0%} (rounds {min(shares):.0%} to {max(shares):.0%})"
    )


if __name__ == "__main__":
    main()
