"""faster-coco-eval's own summary of each cell of a store of detections: the reference for what is printed."""

from __future__ import annotations

import pandas as pd
from faster_coco_eval import COCO, COCOeval_faster

from dtn_det.robustness.detection.evaluation import KINDS, bad_images, read_cells
from dtn_det.robustness.detection.second_opinion import coco_content, coco_results
from dtn_det.robustness.detection.truth import CocoTruth
from dtn_det.robustness.store import ModelStore

COCO_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""The numbers in the order of the summary."""


def summaries(model: ModelStore) -> dict[str, pd.DataFrame]:
    """Tables with ``corruption``, ``severity``, ``num_images`` and the metrics as fractions, -1 where undefined.

    By kind: boxes, and masks where the model gives them. Images that could not be read are left out.
    """
    manifest = model.store.manifest
    truth, bad = CocoTruth.of(model.store), bad_images(model)
    coco = COCO(coco_content(truth))
    ids = [image.id for number, image in enumerate(truth.images) if number not in bad]
    rows: dict[str, list[tuple[object, ...]]] = {kind: [] for kind in KINDS}
    for found in read_cells(model, range(len(manifest.cells))):
        for kind in KINDS if found.masks is not None else KINDS[:1]:
            values = summary(coco, ids, coco_results(truth, found, kind), kind)
            rows[kind].append((*manifest.cells[found.cell], len(ids), *values))
    columns = ["corruption", "severity", "num_images", *COCO_METRICS]
    return {kind: pd.DataFrame(table, columns=columns) for kind, table in rows.items() if table}


def summary(coco: COCO, ids: list[int], results: list[dict[str, object]], kind: str) -> list[float]:
    """The numbers of detections in COCO's result format, by faster-coco-eval's matching, curves and summary."""
    evaluator = COCOeval_faster(coco, coco.loadRes(results), kind, print_function=lambda *text: None)
    evaluator.params.imgIds = ids
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    return [float(value) for value in evaluator.stats[: len(COCO_METRICS)]]
