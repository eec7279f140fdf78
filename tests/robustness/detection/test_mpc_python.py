"""`dtn-det mpc` with functions of the user, without a config: models, category ids, data and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("hotcoco", reason="detections are evaluated by it")

from dtn_det.cli.main import main
from dtn_det.robustness.detection.evaluation import read_cells
from dtn_det.robustness.detection.truth import CocoTruth
from dtn_det.robustness.store import Store

FEW = ("--corruptions", "contrast", "--severities", "2", "--unit-size", "2", "--device", "cpu", "--workers", "0")

Results = list[dict[str, Any]]


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An empty module `user_models`, in which a test puts its functions."""
    module = ModuleType("user_models")
    monkeypatch.setitem(sys.modules, "user_models", module)
    return module


@pytest.fixture
def run(coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs `dtn-det mpc` with models on the small set: the exit code, and all that it prints on one line."""

    def mpc(*words: str, store: str = "store", root: Path = coco) -> tuple[int, str]:
        code = main(["mpc", *words, "--data-root", str(root), "--store", str(tmp_path / store), *FEW])
        captured = capsys.readouterr()
        return code, " ".join((captured.out + captured.err).split())

    return mpc


def one_box(images: list[np.ndarray]) -> Results:
    """A box, which depends on the pixels, in each image."""
    found = []
    for image in images:
        assert image.dtype == np.uint8
        score = float(image.mean()) / 255
        found.append({"boxes": [[2, 3, 20, 30]], "scores": [score], "category_ids": [2]})
    return found


def records(folder: Path, name: str, cell: int = 0) -> Any:
    (found,) = read_cells(Store.open(folder).model(name), [cell])
    return found


class Perfect:
    """A detector that knows the answers, by the size and content of the clean image."""

    def __init__(self, root: Path, shift: int = 0) -> None:
        import cv2

        content = json.loads((root / "coco.json").read_text())
        self.answers = []
        for row in content["images"]:
            pixels = cv2.imread(str(root / "images" / row["file_name"]))[..., ::-1]
            objects = [one for one in content["annotations"] if one["image_id"] == row["id"] and not one["iscrowd"]]
            self.answers.append((pixels, objects))
        self.shift = shift

    def __call__(self, images: list[np.ndarray]) -> Results:
        return [self.one(image) for image in images]

    def one(self, image: np.ndarray) -> dict[str, Any]:
        objects = next((found for pixels, found in self.answers if np.array_equal(pixels, image)), [])
        boxes = torch.tensor([one["bbox"] for one in objects], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = np.zeros((len(objects), *image.shape[:2]), bool)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y1:y2, x1:x2] = True
        ids = [one["category_id"] + self.shift for one in objects]
        return {"boxes": boxes, "scores": torch.ones(len(objects)), "category_ids": ids, "masks": masks}


def test_a_function_that_knows_the_answers_has_perfect_clean_boxes_and_masks(user, run, coco, tmp_path) -> None:
    user.perfect = Perfect(coco)
    code, text = run("mine=python:user_models:perfect")
    assert code == 0, text
    assert "mine: 3 categories are numbered as they are known from the contract of python: models" in text
    clean, corrupted = records(tmp_path / "store", "mine"), records(tmp_path / "store", "mine", 1)
    assert len(clean.scores) == 12
    assert len(corrupted.scores) == 0
    assert "100.0" in text.partition("Boxes:")[2].partition("Masks:")[0]
    assert "100.0" in text.partition("Masks:")[2]


def test_several_models_share_images_and_continue(user, run, tmp_path) -> None:
    calls: list[tuple[str, int]] = []

    def counted(name: str) -> Callable[[list[np.ndarray]], Results]:
        return lambda images: [calls.append((name, len(images))) or one for one in one_box(images)]

    user.a, user.b = counted("a"), counted("b")
    assert run("python:user_models:a", "python:user_models:b", "--names", "first", "second")[0] == 0
    first, second = (records(tmp_path / "store", name, 1) for name in ("first", "second"))
    np.testing.assert_array_equal(first.scores, second.scores)
    assert len(first.scores) == 5
    before = len(calls)
    (tmp_path / "store" / "models" / "second" / "unit-000001.parquet").unlink()
    assert run("first=python:user_models:a", "second=python:user_models:b")[0] == 0
    # One trial of each model with the first image, and the two images of the unit that was lost, under two cells.
    assert [name for name, _ in calls[before:]].count("a") == 1
    assert [name for name, _ in calls[before:]].count("b") == 1 + 4
    np.testing.assert_array_equal(records(tmp_path / "store", "second", 1).scores, second.scores)


def test_a_model_beside_one_of_mmdetection_gets_the_same_pixels(user, run, detector, tmp_path) -> None:
    user.own = one_box
    assert run("python:user_models:own")[0] == 0
    assert run(*detector, "python:user_models:own", store="both")[0] == 0
    assert run(f"{detector[0]}@{detector[1]}", store="alone")[0] == 0
    for cell in (0, 1):
        for store, name in (("store", "own"), ("alone", "tiny")):
            alone, both = records(tmp_path / store, name, cell), records(tmp_path / "both", name, cell)
            np.testing.assert_array_equal(alone.scores, both.scores)
            np.testing.assert_array_equal(alone.boxes, both.boxes)
    # The data of the folder are the data of the config, so that one store takes both.
    assert CocoTruth.of(Store.open(tmp_path / "store")) == CocoTruth.of(Store.open(tmp_path / "alone"))
    assert run(*detector, store="store")[0] == 0
