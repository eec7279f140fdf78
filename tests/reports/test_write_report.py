"""Writing a report: into which folders, over what, and what a kill leaves."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from made_up import classification_report
from report_stores import classifier_store
from rich.console import Console

from dtn_det.cli.main import main
from dtn_det.errors import ReportError, StoreError
from dtn_det.reports import write
from dtn_det.reports.collect import ReportOptions
from dtn_det.reports.tables import report_tables

QUICK = ReportOptions(replicates=5)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return classifier_store(tmp_path / "store", {"ln": 0})


@pytest.fixture(autouse=True)
def _without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes seconds, and is tested elsewhere."""
    monkeypatch.setattr(write, "write_figures", lambda report, folder: ({}, {"forest_top1": "there are no pairs"}))


def make(store: Path, out: Path) -> str:
    console = Console(file=io.StringIO(), width=200)
    write.make_report([store], out, QUICK, console)
    return console.file.getvalue()


def test_a_report_that_is_replaced_and_figures_that_there_are_not_are_told(store: Path, tmp_path: Path) -> None:
    first = make(store, tmp_path / "out")
    assert "is replaced" not in first
    assert "no figure forest_top1: there are no pairs" in first
    assert f"the report in {tmp_path / 'out'} is replaced" in make(store, tmp_path / "out")


def test_a_killed_report_can_be_made_again(store: Path, tmp_path: Path) -> None:
    left = tmp_path / "out" / ".e58a39b921adc9ec.5546.tmp"
    left.parent.mkdir()
    left.write_text("half a page")
    make(store, left.parent)
    assert not left.exists()


def test_a_folder_that_holds_other_things_is_left_alone(store: Path, tmp_path: Path) -> None:
    thesis = tmp_path / "out" / "thesis.tex"
    thesis.parent.mkdir()
    thesis.write_text("years")
    with pytest.raises(ReportError, match=r"expected --out to be empty or .* with 'thesis.tex' in it"):
        make(store, thesis.parent)
    assert [entry.name for entry in thesis.parent.iterdir()] == ["thesis.tex"]


def test_no_folder_stays_of_a_report_that_fails(store: Path, tmp_path: Path) -> None:
    unit = next(store.glob("models/*/unit-000001.parquet"))
    unit.write_bytes(unit.read_bytes()[:100])
    with pytest.raises(StoreError, match=r"expected records in .*unit-000001.parquet"):
        make(store, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("file", r"expected --out to be a folder, got the file .*file: name another"),
        ("file/deeper", r"expected --out to be a folder that can be made, got .*deeper: Not a directory: name another"),
    ],
)
def test_a_file_is_no_folder(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str, message: str
) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(ReportError, match=message):
        make(store, tmp_path / place)
    assert main(["report", str(store), "--out", str(tmp_path / place)]) == 1
    assert "expected --out" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_to(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ReportError, match="expected --out to be a folder that can be written to"):
        make(store, tmp_path)


def test_the_baseline_is_never_the_best_in_what_it_divides() -> None:
    skills = {"ln": 0.9, "dtn": 0.2, "other": 0.1}
    report = classification_report(list(skills), skills=skills, baseline="ln", corruptions=["fog", "snow"])
    tables = {table.name: table for table in report_tables(report)}
    summary = tables["summary"]
    of_ln = dict(zip([column.heading for column in summary.columns], summary.rows[0].cells, strict=True))
    assert of_ln["mCE"].value == pytest.approx(100)
    for heading in ("mCE", "rel. mCE"):
        assert not {"best", "second"} & of_ln[heading].marks
    fog = next(row for row in tables["corruptions"].rows if row.label == "Fog")
    assert "best" not in fog.cells[0].marks
    clean = summary.columns.index(next(column for column in summary.columns if column.span == "clean"))
    assert "best" in summary.rows[0].cells[clean].marks
