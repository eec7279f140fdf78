"""Reports of sets with other corruptions than ImageNet-C's, and of clean images alone."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from array_sets import LABELS, write_batches, write_cifar_c

from dtn_det.cli.main import main
from dtn_det.corruptions.catalog import CIFAR_C_BAR_CATALOG
from dtn_det.reports.collect import ReportOptions, collect
from dtn_det.reports.contents import Report
from dtn_det.reports.numbers import Numbers
from dtn_det.reports.page.data import figure_data
from dtn_det.reports.tables import report_tables

MODEL = '''
import torch

class Colours(torch.nn.Module):
    """Tells images apart by their mean colours."""

    def __init__(self, seed):
        super().__init__()
        self.linear = torch.nn.Linear(12, 10, bias=False)
        torch.nn.init.normal_(self.linear.weight, std=20.0, generator=torch.Generator().manual_seed(seed))

    def forward(self, images):
        return self.linear(torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1))

def one():
    return Colours(1)

def two():
    return Colours(2)
'''


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Report:
    """The report of two models on CIFAR-10-C-bar, or on its clean images alone."""
    (tmp_path / "reported_models.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "reported_models", raising=False)
    labels = np.tile(LABELS, 2)
    if request.param == "bar":
        data = ["--data", str(write_cifar_c(tmp_path / "bar", CIFAR_C_BAR_CATALOG.names, labels))]
    else:
        clean = write_batches(tmp_path / "batches", labels.tolist())
        data = ["--data", str(clean), "--corruptions", "none"]
    models = ["python:reported_models:one", "python:reported_models:two"]
    assert main(["mce", *models, *data, "--store", str(tmp_path / "s"), "--workers", "0", "--device", "cpu"]) == 0
    return collect([tmp_path / "s"], ReportOptions(replicates=50, pairs=["one:two"]))


@pytest.mark.parametrize("report", ["bar"], indirect=True)
def test_corruptions_of_c_bar_have_their_own_groups_and_means(report: Report) -> None:
    numbers = Numbers.of(report, report.sections[0])
    mean = numbers.get("one", "benchmark", "mean error")
    assert mean is not None
    assert (mean.cells, mean.expected_cells) == (50, 50)
    each = [numbers.get("one", "benchmark", "mean error", name) for name in CIFAR_C_BAR_CATALOG.names]
    assert mean.value == pytest.approx(np.mean([number.value for number in each if number is not None]))
    (table,) = [table for table in report_tables(report) if table.name == "corruptions"]
    titles = [group.title for group in table.groups]
    assert titles[1:6] == ["Noise", "Pattern", "Light", "Distortion", "Blur"]
    values = figure_data(report, [numbers])
    assert [group["key"] for group in values["groups"]] == list(CIFAR_C_BAR_CATALOG.groups)
    assert {one["key"] for one in values["corruptions"]} == set(CIFAR_C_BAR_CATALOG.names)
    assert numbers.difference(("one", "two"), "benchmark", "mean error", "lines") is not None


@pytest.mark.parametrize("report", ["clean"], indirect=True)
def test_clean_images_alone_have_their_numbers_and_no_means(report: Report) -> None:
    numbers = Numbers.of(report, report.sections[0])
    for name in ("error", "top-5 error", "ECE", "NLL", "Brier"):
        assert numbers.get("one", "benchmark", name, "clean") is not None
    assert numbers.get("one", "benchmark", "mean error") is None
    tables = {table.name: table for table in report_tables(report)}
    assert "corruptions" not in tables
    assert [column.heading for column in tables["summary"].columns][-5:] == [
        "error",
        "top-5 error",
        "ECE",
        "NLL",
        "Brier",
    ]
    (note,) = [note for note in tables["pair-1"].notes if note.startswith("Comparisons")]
    assert note.startswith("Comparisons: 1 overall, each for itself. * significant")
