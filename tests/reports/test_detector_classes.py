"""The categories of which detectors lose most and least AP."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from report_stores import detector_store

from dtn_det.metrics.ap_samples import category_average_precision
from dtn_det.metrics.resampling import image_counts
from dtn_det.reports import classes
from dtn_det.reports.collect import ReportOptions, collect
from dtn_det.reports.numbers import Numbers
from dtn_det.reports.page import render_page
from dtn_det.reports.tables import report_tables
from dtn_det.reports.tables.classes import class_table
from dtn_det.robustness.detection.evaluation import CocoScorer, read_cells
from dtn_det.robustness.detection.truth import CocoTruth
from dtn_det.robustness.store import Store

BAD = 3


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return detector_store(tmp_path_factory.mktemp("classes") / "store", {"ln": 0, "dtn": 1}, bad=[BAD])


@pytest.fixture(scope="module")
def report(store: Path):
    return collect([store], ReportOptions(replicates=40, classwise=True))


def test_rows_are_the_ap_of_each_category(report, store) -> None:
    model = Store.open(store).model("ln")
    cells = model.store.manifest.cells
    truth = CocoTruth.of(model.store)
    scorer = CocoScorer(truth, [BAD])
    draws = np.concatenate(list(image_counts(23, 40, 0, 40)))
    point, drawn = {}, {}
    for found in read_cells(model, range(len(cells))):
        matches = scorer.matches(found, "bbox")
        point[cells[found.cell]] = 100 * category_average_precision(matches)
        drawn[cells[found.cell]] = 100 * category_average_precision(matches, draws)
    clean = ("clean", 0)
    # Speckle noise is an extra corruption, which no mean includes.
    corrupted = [cell for cell in cells if cell[0] in ("gaussian_noise", "fog")]
    frame = report.sections[0].classes
    own = frame[frame["model"] == "ln"].set_index("name")
    assert sorted(own.index) == ["bar", "disc"]
    assert own["end"].tolist() == ["all", "all"]
    # The class that loses most is the first.
    assert own["difference"].is_monotonic_increasing
    for place, name in enumerate(("disc", "bar")):
        row = own.loc[name]
        under = np.mean([point[cell][place] for cell in corrupted])
        assert (row["clean"], row["corrupted"]) == pytest.approx((point[clean][place], under))
        assert row["difference"] == pytest.approx(under - point[clean][place])
        differences = np.mean([drawn[cell][:, place] for cell in corrupted], axis=0) - drawn[clean][:, place]
        assert (row["low"], row["high"]) == pytest.approx(tuple(np.quantile(differences, (0.025, 0.975))))
        worst = min(corrupted, key=lambda cell: point[cell][place])
        assert (row["corruption"], row["severity"], row["image"]) == (*worst, -1)
        with_class = [
            number
            for number, image in enumerate(truth.images)
            if number != BAD and f'"category_id": {place + 1}' in image.annotations
        ]
        assert row["images"] == len(with_class)


def test_the_ends_of_many_categories(report, monkeypatch) -> None:
    monkeypatch.setattr(classes, "SHOWN", 1)
    losses, counts = np.array([0.1, 0.5, 0.3, 0.9]), np.array([9, 9, 9, 4])
    # The last class has too few images.
    assert classes._ends(losses, counts) == {"most": [1], "least": [0]}


def test_table_and_page(report) -> None:
    numbers = Numbers.of(report, report.sections[0])
    table = class_table(numbers, report.models[0], "classes-1")
    assert [column.span for column in table.columns[:2]] == ["AP", "AP"]
    assert {column.direction for column in table.columns[:3]} == {"up"}
    assert "its interval is over all images." in table.notes[0]
    assert {"classes-1", "classes-2"} <= {one.name for one in report_tables(report)}
    assert 'id="classes"' in render_page(report)
    # The other numbers have no rows of categories.
    assert not report.sections[0].numbers["name"].str.contains("category").any()
    assert not report.sections[0].differences["name"].str.contains("category").any()


def test_without_intervals_and_without_the_option(report, store) -> None:
    plain = collect([store], ReportOptions(replicates=0, classwise=True)).sections[0].classes
    assert plain["low"].isna().all()
    assert plain["difference"].tolist() == report.sections[0].classes["difference"].tolist()
    assert collect([store], ReportOptions(replicates=0)).sections[0].classes.empty
