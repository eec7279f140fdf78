"""How long does a report over the records of many models take, and how much memory?

python benchmarks/report.py [--models 20] [--images 50000] [--folder DIR] [--selective]

The records are generated: 95 cells of ImageNet-C with the four extra corruptions, answers that depend on the image, the
corruption and the model. Making them is not counted; `--folder` keeps them for another run.
"""

from __future__ import annotations

import argparse
import io
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as arrow
from _measure import setup_line
from rich.console import Console

from dtn_det.corruptions import Corruptor
from dtn_det.corruptions.catalog import ALL
from dtn_det.corruptions.cells import sweep_cells
from dtn_det.reports.collect import ReportOptions, collect
from dtn_det.reports.write import make_report
from dtn_det.robustness.classification.records import records_schema
from dtn_det.robustness.store import ModelStore, Store
from dtn_det.robustness.store.manifest import ModelManifest, StoreManifest

CELLS = sweep_cells(ALL)
UNIT = 1000
CLASSES = 1000


def write_records(folder: Path, models: int, images: int) -> Path:
    """A store as a sweep over ImageNet-C leaves it."""
    manifest = StoreManifest(
        "classification", "generated", "generated", images, "all", Corruptor().identity, CELLS, UNIT,
        {"classes": "imagenet", "num_classes": str(CLASSES)},
    )  # fmt: skip
    store = Store.create(folder, manifest, arrow.table({"key": [f"{number:08d}" for number in range(images)]}))
    for number in range(models):
        name = f"{'dtn-' * (number % 2)}model-{number // 2}"
        model = store.add_model(ModelManifest(name, f"generated:{number}", str(number), 25_000_000, {}, {}))
        for unit in model.pending():
            write_unit(model, unit, number)
    return folder


def write_unit(model: ModelStore, unit: int, seed: int) -> None:
    """Answers to the images of a unit: hard images are hard for all models under all corruptions."""
    images = np.asarray(model.store.manifest.unit(unit))
    rng = np.random.default_rng((unit, 0))
    ease = rng.normal(size=(len(images), 1))
    own = np.random.default_rng((unit, seed + 1))
    harm = np.array([0.35 * severity for _, severity in CELLS])
    margin = ease + own.normal(size=(len(images), len(CELLS))) + 1 + 0.02 * seed - harm
    true = (1 / (1 + np.exp(-margin))).astype(np.float32).reshape(-1)
    correct = true > 0.5
    confidence = np.where(correct, true, 0.9 * (1 - true)).astype(np.float32)
    columns = {
        "image": np.repeat(images, len(CELLS)),
        "cell": np.tile(np.arange(len(CELLS)), len(images)),
        "prediction": np.where(correct, 1, own.integers(2, CLASSES, len(true))),
        "confidence": confidence,
        "correct": correct,
        "correct_top5": true > 0.2,
        "true_probability": true,
        "squared_norm": confidence**2,
    }
    schema = records_schema()
    arrays = [columns[field.name].astype(field.type.to_pandas_dtype()) for field in schema]
    model.write(unit, arrow.table(arrays, schema=schema))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--folder", type=Path, help="keep the records here")
    parser.add_argument("--selective", action="store_true", help="as in dtn-det report")
    args = parser.parse_args()
    options = ReportOptions(selective=args.selective)
    print(setup_line())
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_records(args.folder or Path(temporary) / "store", args.models, args.images)
        size = sum(path.stat().st_size for path in folder.rglob("*.parquet"))
        print(f"{args.models} models x {len(CELLS)} cells x {args.images:,} images: {size / 1e9:.2f} GB of records")
        console = Console(file=io.StringIO())
        start = time.perf_counter()
        report = make_report([folder], Path(temporary) / "report", options, console)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        numbers = sum(len(section.numbers) + len(section.differences) for section in report.sections)
        print(f"whole report, {numbers:,} numbers with intervals: {seconds:.1f} s, peak {peak:.2f} GB")
        # What was spent on numbers alone, in a second run.
        start = time.perf_counter()
        cpu = time.process_time()
        collect([folder], options)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        print(f"of which numbers and intervals: {seconds:.1f} s, {cpu:.1f} s of CPU time")


if __name__ == "__main__":
    main()
