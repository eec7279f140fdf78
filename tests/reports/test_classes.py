"""The classes of which a model loses most and least: their numbers, names, tables and pictures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pytest
from class_folders import write_folders
from PIL import Image
from report_stores import classifier_answers, classifier_store
from rich.console import Console

from dtn_det.corruptions.cells import CLEAN, Cell, sweep_cells
from dtn_det.corruptions.engine import Corruptor
from dtn_det.datasets.folders.class_folders import list_images
from dtn_det.reports.classes import class_names, class_rows
from dtn_det.reports.classification import ClassifierRecords
from dtn_det.reports.collect import ReportOptions, collect
from dtn_det.reports.contents import CLASS_COLUMNS, Report
from dtn_det.reports.formats.csv_json import report_content
from dtn_det.reports.numbers import Numbers
from dtn_det.reports.page.data import class_pictures
from dtn_det.reports.samples import make_samples
from dtn_det.reports.sources import open_sources
from dtn_det.reports.tables import report_tables
from dtn_det.reports.tables.classes import class_table
from dtn_det.reports.write import make_report
from dtn_det.robustness.store.manifest import hash_lines

FOLDERS = tuple("abcdefghijklm")
CELLS = sweep_cells(("contrast", "fog", "speckle_noise"), (2, 5))
EACH = 6


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folders(tmp_path_factory.mktemp("classes") / "data", FOLDERS, per_class=EACH, side=32)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """Two models on 13 classes of 6 images each."""
    listed = list_images(pictures, "folder")
    labels = [image.label for image in listed.images]
    return classifier_store(
        tmp_path_factory.mktemp("results") / "store",
        {"ln": 0, "dtn": 3},
        images=len(labels),
        cells=CELLS,
        data_hash=hash_lines(listed.lines()),
        protocol={"classes": "folder", "num_classes": "13", "clean": "32 x 32 as it is"},
        table=arrow.table({"key": [image.key for image in listed.images], "label": labels}),
    )


@pytest.fixture(scope="module")
def report(store: Path) -> Report:
    return collect([store], ReportOptions(replicates=100))


def test_the_first_and_last_classes_are_those_that_lose_most_and_least(report: Report) -> None:
    frame = report.sections[0].classes
    assert list(frame.columns) == list(CLASS_COLUMNS)
    for model, seed in (("ln", 0), ("dtn", 3)):
        wrong = ~classifier_answers(seed, 78, CELLS)["correct"]
        # Speckle noise is an extra corruption, which no mean includes.
        clean, corrupted = (part.reshape(13, EACH, -1) for part in (wrong[:, :1], wrong[:, 1:5]))
        lost = corrupted.mean((1, 2)) - clean.mean((1, 2))
        order = np.argsort(-np.round(lost, 9), kind="stable")
        own = frame[frame["model"] == model]
        assert own["name"].tolist() == [FOLDERS[label] for label in (*order[:5], *order[:-6:-1])]
        assert own["end"].tolist() == ["most"] * 5 + ["least"] * 5
        assert own["images"].tolist() == [EACH] * 10
        for row in own.itertuples():
            label = FOLDERS.index(row.name)
            assert row.difference == pytest.approx(100 * lost[label])
            errors = (100 * clean[label].mean(), 100 * corrupted[label].mean())
            assert (row.clean, row.corrupted) == pytest.approx(errors)
            each = corrupted[label].mean(1) - clean[label].mean(1)
            draws = np.random.default_rng((0, label)).integers(EACH, size=(100, EACH))
            assert (row.low, row.high) == pytest.approx(tuple(100 * np.quantile(each[draws].mean(1), (0.025, 0.975))))
            by_cell = corrupted[label].mean(0)
            place = CELLS.index((row.corruption, row.severity))
            assert by_cell[place - 1] == by_cell.max()
            fits = ~wrong[:, 0] & (wrong[:, place] == (row.end == "most"))
            inside = [image for image in range(EACH * label, EACH * (label + 1)) if fits[image]]
            assert row.image == (inside[0] if inside else EACH * label)


def test_tables_and_json_have_the_classes_of_each_model(report: Report) -> None:
    numbers = Numbers.of(report, report.sections[0])
    table = class_table(numbers, report.models[1], "classes-2")
    row = report.sections[0].classes[report.sections[0].classes["model"] == "dtn"].iloc[0]
    assert table.title == "Classification: classes of dtn"
    assert [(group.title, len(group.rows)) for group in table.groups] == [("Lose most", 5), ("Lose least", 5)]
    first = table.groups[0].rows[0]
    assert first.label == row["name"]
    assert [cell.value for cell in first.cells] == [row["clean"], row["corrupted"], row["difference"], row["images"]]
    assert first.cells[2].interval == (row["low"], row["high"])
    assert {"classes-1", "classes-2"} <= {table.name for table in report_tables(report)}
    assert len(report_content(report)["sections"][0]["classes"]["rows"]) == 20


def test_the_page_has_a_picture_of_each_class(store: Path, pictures: Path, tmp_path: Path) -> None:
    options = ReportOptions(replicates=10, models=("dtn",))
    report = make_report([store], tmp_path / "report", options, Console(quiet=True), data=pictures)
    frame = report.sections[0].classes
    classes = [("dtn", int(frame["image"][0]), Cell("contrast", 5)), ("ln", 0, CLEAN)]
    gallery = make_samples(open_sources([store]), pictures, classes=classes)
    one, other = gallery.classes
    clean = np.array(Image.open(pictures / one.image.key))
    shown = np.array(Image.open(io.BytesIO(one.image.pictures[0].webp)).convert("RGB"))
    assert np.array_equal(shown, Corruptor("cifar-c")(clean, "contrast", 5, one.image.key))
    assert list(one.image.pictures[0].answers) == ["dtn"]
    assert other.image.pictures[0].cell == CLEAN
    (values,) = class_pictures("dtn", gallery)
    (answer,) = one.image.pictures[0].answers.values()
    assert values["answer"] == f"{answer.text}, {'right' if answer.right else 'wrong'}"
    assert (values["truth"], values["where"]) == (frame["name"][0], "Contrast 5")
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count('<figure><img src="data:image/webp;base64,') == 10
    assert '<a href="#classes">Classes</a>' in page
    assert "Lose most" in (tmp_path / "report" / "tables" / "classes-1.md").read_text()


def records(labels: list[int], cells: tuple[Cell, ...]) -> ClassifierRecords:
    correct = np.zeros((len(labels), len(cells)), bool)
    return ClassifierRecords(np.arange(len(labels)), cells, {"correct": correct}, {})


def test_few_classes_are_all_shown_and_small_ones_are_not() -> None:
    labels = np.array([0] * 5 + [1] * 4 + [2] * 6)
    rows = list(class_rows("net", records(labels.tolist(), CELLS), labels, {0: "zero"}, replicates=0))
    assert [(row[1], row[2], row[3]) for row in rows] == [("all", "zero", 5), ("all", "class 2", 6)]
    assert all(np.isnan(row[7:9]).all() for row in rows)
    for few in (np.zeros(9, int), np.arange(9)):
        assert not list(class_rows("net", records(few.tolist(), CELLS), few, {}))
    for cells in ((CLEAN,), CELLS[1:]):
        assert not list(class_rows("net", records(labels.tolist(), cells), labels, {}))


def test_names_of_classes() -> None:
    def names(classes: str, **images: int) -> dict[int, str]:
        return class_names(arrow.table({"key": list(images), "label": list(images.values())}), classes)

    assert names("folder", **{"cat/1.png": 0, "dog/old/1.png": 1}) == {0: "cat", 1: "dog"}
    assert names("labels", **{"00000": 3, "00001": 1}) == {}
    pytest.importorskip("timm", reason="timm has the names of ImageNet's classes")
    wnids = names("imagenet", **{"n01443537/1.JPEG": 1, "val/n02012849/1.JPEG": 134, "n03126707/1.JPEG": 517})
    assert wnids == {1: "goldfish", 134: "crane (n02012849)", 517: "crane (n03126707)"}
    assert names("imagenet", **{"1/1.JPEG": 1}) == {1: "goldfish"}
    assert names("imagenet-r", **{"n01443537/1.JPEG": 0}) == {0: "goldfish"}
