from __future__ import annotations

import json
import math

import pandas as pd
import pytest

from dtn_det.demo.dataset import DatasetSpec
from dtn_det.demo.plan import Layout, Plan
from dtn_det.demo.report import Row, compare, read_results, to_markdown, write_report
from dtn_det.demo.worker import METRICS, _metrics

PLAN = Plan(data=DatasetSpec(num_train=7, num_val=5), corruptions=("fog", "motion_blur"), severities=(1, 5))

# AP by cell, chosen so that a mean over severities, over corruptions, or of ratios gives different numbers.
DTN = {"clean": 0.40, "fog-1": 0.30, "fog-5": 0.10, "motion_blur-1": 0.20, "motion_blur-5": 0.00}
LN = {"clean": 0.30, "fog-1": 0.30, "fog-5": 0.20, "motion_blur-1": 0.10, "motion_blur-5": 0.06}


def write_metrics(layout: Layout, model: str, ap: dict[str, float], **others: float | None) -> None:
    for cell in PLAN.cells():
        path = layout.metrics(model, cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"AP": ap[cell.name], "AP50": 2 * ap[cell.name], **others}))


@pytest.fixture
def layout(tmp_path):
    layout = Layout(tmp_path)
    write_metrics(layout, "dtn", DTN)
    write_metrics(layout, "ln", LN)
    return layout


def test_the_rows_are_right(layout):
    rows = compare(read_results(PLAN, layout, "dtn"), read_results(PLAN, layout, "ln"), PLAN)
    assert [(row.name, pytest.approx(row.dtn), pytest.approx(row.ln)) for row in rows] == [
        ("AP", 40.0, 30.0),
        ("AP50", 80.0, 60.0),
        ("AP, fog", 20.0, 25.0),
        ("AP, motion_blur", 10.0, 8.0),
        ("mPC", 15.0, 16.5),
        ("rPC", 37.5, 55.0),
    ]
    assert [pytest.approx(row.difference) for row in rows] == [10.0, 20.0, -5.0, 2.0, -1.5, -17.5]


def test_the_table_is_written_whichever_way_it_falls(layout):
    rows = write_report(PLAN, layout)
    text = layout.table.read_text()
    assert text == to_markdown(rows, PLAN)
    line = next(line for line in text.splitlines() if "mPC" in line)
    assert [cell.strip() for cell in line.strip("|").split("|")] == ["mPC", "15.0", "16.5", "-1.5"]
    assert "severities 1, 5" in text
    assert "7 training and 5 validation images" in text
    frame = pd.read_csv(layout.csv)
    assert list(frame.columns) == ["metric", "DTN", "LayerNorm", "difference"]
    assert frame.set_index("metric").loc["mPC"].tolist() == pytest.approx([15.0, 16.5, -1.5])


def test_the_difference_is_that_of_the_values_shown():
    assert Row("AP", 23.86, 25.54).texts() == ("AP", "23.9", "25.5", "-1.6")
    assert Row("AP", 30.04, 30.01).texts() == ("AP", "30.0", "30.0", "+0.0")
    assert Row("AP", 30.01, 30.04).texts() == ("AP", "30.0", "30.0", "+0.0")
    assert Row("AP", 30.01, 30.04).difference == pytest.approx(-0.03)


def test_metrics_that_do_not_exist_show_as_a_dash(tmp_path):
    layout = Layout(tmp_path)
    nothing = dict.fromkeys(DTN, 0.0)
    write_metrics(layout, "dtn", nothing, APl=None)
    write_metrics(layout, "ln", LN, APl=None)
    rows = {row.name: row for row in write_report(PLAN, layout)}
    assert math.isnan(rows["APl"].dtn)
    assert rows["APl"].texts() == ("APl", "-", "-", "-")
    assert rows["rPC"].texts() == ("rPC", "-", "55.0", "-")  # a clean AP of 0


def test_a_missing_result_is_an_error_and_not_a_zero(layout):
    layout.metrics("ln", PLAN.cells()[2]).unlink()
    with pytest.raises(FileNotFoundError, match="fog-5"):
        write_report(PLAN, layout)


def test_metrics_of_mmdetection_get_our_names():
    results = {key: 0.1 * i for i, key in enumerate(METRICS.values())} | {"coco/bbox_mAP_l": -1}
    assert _metrics(results) == {"AP": 0.0, "AP50": 0.1, "AP75": 0.2, "APs": 0.1 * 3, "APm": 0.4, "APl": None}
    assert set(_metrics({}).values()) == {0.0}
