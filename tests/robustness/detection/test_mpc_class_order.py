"""`dtn-det mpc` takes labels by the names of classes, whatever the order of a file's categories."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mmdet", reason="detectors need MMDetection")

import torch
from coco_summary import summaries
from detection_files import CLASSES

from dtn_det.cli.main import main
from dtn_det.robustness.store import ModelStore, Store

FEW = ("--corruptions", "contrast", "--severities", "1", "--unit-size", "8", "--device", "cpu", "--workers", "0")
ORDER = ("bar", "disc", "square")
KEY = "train_dataloader.dataset"

Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def found_again(detector: tuple[str, str], coco: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images with what the detector finds in them as their objects, so that AP is high only if labels are right."""
    folder = tmp_path_factory.mktemp("found")
    assert main(["mpc", *detector, "--store", str(folder / "store"), *FEW]) == 0
    model = only_model(folder / "store")
    content = json.loads((coco / "coco.json").read_text())
    numbers = [image["id"] for image in content["images"]]
    objects: list[dict[str, Any]] = []
    for table in model.batches(["image", "cell", "boxes", "scores", "labels"]):
        for row in table.to_pylist():
            for label in sorted(set(row["labels"])) if row["cell"] == 0 else ():
                place = row["labels"].index(label)
                x, y, right, bottom = row["boxes"][4 * place : 4 * place + 4]
                box = {"bbox": [x, y, right - x, bottom - y], "area": (right - x) * (bottom - y), "iscrowd": 0}
                mask = {"segmentation": [[x, y, right, y, right, bottom, x, bottom]]}
                number = {"id": len(objects) + 1, "image_id": numbers[row["image"]], "category_id": label + 1}
                objects.append({**number, **box, **mask})
    content["annotations"] = objects
    (folder / "images").symlink_to(coco / "images")
    for name, order in (("coco.json", CLASSES), ("other.json", ORDER)):
        categories = [{"id": CLASSES.index(one) + 1, "name": one} for one in order]
        (folder / name).write_text(json.dumps({**content, "categories": categories}))
    return folder


def only_model(store: Path) -> ModelStore:
    (model,) = Store.open(store).models().values()
    return model


@pytest.fixture
def mpc(detector: tuple[str, str], found_again: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(file: str, *options: str, checkpoint: str = detector[1], store: str = "store") -> tuple[int, str]:
        settings = [f"test_dataloader.dataset.ann_file={file}", *options]
        arguments = ["mpc", detector[0], checkpoint, "--store", str(tmp_path / store), *FEW]
        code = main([*arguments, "--data-root", str(found_again), "--cfg-options", *settings])
        return code, " ".join(capsys.readouterr().err.split())

    return run


@pytest.fixture
def named(detector: tuple[str, str], tmp_path: Path) -> Callable[..., str]:
    """The checkpoint with names of classes, as MMDetection's training writes them."""

    def write(*names: str, **more: object) -> str:
        content = torch.load(detector[1])
        content["meta"] = {"dataset_meta": {"classes": names, **more}}
        torch.save(content, tmp_path / "named.pth")
        return str(tmp_path / "named.pth")

    return write


def test_labels_go_by_name(mpc: Run, named: Callable[..., str], found_again: Path, tmp_path: Path) -> None:
    assert mpc("coco.json", store="a")[0] == 0
    right = summaries(only_model(tmp_path / "a"))
    assert right["bbox"].loc[right["bbox"]["corruption"] == "clean", "AP50"].item() > 0.3
    for store, checkpoint in (("b", None), ("c", named(*CLASSES))):
        more = {} if checkpoint is None else {"checkpoint": checkpoint}
        code, err = mpc("other.json", f"{KEY}.ann_file={found_again / 'coco.json'}", store=store, **more)
        assert code == 0
        assert "other.json: 3 categories stand in another order than the labels of the model" in err
        assert "labels were matched by name (bar, disc, square)" in err
        model = only_model(tmp_path / store)
        found = summaries(model)
        for kind in ("bbox", "segm"):
            assert found[kind].equals(right[kind])
        assert json.loads(model.manifest.protocol["labels"]) == list(CLASSES)
        assert model.manifest.facts.training["label order"] == "training file"


def test_files_of_one_order_give_no_warning(mpc: Run, named: Callable[..., str], found_again: Path) -> None:
    """Also where config and checkpoint list the classes in another, which MMDetection does not go by."""
    train = f"{KEY}.ann_file={found_again / 'coco.json'}"
    order = "('bar','disc','square')"
    code, err = mpc("coco.json", train, f"{KEY}.metainfo.classes={order}", checkpoint=named(*ORDER))
    assert code == 0
    assert "order" not in err
    assert "warning" not in err


def test_a_checkpoint_says_its_order(mpc: Run, named: Callable[..., str]) -> None:
    checkpoint = named(*CLASSES, classes_in_label_order=True)
    code, err = mpc("other.json", checkpoint=checkpoint)
    assert code == 0
    assert "known from" in err


def test_an_order_that_cannot_be_known_is_refused(mpc: Run, named: Callable[..., str], tmp_path: Path) -> None:
    for checkpoint in ({}, {"checkpoint": named(*CLASSES)}):
        code, err = mpc("other.json", **checkpoint)
        assert code == 1
        assert "got 'bar' for 'disc', 'disc' for 'square', 'square' for 'bar' in place 0 and later" in err
        assert "name it by its whole path (its categories suffice) with --cfg-options train_dataloader" in err
    categories = [{"id": place, "name": name} for place, name in enumerate(CLASSES)]
    (tmp_path / "train.json").write_text(json.dumps({"categories": categories}))
    assert mpc("other.json", f"{KEY}.ann_file={tmp_path / 'train.json'}")[0] == 0


def test_names_that_the_file_lacks(mpc: Run, found_again: Path) -> None:
    content = json.loads((found_again / "coco.json").read_text())
    content["categories"][1]["name"] = "Square "
    (found_again / "named.json").write_text(json.dumps(content))
    code, err = mpc("named.json")
    assert code == 1
    assert "got 3 without 'square' (there is 'Square ', which differs from 'square' in case and blanks)" in err
