"""What sweeps print when they end: the numbers of a report, without a bootstrap."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from report_stores import CORRUPTIONS, SEVERITIES, classifier_answers, classifier_store, detector_store
from rich.console import Console

from dtn_det.errors import ReportError, StoreError
from dtn_det.reports.collect import ReportOptions, collect
from dtn_det.reports.contents import Report
from dtn_det.reports.sweep_results import print_sweep_report, sweep_report
from dtn_det.reports.tables.table import NO_NUMBER
from dtn_det.robustness.store import Store


def printed(folder: Path, *names: str, **options: object) -> tuple[str, Report]:
    """What is printed of the models of a store on a wide terminal."""
    text = io.StringIO()
    store = Store.open(folder)
    report = sweep_report(store, names, **options)
    print_sweep_report(Console(file=text, width=200), store, report)
    return text.getvalue(), report


def row(text: str, title: str, label: str) -> list[str]:
    """The numbers of a row, of the first table with some words on the first line of its title."""
    lines = text[text.index(title) :].splitlines()
    return next(line for line in lines if line.strip().startswith(label)).removeprefix(f" {label}").split()


def test_classifiers_have_error_and_corruption_error_of_each_corruption(tmp_path: Path) -> None:
    store = classifier_store(tmp_path / "store", {"first": 1, "second": 2})
    text, report = printed(store, "first", "second", baseline="first")
    cells = Store.open(store).manifest.cells
    errors = [1 - classifier_answers(seed, 40, cells)["correct"].mean(0) for seed in (1, 2)]
    fog = [100 * one[[cell.corruption == "fog" for cell in cells]].mean() for one in errors]
    assert row(text, "top-1 error (%)", "Fog partial (3/5)") == [f"{one:.2f}" for one in fog]
    assert row(text, ": CE (%)", "Fog partial (3/5)") == ["100.00", f"{100 * fog[1] / fog[0]:.2f}"]
    assert "Intervals: none." in text
    whole = collect([store], ReportOptions(baseline="first", replicates=0, pairs=()))
    assert report.sections[0].numbers.equals(whole.sections[0].numbers)


def test_a_baseline_of_the_store_need_not_be_shown(tmp_path: Path) -> None:
    store = classifier_store(tmp_path / "store", {"first": 1, "second": 2})
    both = printed(store, "first", "second", baseline="first")[1]
    text, report = printed(store, "second", baseline="first")
    assert [model.name for model in report.models] == ["second"]
    assert (
        row(text, ": CE (%)", "mCE partial (6/75)")
        == [
            f"{one.value:.2f}"
            for one in both.sections[0].numbers.query("name == 'mCE' and model == 'second'").itertuples()
        ][:1]
    )


def test_another_baseline_is_refused(tmp_path: Path) -> None:
    store = classifier_store(tmp_path / "store", {"first": 1})
    with pytest.raises(ReportError, match="expected --baseline out of first, got 'third'"):
        printed(store, "first", baseline="third")
    with pytest.raises(StoreError, match="third"):
        printed(store, "third")


def test_images_that_were_left_out_are_listed(tmp_path: Path) -> None:
    store = classifier_store(tmp_path / "store", {"first": 1}, bad=range(12))
    text, report = printed(store, "first")
    assert list(report.bad_images["first"]) == list(range(12))
    assert "partial (12 bad images left out)" in text
    assert text.count("left out of first: image") == 10
    assert "and 2 more" in text


def test_detectors_have_every_average_precision_and_each_cell(tmp_path: Path) -> None:
    store = detector_store(tmp_path / "store", {"first": 1})
    done: list[int] = []
    text, report = printed(store, "first", on_cells=done.append)
    assert sum(done) == len(Store.open(store).manifest.cells) == 1 + len(CORRUPTIONS) * len(SEVERITIES)
    numbers = report.sections[0].numbers
    values = {
        (one.name, one.scope, one.severity): f"{one.value:.2f}"
        for one in numbers.itertuples()
        if one.set == "benchmark"
    }
    wanted = [values[name, "", 0] for name in ("P AP50", "mPC AP50", "rPC AP50")]
    assert row(text[text.index(" AP50") :], "AP50", "first partial (6/75)") == wanted
    fog = [values["AP", "fog", severity] for severity in SEVERITIES]
    cells = row(text, "AP (%) of first", "Fog partial (3/5)")
    assert [cell for cell in cells if cell != NO_NUMBER] == [*fog, values["mPC AP", "fog", 0]]
