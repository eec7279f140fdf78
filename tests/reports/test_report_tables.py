"""The tables of a report: the right numbers, digits, marks, and what is said about them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import ALL, classification_report, classifier_records, detection_report

from dtn_det.corruptions.catalog import BENCHMARK, EXTRA, GROUPS
from dtn_det.metrics.calibration import log_losses
from dtn_det.metrics.resampling import holm
from dtn_det.reports.labels import title
from dtn_det.reports.tables import report_tables
from dtn_det.reports.tables.corruptions import MOST_MODELS_AS_COLUMNS
from dtn_det.reports.tables.published import PublishedRow
from dtn_det.reports.tables.table import (
    Column,
    Table,
    TableCell,
    cell_text,
    common_decimals,
    interval_text,
    number_text,
    ranked,
    supported_decimals,
)


@pytest.fixture(scope="module")
def classifiers():
    return classification_report(("ln", "dtn", "third"), replicates=700)


@pytest.fixture(scope="module")
def detectors():
    return detection_report(("ln", "dtn"), corruptions=ALL, kinds=("bbox", "segm"), replicates=700)


def tables_of(report, published=()):
    found = report_tables(report, published)
    names = [table.name for table in found]
    assert len(set(names)) == len(names)
    for table in found:
        assert table.footer == found[0].footer
        for row in table.rows:
            assert len(row.cells) == len(table.columns)
    return dict(zip(names, found, strict=True))


def cell(table: Table, row: str, heading: str, group: str | None = None) -> TableCell:
    found = [
        one.cells[place]
        for own in table.groups
        if group in (None, own.title)
        for one in own.rows
        if one.label == row
        for place, column in enumerate(table.columns)
        if heading == " ".join(filter(None, (column.span, column.heading)))
    ]
    assert len(found) == 1, (row, heading, len(found))
    return found[0]


def value(report, model, name, scope="", severity=0, which="benchmark", section=0):
    rows = report.sections[section].numbers
    wanted = {"model": model, "name": name, "scope": scope, "severity": severity, "set": which}
    found = rows[np.logical_and.reduce([rows[key] == one for key, one in wanted.items()])]
    return found["value"].item()


def test_the_summary_of_classifiers(classifiers):
    table = tables_of(classifiers)["summary"]
    for model in ("ln", "dtn", "third"):
        assert cell(table, model, "clean error").value == value(classifiers, model, "error", "clean")
        assert cell(table, model, "corrupted mCE").value == value(classifiers, model, "mCE")
        assert cell(table, model, "corrupted rel. mCE").value == value(classifiers, model, "relative mCE")
        assert cell(table, model, "corrupted error").value == value(classifiers, model, "mean error")
        assert cell(table, model, "corrupted top-5 error").value == value(classifiers, model, "mean top-5 error")
        assert cell(table, model, "corrupted ECE").value == value(classifiers, model, "mean ECE")
        assert cell(table, model, "corrupted Brier").value == value(classifiers, model, "mean Brier")
    assert cell(table, "ln", "params").value == pytest.approx(28.288354)
    assert cell(table, "dtn", "FLOPs").value == pytest.approx(4.6)
    assert {column.direction for column in table.columns[2:]} == {"down"}
    # The interval of the main number alone is shown.
    assert [column.heading for column in table.columns if column.with_interval] == ["mCE"]


def test_losses_are_in_nats(classifiers):
    records = classifier_records(skill=0.7, seed=0)
    wanted = log_losses(records.columns["true_probability"][:, 1:]).mean()
    assert cell(tables_of(classifiers)["summary"], "ln", "corrupted NLL").value == pytest.approx(wanted, rel=1e-6)


def test_the_summary_of_detectors(detectors):
    tables = tables_of(detectors)
    for section, kind in enumerate(("boxes", "masks")):
        table = tables[f"{kind}-summary"]
        for model in ("ln", "dtn"):
            for name in ("P AP", "mPC AP", "rPC AP"):
                assert cell(table, model, name).value == value(detectors, model, name, section=section)
        metrics = tables[f"{kind}-metrics"]
        assert [group.title for group in metrics.groups] == ["AP", "AP50", "AP75", "APs", "APm", "APl"]
        for metric in ("AP", "APl"):
            wanted = value(detectors, "dtn", f"rPC {metric}", section=section)
            assert cell(metrics, "dtn", "rPC", metric).value == wanted
    assert {column.direction for column in tables["boxes-summary"].columns[2:]} == {"up"}


@pytest.mark.parametrize("models", [2, MOST_MODELS_AS_COLUMNS + 1], ids=["columns", "rows"])
def test_corruptions_come_in_the_order_of_the_paper(models):
    names = [f"m{number}" for number in range(models)]
    report = classification_report(names, images=20, baseline="m0", replicates=20, pairs=())
    table = tables_of(report)["corruptions"]
    groups = [group for group in GROUPS if group != "extra"]
    if models == 2:
        assert [group.title for group in table.groups] == [*map(title, groups), "All corruptions"]
        labels = [row.label for row in table.rows if not row.is_mean]
        assert labels == [title(name) for name in BENCHMARK]
        found = {row.label: row.cells for row in table.rows}
        assert found["Fog"][1].value == value(report, "m1", "CE", "fog")
        assert found["Blur: mean"][1].value == value(report, "m1", "mCE", "blur")
        assert found["mCE"][1].value == value(report, "m1", "mCE")
    else:
        spans = list(dict.fromkeys(column.span for column in table.columns))
        assert spans == [*map(title, groups), ""]
        assert len(table.columns) == len(BENCHMARK) + len(groups) + 1
        assert cell(table, "m6", "Weather Fog").value == value(report, "m6", "CE", "fog")
        assert cell(table, "m6", "Blur mean").value == value(report, "m6", "mCE", "blur")
        assert cell(table, "m6", "mCE").value == value(report, "m6", "mCE")


def test_without_a_baseline_errors_stand_for_corruption_errors():
    report = classification_report(baseline=None, images=20, replicates=20)
    tables = tables_of(report)
    assert cell(tables["corruptions"], "Fog", "dtn").value == value(report, "dtn", "mean error", "fog")
    assert cell(tables["corruptions"], "Clean", "dtn").value == value(report, "dtn", "error", "clean")
    assert "mCE" not in {column.heading for column in tables["summary"].columns}
    assert [column.heading for column in tables["summary"].columns if column.with_interval] == ["error"]
    assert any("no baseline was named" in line for line in tables["summary"].footer)


def test_the_extra_corruptions_stay_apart(detectors):
    tables = tables_of(detectors)
    extra = {title(name) for name in EXTRA}
    assert not extra & {row.label for row in tables["boxes-corruptions"].rows}
    apart = tables["boxes-corruptions-extra"]
    assert "4 extra corruptions" in apart.title
    assert {row.label for row in apart.rows} == {*extra, "Clean", "mPC AP"}
    assert cell(apart, "mPC AP", "ln").value == value(detectors, "ln", "mPC AP", which="extra")
    assert cell(tables["boxes-corruptions"], "mPC AP", "ln").value == value(detectors, "ln", "mPC AP")
    # They have a group of their own where single cells are listed.
    assert [group.title for group in tables["boxes-cells-1"].groups][-1] == "Extra"


def test_severities(classifiers, detectors):
    table = tables_of(classifiers)["severities"]
    for severity in (1, 5):
        wanted = value(classifiers, "dtn", "mean error", severity=severity)
        assert cell(table, "dtn", f"severity {severity}").value == wanted
    assert cell(table, "dtn", "mean").value == value(classifiers, "dtn", "mean error")
    relative = tables_of(detectors)["boxes-severities"]
    assert cell(relative, "ln", "severity 3", "rPC AP").value == value(detectors, "ln", "rPC AP", severity=3)


def test_single_cells(classifiers):
    table = tables_of(classifiers)["cells-2"]
    assert "dtn" in table.title
    assert cell(table, "Fog", "severity 4").value == value(classifiers, "dtn", "error", "fog", 4)
    assert cell(table, "Clean", "mean").value == value(classifiers, "dtn", "error", "clean")
    assert {frozenset(one.marks) for row in table.rows for one in row.cells} == {frozenset()}


def test_the_models(classifiers):
    table = tables_of(classifiers)["models"]
    assert cell(table, "dtn", "source").value == "timm:dtn"
    assert cell(table, "dtn", "settings").value == "amp no"
    assert cell(table, "dtn", "FLOPs at").value == "224x224"
    assert cell(table, "dtn", "training").value == "epochs 300, optimizer AdamW"
    assert cell(table, "dtn", "SHA-256 of weights").value == "01" * 6
    long = replace(classifiers.models[0], settings={"pipeline": "x" * 200}, weights_hash="", origin="imported")
    other = tables_of(replace(classifiers, models=(long, *classifiers.models[1:])))["models"]
    assert cell(other, "ln", "settings").value is None
    assert cell(other, "ln", "SHA-256 of weights").value is None
    assert cell(other, "ln", "source").value == "imported from timm:ln"
    assert next(row.note for row in other.rows if row.label == "ln") == "imported"


def test_unknown_sizes_have_no_column(classifiers):
    unknown = {"num_parameters": None, "flops": None, "flops_at": "", "training": {}}
    models = tuple(replace(model, **unknown) for model in classifiers.models)
    tables = tables_of(replace(classifiers, models=models))
    assert tables["summary"].columns[0].heading == "error"
    assert [column.heading for column in tables["models"].columns] == ["source", "settings", "SHA-256 of weights"]
    assert tables["models"].notes == ()


# Differences


def test_differences_are_second_minus_first_with_holms_adjustment(detectors):
    table = tables_of(detectors)["boxes-pair-1"]
    groups = {group.title: group.rows for group in table.groups}
    assert [row.label for row in groups["Overall"]] == ["P AP", "mPC AP", "rPC AP"]
    assert [row.label for row in groups["Groups"]] == [title(group) for group in GROUPS if group != "extra"]
    assert [row.label for row in groups["Corruptions"]] == [title(name) for name in BENCHMARK]
    frame = detectors.sections[0].differences
    frame = frame[(frame["set"] == "benchmark") & (frame["name"] == "mPC AP") & (frame["severity"] == 0)]
    by_scope = frame.set_index("scope")
    adjusted = dict(zip(BENCHMARK, holm(by_scope.loc[list(BENCHMARK), "p_value"].tolist()), strict=True))
    for name in BENCHMARK:
        first, second, difference, p_value, holm_p = (cell(table, title(name), one) for one in headings(table))
        assert first.value == value(detectors, "ln", "mPC AP", name)
        assert second.value == value(detectors, "dtn", "mPC AP", name)
        assert difference.value == by_scope.loc[name, "value"] == pytest.approx(second.value - first.value)
        assert difference.interval == (by_scope.loc[name, "low"], by_scope.loc[name, "high"])
        assert p_value.value == by_scope.loc[name, "p_value"]
        assert holm_p.value == pytest.approx(adjusted[name])
        assert ("significant" in difference.marks) == (adjusted[name] < 0.05)
    # One question each: nothing to adjust.
    assert cell(table, "mPC AP", "p (Holm)").value is None
    assert any("3 overall, each for itself; 4 groups, 15 corruptions" in note for note in table.notes)


def headings(table):
    return [column.heading for column in table.columns]


def test_what_is_significant_alone_need_not_be_among_many():
    report = detection_report(skills={"ln": 0.36, "dtn": 0.37}, images=80, replicates=700)
    table = tables_of(report)["pair-1"]
    marks = {
        row.label: (row.cells[3].value < 0.05, "significant" in row.cells[2].marks) for row in table.groups[2].rows
    }
    assert (True, False) in marks.values()
    assert not any(marked and not alone for alone, marked in marks.values())


def test_the_least_p_value_is_marked_as_a_bound(detectors):
    table = tables_of(detectors)["boxes-pair-1"]
    p_value = cell(table, "mPC AP", "p")
    assert p_value.value == pytest.approx(2 / 701)
    assert "bound" in p_value.marks
    assert cell_text(p_value, table.columns[3]) == "≤ 0.003"
    assert not any("takes" in note for note in table.notes)


def test_too_few_replicates_for_a_family_are_told():
    table = tables_of(detection_report(images=20, replicates=100))["pair-1"]
    assert any("With 100 replicates no one of 15 differences can be significant" in note for note in table.notes)
    assert any("that takes 600" in note for note in table.notes)


def test_pairs_without_intervals_have_no_table():
    assert not any(name.startswith("pair") for name in tables_of(classification_report(replicates=0)))


# Partial results


def test_missing_cells_are_told_once():
    report = classification_report(corruptions=("fog", "snow"), severities=(1, 3), images=20, replicates=20)
    tables = tables_of(report)
    assert [row.note for row in tables["summary"].rows] == ["partial (4/75)"] * 2
    assert "partial" in cell(tables["summary"], "ln", "corrupted mCE").marks
    assert "partial" not in cell(tables["summary"], "ln", "clean error").marks
    notes = {row.label: row.note for row in tables["corruptions"].rows}
    assert notes == {"Snow": "partial (2/5)", "Fog": "partial (2/5)", "Weather: mean": "partial (4/20)",
                     "mCE": "partial (4/75)"}  # fmt: skip
    assert headings(tables["severities"]) == ["1", "3", "mean"]
    assert {row.note for row in tables["pair-1"].rows if row.label == "mCE"} == {"partial (4/75)"}


def test_what_goes_for_all_models_is_told_by_the_table():
    reason = "limit=60 of 50000 seed=0"
    report = classification_report(partial={"ln": reason, "dtn": reason}, images=20, replicates=20)
    for table in tables_of(report).values():
        assert table.note == f"partial ({reason})"
        assert not any(row.note for row in table.rows)
    # All lack the same, so they are compared.
    assert "best" in cell(tables_of(report)["summary"], "dtn", "corrupted mCE").marks


def test_partial_models_are_not_ranked_among_whole_ones():
    report = classification_report(("a", "b", "c"), baseline=None, partial={"c": "limit=60 of 50000 seed=0"}, images=20)
    tables = tables_of(report)
    assert "best" in cell(tables["summary"], "b", "corrupted error").marks
    assert not {"best", "second"} & cell(tables["summary"], "c", "corrupted error").marks
    assert {row.label: row.note for row in tables["summary"].rows}["c"] == "partial (limit=60 of 50000 seed=0)"
    assert [column.note for column in tables["corruptions"].columns] == ["", "", "partial (limit=60 of 50000 seed=0)"]
    assert any(note.startswith("c: partial") for note in tables["pair-2"].notes)


# Digits and marks


@pytest.mark.parametrize(
    ("width", "decimals"), [(0.001, 2), (0.1, 2), (1.0, 2), (1.9, 2), (2.1, 1), (19.9, 1), (20.1, 0), (400, 0), (0, 2)]
)
def test_digits_follow_the_interval(width, decimals):
    assert supported_decimals((50 - width / 2, 50 + width / 2), 2) == decimals
    assert supported_decimals(None, 2) == 2


@given(st.floats(1e-6, 1e4), st.integers(0, 4))
def test_no_more_than_two_digits_of_the_uncertainty(half, most):
    decimals = supported_decimals((-half, half), most)
    assert 0 <= decimals <= most
    # The last digit shown is not less than a hundredth of half the interval, and a tenth where more would be allowed.
    assert decimals == 0 or 10.0**-decimals > half / 100 * (1 - 1e-9)
    assert decimals == most or 10.0**-decimals <= half / 10 * (1 + 1e-9) or decimals == 0


def test_the_widest_interval_of_a_column_counts():
    cells = [TableCell(50.0, (49.9, 50.1)), TableCell(50.0, (30.0, 80.0)), TableCell(50.0), TableCell()]
    assert common_decimals(cells, 2) == 0
    assert common_decimals(cells[:1], 1) == 1
    assert common_decimals([], 1) == 1


def marks(values, direction="up", decimals=1, reasons=(), **kwargs):
    cells = [value if isinstance(value, TableCell) else TableCell(value) for value in values]
    return ["".join(sorted(one.marks & {"best", "second"})) for one in ranked(cells, direction, decimals, reasons)]


def test_marks_are_explained(classifiers, detectors):
    assert tables_of(classifiers)["summary"].notes == ("Best in bold, second underlined.",)
    assert tables_of(detectors)["boxes-summary"].notes == ("Best in bold.",)
    assert tables_of(classifiers)["cells-1"].notes == ()


def test_best_and_second():
    assert marks([1.0, 3.0, 2.0]) == ["", "best", "second"]
    assert marks([1.0, 3.0, 2.0], "down") == ["best", "", "second"]
    assert marks([1.0, 3.0, 2.0], "none") == ["", "", ""]
    # Of two, the other is no second.
    assert marks([1.0, 3.0]) == ["", "best"]
    assert marks([1.0]) == [""]
    assert marks([None, 1.0, 2.0, 0.5]) == ["", "second", "best", ""]


def test_ties_as_shown_share_a_mark():
    assert marks([1.04, 0.96, 2.0, 2.04, 0.1]) == ["second", "second", "best", "best", ""]
    assert marks([1.04, 0.96, 2.0, 2.04, 0.1], decimals=2) == ["", "", "second", "best", ""]
    assert marks([1.0, 1.0]) == ["best", "best"]


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_zero_is_never_marked(direction):
    assert marks([0.0, 0.04, -0.04], direction) == ["", "", ""]
    assert marks([0.0, -1.0, -2.0], "up") == ["", "second", ""]


def test_only_what_is_comparable_is_ranked():
    part = TableCell(9.0, marks=frozenset({"partial"}), note="partial (3/5)")
    assert marks([1.0, 2.0, part]) == ["", "best", ""]
    assert marks([part, replace(part, value=8.0)]) == ["best", ""]
    assert marks([part, replace(part, value=8.0, note="partial (2/5)")]) == ["", ""]
    assert marks([part, replace(part, value=8.0)], reasons=["limit=5", "3 bad images left out"]) == ["", ""]


@given(
    st.lists(st.one_of(st.none(), st.floats(-1e3, 1e3)), min_size=1, max_size=8),
    st.sampled_from(["up", "down"]),
    st.integers(0, 2),
)
def test_nothing_shown_is_better_than_the_best(values, direction, decimals):
    known = [float(f"{value:.{decimals}f}") for value in values if value is not None]
    found = marks(values, direction, decimals)
    best = max(known, default=math.nan) if direction == "up" else min(known, default=math.nan)
    for value, mark in zip(values, found, strict=True):
        is_best = value is not None and len(known) > 1 and float(f"{value:.{decimals}f}") == best != 0
        assert (mark == "best") == is_best


def test_numbers_as_text():
    assert number_text(-0.04, 1) == "0.0"
    assert number_text(0.04, 1, signed=True) == "0.0"
    assert number_text(1.25, 2, signed=True) == "+1.25"
    assert number_text(-1.25, 1, minus="-") == "-1.2"
    column = Column("", decimals=1, signed=True, with_interval=True)
    assert cell_text(TableCell(2.0, decimals=2), column) == "+2.00"
    assert cell_text(TableCell(), column) == ""
    assert cell_text(TableCell("text"), column) == "text"
    assert interval_text(TableCell(2.0, (-1.0, 3.0)), column) == "[−1.0, 3.0]"  # noqa: RUF001
    assert interval_text(TableCell(2.0, (-1.0, 3.0)), replace(column, with_interval=False)) == ""


def test_the_footer_tells_where_numbers_come_from(classifiers):
    said = " ".join(tables_of(classifiers)["summary"].footer)
    facts = ("made-up", "60 images (all", "imagenet-c jpeg85 rgb seed=0", "divided by the errors of ln", "95 %")
    for fact in (*facts, "percentile bootstrap over images, 700 replicates, seed 0", "torch 2.7.0", "2026-01-02"):
        assert fact in said
    part = replace(classifiers.provenance, selection="limit=60 of 50000 seed=0", replicates=0)
    said = " ".join(tables_of(replace(classifiers, provenance=part, baseline="alexnet"))["summary"].footer)
    assert "selection limit=60 of 50000 seed=0" in said
    assert "Intervals: none" in said
    assert "AlexNet" in said
    imported = replace(classifiers.provenance, num_images=0, data="imported results")
    assert tables_of(replace(classifiers, provenance=imported))["summary"].footer[0] == "Data: imported results."


# Published rows


def test_published_rows_stand_apart_and_are_never_ranked(classifiers):
    source = "Somebody, Somewhere 2020, Table 1"
    published = (
        PublishedRow("champion", "top1", {"error": 1.5, "mCE": 2.25, "FLOPs": 4.1}, source),
        PublishedRow("other", "top1", {"mean error": 3.0}, "Another paper"),
        PublishedRow("a detector", "bbox", {"P AP": 99.0}, source),
    )
    plain, table = tables_of(classifiers)["summary"], tables_of(classifiers, published)["summary"]
    assert table.groups[:-1] == plain.groups
    apart = table.groups[-1]
    assert "not measured here" in apart.title
    assert [row.label for row in apart.rows] == ["champion", "other"]
    assert [row.note for row in apart.rows] == ["[1]", "[2]"]
    assert table.notes[-2:] == (f"[1] {source}", "[2] Another paper")
    shown = [one for row in apart.rows for one in row.cells if one.value is not None]
    assert {one.marks for one in shown} == {frozenset({"published"})}
    assert cell_text(cell(table, "champion", "corrupted mCE"), Column("")) == "2.25"
    assert cell(table, "champion", "FLOPs").value == 4.1
    assert cell(table, "other", "corrupted mCE").value is None
    # Nothing but the summary shows them.
    assert not any(row.source for name, one in tables_of(classifiers, published).items() if name != "summary"
                   for row in one.rows)  # fmt: skip
