"""What corruption errors are divided by: one decision for the table of `mce` and for reports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as arrow
import pytest

from dtn_det.corruptions import Corruptor
from dtn_det.corruptions.cells import sweep_cells
from dtn_det.metrics.classification import is_at_chance
from dtn_det.robustness.classification.baseline import baseline_remarks, choose_baseline, count_labels, image_side
from dtn_det.robustness.store import Store
from dtn_det.robustness.store.manifest import StoreManifest

CROP = "short side 256 bilinear antialiased, centre 224"
FOUND = {"dataset": "ImageNet", "profile": "imagenet-c", "num_images_found": "50000", "num_classes_found": "1000"}


def manifest(
    classes: str = "imagenet", clean: str = CROP, corruption: str | None = None, **found: str
) -> StoreManifest:
    return StoreManifest(
        "classification", "val", "abc", 100, "limit=100 of 50000 seed=0",
        corruption or Corruptor("imagenet-c").identity,
        sweep_cells(), 64, {"classes": classes, "num_classes": "1000", "clean": clean}, recognised={**FOUND, **found},
    )  # fmt: skip


def test_alexnet_is_the_baseline_of_a_sample_of_imagenets_validation_images() -> None:
    choice = choose_baseline(None, ["a"], [manifest()])
    assert (choice.name, choice.reason, choice.caveat) == ("alexnet", "", "")


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (manifest(num_classes_found="20"), "images of 20 of ImageNet's 1,000 classes"),
        (manifest(clean="64 x 64 as it is", profile="tiny-imagenet-c"), "profile tiny-imagenet-c"),
        (manifest(profile="coco-c"), "profile coco-c"),
        (manifest(dataset="ImageNet-V2"), "the images of ImageNet-V2"),
        (manifest(dataset="ImageNet-Sketch"), "the images of ImageNet-Sketch"),
        (replace(manifest(), protocol={**manifest().protocol, "labels": "Real"}), "Real labels"),
        (manifest(clean=f"{CROP}, after the corruption"), "images that were corrupted before they were cropped"),
    ],
)
def test_alexnet_is_no_baseline_of_other_images_or_classes(one: StoreManifest, reason: str) -> None:
    choice = choose_baseline(None, ["a"], [one])
    assert choice.name is None
    assert baseline_remarks(choice) == [
        f"no CE and mCE against AlexNet, whose errors are known for ImageNet-C alone: got {reason}"
    ]
    with pytest.raises(ValueError, match=f"expected another --baseline than alexnet, .*, got {reason}: name one"):
        choose_baseline("alexnet", ["a"], [one])
    assert choose_baseline("a", ["a"], [one]).name == "a"


def test_classes_of_folders_need_no_word_on_alexnet() -> None:
    choice = choose_baseline(None, ["a"], [manifest("folder", dataset="", profile="cifar-c")])
    assert (choice.name, baseline_remarks(choice)) == (None, [])


@pytest.mark.parametrize(
    ("one", "caveat"),
    [
        (manifest(num_images_found="10000"), "AlexNet's errors are of 50,000 images, and these are from 10,000"),
        (manifest(dataset=""), "these files are not named like them"),
        (manifest(corruption=Corruptor("imagenet-c", jpeg=False).identity), "these images were not compressed"),
    ],
)
def test_what_is_not_certain_is_said_beside_the_numbers(one: StoreManifest, caveat: str) -> None:
    choice = choose_baseline(None, ["a"], [one])
    assert choice.name == "alexnet"
    assert caveat in baseline_remarks(choice)[0]


def old_store(folder: Path, labels: int, corruption: str = "files") -> Store:
    """A store of a version that did not keep what the folder was."""
    one = StoreManifest(
        "classification", "c", "abc", labels, "all", corruption, sweep_cells(), 64,
        {"classes": "imagenet", "num_classes": "1000", "clean": CROP},
    )  # fmt: skip
    table = arrow.table({"key": [f"{number}.JPEG" for number in range(labels)], "label": list(range(labels))})
    return Store.create(folder, one, table)


def test_old_stores_tell_their_classes_by_their_images(tmp_path: Path) -> None:
    whole, part = (old_store(tmp_path / str(labels), labels) for labels in (1000, 20))
    for store, name in ((whole, "alexnet"), (part, None)):
        assert choose_baseline(None, [], [store.manifest], count_labels(store)).name == name


def test_the_store_keeps_what_was_recognised(tmp_path: Path) -> None:
    one = manifest(dataset="ImageNet-V2")
    assert StoreManifest.from_dict(one.to_dict()) == one
    values = one.to_dict()
    del values["recognised"], values["remarks"]
    assert StoreManifest.from_dict(values).recognised == {}


@pytest.mark.parametrize(
    ("error", "images", "classes", "guesses"),
    [
        (0.999, 50_000, 1000, True),
        (0.9987, 50_000, 1000, True),
        (0.998, 50_000, 1000, False),
        (0.43478, 50_000, 1000, False),
        (0.9, None, 10, True),
        (0.89, None, 10, False),
        (0.5, 4, 4, True),
    ],
)
def test_guessing(error: float, images: int | None, classes: int, guesses: bool) -> None:
    assert is_at_chance(error, images, classes) is guesses


def test_the_side_is_read_from_its_field_and_of_old_stores_from_their_words() -> None:
    old = manifest(clean="64 x 64 as it is, after the corruption")
    assert image_side(old) == 64
    assert image_side(replace(old, recognised={**old.recognised, "side": "32"})) == 32
    assert image_side(replace(old, protocol={})) is None
