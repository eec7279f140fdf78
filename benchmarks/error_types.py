"""How long do the error types of a detector take under all cells, and are they those of tidecv?

python benchmarks/error_types.py [--images 5000] [--boxes 100] [--cells 76] [--replicates 1000] [--processes 2]
python benchmarks/error_types.py --against-tidecv     (after pip install tidecv)

The records of each cell are the same generated boxes. tidecv 1.0.1 counts a predicted category without objects as one
of AP 0, takes the best 100 detections over all categories, and finds errors in crowds. So the comparison is on 200
images without crowds, with 50 detections each, of categories with objects.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import time

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402
from _measure import setup_line  # noqa: E402
from detection_evaluation import generated  # noqa: E402

from dtn_det.metrics import all_cells  # noqa: E402
from dtn_det.metrics.error_costs import error_cost_samples, error_costs  # noqa: E402
from dtn_det.metrics.error_types import REPAIRS  # noqa: E402
from dtn_det.robustness.detection.evaluation import CellDetections, CocoScorer, in_processes  # noqa: E402
from dtn_det.robustness.detection.truth import CocoImage  # noqa: E402


def measure(work: tuple[int, int, int, int]) -> tuple[float, float, float]:
    """Return the seconds of CPU time for the types and for the costs of some cells, and the peak memory in MB."""
    images, boxes, cells, replicates = work
    truth, found = generated(images, boxes, 80, masks=False)
    scorer = CocoScorer(truth)
    start = time.process_time()
    repairs = [scorer.errors(found, "bbox").repairs for _ in range(cells)][:1] * cells
    types = time.process_time() - start
    error_cost_samples(zip(all_cells("benchmark")[:cells], repairs, strict=True), replicates=replicates)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return types, time.process_time() - start - types, peak


def _without_crowds(image: CocoImage) -> CocoImage:
    return dataclasses.replace(image, annotations=image.annotations.replace('"iscrowd": 1', '"iscrowd": 0'))


def _tidecv(images: list[CocoImage], found: CellDetections) -> list[float]:
    from tidecv import TIDE
    from tidecv.data import Data

    truth, detections = Data("objects"), Data("detections")
    for number, image in enumerate(images):
        truth.add_image(number, image.file)
        for one in json.loads(image.annotations):
            truth.add_ground_truth(number, one["category_id"], one["bbox"])
    boxes = found.boxes.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    for row in range(len(boxes)):
        number, label, score = int(found.image[row]), int(found.labels[row]), float(found.scores[row])
        detections.add_detection(number, label + 1, score, boxes[row].tolist())
    run = TIDE().evaluate(truth, detections, mode=TIDE.BOX)
    costs = {**run.fix_main_errors(), **run.fix_special_errors()}
    by_name = {error.short_name: float(cost) for error, cost in costs.items()}
    return [by_name[name] for name in REPAIRS]


def compare() -> None:
    """Print the costs of both, in points of AP50."""
    truth, found = generated(200, 50, 10, masks=False)
    rows = [_without_crowds(one) for one in truth.images]
    errors = CocoScorer(dataclasses.replace(truth, images=tuple(rows))).errors(found, "bbox")
    theirs = _tidecv(rows, found)
    print(f"| error | {' | '.join(REPAIRS)} |\n|---|{'---|' * len(REPAIRS)}")
    for name, costs in (("dtn-det", 100 * error_costs(errors.repairs)), ("tidecv", theirs)):
        print(f"| {name} | {' | '.join(f'{cost:.4f}' for cost in costs)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--boxes", type=int, default=100, help="detections of an image")
    parser.add_argument("--cells", type=int, default=76)
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--against-tidecv", action="store_true")
    options = parser.parse_args()
    print(setup_line())
    if options.against_tidecv:
        compare()
        return
    share = -(-options.cells // options.processes)
    work = [(options.images, options.boxes, share, options.replicates)] * options.processes
    start = time.perf_counter()
    found = list(in_processes(measure, work, options.processes))
    print(
        f"{time.perf_counter() - start:.1f} s with the generation of the boxes, for {share * options.processes} cells"
    )
    for types, costs, peak in found:
        print(f"a process: {types:.1f} s of CPU time for the types, {costs:.1f} s for the costs, peak {peak:.0f} MB")


if __name__ == "__main__":
    main()
