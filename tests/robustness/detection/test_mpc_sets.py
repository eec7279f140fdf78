"""`dtn-det mpc --set`: several COCO sets in one command, COCO-O among them, and the report of their stores."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("hotcoco", reason="detections are evaluated by it")

from dtn_det.cli.main import main
from dtn_det.datasets.coco import read_coco_file
from dtn_det.datasets.coco.coco_classes import COCO_NAMES
from dtn_det.datasets.coco.known_sets import DOMAINS, coco_set_title
from dtn_det.errors import StoreError
from dtn_det.reports.collect import ReportOptions, collect
from dtn_det.reports.overview import coco_o
from dtn_det.reports.overview.collect import collect_overview
from dtn_det.reports.overview.grouping import open_sets
from dtn_det.robustness.detection.evaluation import read_cells
from dtn_det.robustness.detection.second_opinion import coco_results
from dtn_det.robustness.detection.several import plan_detection_sets
from dtn_det.robustness.detection.truth import CocoTruth
from dtn_det.robustness.importing.detections import import_detections
from dtn_det.robustness.options import DetectionOptions, DetectorSource
from dtn_det.robustness.store import Store

FEW = ("--unit-size", "2", "--device", "cpu", "--workers", "0")
CATEGORIES = [{"id": number, "name": name} for number, name in COCO_NAMES.items()]


def write_set(folder: Path, seed: int, images: int = 3) -> Path:
    """A set of COCO's categories in its layout: one bright box of a person in each image."""
    (folder / "val2017").mkdir(parents=True)
    (folder / "annotations").mkdir()
    rng = np.random.default_rng(seed)
    rows: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": CATEGORIES}
    for number in range(1, images + 1):
        x, y, w, h = (int(value) for value in (*rng.integers(1, 12, 2), *rng.integers(10, 18, 2)))
        picture = np.zeros((32, 32, 3), np.uint8)
        picture[y : y + h, x : x + w] = 255
        name = f"{number:012d}.png"
        cv2.imwrite(str(folder / "val2017" / name), picture)
        rows["images"].append({"id": number, "file_name": name, "height": 32, "width": 32})
        box = {"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0, "category_id": 1}
        rows["annotations"].append({"id": number, "image_id": number, **box})
    (folder / "annotations/instances_val2017.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The six domains of COCO-O in small, and a set of one's own."""
    root = tmp_path_factory.mktemp("sets")
    for seed, name in enumerate(DOMAINS):
        write_set(root / "ood_coco" / name, seed)
    write_set(root / "mine", 9)
    return root


def find_box(image: np.ndarray, wider: int) -> dict[str, Any]:
    """The box around the bright pixels, on the right by some pixels too wide."""
    rows, columns = np.nonzero(image[..., 0] > 128)
    box = [columns.min(), rows.min(), columns.max() + 1 + wider, rows.max() + 1]
    return {"boxes": [[float(value) for value in box]], "scores": [0.9], "category_ids": [1]}


@pytest.fixture(scope="module")
def stores(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stores of a good and of a worse detector on COCO-O and a set of one's own."""
    folder = tmp_path_factory.mktemp("stores") / "all"
    module = ModuleType("user_models")
    module.good = lambda images: [find_box(image, 0) for image in images]
    module.worse = lambda images: [find_box(image, 6) for image in images]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "user_models", module)
        words = ["mpc", "good=python:user_models:good", "worse=python:user_models:worse", "--category-ids", "coco91"]
        words += ["--set", str(data / "ood_coco"), "--set", f"own={data / 'mine'}", "--store", str(folder), *FEW]
        assert main(words) == 0
    return folder


def test_each_set_has_a_store_of_clean_images(stores: Path) -> None:
    names = [f"coco-o-{domain}" for domain in DOMAINS]
    assert sorted(path.name for path in stores.iterdir()) == sorted([*names, "own"])
    for name in (*names, "own"):
        manifest = Store.open(stores / name).manifest
        assert [tuple(cell) for cell in manifest.cells] == [("clean", 0)]
        title = manifest.recognised.get("dataset", "")
        assert title == ("" if name == "own" else f"COCO-O {name.rpartition('-')[2]}")


def test_the_overview_has_the_mean_over_the_domains(stores: Path) -> None:
    overview = collect_overview(open_sets([stores]), ReportOptions(replicates=200))
    keys = [column.key for column in overview.columns]
    assert keys == [*(f"coco-o-{domain}/ap" for domain in sorted(DOMAINS)), "own/ap", "coco-o/mean-ap"]
    single = [overview.numbers["worse", key].value for key in keys[:6]]
    assert all(0 < value < 100 for value in single)
    mean = overview.numbers["worse", "coco-o/mean-ap"]
    assert mean.value == pytest.approx(np.mean(single))
    assert mean.low <= mean.value <= mean.high
    assert overview.numbers["good", "coco-o/mean-ap"].value == pytest.approx(100)
    change = overview.differences["good", "worse", "coco-o/mean-ap"]
    assert change.value == pytest.approx(mean.value - 100)
    assert change.low <= change.value <= change.high < 0
    assert overview.notes.get(("worse", "coco-o/mean-ap"), "") == ""
    # One set alone has the numbers of its own report.
    alone = collect([stores / "own"], ReportOptions(replicates=0)).sections[0].numbers
    value = alone[(alone["model"] == "worse") & (alone["name"] == "P AP")]["value"]
    assert overview.numbers["worse", "own/ap"].value == pytest.approx(float(value.iloc[0]))


def test_a_report_of_two_domains_is_written_in_all_formats(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = tmp_path / "flat.json"
    folders = [str(stores / f"coco-o-{domain}") for domain in ("sketch", "tattoo")]
    options = ["--out", str(tmp_path / "report"), "--replicates", "20", "--with-published", "--json", str(flat)]
    assert main(["report", *folders, *options]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "mean AP: AP of boxes, mean over the six domains of COCO-O" in printed
    content = json.loads((tmp_path / "report/report.json").read_text())
    assert content["task"] == "detection"
    assert {one["key"] for one in content["numbers"]} >= {"coco-o/mean-ap", "coco-o-sketch/ap", "coco-o-tattoo/ap"}
    assert "COCO-O sketch, boxes: summary" in (tmp_path / "report/report.md").read_text()
    page = (tmp_path / "report/report.html").read_text()
    assert "good and worse on 2 sets" in page
    assert "Michaelis" not in page  # published numbers are of COCO-C
    assert (tmp_path / "report/sets/coco-o-tattoo/report.html").is_file()
    assert json.loads(flat.read_text())["good"]["coco-o/mean-ap"] == pytest.approx(100)


def test_a_mean_over_some_domains_is_partial(stores: Path) -> None:
    folders = [stores / f"coco-o-{domain}" for domain in DOMAINS[:2]]
    overview = collect_overview(open_sets(folders), ReportOptions(replicates=0))
    assert overview.notes["good", "coco-o/mean-ap"] == "partial (2/6)"


def test_imported_detections_of_two_domains_have_an_overview(stores: Path, data: Path, tmp_path: Path) -> None:
    for domain in ("sketch", "tattoo"):
        store = Store.open(stores / f"coco-o-{domain}")
        (found,) = read_cells(store.model("worse"), [0])
        (tmp_path / f"{domain}.json").write_text(json.dumps(coco_results(CocoTruth.of(store), found, "bbox")))
        annotations = data / "ood_coco" / domain / "annotations/instances_val2017.json"
        import_detections(tmp_path / f"{domain}.json", annotations, tmp_path / "stores" / domain, "worse")
    there = collect_overview(open_sets([tmp_path / "stores"]), ReportOptions(replicates=0))
    here = collect_overview(open_sets([stores]), ReportOptions(replicates=0))
    for domain in ("sketch", "tattoo"):
        value = here.numbers["worse", f"coco-o-{domain}/ap"].value
        assert there.numbers["worse", f"{domain}/ap"].value == pytest.approx(value)
    assert there.notes["worse", "coco-o/mean-ap"] == "partial (2/6)"
    assert not any("rPC" in text for text in there.remarks)


class TestEffectiveRobustness:
    def test_the_factor_gives_the_published_row(self) -> None:
        """Faster R-CNN R-50-FPN in the paper, as github.com/alibaba/easyrobust/issues/21 quotes it."""
        domains = np.array([9.8, 25.1, 13.9, 23.3, 10.1, 16.3])
        assert domains.mean() == pytest.approx(16.4, abs=0.05)
        assert domains.mean() - coco_o.SLOPE * 37.4 == pytest.approx(-0.41, abs=0.005)

    def test_a_model_with_coco_has_it(self, stores: Path) -> None:
        sets = open_sets([stores])
        own = next(one for one in sets if one.name == "own")
        told = [one if one is not own else replace(own, known="COCO") for one in sets]
        overview = collect_overview(told, ReportOptions(replicates=50))
        mean, coco = (overview.numbers["worse", key].value for key in ("coco-o/mean-ap", "own/ap"))
        found = overview.numbers["worse", "coco-o/effective-robustness"]
        assert found.value == pytest.approx(mean - 0.45 * coco)
        assert found.low <= found.value <= found.high


class TestRecognised:
    def test_a_domain_needs_its_folder_and_cocos_categories(self, data: Path, tmp_path: Path) -> None:
        file = data / "ood_coco/weather/annotations/instances_val2017.json"
        assert coco_set_title(read_coco_file(file)) == "COCO-O weather"
        lone = write_set(tmp_path / "weather", 0)
        assert coco_set_title(read_coco_file(lone / "annotations/instances_val2017.json")) == ""
        content = json.loads(file.read_text())
        content["categories"] = content["categories"][:3]
        few = tmp_path / "ood_coco/sketch/annotations.json"
        few.parent.mkdir(parents=True)
        few.write_text(json.dumps(content))
        assert coco_set_title(read_coco_file(few)) == ""

    def test_coco_has_5000_images_with_their_ids_as_names(self, tmp_path: Path) -> None:
        rows = [{"id": number, "file_name": f"{number:012d}.jpg", "height": 9, "width": 9} for number in range(1, 5001)]
        box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 3, 3], "area": 9, "iscrowd": 0}
        path = tmp_path / "instances_val2017.json"
        for images, title in ((rows, "COCO"), (rows[1:], "")):
            one = {**box, "image_id": images[0]["id"]}
            path.write_text(json.dumps({"images": images, "annotations": [one], "categories": CATEGORIES}))
            assert coco_set_title(read_coco_file(path)) == title


Plan = Callable[..., tuple[DetectionOptions, ...]]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    def planned(*words: str, **options: Any) -> tuple[DetectionOptions, ...]:
        models = (DetectorSource("python:user_models:good"),)
        return plan_detection_sets(words, DetectionOptions(models=models, store=tmp_path / "store", **options))

    return planned


def test_names_of_sets(plan: Plan, data: Path, tmp_path: Path) -> None:
    found = plan(str(data / "ood_coco/sketch"), str(data / "mine"), f"voc={data / 'mine'}")
    assert [one.store.name for one in found] == ["coco-o-sketch", "mine", "voc"]
    assert [one.data_root for one in found] == [str(data / name) for name in ("ood_coco/sketch", "mine", "mine")]
    assert [one.store.name for one in plan(f"o={data / 'ood_coco'}")] == [f"o-{domain}" for domain in DOMAINS]


def test_sets_that_cannot_be_named_are_refused(plan: Plan, data: Path, tmp_path: Path) -> None:
    mine = str(data / "mine")
    with pytest.raises(ValueError, match=r"expected sets of different names, got 'mine' for .* and for"):
        plan(mine, mine)
    with pytest.raises(ValueError, match=r"expected the name of a set to be that of a folder, .* got 'a/b'"):
        plan(f"a/b={mine}")
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        plan(str(data / "absent"))
    with pytest.raises(ValueError, match="expected --set alone to name the data, got --data-root and --ann too"):
        plan(mine, data_root=mine, ann=Path("x.json"))
    for name in DOMAINS[:2]:
        (tmp_path / "ood_coco" / name).mkdir(parents=True)
    with pytest.raises(ValueError, match="got none of painting, weather, handmake, tattoo"):
        plan(str(tmp_path / "ood_coco"))
    (tmp_path / "store").mkdir()
    (tmp_path / "store/store.json").write_text("{}")
    with pytest.raises(StoreError, match="expected --store to be a folder for the stores of several sets"):
        plan(mine)


def test_all_sets_are_read_before_the_first_image(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = write_set(tmp_path / "broken", 0)
    (broken / "val2017/000000000003.png").unlink()
    module = ModuleType("user_models")
    module.seen = []
    module.good = lambda images: [module.seen.append(1) or find_box(image, 0) for image in images]
    monkeypatch.setitem(sys.modules, "user_models", module)
    words = ["mpc", "python:user_models:good", "--set", str(data / "mine"), "--set", str(broken)]
    assert main([*words, "--store", str(tmp_path / "store"), *FEW]) == 1
    assert "broken" in capsys.readouterr().err
    assert not module.seen
    assert not (tmp_path / "store").exists()
