"""`dtn-det mpc` with functions of the user, without a config: models, category ids, data and what is refused."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("hotcoco", reason="detections are evaluated by it")

from dtn_det.cli.main import main
from dtn_det.corruptions.cells import sweep_cells
from dtn_det.corruptions.engine import Corruptor
from dtn_det.errors import InputError
from dtn_det.robustness.detection.evaluation import read_cells
from dtn_det.robustness.detection.folders import read_folder
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
    assert run(*detector, f"twin={detector[0]}@{detector[1]}", "python:user_models:own", store="both")[0] == 0
    assert run(f"{detector[0]}@{detector[1]}", store="alone")[0] == 0
    for cell in (0, 1):
        for store, name, other in (("store", "own", "own"), ("alone", "tiny", "tiny"), ("alone", "tiny", "twin")):
            alone, both = records(tmp_path / store, name, cell), records(tmp_path / "both", other, cell)
            np.testing.assert_array_equal(alone.scores, both.scores)
            np.testing.assert_array_equal(alone.boxes, both.boxes)
    # The data of the folder are the data of the config, so that one store takes both.
    assert CocoTruth.of(Store.open(tmp_path / "store")) == CocoTruth.of(Store.open(tmp_path / "alone"))
    assert run(*detector, store="store")[0] == 0


def test_a_model_of_torchvision_with_what_the_store_knows_of_it(run, ssd_file, tmp_path) -> None:
    code, text = run(f"torchvision:ssdlite320_mobilenet_v3_large@{ssd_file}", "--batch-size", "2", "--limit", "1")
    assert code == 0, text
    assert "3 categories are numbered as they are known from the names in 'classes' of" in text
    manifest = Store.open(tmp_path / "store").model("ssdlite320_mobilenet_v3_large").manifest
    assert manifest.protocol["adapter"] == "torchvision"
    assert "torchvision" in manifest.versions
    assert len(manifest.weights_hash) == 64
    assert manifest.num_parameters > 1e6
    assert manifest.facts.training["label order"].startswith("the names in 'classes'")


def of(**values: Any) -> Callable[[list[np.ndarray]], Results]:
    """A function that gives the same values for every image."""
    base = {"boxes": [[2, 3, 20, 30], [4, 4, 40, 40]], "scores": [0.5, 0.25], "category_ids": [1, 2]}
    return lambda images: [{**base, **values} for _ in images]


MASKS = np.zeros((2, 48, 64), bool)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (of(boxes=[[2, 3, 20, 30]]), r"boxes \(n, 4\), scores \(n,\) and category_ids \(n,\).* got boxes \(1, 4\)"),
        (of(boxes=[[30, 20, 10, 9], [40, 10, 12, 6]]), r"x2 >= x1 .* got \(30, 20, 10, 9\) .* look like x, y, width"),
        (of(boxes=[[60, 40, 50, 45], [4, 4, 4, 4]]), "return the left, upper, right and lower edge"),
        (of(boxes=[[0.1, 0.2, 0.4, 0.9], [0, 0, 1, 1]]), "boxes in pixels of 64 x 48 .* below 1.5 .* multiply them"),
        (of(boxes=[[0, 0, np.inf, 3], [4, 4, 4, 4]]), "expected finite boxes .* got inf"),
        (of(boxes="none"), "expected an array of numbers as boxes"),
        (of(scores=[0.5, float("nan")]), "expected finite scores .* got nan"),
        (of(scores=[0.5, 30]), "expected scores from 0 to 1 .* got 30 .* sigmoid"),
        (
            of(category_ids=[0, 1]),
            r"3 category ids \(1 to 3\).* got 0 for .* --category-ids, such as index, which explains",
        ),
        (of(category_ids=[1.5, 1]), "expected whole numbers as category_ids .* got 1.5"),
        (of(masks=MASKS[:, :40]), r"masks of 48 x 64 .* got an array of shape \(2, 40, 64\)"),
        (of(masks=MASKS[:1]), r"expected 2 masks \(one for each box\) .* got 1"),
        (of(masks=MASKS + 0.4), "masks of 0 and 1 .* got 0.4 .* threshold"),
        (of(masks=[{"size": [64, 48], "counts": [64 * 48]}] * 2), r"got run lengths of \[64, 48\]"),
        (lambda images: [{"boxes": []} for _ in images], "a mapping with boxes, scores, category_ids .* got"),
        (lambda images: of()(images)[1:], "expected a list of 1 result from .* got 0"),
        (lambda images: of()(images)[0], "expected a list of 1 result from .* got dict"),
        (lambda images: 1 / 0, "to detect objects in .*, got ZeroDivisionError"),
    ],
)
def test_output_that_cannot_be_right_is_refused_with_model_image_and_value(user, run, function, said) -> None:
    user.wrong = function
    code, text = run("bad=python:user_models:wrong")
    assert code == 1
    assert "the model 'bad'" in text
    assert "000000000007.jpg" in text
    assert re.search(said, text), text


def test_boxes_of_another_scale_are_refused(user, run) -> None:
    user.large = of(boxes=[[200, 90, 300, 180]] * 4, scores=[0.5] * 4, category_ids=[1] * 4)
    code, text = run("python:user_models:large")
    assert code == 1
    assert "expected boxes within 64 x 48 pixels" in text
    assert "scale them from the size of the model's input" in text


def test_masks_are_kept_as_arrays_or_run_lengths_alike(user, run, tmp_path) -> None:
    def arrays(images: list[np.ndarray]) -> Results:
        masks = np.zeros((2, *images[0].shape[:2]), np.uint8)
        masks[:, 3:30, 2:20] = 1
        return of(masks=masks)(images)

    def lengths(images: list[np.ndarray]) -> Results:
        mask = np.zeros(images[0].shape[:2], np.uint8)
        mask[3:30, 2:20] = 1
        flat = mask.reshape(-1, order="F")
        starts = [0, *(np.flatnonzero(np.diff(flat)) + 1), len(flat)]
        run_lengths = {"size": list(mask.shape), "counts": np.diff(starts).tolist()}
        return of(masks=[run_lengths] * 2)(images)

    user.arrays, user.lengths = arrays, lengths
    assert run("python:user_models:arrays", "python:user_models:lengths")[0] == 0
    one, other = (records(tmp_path / "store", name) for name in ("arrays", "lengths"))
    assert len(one.masks) == 10
    assert one.masks.tolist() == other.masks.tolist()


def test_masks_for_some_images_alone_are_refused(user, run) -> None:
    def sometimes(images: list[np.ndarray]) -> Results:
        shape = images[0].shape[:2]
        return of(**({"masks": np.zeros((2, *shape), bool)} if shape == (48, 64) else {}))(images)

    user.sometimes = sometimes
    code, text = run("python:user_models:sometimes")
    assert code == 1
    assert "expected the model 'sometimes' to give masks for all images or for none, got masks for the first" in text


def test_names_and_options_tell_what_ids_mean(user, run, coco, tmp_path) -> None:
    class Named(Perfect):
        names = ("background", "Disc", "square", "bar", "spoon")

    user.named = Named(coco)
    user.shifted = Perfect(coco, shift=-1)
    shifted = "shifted=python:user_models:shifted"
    code, text = run("python:user_models:named", shifted, "--category-ids", "shifted=index")
    assert code == 0, text
    assert "1 class of the model without a category in the data is left out (spoon)" in text
    assert "3 categories are numbered as they are known from --category-ids index" in text
    one, other = (records(tmp_path / "store", name) for name in ("named", "shifted"))
    assert len(one.labels) == 12
    np.testing.assert_array_equal(one.labels, other.labels)
    # Other meanings of the ids give other records, which do not enter the same model of the store.
    user.shifted = Perfect(coco)
    code, text = run(shifted, "--category-ids", "index1")
    assert code == 1
    assert "category_ids: the store has" in text


def test_functions_that_make_a_detector_and_what_is_known_of_weights(user, run, tmp_path) -> None:
    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def forward(self, images: list[np.ndarray]) -> Results:
            assert not self.training
            assert not torch.is_grad_enabled()
            return one_box(images)

    user.make = Network
    user.plain = one_box
    code, text = run("python:user_models:make", "python:user_models:plain")
    assert code == 0, text
    assert "model without a torch module that can be seen: the store knows it by test_mpc_python.py" in text
    models = Store.open(tmp_path / "store").models()
    assert models["make"].manifest.num_parameters == 2
    assert models["plain"].manifest.num_parameters == 0
    assert models["plain"].manifest.weights_hash != models["make"].manifest.weights_hash
    # A function that was mended is another model.
    user.__file__ = str(tmp_path / "user_models.py")
    (tmp_path / "user_models.py").write_text("mended")
    code, text = run("python:user_models:make")
    assert code == 1
    assert "code: the store has" in text
    user.make = lambda: 3
    assert "to return a function from a list of images to boxes, got int" in run("python:user_models:make")[1]


def test_data_are_found_in_the_folder_or_refused(user, run, coco, tmp_path) -> None:
    user.own = one_box
    root = tmp_path / "set"
    notes = root / "annotations"
    notes.mkdir(parents=True)
    shutil.copytree(coco / "images", root / "val2017")
    shutil.copy(coco / "coco.json", notes / "instances_train2017.json")
    shutil.copy(coco / "coco.json", notes / "instances_val2017.json")
    (notes / "captions_val2017.json").write_text("{}")
    found = read_folder(root)
    assert (found.name, found.selection) == ("annotations/instances_val2017.json", "all")
    assert found.paths[0] == str(root / "val2017" / "000000000007.jpg")
    assert "1 annotation file taken of 2, because its images are those of COCO-C" in found.remarks[0].sentence()
    (notes / "instances_val2017.json").rename(notes / "test.json")
    with pytest.raises(InputError, match=r"got 2: annotations/instances_train2017.json, annotations/test.json: name"):
        read_folder(root)
    (notes / "instances_train2017.json").unlink()
    assert read_folder(root).name == "annotations/test.json"
    shutil.copytree(root / "val2017", root / "images")
    assert read_folder(root).paths[0] == str(root / "images" / "000000000007.jpg")
    # Of two folders with the images, the one that the annotation file is named after is taken.
    shutil.copytree(root / "val2017", root / "test")
    assert read_folder(root).paths[0] == str(root / "test" / "000000000007.jpg")
    (root / "test").rename(notes / "images")
    with pytest.raises(InputError, match=r"expected one folder with the images of .* name one with --images"):
        read_folder(root)
    by_hand = read_folder(root, Path("annotations/test.json"), Path("val2017"))
    assert by_hand.paths[0] == str(root / "val2017" / "000000000007.jpg")
    for folder in (root / "images", notes / "images"):
        shutil.rmtree(folder)
    # One folder below has them all, under any name.
    assert read_folder(root).paths[0] == str(root / "val2017" / "000000000007.jpg")
    next((root / "val2017").iterdir()).unlink()
    with pytest.raises(InputError, match=r"expected the images of .* name their folder with --images"):
        read_folder(root)
    with pytest.raises(InputError, match="got none: name it with --ann"):
        read_folder(root / "val2017")
    with pytest.raises(InputError, match="expected --data-root DIR or --ann FILE, got neither"):
        read_folder(None)
    with pytest.raises(FileNotFoundError, match=r"as --ann, got other.json"):
        read_folder(root, Path("other.json"))


def test_images_are_read_as_their_annotated_sizes_say(tmp_path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "1.png", exif=exif)
    rows = {"categories": [{"id": 1, "name": "cat"}]}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 9, 9], "area": 81, "iscrowd": 0}
    for (height, width), stored in (((48, 64), True), ((64, 48), False)):
        image = {"id": 1, "file_name": "1.png", "height": height, "width": width}
        (tmp_path / "a.json").write_text(json.dumps({**rows, "images": [image], "annotations": [box]}))
        found = read_folder(tmp_path)
        assert found.as_stored is stored
        assert any(remark.kind == "read_as_stored" for remark in found.remarks) is stored
        item = found.images(sweep_cells(()), Corruptor("coco-c"), [], pixels=True)[0]
        wanted = pixels if stored else np.rot90(pixels, -1)
        np.testing.assert_array_equal(item.pixels[0].numpy(), wanted)


def test_options_that_do_not_go_together_are_refused(user, run, detector) -> None:
    user.own = one_box
    pair = f"{detector[0]}@{detector[1]}"
    for words, said in (
        (("python:user_models:own", "--category-ids", "names"), "expected --category-ids out of dataset, index"),
        (("python:user_models:own", "--cfg-options", "a=1"), "expected a config of MMDetection for --cfg-options"),
        ((pair, "--ann", "coco.json"), "expected the data of the config, got --ann"),
        (("a=python:user_models:own", "a=python:user_models:own"), "models of different names, got a twice"),
        (("python:user_models:own", "--names", "a", "b"), "expected --names for 1 model, got 2"),
        (("unknown",), "expected MODEL to be CONFIG CHECKPOINT"),
        ((detector[0], "python:user_models:own"), "tiny.py' alone: name the model, or its checkpoint"),
        (("python:user_models:own", "--category-ids", "other=index"), "a model that is no config of MMDetection (own"),
        ((pair, "--category-ids", "index"), "a model that is no config of MMDetection (none here), got 'index'"),
        (("python:user_models",), "expected python:MODULE:FUNCTION"),
    ):
        code, text = run(*words)
        assert code == 1
        assert said in text
