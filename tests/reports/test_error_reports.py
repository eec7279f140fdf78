"""The costs of error types in reports: numbers, differences, tables, figure, page and flat numbers."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from page_tree import parse
from report_stores import classifier_store, detector_store

from dtn_det.errors import NothingToDrawError, ReportError
from dtn_det.metrics import CLEAN
from dtn_det.metrics.error_costs import ERROR_METRICS, error_costs
from dtn_det.metrics.error_types import ERROR_TYPES, REPAIRS
from dtn_det.metrics.resampling import holm_by_key
from dtn_det.reports.collect import ReportOptions, collect
from dtn_det.reports.figures import draw_figures
from dtn_det.reports.figures.errors import draw_errors
from dtn_det.reports.formats.flat import flat_numbers
from dtn_det.reports.numbers import Numbers
from dtn_det.reports.page import render_page
from dtn_det.reports.tables import report_tables
from dtn_det.robustness.detection.evaluation import CocoScorer, read_cells
from dtn_det.robustness.detection.truth import CocoTruth
from dtn_det.robustness.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return detector_store(tmp_path_factory.mktemp("errors") / "store", {"ln": 0, "dtn": 1})


@pytest.fixture(scope="module")
def report(store: Path):
    return collect([store], ReportOptions(replicates=50, errors=True))


@pytest.fixture(scope="module")
def without(store: Path):
    return collect([store], ReportOptions(replicates=0))


def test_costs_are_those_of_each_cell(report, store) -> None:
    model = Store.open(store).model("ln")
    cells = model.store.manifest.cells
    numbers = Numbers.of(report, report.sections[0])
    scorer = CocoScorer(CocoTruth.of(model.store))
    worst = cells.index(("fog", 5))
    (found,) = read_cells(model, [worst])
    costs = 100 * error_costs(scorer.errors(found, "bbox").repairs)
    assert costs[ERROR_TYPES.index("Loc")] > 1
    for name, cost in zip(ERROR_METRICS, costs, strict=True):
        number = numbers.get("ln", "benchmark", name, "fog", 5)
        assert number.value == pytest.approx(cost, abs=1e-9)
        assert number.low <= number.value <= number.high
        mean = numbers.get("ln", "benchmark", f"mean {name}", "fog")
        severities = [numbers.get("ln", "benchmark", name, "fog", cell[1]).value for cell in cells if cell[0] == "fog"]
        assert mean.value == pytest.approx(sum(severities) / len(severities))


def test_detections_in_bad_images_are_ignored(store) -> None:
    model = Store.open(store).model("ln")
    (found,) = read_cells(model, [0])
    outcomes = CocoScorer(CocoTruth.of(model.store), [0]).errors(found, "bbox").outcomes
    assert set(outcomes[found.image == 0]) == {6}
    assert set(outcomes[found.image > 0]) <= {0, 2}


def test_differences_are_adjusted_together(report) -> None:
    frame = report.sections[0].differences
    own = frame[frame["name"].str.startswith("mean dAP50") & (frame["set"] == "benchmark")]
    overall = own[(own["scope"] == "") & (own["severity"] == 0)]
    assert overall["name"].tolist() == [f"mean {name}" for name in ERROR_METRICS]
    expected = holm_by_key(dict(zip(overall["name"], overall["p_value"], strict=True)))
    assert overall["p_adjusted"].tolist() == list(expected.values())
    loc = overall.set_index("name").loc["mean dAP50 Loc"]
    numbers = Numbers.of(report, report.sections[0])
    values = [numbers.get(model, "benchmark", "mean dAP50 Loc").value for model in ("ln", "dtn")]
    assert loc["value"] == pytest.approx(values[1] - values[0])
    assert loc["low"] <= loc["value"] <= loc["high"] < 0


def test_tables(report) -> None:
    tables = {table.name: table for table in report_tables(report)}
    numbers = Numbers.of(report, report.sections[0])
    errors = tables["errors"]
    assert [column.heading for column in errors.columns] == list(REPAIRS)
    assert [group.title for group in errors.groups] == [
        "Clean images",
        "Mean over corruptions",
        *(f"Severity {severity}" for severity in (1, 3, 5)),
    ]
    cell = errors.groups[1].rows[0].cells[1]
    assert cell.value == numbers.get("ln", "benchmark", "mean dAP50 Loc").value
    rows = {row.label: row for row in tables["errors-1"].rows}
    assert rows["Fog"].cells[1].value == numbers.get("ln", "benchmark", "mean dAP50 Loc", "fog").value
    assert rows["Weather: mean"].is_mean
    assert rows["Speckle noise"].cells[1].value == numbers.get("ln", "extra", "mean dAP50 Loc", "speckle_noise").value
    family = tables["pair-1"].groups[-1]
    assert family.title == "Error types"
    assert [row.label for row in family.rows] == list(ERROR_METRICS)


def test_nothing_without_the_option(report, without) -> None:
    assert not [name for name in without.sections[0].numbers["name"] if "dAP50" in name]
    assert not [table.name for table in report_tables(without) if table.name.startswith("errors")]
    with pytest.raises(NothingToDrawError, match="there are no costs of error types: --errors computes them"):
        draw_errors(without, without.sections[0])
    page = render_page(without)
    assert 'id="errors"' not in page
    # The other numbers are the same.
    for frame in (report.sections[0].numbers, without.sections[0].numbers):
        assert frame.query("name == 'mPC AP' and model == 'ln' and scope == '' and severity == 0")["value"].iloc[
            0
        ] == pytest.approx(Numbers.of(without, without.sections[0]).get("ln", "benchmark", "mPC AP").value)


def test_only_for_detectors_by_hotcoco(store, tmp_path) -> None:
    other = ReportOptions(errors=True, evaluator="faster-coco-eval")
    with pytest.raises(ReportError, match="with --errors and --classwise, got --evaluator faster-coco-eval: leave one"):
        collect([store], other)
    with pytest.raises(ReportError, match="with --errors and --classwise, got classification: leave one of them out"):
        collect([classifier_store(tmp_path / "store", {"net": 0})], ReportOptions(errors=True))


def test_without_intervals(report, store) -> None:
    plain = collect([store], ReportOptions(replicates=0, errors=True))
    one, other = (Numbers.of(each, each.sections[0]) for each in (plain, report))
    for name in ERROR_METRICS:
        found = one.get("dtn", "benchmark", name, *CLEAN)
        assert not found.has_interval
        assert found.value == other.get("dtn", "benchmark", name, *CLEAN).value


def test_the_figure_stacks_the_costs(report) -> None:
    figure = draw_errors(report, report.sections[0])
    assert [name for name in draw_figures(report).figures if name.startswith("errors")] == ["errors_bbox"]
    axes = [axis for axis in figure.axes if axis.get_title(loc="left")]
    assert [axis.get_title(loc="left").rstrip("†") for axis in axes] == ["ln", "dtn"]
    numbers = Numbers.of(report, report.sections[0])
    for axis, model in zip(axes, ("ln", "dtn"), strict=True):
        bars = [bar for bar in axis.patches if bar.get_x() + bar.get_width() / 2 == pytest.approx(5)]
        costs = [numbers.get(model, "benchmark", f"mean dAP50 {error}", "", 5).value for error in ERROR_TYPES]
        assert [bar.get_height() for bar in bars] == costs
        assert all(one.get_y() + one.get_height() == pytest.approx(two.get_y()) for one, two in pairwise(bars))


def test_the_page_has_a_section(report) -> None:
    page = parse(render_page(report))
    section = page.one("section", id="errors")
    assert {table.attributes["id"] for table in section.all("div", class_="table")} >= {"table-errors"}
    assert section.one("div", class_="plot").attributes["data-figure"] == "errors"


def test_flat_numbers(report) -> None:
    found = flat_numbers(replace(report, sections=report.sections), "ln")
    numbers = Numbers.of(report, report.sections[0])
    assert found["mean-dap50-loc"] == numbers.get("ln", "benchmark", "mean dAP50 Loc").value
    assert found["clean-dap50-falsepos"] == numbers.get("ln", "benchmark", "dAP50 FalsePos", *CLEAN).value
