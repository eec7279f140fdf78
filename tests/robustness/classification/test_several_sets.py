"""`dtn-det evaluate`: several sets and models in one run, each set in a store of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from array_sets import LABELS, write_batches, write_cifar_c
from class_folders import write_folders
from odd_folders import link_classes

from dtn_det.cli.main import main
from dtn_det.corruptions.cells import CLEAN
from dtn_det.datasets.folders.label_maps import imagenet_subset, imagenet_wnids
from dtn_det.datasets.sets import set_name, set_title
from dtn_det.robustness.classification.several import PER_SET, plan_sets
from dtn_det.robustness.options import ClassificationOptions
from dtn_det.robustness.store import ModelStore, Store

MODEL = '''
import torch

made = []

class Colours(torch.nn.Module):
    """Tells images apart by their mean colours."""

    def __init__(self, classes, seed):
        super().__init__()
        made.append(seed)
        self.linear = torch.nn.Linear(12, classes, bias=False)
        torch.nn.init.normal_(self.linear.weight, std=20.0, generator=torch.Generator().manual_seed(seed))

    def forward(self, images):
        return self.linear(torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1))

def one():
    return Colours(10, 1)

def two():
    return Colours(10, 2)

def thousand():
    return Colours(1000, 1)
'''


@pytest.fixture
def evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `dtn-det evaluate` in this process and returns what it printed, its error where it failed."""
    (tmp_path / "several_models.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delitem(sys.modules, "several_models", raising=False)

    def run(*arguments: str, models: str = "one") -> str:
        words = ["evaluate", *(f"python:several_models:{name}" for name in models.split()), "--store", "stores"]
        code = main([*words, "--workers", "0", "--device", "cpu", "--unit-size", "4", *arguments])
        captured = capsys.readouterr()
        return captured.out if code == 0 else captured.err

    return run


@pytest.fixture
def cifar(tmp_path: Path) -> list[str]:
    """The clean images of CIFAR-10 and CIFAR-10-C with two corruptions, as arguments."""
    clean, corrupted = write_batches(tmp_path / "batches"), write_cifar_c(tmp_path / "cifar")
    words = ["cifar-10=none", "cifar-10-c=fog", "cifar-10-c=contrast"]
    return ["--set", f"cifar-10={clean}", "--set", str(corrupted), "--corruptions", *words]


def records(folder: str, model: str) -> dict[str, list[object]]:
    opened = Store.open(Path(folder)).model(model)
    parts = [table.to_pydict() for table in opened.batches()]
    return {name: [value for part in parts for value in part[name]] for name in parts[0]}


def test_each_set_has_a_store_as_of_mce_and_each_model_is_loaded_once(evaluate, cifar: list[str]) -> None:
    out = evaluate(*cifar, "--json", "flat.json", models="one two")
    assert {path.name for path in Path("stores").iterdir()} == {"cifar-10", "cifar-10-c"}
    assert sys.modules["several_models"].made == [1, 2]
    assert out.index("cifar-10-c:") < out.index("Evaluating images")  # recognised before the first image
    assert "Overview" in out
    flat = json.loads(Path("flat.json").read_text())
    right = sum(records("stores/cifar-10", "two")["correct"])
    assert flat["two"]["cifar-10/top-1"] == pytest.approx(10 * right)  # of ten images, in percent
    assert {"cifar-10/clean-ece", "cifar-10-c/mean-error"} <= {*flat["one"]}
    assert Store.open(Path("stores/cifar-10")).manifest.cells == (CLEAN,)
    assert len(Store.open(Path("stores/cifar-10-c")).manifest.cells) == 10
    words = ["mce", "python:several_models:one", "python:several_models:two", "--data", "cifar", "--store", "alone"]
    few = ["--corruptions", "fog", "contrast", "--workers", "0", "--device", "cpu", "--unit-size", "4"]
    assert main([*words, *few]) == 0
    assert Store.open(Path("alone")).manifest == Store.open(Path("stores/cifar-10-c")).manifest
    for model in ("one", "two"):
        assert records("alone", model) == records("stores/cifar-10-c", model)


def test_a_report_shows_the_images_of_the_named_set(evaluate, cifar: list[str]) -> None:
    evaluate(*cifar)
    folder = cifar[1].partition("=")[2]
    words = ["report", "stores", "--out", "report", "--replicates", "0", "--data"]
    assert main([*words, f"cifar-10={folder}"]) == 0
    pages = {name: Path("report/sets", name, "report.html").read_text() for name in ("cifar-10", "cifar-10-c")}
    assert {name: "data:image/webp" in page for name, page in pages.items()} == {"cifar-10": True, "cifar-10-c": False}


def test_a_second_call_evaluates_only_what_is_missing(evaluate, cifar: list[str], monkeypatch) -> None:
    write, left = ModelStore.write, [4]

    def killed(self: ModelStore, number: int, table: object) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        write(self, number, table)

    with monkeypatch.context() as patch:
        patch.setattr(ModelStore, "write", killed)
        assert "the same command continues" in evaluate(*cifar)
    finished = {name: len(Store.open(Path("stores", name)).model("one").finished()) for name in ("cifar-10-c",)}
    assert finished == {"cifar-10-c": 1}
    before = {path: path.stat().st_mtime_ns for path in Path("stores").rglob("unit-*.parquet")}
    assert len(before) == 4
    out = evaluate(*cifar)
    assert "3 of 3 units are done already" in out
    assert "1 of 3 units are done already, 6 of 10 images are left" in out
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert Store.open(Path("stores/cifar-10-c")).model("one").pending() == []


def options(tmp_path: Path) -> ClassificationOptions:
    return ClassificationOptions(models=(), data=Path(), store=tmp_path / "stores")


def plan(tmp_path: Path, *sets: str, **per_set: list[str]) -> dict[str, ClassificationOptions]:
    """The options of each set by its name."""
    found = plan_sets(sets, options(tmp_path), {option: per_set.get(option, []) for option in PER_SET})
    return {one.store.name: one for one in found}


@pytest.mark.parametrize(
    ("dataset", "profile", "corrupted", "real", "name"),
    [
        ("ImageNet-C", "imagenet-c", True, False, "imagenet-c"),
        ("ImageNet", "imagenet-c", True, False, "imagenet-c"),
        ("ImageNet", "imagenet-c-bar", True, False, "imagenet-c-bar"),
        ("ImageNet-3DCC", "imagenet-3dcc", True, False, "imagenet-3dcc"),
        ("ImageNet", "imagenet-c", False, False, "imagenet"),
        ("ImageNet", "imagenet-c", False, True, "imagenet-real"),
        ("ImageNet-V2 top-images", "imagenet-c", False, False, "imagenet-v2-top-images"),
        ("CIFAR-10", "cifar-c-bar", True, False, "cifar-10-c-bar"),
        ("ImageNet", "imagenet-c", True, True, "imagenet-c-real"),
        ("", "imagenet-c", True, False, ""),
    ],
)
def test_names_of_sets(dataset: str, profile: str, corrupted: bool, real: bool, name: str) -> None:
    assert set_name(set_title(dataset, profile, corrupted=corrupted, real=real)) == name


class TestOptions:
    @pytest.fixture
    def folders(self, tmp_path: Path) -> dict[str, str]:
        wnids = imagenet_wnids()
        rendition = [wnid for wnid in wnids if wnid in imagenet_subset("imagenet_r")]
        made = {
            "val": link_classes(tmp_path / "val", wnids[:3], "ILSVRC2012_val_00000001.JPEG", (256, 256)),
            "r": link_classes(tmp_path / "r", rendition, "art_0.jpg", (256, 256)),
            "c": link_classes(tmp_path / "c" / "fog" / "1", wnids[:3], "ILSVRC2012_val_00000001.JPEG", (224, 224)),
            "own": link_classes(tmp_path / "own", rendition[:4], "a.jpg", (256, 256)),
            "words": link_classes(tmp_path / "words", ["ant", "bee"], "a.jpg", (256, 256)),
        }
        return {name: str(path if name != "c" else tmp_path / "c") for name, path in made.items()}

    def test_a_value_without_a_name_is_for_the_sets_that_take_it(self, tmp_path: Path, folders: dict[str, str]) -> None:
        found = plan(
            tmp_path,
            folders["val"],
            folders["r"],
            f"disk={folders['c']}",
            f"real={folders['val']}",
            clean=[folders["val"]],
            labels=["real=real.json"],
            corruptions=["fog"],
            profile=["imagenet-c=imagenet-c-bar"],
        )
        assert list(found) == ["imagenet-c", "imagenet-r", "disk", "real"]
        assert [one.clean is not None for one in found.values()] == [False, True, True, False]
        assert [one.labels for one in found.values()] == [None, None, None, Path("real.json")]
        assert [one.corruptions for one in found.values()] == [["fog"], None, ["fog"], ["none"]]
        assert [one.profile for one in found.values()] == ["imagenet-c-bar", None, None, None]

    def test_real_labels_are_of_clean_images_where_no_corruptions_are_named(
        self, tmp_path: Path, folders: dict[str, str]
    ) -> None:
        (only,) = plan(tmp_path, folders["val"], labels=["real.json"]).values()
        assert (only.store.name, only.corruptions) == ("imagenet-real", ["none"])

    def test_the_seed_is_for_images_that_are_corrupted_here(self, tmp_path: Path, folders: dict[str, str]) -> None:
        given = ClassificationOptions(models=(), data=Path(), store=tmp_path / "stores", seed=3, jpeg=False)
        sets = [folders["val"], f"disk={folders['c']}"]
        made, read = plan_sets(sets, given, {})
        assert [(one.seed, one.jpeg) for one in (made, read)] == [(3, False), (0, None)]
        (alone,) = plan_sets(sets[1:], given, {})
        assert alone.seed == 3  # which `prepare` refuses

    def test_the_name_of_a_subset_chooses_its_classes(self, tmp_path: Path, folders: dict[str, str]) -> None:
        found = plan(tmp_path, f"imagenet-r={folders['own']}")["imagenet-r"]
        assert (found.classes, found.corruptions) == ("imagenet-r", ["none"])

    def test_none_for_the_clean_set_by_its_name(self, tmp_path: Path, folders: dict[str, str]) -> None:
        found = plan(tmp_path, folders["val"], corruptions=["imagenet=none"])
        assert {name: one.corruptions for name, one in found.items()} == {"imagenet": ["none"]}

    @pytest.mark.parametrize(
        ("sets", "per_set", "message"),
        [
            (
                ["imagenet-r={own}"],
                {"classes": ["folder"]},
                "expected the classes of imagenet-r in .*own, as its name says, got --classes folder, which numbers",
            ),
            (["imagenet={words}"], {}, "expected the classes of imagenet in .*words, .*got .*: give the set another"),
            (["cifar-10={words}"], {"classes": ["cifar-10=sorted"]}, "expected the classes of cifar-10 in .*words"),
            (["{val}", "{val}"], {}, "sets of different names, got 'imagenet-c' for .*val and for .*val: leave one"),
            (["a/b={val}"], {}, "that of a folder, of letters, .* got 'a/b' in --set a/b=.*: name it without"),
            (["={val}"], {}, "got '' in --set"),
            (["clean_twin={val}"], {}, "another name than clean_twin for a set, got it in --set .*: the store"),
            (["nowhere"], {}, "expected --set to be a folder of images, got nowhere: there is no such folder"),
            (
                ["{val}", "{own}"],
                {},
                "got 4 class folders named by wnids .* which may be ImageNet-R, .*ImageNet's validation set, "
                "ImageNet-Sketch, a set of your own: give it a name, such as --set NAME=.*own; the names imagenet-r",
            ),
            (["imagenet-r={val}"], {}, "expected imagenet-r in .*val, as its name says, got ImageNet, 3 class folders"),
            (["{val}"], {"clean": ["{val}"]}, "--clean with a set that takes it, got .* with imagenet-c: leave it out"),
            (["{val}"], {"profile": ["r=cifar-c"]}, "--profile NAME=VALUE with a set out of imagenet-c, got 'r=cif"),
            (["{r}"], {"clean": ["a", "b"]}, "expected --clean once for the set imagenet-r, got a and b"),
            (
                ["{val}"],
                {"classes": ["text"]},
                "--classes out of imagenet, folder, .*, got 'text' for the set imagenet-c",
            ),
            (["{r}"], {"labels": ["real.json"]}, "expected --labels with a set that takes it, got real.json with"),
        ],
    )
    def test_what_does_not_fit_is_refused(
        self, tmp_path: Path, folders: dict[str, str], sets: list[str], per_set: dict[str, list[str]], message: str
    ) -> None:
        words = {option: [word.format(**folders) for word in given] for option, given in per_set.items()}
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            plan(tmp_path, *(word.format(**folders) for word in sets), **words)

    def test_the_store_of_one_set_is_no_folder_of_stores(self, tmp_path: Path, folders: dict[str, str]) -> None:
        (tmp_path / "stores").mkdir()
        (tmp_path / "stores" / "store.json").write_text("{}")
        with pytest.raises(ValueError, match=r"a folder for the stores of several sets, got .*, the store of one set"):
            plan(tmp_path, folders["val"])


def test_nothing_is_evaluated_where_one_set_does_not_fit(evaluate, tmp_path: Path, cifar: list[str]) -> None:
    three = write_folders(tmp_path / "three", ("ant", "bee", "cat"), side=32)
    err = evaluate(*cifar, "--set", f"own={three}")
    assert "expected a model of 3 classes for 3 class folders named by words" in err
    assert "got 10 classes in 'one'" in err
    assert not Path("stores").exists()


def test_a_store_within_the_images_is_refused(evaluate, cifar: list[str]) -> None:
    """Its folders would be classes in the next call."""
    folder = Path(cifar[1].partition("=")[2])
    said = evaluate(*cifar, "--store", str(folder))
    assert f"expected a store outside of the images, got {folder}" in said
    assert not (folder / "cifar-10").exists()


def test_a_model_of_ten_classes_is_refused_for_a_thousand(evaluate, tmp_path: Path, cifar: list[str]) -> None:
    link_classes(tmp_path / "sketch", imagenet_wnids()[:201], "sketch_0.jpg", (256, 256))
    err = evaluate(*cifar, "--set", "sketch")
    assert "expected a model of 1,000 classes for ImageNet-Sketch, 201 class folders named by wnids in sketch" in err
    assert "got 10 classes in 'one': name a model of these classes" in err
    assert not Path("stores").exists()


def test_the_same_set_under_two_names_is_refused(evaluate, cifar: list[str]) -> None:
    err = evaluate(*cifar, "--set", "again=cifar", "--corruptions", "again=fog", "again=contrast")
    assert "expected each set once, got the same images and conditions in " in err
    assert "cifar (for stores/cifar-10-c) and cifar (for stores/again): leave one out" in err
    assert not Path("stores").exists()


def test_a_twin_without_the_classes_is_refused_before_any_image(evaluate, tmp_path: Path) -> None:
    wnids = [wnid for wnid in imagenet_wnids() if wnid in imagenet_subset("imagenet_r")]
    link_classes(tmp_path / "r", wnids, "art_0.jpg", (256, 256))
    err = evaluate("--set", "r", "--clean", "gone", models="thousand")
    assert "gone" in err
    assert not Path("stores").exists()


def test_labels_of_arrays_are_balanced(tmp_path: Path) -> None:
    """CIFAR-10-C is told by its labels; a set of other labels needs a name."""
    path = write_cifar_c(tmp_path / "odd", labels=np.array([*LABELS, 0], np.uint8))
    with pytest.raises(ValueError, match=r"which may be a set of your own: give it a name"):
        plan(tmp_path, str(path))
