"""A store of `dtn-det mpc` and one of imported detections on the same annotation file, in one report."""

from __future__ import annotations

import json
from pathlib import Path

from dtn_det.reports.collect import ReportOptions, collect
from dtn_det.robustness.detection.evaluation import read_cells
from dtn_det.robustness.detection.second_opinion import coco_results
from dtn_det.robustness.detection.truth import CocoTruth
from dtn_det.robustness.importing.detections import import_detections
from dtn_det.robustness.store import Store


def test_the_detections_of_mpc_have_no_difference_from_themselves(finished_mpc: Path, coco: Path, tmp_path: Path):
    store = Store.open(finished_mpc)
    (model,) = store.models().values()
    truth = CocoTruth.of(store)
    for cell in read_cells(model, range(len(store.manifest.cells))):
        for kind in ("bbox", "segm"):
            rows = coco_results(truth, cell, kind)
            for row in rows:
                if "segmentation" in row:
                    row["segmentation"]["counts"] = row["segmentation"]["counts"].decode()
            corruption, severity = store.manifest.cells[cell.cell]
            (tmp_path / "results").mkdir(exist_ok=True)
            (tmp_path / f"results/{corruption}_{severity}.{kind}.json").write_text(json.dumps(rows))
    found = import_detections(tmp_path / "results", coco / "coco.json", tmp_path / "store", "again")
    rows = [[row for table in one.batches() for row in table.to_pylist()] for one in (model, found.model)]
    assert found.detections == sum(len(row["labels"]) for row in rows[0]) > 0
    for own, again in zip(*rows, strict=True):
        assert (own["labels"], own["masks"]) == (again["labels"], again["masks"])
    report = collect([finished_mpc, tmp_path / "store"], ReportOptions(replicates=20))
    assert [section.kind for section in report.sections] == ["bbox", "segm"]
    for section in report.sections:
        assert len(section.pairs) == 1
        assert section.differences["value"].abs().max() < 1e-9
