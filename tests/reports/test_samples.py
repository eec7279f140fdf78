"""Sample images: the pixels that were evaluated, the answers of the records, and refusals of other images."""

from __future__ import annotations

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from report_stores import classifier_answers, classifier_store, detector_store

from dtn_det.corrupted_folders.reading import list_tree, open_tree
from dtn_det.corruptions import ALL, Corruptor
from dtn_det.corruptions.cells import CLEAN, Cell, sweep_cells
from dtn_det.corruptions.transforms import ImageCorruption
from dtn_det.datasets.folders.class_folders import list_images
from dtn_det.datasets.folders.recognise import recognise
from dtn_det.errors import ReportError
from dtn_det.reports.samples import make_samples, thumbnail
from dtn_det.reports.sources import open_sources
from dtn_det.robustness.detection.truth import CocoTruth
from dtn_det.robustness.store import Store
from dtn_det.robustness.store.manifest import hash_lines

CLASSES = ("bird", "cat", "ship")
CELLS = sweep_cells(("gaussian_noise", "fog"), (1, 5))
PAIR = ("ln", "dtn")
MODELS = {"ln": 0, "dtn": 3}
PROTOCOL = {"classes": "folder", "num_classes": "3", "clean": "32 x 32 as it is"}


def write_images(root: Path, seed: int = 0, each: int = 14) -> Path:
    rng = np.random.default_rng(seed)
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        for number in range(each):
            Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(root / name / f"{number:02}.png")
    return root


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def store(tmp_path_factory, pictures) -> Path:
    images = list_images(pictures, "folder")
    folder = tmp_path_factory.mktemp("results") / "store"
    return classifier_store(
        folder, MODELS, images=42, cells=CELLS, data_hash=hash_lines(images.lines()), protocol=PROTOCOL, bad=(0, 1, 2)
    )


def pixels(picture) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(picture.webp)).convert("RGB"))


class TestClassifiers:
    def test_the_pixels_are_those_that_were_evaluated(self, store, pictures):
        gallery = make_samples(open_sources([store]), pictures)
        assert len(gallery.images) == 3
        for image in gallery.images:
            clean = np.array(Image.open(pictures / image.key))
            assert image.size == (32, 32)
            assert [picture.cell for picture in image.pictures] == list(CELLS)
            for picture in image.pictures:
                wanted = clean if picture.cell == CLEAN else Corruptor("cifar-c")(clean, *picture.cell, image.key)
                assert np.array_equal(pixels(picture), wanted)

    def test_answers_are_those_of_the_records(self, store, pictures):
        keys = [image.key for image in list_images(pictures, "folder").images]
        for image in make_samples(open_sources([store]), pictures).images:
            assert image.truth == image.key.partition("/")[0]
            for cell, picture in enumerate(image.pictures):
                for name, seed in MODELS.items():
                    wanted = {key: column[keys.index(image.key), cell] for key, column in
                              classifier_answers(seed, 42, CELLS).items()}  # fmt: skip
                    answer = picture.answers[name]
                    assert answer.right == wanted["correct"]
                    assert answer.text == f"{CLASSES[wanted['prediction']]} {100 * wanted['confidence']:.0f} %"

    def test_images_follow_from_the_seed_and_are_none_of_the_bad_ones(self, store, pictures):
        keys = [image.key for image in list_images(pictures, "folder").images]

        def chosen(seed):
            return [image.key for image in make_samples(open_sources([store]), pictures, seed=seed).images]

        assert chosen(1) == chosen(1)
        found = [chosen(seed) for seed in range(8)]
        assert len({tuple(one) for one in found}) > 1
        assert not {key for one in found for key in one} & set(keys[:3])
        assert all(one == sorted(one) for one in found)

    def test_disagreements_are_the_largest_of_all(self, store, pictures):
        gallery = make_samples(open_sources([store]), pictures, [PAIR])
        keys = [image.key for image in list_images(pictures, "folder").images]
        answers = [classifier_answers(MODELS[name], 42, CELLS)["true_probability"] for name in PAIR]
        gain = (answers[1] - answers[0])[3:]
        for better, worse, values in (("dtn", "ln", gain), ("ln", "dtn", -gain)):
            shown = [one.image for one in gallery.disagreements if (one.better, one.worse) == (better, worse)]
            best = np.argsort(-values.max(1))[: len(shown)]
            assert len(shown) == 4
            assert [one.key for one in shown] == [keys[3 + place] for place in best]
            assert [one.pictures[0].cell for one in shown] == [CELLS[values[place].argmax()] for place in best]
        assert any("ln and dtn differ most" in remark for remark in gallery.remarks)

    def test_a_selection(self, tmp_path, pictures):
        images = list_images(pictures, "folder", 20, 5)
        store = classifier_store(
            tmp_path / "store", MODELS, images=20, cells=CELLS, data_hash=hash_lines(images.lines()),
            selection=images.selection,
            protocol=PROTOCOL,
        )  # fmt: skip
        keys = {image.key for image in images.images}
        assert {image.key for image in make_samples(open_sources([store]), pictures).images} <= keys

    def test_units_that_some_model_lacks_are_left_out(self, tmp_path, pictures):
        images = list_images(pictures, "folder")
        fields = {"images": 42, "cells": CELLS, "data_hash": hash_lines(images.lines()), "protocol": PROTOCOL}
        classifier_store(tmp_path / "store", {"ln": 0}, **fields)
        classifier_store(tmp_path / "store", {"dtn": 1}, **fields, units=[1])
        unit = {image.key for image in images.images[16:32]}
        for seed in range(4):
            gallery = make_samples(open_sources([tmp_path / "store"]), pictures, [PAIR], seed=seed)
            assert {image.key for image in gallery.images} <= unit
            assert {one.image.key for one in gallery.disagreements} <= unit

    def test_corrupted_images_on_disk(self, tmp_path, pictures):
        for seed, cell in enumerate(CELLS[1:]):
            write_images(tmp_path / "tree" / cell.corruption / str(cell.severity), seed + 1)
        tree = open_tree(recognise(tmp_path / "tree"))
        _, lines = list_tree(tree, CELLS[1:], "folder", None, 0)
        store = classifier_store(
            tmp_path / "store", MODELS, images=42, cells=CELLS, data_hash=hash_lines(lines), corruption=tree.identity,
            protocol=PROTOCOL,
        )  # fmt: skip
        gallery = make_samples(open_sources([store]), tmp_path / "tree", [PAIR])
        for image in gallery.images:
            assert [picture.cell for picture in image.pictures] == list(CELLS[1:])
            fog = next(picture for picture in image.pictures if picture.cell == Cell("fog", 5))
            assert np.array_equal(pixels(fog), np.array(Image.open(tmp_path / "tree/fog/5" / image.key)))
        with_clean = make_samples(open_sources([store]), tmp_path / "tree", clean=pictures)
        first = with_clean.images[0]
        assert np.array_equal(pixels(first.pictures[0]), np.array(Image.open(pictures / first.key)))

    def test_classes_of_imagenet_have_names(self, tmp_path):
        names = {"n01440764": "tench", "n01443537": "goldfish", "n02012849": "crane", "n15075141": "toilet tissue"}
        for number, wnid in enumerate(names):
            (tmp_path / "val" / wnid).mkdir(parents=True)
            Image.new("RGB", (300, 260), (number, 50, 90)).save(tmp_path / "val" / wnid / "image.png")
        images = list_images(tmp_path / "val", "imagenet")
        protocol = {"classes": "imagenet", "num_classes": "1000", "clean": "short side 256, centre 224"}
        store = classifier_store(
            tmp_path / "store", MODELS, images=4, cells=CELLS, data_hash=hash_lines(images.lines()), protocol=protocol,
            corruption=Corruptor().identity,
        )  # fmt: skip
        found = make_samples(open_sources([store]), tmp_path / "val").images
        assert [image.truth for image in found] == [names[image.key.partition("/")[0]] for image in found]
        assert found[0].size == (224, 224)
        texts = {answer.text.rpartition(" ")[0].rpartition(" ")[0] for answer in found[0].pictures[0].answers.values()}
        assert texts <= {"goldfish", "great white shark"}

    def test_other_images(self, store, tmp_path):
        other = write_images(tmp_path / "other", each=13)
        with pytest.raises(ReportError, match=r"pictures \(42 images, .*, got .*other \(39 images, .*--data"):
            make_samples(open_sources([store]), other)

    def test_no_such_folder(self, store, tmp_path):
        with pytest.raises(FileNotFoundError, match="expected --data to be a folder of images"):
            make_samples(open_sources([store]), tmp_path / "nowhere")

    def test_imported_results_have_no_images(self, store, pictures):
        sources = open_sources([store])
        with pytest.raises(ReportError, match="got imported results: leave out --data"):
            make_samples(type(sources)(sources.task, {}), pictures)


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> tuple[Path, Path]:
    """A store of two detectors, and its image folder."""
    root = tmp_path_factory.mktemp("detection")
    store = detector_store(root / "store", {"ln": 0, "dtn": 8}, cells=CELLS, bad=(0,))
    (root / "data" / "val").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(1, 25):
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)).save(root / "data" / "val" / f"{number}.png")
        (root / "data" / "val" / f"{number}.png").rename(root / "data" / "val" / f"{number}.jpg")
    sizes = [(root / "data" / "val" / f"{number}.jpg").stat().st_size for number in range(1, 25)]
    manifest = json.loads((store / "store.json").read_text())
    manifest["data_hash"] = CocoTruth.of(Store.open(store)).hash(sizes)
    (store / "store.json").write_text(json.dumps(manifest))
    return store, root / "data"


class TestDetectors:
    def test_the_images_are_found_below_the_data_root(self, scene, tmp_path):
        store, data = scene
        (tmp_path / "root" / "images").mkdir(parents=True)
        (tmp_path / "root" / "images" / "val2017").symlink_to(data / "val")
        found = make_samples(open_sources([store]), tmp_path / "root")
        assert len(found.images) == 2

    def test_the_pixels_are_those_of_the_pipeline(self, scene):
        store, data = scene
        gallery = make_samples(open_sources([store]), data)
        assert len(gallery.images) == 2
        for image in gallery.images:
            bgr = cv2.imread(str(data / "val" / image.key))
            number = int(image.key.partition(".")[0])
            for picture in image.pictures:
                name = picture.cell.corruption if picture.cell.severity else "fog"
                step = ImageCorruption(name, picture.cell.severity)
                wanted = step({"img": bgr.copy(), "img_id": number})["img"][..., ::-1]
                assert np.array_equal(pixels(picture), wanted)

    def test_boxes_and_what_they_are_worth(self, scene):
        store, data = scene
        model = Store.open(store).model("dtn")
        for image in make_samples(open_sources([store]), data / "val").images:
            assert len(image.objects) == 3
            assert image.truth
            number = int(image.key.partition(".")[0]) - 1
            rows = model.read(number // 8).to_pylist()
            for place, picture in enumerate(image.pictures):
                (row,) = [row for row in rows if (row["image"], row["cell"]) == (number, place)]
                boxes = picture.answers["dtn"].boxes
                assert [round(box.score, 5) for box in boxes] == sorted(
                    (round(score, 5) for score in row["scores"] if score >= 0.3), reverse=True
                )
                best = int(np.argmax(row["scores"]))
                assert boxes[0].corners == pytest.approx(row["boxes"][4 * best : 4 * best + 4], abs=0.06)
                right = sum(box.right for box in boxes)
                assert picture.answers["dtn"].text == f"{right}/3 found, {len(boxes) - right} false"

    def test_disagreements(self, scene):
        store, data = scene
        gallery = make_samples(open_sources([store]), data, [PAIR])
        assert any("Of 23 images" in remark for remark in gallery.remarks)
        shown = [one for one in gallery.disagreements if one.better == "dtn"]
        assert len(shown) == 3
        for one in shown:
            (picture,) = one.image.pictures
            found = {name: int(answer.text.partition("/")[0]) for name, answer in picture.answers.items()}
            assert found["dtn"] > found["ln"]

    def test_bad_images_are_not_taken(self, scene):
        store, data = scene
        for seed in range(4):
            gallery = make_samples(open_sources([store]), data, seed=seed)
            assert "1.jpg" not in {image.key for image in gallery.images}

    def test_other_images(self, scene, tmp_path):
        store, _ = scene
        (tmp_path / "nothing").mkdir()
        with pytest.raises(ReportError, match=r"such as 1\.jpg, got none of that name in .*nothing"):
            make_samples(open_sources([store]), tmp_path / "nothing")
        (tmp_path / "some").mkdir()
        (tmp_path / "some" / "1.jpg").write_bytes(b"x")
        with pytest.raises(ReportError, match=r"expected all 24 images .*got 23 missing, such as 2\.jpg"):
            make_samples(open_sources([store]), tmp_path / "some")
        for number in range(1, 25):
            (tmp_path / "some" / f"{number}.jpg").write_bytes(b"x")
        with pytest.raises(ReportError, match=r"hash \w{12}\), got others of the same names in .*hash \w{12}"):
            make_samples(open_sources([store]), tmp_path / "some")
        with pytest.raises(FileNotFoundError, match="expected --data to be a folder"):
            make_samples(open_sources([store]), tmp_path / "nowhere")

    def test_images_that_cannot_be_read(self, scene, tmp_path):
        store, data = scene
        for path in (data / "val").iterdir():
            (tmp_path / path.name).write_bytes(bytes(path.stat().st_size))
        with pytest.raises(ReportError, match=r"expected an image in .*\.jpg, got a file that cannot be read"):
            make_samples(open_sources([store]), tmp_path)

    def test_clean_images_are_for_classifiers(self, scene):
        store, data = scene
        with pytest.raises(ReportError, match="expected --clean with classifiers only"):
            make_samples(open_sources([store]), data, clean=data)


class TestThumbnails:
    def test_small_pictures_are_kept_without_loss(self):
        picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
        webp, size = thumbnail(picture, 224)
        assert size == (64, 48)
        assert np.array_equal(np.array(Image.open(io.BytesIO(webp))), picture)

    def test_large_ones_are_made_smaller(self):
        webp, size = thumbnail(np.zeros((480, 640, 3), np.uint8), 320)
        assert size == (320, 240)
        assert Image.open(io.BytesIO(webp)).size == size

    @pytest.mark.parametrize(("shape", "longest", "images"), [((224, 224), 224, 3), ((240, 320), 320, 2)])
    def test_the_page_stays_below_15_megabytes(self, shape, longest, images):
        rng = np.random.default_rng(0)
        shades = Image.fromarray(rng.integers(0, 255, (shape[0] // 6, shape[1] // 6, 3), np.uint8))
        photo = np.array(shades.resize(shape[::-1], Image.Resampling.BICUBIC))
        corruptor = Corruptor("coco-c")
        cells = [cell for cell in sweep_cells(ALL, (1, 3, 5)) if cell != CLEAN]
        count = sum(len(thumbnail(corruptor(photo, *cell), longest)[0]) for cell in cells)
        # Five severities of each image, and those on which two models differ; base64 adds a third, plotly takes 2 MB.
        assert (count * 5 / 3 * images + 8 * count / len(cells)) * 4 / 3 < 12e6
