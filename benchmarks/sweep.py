"""How much of the speed of making or reading images is left in a whole sweep: transfer, a free model, the store.

python benchmarks/sweep.py [--sets engine folders arrays] [--data DIR] [--workers 2] [--images 24] [--rows 1000]

engine   corrupts images of 224 x 224 under 15 corruptions x 5 severities, against the corruption engine alone
folders  reads JPEG files of 224 x 224 under the same cells, against decoding them alone
arrays   reads rows of 32 x 32 from NumPy arrays like CIFAR-10-C's, 19 corruptions x 5 severities, and normalises them,
         against reading and normalising them alone: in the same blocks and batches, and row by row

Both sides work in turns. For engine and folders, they have as many processes; images a second are compared, and
starting the processes is not counted on either side. For arrays, both work in one process, and CPU time is compared;
the images a second with worker processes are printed too.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
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
from dtn_det.corruptions.catalog import ALL  # noqa: E402
from dtn_det.corruptions.cells import CLEAN, Cell, sweep_cells  # noqa: E402
from dtn_det.datasets.arrays.corrupted import ArraySet, open_arrays  # noqa: E402
from dtn_det.datasets.arrays.rows import open_rows  # noqa: E402
from dtn_det.datasets.folders.class_folders import LabelledImages, list_images  # noqa: E402
from dtn_det.robustness.classification.images import (  # noqa: E402
    Cells,
    CorruptedHere,
    CorruptedOnDisk,
    CorruptedRows,
    read_clean,
    read_square,
)
from dtn_det.robustness.classification.models.classifier import Classifier, Normalizer, View  # noqa: E402
from dtn_det.robustness.classification.task import ClassificationTask  # noqa: E402
from dtn_det.robustness.store import Store  # noqa: E402
from dtn_det.robustness.store.manifest import StoreManifest  # noqa: E402
from dtn_det.robustness.sweep import run_sweep  # noqa: E402

CELLS = sweep_cells()
UNIT, ARRAYS_UNIT = 8, 64
BATCH = 128
NORMALIZER = Normalizer((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))


def write_data(folder: Path, count: int) -> Path:
    """JPEG files like ImageNet's: 500 x 375."""
    for number in range(count):
        path = folder / "n01440764" / f"{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(picture(375, 500), 37 * number, 1)).save(path, quality=90)
    return folder


def write_tree(folder: Path, count: int) -> tuple[LabelledImages, dict[Cell, Path]]:
    """JPEG files of 224 x 224, the same ones in a folder for each corruption and severity."""
    clean = folder / "clean" / "n01440764"
    clean.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(np.roll(picture(224, 224), 37 * number, 1)).save(clean / f"{number}.JPEG", quality=85)
    folders = {cell: folder / cell.corruption / str(cell.severity) for cell in CELLS if cell != CLEAN}
    for path in folders.values():
        shutil.copytree(clean.parent, path)
    return list_images(clean.parent, "imagenet"), folders


def write_arrays(folder: Path, rows: int) -> ArraySet:
    """Noise in the layout of CIFAR-10-C."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ALL:
        np.save(folder / f"{name}.npy", rng.integers(0, 256, (5 * rows, 32, 32, 3), np.uint8))
    np.save(folder / "labels.npy", np.tile(np.arange(rows, dtype=np.uint8) % 10, 5))
    return open_arrays(folder, ALL)


def corrupt(paths: list[str], cells: list[Cell]) -> Callable[[], None]:
    """The engine alone: images that are in memory, pixels that nobody takes."""
    corruptor = Corruptor()
    clean = [read_clean(path, 224) for path in paths]
    for cell in cells:
        corruptor(clean[0], *cell, "0")

    def run() -> None:
        for key, image in enumerate(clean):
            for cell in cells:
                corruptor(image, *cell, key)

    return run


def decode(names: list[str], folders: list[Path]) -> Callable[[], None]:
    """Decoding alone."""

    def run() -> None:
        for name in names:
            for folder in folders:
                read_square(str(folder / name), 224)

    run()
    return run


def timed(
    build: Callable[..., Callable[[], None]],
    arguments: tuple[object, ...],
    ready: multiprocessing.synchronize.Barrier,
    seconds: multiprocessing.Queue,
) -> None:
    """Time what a function returns, from when all processes are ready on."""
    run = build(*arguments)
    ready.wait()
    start = time.perf_counter()
    run()
    seconds.put(time.perf_counter() - start)


def rate_alone(build: Callable[..., Callable[[], None]], names: list[str], others: object, workers: int) -> float:
    """Images a second, each under all cells, that processes reach which share the images."""
    context = multiprocessing.get_context("spawn")
    ready, seconds = context.Barrier(workers), context.Queue()
    parts = [names[number::workers] for number in range(workers)]
    processes = [context.Process(target=timed, args=(build, (part, others), ready, seconds)) for part in parts]
    for process in processes:
        process.start()
    slowest = max(seconds.get() for _ in processes)
    for process in processes:
        process.join()
    return len(names) / slowest


def normalised(images: torch.Tensor) -> torch.Tensor:
    """A model of ten classes that costs nothing but its preprocessing."""
    return torch.zeros(len(NORMALIZER(images)), 10)


def sweep_rates(
    data: LabelledImages, source: Cells, side: int, unit: int, forward: Callable[[torch.Tensor], torch.Tensor],
    workers: int, folder: Path,
) -> tuple[float, float]:  # fmt: skip
    """Images a second of a whole sweep, and images per second of CPU time of its main process.

    What the processes load and compile at the beginning is not counted: the first images per worker, or the first unit
    without workers.
    """
    model = Classifier("nothing", "nothing", torch.nn.Identity(), forward, View(), {})
    times: list[float] = []
    task = ClassificationTask(
        data, source, side, [model], torch.device("cpu"), BATCH, False, False, unit,
        lambda: times.append(time.perf_counter()),
    )  # fmt: skip
    manifest = StoreManifest("classification", "", "", len(data.images), "all", "", source.cells, unit)
    store = Store.create(folder, manifest, arrow.table({"key": [image.key for image in data.images]}))
    written: list[tuple[float, float]] = []
    run_sweep(
        store, [store.add_model(model.manifest({}, {}))], task, workers=workers,
        on_unit=lambda number, records: written.append((time.perf_counter(), time.process_time())),
    )  # fmt: skip
    first = 3 * workers * task.block_size(2 * workers) if workers else unit
    rate = (len(times) - first) / (written[-1][0] - times[first - 1])
    return rate, (len(times) - unit) / (written[-1][1] - written[0][1])


def rows_alone(arrays: ArraySet, source: CorruptedRows, size: int) -> float:
    """Images per second of CPU time, each under all cells, that are read by blocks and normalised in one process."""
    count = arrays.num_images
    block = torch.empty((size, len(source), 32, 32, 3), dtype=torch.uint8)
    start = time.process_time()
    for first in range(0, count, size):
        rows = min(size, count - first)
        for number, cell in enumerate(source.cells):
            path, row = arrays.place(cell, first)
            block.numpy()[:rows, number] = open_rows(path).block(row, rows)
        for image in block[:rows]:
            normalised(image.permute(0, 3, 1, 2))
    return count / (time.process_time() - start)


def summary(title: str, alone: list[float], whole: list[float]) -> str:
    """Both sides and the ratio of each round."""
    shares = [b / a for a, b in zip(alone, whole, strict=True)]
    return (
        f"{title}: alone {statistics.median(alone):.2f} images/s, whole sweep {statistics.median(whole):.2f}: "
        f"{statistics.median(shares):.0%} (rounds {min(shares):.0%} to {max(shares):.0%})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=["engine", "folders", "arrays"], default=["engine"])
    parser.add_argument("--data", type=Path, help="class folders of ImageNet, for engine [generated images]")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--images", type=int, default=24, help="for engine and folders")
    parser.add_argument("--rows", type=int, default=1000, help="clean images of the arrays; 10000 as in CIFAR-10-C")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(setup_line(), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        stores = (root / f"store{number}" for number in itertools.count())
        corrupted = [cell for cell in CELLS if cell != CLEAN]

        def zeros(images: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(images), 1000)

        def compare(name: str, alone: Callable[[], float], data: LabelledImages, source: Cells) -> None:
            rates = [
                (alone(), sweep_rates(data, source, 224, UNIT, zeros, args.workers, next(stores))[0])
                for _ in range(args.rounds)
            ]
            print(summary(f"{name}, {args.workers} workers, {len(source)} cells", *map(list, zip(*rates, strict=True))))

        if "engine" in args.sets:
            data = list_images(args.data or write_data(root / "data", args.images), "imagenet", args.images)
            paths = [image.path for image in data.images]
            alone = partial(rate_alone, corrupt, paths, corrupted, args.workers)
            compare("engine", alone, data, CorruptedHere(Corruptor(), CELLS))
        if "folders" in args.sets:
            data, folders = write_tree(root / "tree", args.images)
            names = [image.key for image in data.images]
            alone = partial(rate_alone, decode, names, list(folders.values()), args.workers)
            compare("folders", alone, data, CorruptedOnDisk(folders, tuple(corrupted), {}, 224))
        if "arrays" in args.sets:
            arrays = write_arrays(root / "arrays", args.rows)
            cells = sweep_cells(arrays.corruptions)[1:]
            source = CorruptedRows({cell: arrays.place(cell, 0) for cell in cells}, cells, {}, 32)
            data = arrays.list_images(cells, None, 0)
            rows_alone(arrays, source, 1)
            alone, by_row, whole, with_workers = [], [], [], []
            for _ in range(args.rounds):
                alone.append(rows_alone(arrays, source, source.block_size(0)))
                by_row.append(rows_alone(arrays, source, 1))
                whole.append(sweep_rates(data, source, 32, ARRAYS_UNIT, normalised, 0, next(stores))[1])
                with_workers.append(
                    sweep_rates(data, source, 32, ARRAYS_UNIT, normalised, args.workers, next(stores))[0]
                )
            print(summary(f"arrays, CPU time of one process, {len(cells)} cells", alone, whole))
            print(summary("arrays, reading row by row", by_row, whole))
            print(f"arrays, {args.workers} workers: {statistics.median(with_workers):.0f} images/s")


if __name__ == "__main__":
    main()
