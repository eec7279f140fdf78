"""The one index of a section's numbers, and the p-values that are adjusted for all who show them."""

from __future__ import annotations

import math

import pytest
from made_up import ALL, classification_report, detection_report

from dtn_det.corruptions.catalog import BENCHMARK, EXTRA, GROUPS, SEVERITIES
from dtn_det.metrics import METRICS
from dtn_det.metrics.resampling import holm
from dtn_det.reports.contents import Report
from dtn_det.reports.figures.data import FigureData
from dtn_det.reports.numbers import Numbers, differences_frame, set_of
from dtn_det.reports.page.data import figure_data

PAIR = ("ln", "dtn")


@pytest.fixture(scope="module")
def classifiers() -> Report:
    return classification_report(corruptions=ALL, images=40)


@pytest.fixture(scope="module")
def detectors() -> Report:
    return detection_report(corruptions=("fog", "snow"), images=40, replicates=100)


def adjusted(report: Report, which: str, name: str, keys: list[tuple[str, int]]) -> tuple[list[float], list[float]]:
    """The adjusted p-values of a family in the table, and Holm's of its plain ones."""
    numbers = Numbers.of(report, report.sections[0])
    found = [numbers.difference(PAIR, which, name, *key) for key in keys]
    assert all(found)
    return [one.p_adjusted for one in found], list(holm([one.p_value for one in found]))


@pytest.mark.parametrize(
    ("which", "name", "keys"),
    [
        ("benchmark", "CE", [(scope, 0) for scope in BENCHMARK]),
        ("benchmark", "mean error", [(scope, 0) for scope in BENCHMARK]),
        ("extra", "CE", [(scope, 0) for scope in EXTRA]),
        ("benchmark", "mCE", [(group, 0) for group in GROUPS if group != "extra"]),
        ("benchmark", "mean error", [("", severity) for severity in SEVERITIES]),
        ("benchmark", "error", [(scope, severity) for scope in BENCHMARK for severity in SEVERITIES]),
        ("benchmark", "mCE", [("", 0)]),
        ("benchmark", "error", [("clean", 0)]),
        ("extra", "mCE", [("extra", 0)]),
    ],
)
def test_p_values_of_a_family_are_adjusted_together(
    classifiers: Report, which: str, name: str, keys: list[tuple[str, int]]
) -> None:
    found, wanted = adjusted(classifiers, which, name, keys)
    assert found == pytest.approx(wanted)


def test_other_average_precisions_are_a_family(detectors: Report) -> None:
    numbers = Numbers.of(detectors, detectors.sections[0])
    found = [numbers.difference(PAIR, "benchmark", f"mPC {metric}") for metric in METRICS]
    assert [one.p_adjusted for one in found[1:]] == pytest.approx(list(holm([one.p_value for one in found[1:]])))
    assert found[0].p_adjusted == found[0].p_value


def test_pairs_are_families_of_their_own() -> None:
    rows = [
        ("a", other, "benchmark", "CE", scope, 0, 1.0, 0.5, 1.5, 0.02) for other in "bc" for scope in ("fog", "snow")
    ]
    untested = ("a", "b", "benchmark", "CE", "frost", 0, 1.0, math.nan, math.nan, math.nan)
    frame = differences_frame([*rows, untested])
    assert frame["p_adjusted"].tolist()[:4] == pytest.approx([0.04] * 4)
    assert math.isnan(frame["p_adjusted"].iloc[4])
    assert differences_frame([]).empty


def test_numbers_are_found_by_what_they_are(classifiers: Report) -> None:
    section = classifiers.sections[0]
    numbers = Numbers.of(classifiers, section)
    data = FigureData.of(classifiers, section)
    for row in section.numbers[section.numbers["name"] == "mean error"].itertuples():
        found = numbers.get(row.model, row.set, row.name, row.scope, row.severity)
        assert found == (row.value, row.low, row.high, row.cells, row.expected_cells)
        if row.scope:
            assert set_of(row.scope) == row.set
            assert data.mean(row.model, row.scope, row.severity) == found
    assert data.clean("ln") == numbers.get("ln", "extra", "error", "clean")
    assert numbers.get("ln", "benchmark", "mean error", "spatter") is None
    assert numbers.sets == ("benchmark", "extra")


def test_the_page_has_the_clean_difference_of_the_extra_corruptions_alone() -> None:
    report = classification_report(corruptions=EXTRA, baseline=None, images=20, replicates=20)
    numbers = Numbers.of(report, report.sections[0])
    (pair,) = figure_data(report, [numbers])["measures"][0]["pairs"]
    clean = numbers.difference(PAIR, "extra", "error", "clean")
    assert pair["clean"] == pytest.approx([*clean[:3], clean.p_value], rel=1e-5)
