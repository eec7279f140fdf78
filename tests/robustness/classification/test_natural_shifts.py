"""`dtn-det mce` on clean images alone: ImageNet-R and -A, -V2, Real labels, and sets of the user."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from class_folders import picture, write_folders
from odd_folders import link_classes

from dtn_det.cli.main import main
from dtn_det.corruptions.cells import CLEAN
from dtn_det.datasets.folders.class_folders import list_images
from dtn_det.datasets.folders.label_maps import imagenet_subset, imagenet_wnids
from dtn_det.datasets.folders.recognise import recognise
from dtn_det.datasets.real_labels import read_real_labels, with_real_labels
from dtn_det.robustness.classification.records import score
from dtn_det.robustness.store import Store

MODEL = '''
import torch

class Places(torch.nn.Module):
    """Always sees the same two classes of ImageNet, and would see a class that ImageNet-R lacks before them."""

    def __init__(self, number):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.zeros(number))
        with torch.no_grad():
            self.logits[0], self.logits[1], self.logits[2] = 5, 3, 4

    def forward(self, images):
        return self.logits.expand(len(images), -1)

def thousand():
    return Places(1000)

def two_hundred():
    return Places(200)
'''


@pytest.fixture
def mce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `dtn-det mce` in this process and returns what it printed, its error where it failed."""
    (tmp_path / "models_of_places.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "models_of_places", raising=False)

    def run(data: Path, *arguments: str, model: str = "thousand") -> str:
        words = ["mce", f"python:models_of_places:{model}", "--data", str(data), "--store", str(tmp_path / "store")]
        code = main([*words, "--workers", "0", "--device", "cpu", *arguments])
        captured = capsys.readouterr()
        return captured.out if code == 0 else captured.err

    return run


def subset(name: str) -> list[str]:
    """The 200 wnids of a set, in the order of ImageNet's classes."""
    return [wnid for wnid in imagenet_wnids() if wnid in imagenet_subset(name)]


def records(store: Path) -> dict[str, list[object]]:
    opened = Store.open(store)
    (model,) = opened.models()
    parts = [table.to_pydict() for table in opened.model(model).batches()]
    return {name: [value for part in parts for value in part[name]] for name in parts[0]}


def test_the_logits_of_the_200_classes_alone_count_and_the_clean_twin_has_the_same(mce, tmp_path: Path) -> None:
    wnids = subset("imagenet_r")
    places = [imagenet_wnids().index(wnid) for wnid in wnids]
    assert places[:2] == [1, 2]  # class 0, which the model prefers, is not in ImageNet-R
    data = link_classes(tmp_path / "imagenet-r", wnids, "art_0.jpg", (256, 256))
    clean = link_classes(tmp_path / "val", [*wnids, imagenet_wnids()[0]], "ILSVRC2012_val_00000001.JPEG", (256, 256))
    out = mce(data, "--clean", str(clean))
    assert "ImageNet-R, 200 class folders named by wnids" in out
    assert "top-1 error 99.50 % on ImageNet-R, 99.50 % on the clean images of the same classes, +0.00 points" in out
    assert "mCE" not in out
    for store, num_images in ((tmp_path / "store", 200), (tmp_path / "store" / "clean_twin", 200)):
        manifest = Store.open(store).manifest
        assert (manifest.cells, manifest.num_images) == ((CLEAN,), num_images)
        assert (manifest.protocol["classes"], manifest.protocol["num_classes"]) == ("imagenet-r", "200")
        found = records(store)
        assert set(found["prediction"]) == {1}  # the second of the 200, place 2 of ImageNet, has the largest logit
        assert sum(found["correct"]) == 1
        logits = torch.tensor([3.0, 4.0, *[0.0] * 198]).softmax(0)
        np.testing.assert_allclose(found["confidence"], logits.max().item(), rtol=1e-6)


def test_a_part_of_the_200_classes_is_told_and_marked_as_partial(mce, tmp_path: Path) -> None:
    data = link_classes(tmp_path / "imagenet-r", subset("imagenet_r")[:3], "art_0.jpg", (256, 256))
    assert "3 of ImageNet-R's 200 classes have images" in mce(data)
    (remark,) = Store.open(tmp_path / "store").manifest.remarks
    assert (remark.kind, remark.count, remark.partial) == ("part_of_the_classes", 3, True)


def test_a_model_of_other_classes_is_refused_by_the_three_numbers(mce, tmp_path: Path) -> None:
    data = link_classes(tmp_path / "imagenet-r", subset("imagenet_r"), "art_0.jpg", (256, 256))
    assert "expected a model of 1,000 classes for ImageNet-R, 200 class folders" in mce(data, model="two_hundred")


@pytest.mark.parametrize(
    ("dataset", "name"), [("imagenet-r", "art_0.jpg"), ("imagenet-a", "0.123_fox squirrel _ fox squirrel_0.9.jpg")]
)
def test_a_folder_beside_the_200_is_refused(tmp_path: Path, dataset: str, name: str) -> None:
    wnids = subset(dataset.replace("-", "_"))
    extra = next(wnid for wnid in imagenet_wnids() if wnid not in wnids)
    data = link_classes(tmp_path / "data", [*wnids, extra], name, (256, 256))
    title = {"imagenet-r": "ImageNet-R", "imagenet-a": "ImageNet-A"}[dataset]
    with pytest.raises(ValueError, match=rf"the 200 class folders of {title} in .*, got '{extra}' besides"):
        recognise(data)


def test_folders_of_two_sets_are_refused(tmp_path: Path) -> None:
    data = link_classes(tmp_path / "data", subset("imagenet_r")[:100], "art_0.jpg", (256, 256))
    link_classes(data, [w for w in subset("imagenet_a") if not (data / w).exists()], "0.12_x _ y_0.9.jpg", (256, 256))
    with pytest.raises(ValueError, match=r"named as those of ImageNet-\w \(.*\) and of ImageNet-\w \(.*\): keep"):
        recognise(data)


@pytest.mark.parametrize("version", ["matched-frequency", "threshold0.7", "top-images"])
def test_a_version_of_imagenet_v2_is_scored_by_the_numbers_of_its_folders(mce, tmp_path: Path, version: str) -> None:
    root = tmp_path / f"imagenetv2-{version}-format-val"
    data = link_classes(root, map(str, range(1000)), "x.jpeg", (256, 256))
    found = recognise(data)
    assert (found.dataset, found.classes) == (f"ImageNet-V2 {version}", "imagenet")
    if version == "top-images":
        mce(data)
        assert Store.open(tmp_path / "store").manifest.cells == (CLEAN,)
        found = records(tmp_path / "store")
        assert [image for image, right in zip(found["image"], found["correct"], strict=True) if right] == [0]


def test_a_set_of_the_user_is_scored_clean_where_no_corruptions_are_asked_for(mce, tmp_path: Path) -> None:
    data = write_folders(tmp_path / "data", subset("imagenet_r")[:3], side=256, suffix=".jpg")
    out = mce(data, "--corruptions", "none")
    assert Store.open(tmp_path / "store").manifest.cells == (CLEAN,)
    assert "Classification: summary" in out
    assert "under each corruption" not in " ".join(out.split())


def validation(root: Path, numbers: dict[int, str]) -> Path:
    """Validation images by their numbers, in the folders of their classes."""
    for number, wnid in numbers.items():
        path = root / wnid / f"ILSVRC2012_val_{number:08}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number, 256).save(path)
    return root


def real(path: Path, lists: dict[int, list[int]]) -> Path:
    path.write_text(json.dumps([lists.get(number, []) for number in range(1, 50_001)]))
    return path


class TestRealLabels:
    def test_a_prediction_in_the_list_is_right_and_an_empty_list_leaves_its_image_out(
        self, mce, tmp_path: Path
    ) -> None:
        wnids = imagenet_wnids()
        data = validation(tmp_path / "val", {1: wnids[3], 2: wnids[0], 3: wnids[0]})
        labels = real(tmp_path / "real.json", {1: [3, 0], 2: [7], 3: []})
        out = mce(data, "--labels", str(labels), "--corruptions", "none")
        found = records(tmp_path / "store")
        keys = Store.open(tmp_path / "store").images()["key"].to_pylist()
        right = {keys[image]: correct for image, correct in zip(found["image"], found["correct"], strict=True)}
        assert right == {
            f"{wnids[3]}/ILSVRC2012_val_00000001.JPEG": True,
            f"{wnids[0]}/ILSVRC2012_val_00000002.JPEG": False,
        }
        assert all(value != value for value in found["true_probability"])
        assert "1 image has no Real label and was left out" in " ".join(out.split())
        assert "NLL" not in out
        assert "ECE" in out

    def test_top_five_counts_any_class_of_the_list(self) -> None:
        logits = torch.arange(10.0)[None].repeat(3, 1)
        found = score(logits, torch.tensor([0, 9, 5]), "m", [[0, 9], [4], [5, 1]])
        assert found["correct"].tolist() == [True, False, False]
        assert found["correct_top5"].tolist() == [True, False, True]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("[[1], [2]]", r"got 2 lists: fetch real\.json"),
            (json.dumps([[1000]] * 50_000), "got the class 1000: fetch"),
            ("{", "expected a list of classes for each of 50,000 images in"),
        ],
    )
    def test_a_label_file_of_another_set_is_refused(self, tmp_path: Path, content: str, message: str) -> None:
        (tmp_path / "real.json").write_text(content)
        with pytest.raises(ValueError, match=message):
            read_real_labels(tmp_path / "real.json")

    def test_other_images_are_refused(self, tmp_path: Path) -> None:
        data = write_folders(tmp_path / "data", side=40)
        with pytest.raises(ValueError, match=r"ImageNet's validation images, .* with --labels, got .*image_0\.png"):
            with_real_labels(list_images(data), real(tmp_path / "real.json", {1: [1]}))

    def test_lists_in_another_order_are_refused(self, tmp_path: Path) -> None:
        root = tmp_path / "val"
        wnids = imagenet_wnids()
        for number in range(1, 121):
            (root / wnids[number]).mkdir(parents=True)
            (root / wnids[number] / f"ILSVRC2012_val_{number:08}.JPEG").touch()
        images = list_images(root, "imagenet")
        assert (
            len(with_real_labels(images, real(tmp_path / "real.json", {n: [n] for n in range(1, 121)})).images) == 120
        )
        shifted = real(tmp_path / "real.json", {number: [number + 1] for number in range(1, 121)})
        with pytest.raises(ValueError, match=r"got lists with the class of the folder for only 0 of 120 images"):
            with_real_labels(images, shifted)
