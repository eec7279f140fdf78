"""The overview of models on several sets: which stores it is of, its numbers, differences and files."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as arrow
import pytest
from report_stores import classifier_answers, classifier_store, detector_store

from dtn_det.cli.main import main
from dtn_det.corruptions.catalog import IMAGENET_3DCC_CATALOG, IMAGENET_C_BAR_CATALOG
from dtn_det.corruptions.cells import CLEAN, Cell, sweep_cells
from dtn_det.errors import ReportError
from dtn_det.metrics import classification_differences, error_samples
from dtn_det.metrics.resampling import holm_by_key, image_counts
from dtn_det.metrics.shifts import FITS, ClassCounts, shift_samples
from dtn_det.reports import write
from dtn_det.reports.collect import ReportOptions
from dtn_det.reports.overview import write as overview_write
from dtn_det.reports.overview.collect import collect_overview
from dtn_det.reports.overview.contents import Overview
from dtn_det.reports.overview.grouping import open_sets
from dtn_det.reports.overview.results import flat_overview
from dtn_det.reports.overview.tables import overview_tables
from dtn_det.reports.tables.published import rows_of_sets
from dtn_det.robustness.importing import Imported, ImportSource, write_imported
from dtn_det.robustness.store.files import parquet_bytes

MODELS = {"first": 0, "second": 2}
CLASSES = 12


def labels_of(images: int) -> np.ndarray:
    return np.arange(images) * 7 % 10  # two of the classes have no image


def made(
    root: Path,
    name: str,
    dataset: str,
    cells: tuple[Cell, ...] = (CLEAN,),
    images: int = 40,
    models: dict[str, int] = MODELS,
    **fields: object,
) -> Path:
    """A store of a set that its files told, with the class of each image."""
    protocol = {"classes": "imagenet", "num_classes": "1000", **fields.pop("protocol", {})}
    data = str(fields.pop("data", name))
    recognised = {"dataset": dataset, "profile": "imagenet-c", "side": "224", "num_classes_found": "1000"}
    folder = classifier_store(
        root / name,
        models,
        images=images,
        cells=cells,
        data=data,
        data_hash=f"{data} {images}",
        protocol=protocol,
        recognised=recognised,
        **fields,
    )
    table = arrow.table({"key": [f"{n}.png" for n in range(images)], "label": arrow.array(labels_of(images))})
    (folder / "images.parquet").write_bytes(parquet_bytes(table))
    return folder


RENDITION = {"protocol": {"classes": "imagenet-r", "num_classes": str(CLASSES)}}
FOG = sweep_cells(("fog",), (1, 2, 3, 4, 5))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of stores as `dtn-det evaluate` writes it."""
    root = tmp_path_factory.mktemp("stores")
    made(root, "imagenet-c", "ImageNet", FOG)
    made(root, "imagenet-c-bar", "ImageNet-C-bar", sweep_cells(IMAGENET_C_BAR_CATALOG.names[:1], (1, 2))[1:])
    made(root, "imagenet-r", "ImageNet-R", images=60, **RENDITION)
    made(root, "imagenet-r/clean_twin", "ImageNet", images=50, **RENDITION)
    made(root, "imagenet-sketch", "ImageNet-Sketch", models={"second": 2})
    made(root, "begun", "ImageNet-A", units=())
    return root


@pytest.fixture(scope="module")
def overview(stores: Path) -> Overview:
    return collect_overview(open_sets([stores]), ReportOptions(replicates=100))


def test_each_set_has_the_numbers_that_papers_give(overview: Overview) -> None:
    assert [column.key for column in overview.columns] == [
        "imagenet-c/clean-top-1",
        "imagenet-c/mce",
        "imagenet-c-bar/mean-error",
        "imagenet-r/top-1",
        "imagenet-r/drop",
        "imagenet-r/effective-robustness",
        "imagenet-sketch/top-1",
        "imagenet-sketch/effective-robustness",
    ]
    assert [column.title for column in overview.columns][1:] == [
        "ImageNet-C",
        "ImageNet-C-bar",
        "ImageNet-R",
        "ImageNet-R",
        "ImageNet-R",
        "ImageNet-Sketch",
        "ImageNet-Sketch",
    ]
    right = classifier_answers(2, 60, (CLEAN,))["correct"]
    assert overview.numbers["second", "imagenet-r/top-1"].value == pytest.approx(100 * right.mean())
    assert ("first", "imagenet-sketch/top-1") not in overview.numbers
    assert overview.notes["first", "imagenet-c/mce"] == "partial (5/75)"


def test_the_accuracy_has_the_interval_of_the_error_turned_over(overview: Overview) -> None:
    (error,) = [
        row
        for row in overview.reports["imagenet-r"].sections[0].numbers.itertuples()
        if (row.model, row.name, row.scope) == ("first", "error", "clean")
    ]
    number = overview.numbers["first", "imagenet-r/top-1"]
    assert (number.value, number.low, number.high) == (100 - error.value, 100 - error.high, 100 - error.low)
    change = overview.differences["first", "second", "imagenet-r/top-1"]
    assert change.low < change.value < change.high
    accuracies = [overview.numbers[name, "imagenet-r/top-1"].value for name in MODELS]
    assert change.value == pytest.approx(accuracies[1] - accuracies[0])


def test_the_drop_is_paired_by_class(overview: Overview) -> None:
    values = {}
    for name, seed in MODELS.items():
        counts = []
        for images in (50, 60):
            right = classifier_answers(seed, images, (CLEAN,))["correct"][:, 0]
            labels = labels_of(images)
            counts.append([(right[labels == one].sum(), (labels == one).sum()) for one in range(CLASSES)])
        (clean, shifted) = (np.array(one, float)[:10] for one in counts)
        point = 100 * (clean[:, 0].sum() / clean[:, 1].sum() - shifted[:, 0].sum() / shifted[:, 1].sum())
        drawn = np.concatenate(list(image_counts(10, 100, 0, 100))).astype(float)  # the ten classes with images
        both = [drawn @ one for one in (clean, shifted)]
        values[name] = 100 * (both[0][:, 0] / both[0][:, 1] - both[1][:, 0] / both[1][:, 1])
        number = overview.numbers[name, "imagenet-r/drop"]
        assert number.value == pytest.approx(point)
        np.testing.assert_allclose([number.low, number.high], np.quantile(values[name], (0.025, 0.975)))
    change = overview.differences["first", "second", "imagenet-r/drop"]
    np.testing.assert_allclose(
        [change.low, change.high], np.quantile(values["second"] - values["first"], (0.025, 0.975))
    )


def right_of(seed: int, images: int, cells: tuple[Cell, ...] = (CLEAN,)) -> float:
    return float(classifier_answers(seed, images, cells)["correct"][:, 0].mean())


def test_effective_robustness_is_the_accuracy_beyond_that_of_the_fit(overview: Overview) -> None:
    """ImageNet-R is held against its clean twin, ImageNet-Sketch against the clean images of ImageNet-C."""
    clean, shifted = right_of(MODELS["first"], 50), right_of(MODELS["first"], 60)
    expected = 1 / (1 + ((1 - clean) / clean) ** 0.7072 * math.exp(2.2716))
    number = overview.numbers["first", "imagenet-r/effective-robustness"]
    assert number.value == pytest.approx(100 * (shifted - expected))
    assert number.low < number.value < number.high
    clean, shifted = right_of(2, 40, FOG), right_of(2, 40)
    expected = 1 / (1 + ((1 - clean) / clean) ** 1.1215 * math.exp(2.4131))
    assert overview.numbers["second", "imagenet-sketch/effective-robustness"].value == pytest.approx(
        100 * (shifted - expected)
    )
    lowest = {"imagenet-r": 0.64, "imagenet-sketch": 0.41}
    for (model, key), note in overview.notes.items():
        if key.endswith("effective-robustness"):
            of_clean = right_of(MODELS[model], *((50,) if key.startswith("imagenet-r") else (40, FOG)))
            assert (note == "beyond the fit") == (of_clean < lowest[key.partition("/")[0]] or of_clean > 0.871)


def test_the_fits_agree_with_models_that_they_were_made_of() -> None:
    """The published accuracies of resnet50.tv_in1k and its like: clean, and on the set, in percent."""
    known = {"ImageNet-R": (92.15, 36.157), "ImageNet-V2 matched-frequency": (76.156, 63.190)}
    known["ImageNet-Sketch"] = (76.156, 24.064)
    for title, (clean, shifted) in known.items():
        assert 100 * FITS[title].expected(np.array([clean / 100]))[0] == pytest.approx(shifted, abs=4)
    assert FITS["ImageNet-R"].expected(np.array([0.0, 1.0])).tolist() == [0.0, 1.0]


def test_p_values_of_a_pair_are_adjusted_together(overview: Overview) -> None:
    assert overview.pairs == (("first", "second"),)
    plain = {key: change.p_value for key, change in overview.differences.items()}
    assert len(plain) == 6
    assert {key: change.p_adjusted for key, change in overview.differences.items()} == holm_by_key(plain)


def test_the_difference_in_mce_is_that_of_the_reports_own(overview: Overview) -> None:
    samples = [
        error_samples(classifier_answers(seed, 40, FOG)["correct"], FOG, range(40), replicates=100)
        for seed in MODELS.values()
    ]
    own = classification_differences(*samples, allow_partial=True, relative=False).get("mCE")
    change = overview.differences["first", "second", "imagenet-c/mce"]
    assert (change.value, change.low, change.high) == pytest.approx((own.value, own.low, own.high))


def test_samples_of_other_classes_are_refused() -> None:
    one = ClassCounts(np.ones(2), np.ones(2))
    with pytest.raises(ValueError, match=r"images of both sets in the same classes, got 2 images in 2 classes and 3 "):
        shift_samples(one, ClassCounts(np.ones(3), np.ones(3)), 10)
    with pytest.raises(ValueError, match="got 2 images in 2 classes and 0 in 2"):
        shift_samples(one, ClassCounts(np.zeros(2), np.zeros(2)), 10)


def test_the_tables(overview: Overview) -> None:
    table, differences = overview_tables(overview)
    assert [row.label for row in table.rows] == ["first", "second"]
    assert [(column.span, column.heading) for column in table.columns][:2] == [
        ("ImageNet-C", "clean top-1"),
        ("ImageNet-C", "mCE"),
    ]
    assert table.columns[1].note == "partial (5/75)"
    assert "best" in table.rows[1].cells[1].marks
    assert table.rows[0].cells[6].value is None
    assert [row.label for row in differences.rows][1] == "ImageNet-C mCE ↓"
    assert [group.title for group in differences.groups] == ["second minus first"]
    assert any(line.startswith("ImageNet-R: imagenet-r, 60 images (all)") for line in table.footer)


def test_published_rows_stand_below_and_are_not_ranked(overview: Overview) -> None:
    table, _ = overview_tables(overview, rows_of_sets())
    measured, published = table.groups
    assert measured == overview_tables(overview)[0].groups[0]
    rows = {row.label: row for row in published.rows}
    columns = [column.key for column in overview.columns]
    resnet = dict(zip(columns, rows["resnet50.tv_in1k"].cells, strict=True))
    values = {key: resnet[key].value for key in ("imagenet-c/clean-top-1", "imagenet-r/top-1", "imagenet-r/drop")}
    assert values == {
        "imagenet-c/clean-top-1": 76.156,
        "imagenet-r/top-1": 36.157,
        "imagenet-r/drop": pytest.approx(55.993),
    }
    assert resnet["imagenet-c-bar/mean-error"].value is None
    assert "Standard" not in rows  # of CIFAR-10-C
    assert not any(cell.marks & {"best", "second"} for row in published.rows for cell in row.cells)
    assert any(note.startswith("Published rows are for the sets above, were not measured here") for note in table.notes)


def test_flat_numbers(overview: Overview) -> None:
    found = flat_overview(overview)
    assert found["second"]["imagenet-c/mce"] == overview.numbers["second", "imagenet-c/mce"].value
    assert {"imagenet-r/drop", "imagenet-r/clean-ece", "imagenet-c/mean-error", "imagenet-c/clean-error"} <= {
        *found["first"]
    }
    assert not any(key.startswith("imagenet-sketch") for key in found["first"])


class TestWhichStores:
    def open(self, *stores: str | Path, models: tuple[str, ...] = ()) -> dict[str, list[str]]:
        return {one.name: list(one.sources.models) for one in open_sets(stores, models)}

    def test_stores_of_several_sets_without_a_folder(self, tmp_path: Path) -> None:
        one = made(tmp_path, "a", "ImageNet-R", **RENDITION)
        two = made(tmp_path, "b", "ImageNet-Sketch")
        assert self.open(one, two) == {"imagenet-r": ["first", "second"], "imagenet-sketch": ["first", "second"]}
        assert self.open(f"old={one}", two, models=("second",)) == {"imagenet-sketch": ["second"]}
        assert self.open(f"old={one}", one, two)["imagenet-r"] == ["old/first", "old/second", "first", "second"]

    def test_a_folder_of_stores_beside_another(self, stores: Path, tmp_path: Path) -> None:
        other = tmp_path / "other"
        shutil.copytree(stores / "imagenet-sketch", other / "imagenet-sketch")
        found = self.open(stores, f"again={other}")
        assert found["imagenet-sketch"] == ["second", "again/second"]
        assert "begun" not in found

    def test_imported_results_are_a_set_like_others(self, stores: Path, tmp_path: Path) -> None:
        shutil.copytree(stores / "imagenet-sketch", tmp_path / "imagenet-sketch")
        frame = pd.DataFrame({"corruption": ["fog"], "severity": [1], "error": [0.5]})
        source = ImportSource({"r.csv": "0" * 64}, "robustbench", dataset="ImageNet-C")
        write_imported(tmp_path / "imagenet-c", Imported("other", "classification", source, {"top1": frame}))
        assert self.open(tmp_path) == {"imagenet-c": ["other"], "imagenet-sketch": ["second"]}
        overview = collect_overview(open_sets([tmp_path]), ReportOptions(replicates=10))
        assert ("other", "imagenet-c/mce") in overview.numbers
        assert overview.differences == {}

    def test_stores_of_one_set_or_of_sets_that_nothing_tells_are_no_several_sets(self, tmp_path: Path) -> None:
        one = made(tmp_path, "a", "ImageNet-R", **RENDITION)
        assert self.open(one) == {}
        assert self.open(classifier_store(tmp_path / "b", {"x": 0}), one) == {}
        assert self.open(tmp_path / "nowhere") == {}

    def test_what_does_not_fit_is_refused(self, stores: Path, tmp_path: Path) -> None:
        with pytest.raises(ReportError, match="expected each of --models once, out of first, second, got third"):
            open_sets([stores], ["third"])
        detector_store(tmp_path / "mixed" / "boxes", {"first": 1})
        made(tmp_path / "mixed", "imagenet-r", "ImageNet-R")
        with pytest.raises(ReportError, match="got classification in imagenet-r and detection in boxes: make a report"):
            open_sets([tmp_path / "mixed"])
        with pytest.raises(ReportError, match=r"expected stores that tell their set beside those of others, got .*odd"):
            open_sets([stores, classifier_store(tmp_path / "odd", {"x": 0})])
        made(tmp_path / "early", "imagenet-r", "ImageNet-R", units=())
        with pytest.raises(ReportError, match=r"results in the stores of .*early, got none in imagenet-r: run"):
            open_sets([tmp_path / "early"])
        with pytest.raises(ReportError, match="expected --baseline out of alexnet, first, second, got 'other'"):
            collect_overview(open_sets([stores]), ReportOptions(baseline="other"))

    def test_other_weights_of_a_name_are_refused(self, tmp_path: Path) -> None:
        made(tmp_path, "imagenet-r", "ImageNet-R", models={"first": 0}, **RENDITION)
        made(tmp_path, "imagenet-sketch", "ImageNet-Sketch", models={"first": 1})
        with pytest.raises(ReportError, match="one model of the name 'first', got other weights on ImageNet-R and on"):
            collect_overview(open_sets([tmp_path]), ReportOptions(replicates=0))


def test_clean_images_are_shown_once_and_3dcc_has_its_own_name(tmp_path: Path) -> None:
    """Equal numbers of other images are shown, because they are equal by chance."""
    cells = sweep_cells(IMAGENET_3DCC_CATALOG.names[:1], (1, 2, 3, 4, 5))
    for data, clean in (("val", []), ("other", ["imagenet-3dcc/clean-top-1"])):
        root = tmp_path / data
        made(root, "imagenet-c", "ImageNet", FOG, data="val")
        made(root, "imagenet-3dcc", "ImageNet-3DCC", cells, data=data)
        overview = collect_overview(open_sets([root]), ReportOptions(replicates=0))
        keys = ["imagenet-c/clean-top-1", "imagenet-c/mce", *clean, "imagenet-3dcc/mce_3d"]
        assert [column.key for column in overview.columns] == keys
        assert overview.differences == {}


@pytest.fixture
def report(
    stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs `dtn-det report` in this process without figures, and returns what it printed, its error where it failed."""
    monkeypatch.setattr(write, "write_figures", lambda report, folder: ({}, {}))
    monkeypatch.setenv("COLUMNS", "250")

    def run(*arguments: str) -> str:
        code = main(["report", str(stores), "--out", str(tmp_path / "out"), "--replicates", "20", *arguments])
        captured = capsys.readouterr()
        return captured.out if code == 0 else captured.err

    return run


def test_a_report_of_several_sets_has_all_formats(report: Callable[..., str], tmp_path: Path) -> None:
    out = report("--json", str(tmp_path / "flat.json"))
    assert "Overview: differences" in out
    folder = tmp_path / "out"
    assert {path.name for path in folder.iterdir()} == {
        *("report.html", "report.md", "report.tex", "report.json", "tables", "sets")
    }
    names = {"imagenet-c", "imagenet-c-bar", "imagenet-r", "imagenet-sketch"}
    assert {path.name for path in (folder / "sets").iterdir()} == names
    assert all((folder / "sets" / name / "report.html").is_file() for name in names)
    document = (folder / "report.md").read_text()
    assert "### Overview" in document
    assert "### ImageNet-Sketch: summary" in document
    assert r"\input{tables/overview-differences}" in (folder / "report.tex").read_text()
    assert "mCE" in (folder / "tables" / "overview.tex").read_text()
    lines = list(csv.DictReader((folder / "tables" / "overview.csv").open()))
    content = json.loads((folder / "report.json").read_text())
    numbers = {(one["model"], one["key"]): one for one in content["numbers"]}
    assert float(lines[0]["ImageNet-R drop (points)"]) == pytest.approx(
        numbers["first", "imagenet-r/drop"]["value"], abs=1e-7
    )
    assert set(content["sets"]) == names
    assert content["differences"][0]["p_adjusted"] >= content["differences"][0]["p_value"]
    page = (folder / "report.html").read_text()
    assert 'href="sets/imagenet-r/report.html"' in page
    assert page.count('<section id="set-') == 4
    assert "http" not in page.replace("http-equiv", "")
    flat = json.loads((tmp_path / "flat.json").read_text())
    assert flat["first"]["imagenet-r/drop"] == numbers["first", "imagenet-r/drop"]["value"]
    again = report("--with-published")
    assert "is replaced" in again
    assert "Published, not measured here" in again
    page = (folder / "report.html").read_text()
    assert 'id="table-overview-published"' in page
    assert 'id="table-summary-published-imagenet-sketch"' in page
    assert "resnet50.tv" in (folder / "sets" / "imagenet-sketch" / "report.md").read_text()


def test_images_of_sets_that_are_not_there_are_refused(report: Callable[..., str], tmp_path: Path) -> None:
    names = "a set out of imagenet-c, imagenet-c-bar, imagenet-r, imagenet-sketch"
    said = report("--data", ".")
    assert f"expected --data NAME=DIR with {names}, got .: name the set, such as --data imagenet-c=." in said
    assert f"with {names}, got cifar-10=x: name the set" in report("--data", "cifar-10=x")
    assert "expected --data once for each set, got a and b" in report("--data", "s=a", "--data", "s=b")
    assert "expected --clean imagenet-r=a beside the corrupted images of" in report("--clean", "imagenet-r=a")
    assert not (tmp_path / "out").exists()


def test_a_failure_leaves_no_half_report(report: Callable[..., str], tmp_path: Path, monkeypatch) -> None:
    def fail(overview: Overview) -> str:
        raise OSError("no room")

    monkeypatch.setattr(overview_write, "overview_json", fail)
    monkeypatch.setattr(overview_write, "write_report", lambda *arguments, **options: {})
    assert "no room" in report()
    assert not (tmp_path / "out" / "report.json").exists()
