from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtn_det.demo.dataset import GENERATOR_VERSION, DatasetSpec, is_intact, run_lengths, write_dataset
from dtn_det.demo.shapes import MIN_VISIBLE, SMALL, draw_scene
from dtn_det.demo.textures import FIELDS

SPEC = DatasetSpec(seed=0, num_train=60, num_val=20)

# The pixels and masks of the first ten scenes of seed 0. If a change of the generator is meant, raise GENERATOR_VERSION
# and write the new value here.
SCENES_DIGEST = "0930a8056125f68dcb1d5fbe21a195bb91766ea691e1b355900227ccfb5fa21c"


def scenes_digest(seed: int = 0, count: int = 10) -> str:
    digest = hashlib.sha256()
    for index in range(count):
        scene = draw_scene((seed, 0, index), 128, 160)
        digest.update(scene.image.tobytes())
        for annotation in scene.annotations:
            digest.update(f"{annotation.label} {annotation.bbox} {annotation.is_crowd}".encode())
            digest.update(annotation.mask.tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    write_dataset(folder, SPEC)
    return folder


@pytest.fixture(scope="module")
def coco(root):
    from pycocotools.coco import COCO

    return COCO(str(root / "annotations/instances_train.json"))


def test_scenes_are_those_of_every_other_machine():
    assert GENERATOR_VERSION == 1
    assert scenes_digest() == SCENES_DIGEST


def test_another_process_draws_the_same_scenes_whatever_its_threads_and_hash_seed():
    code = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
    code += "from test_demo_dataset import scenes_digest; print(scenes_digest())"
    env = {**os.environ, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert out.split()[-1] == SCENES_DIGEST


def test_seed_split_and_index_change_the_scene():
    images = [draw_scene(seed, 64, 96).image for seed in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]]
    for i, image in enumerate(images):
        for other in images[:i]:
            assert not np.array_equal(image, other)


@given(seed=st.integers(0, 2**32 - 1), height=st.integers(32, 200), width=st.integers(32, 200))
def test_every_scene_is_sound(seed, height, width):
    scene = draw_scene((seed,), height, width)
    assert scene.image.shape == (height, width, 3)
    assert scene.image.dtype == np.uint8
    covered = np.zeros((height, width), dtype=int)
    for annotation in scene.annotations:
        x, y, w, h = annotation.bbox
        window = annotation.mask[y : y + h, x : x + w]
        assert window.sum() == annotation.area == annotation.mask.sum() > 0  # nothing lies outside the box
        assert window[0].any()
        assert window[-1].any()
        assert window[:, 0].any()
        assert window[:, -1].any()
        covered += annotation.mask
    assert covered.max(initial=0) <= 1  # the masks hold visible pixels: no two overlap


def test_masks_are_the_pixels_that_an_object_changes():
    """Drawing stops after k objects or goes on: only pixels of later shapes differ."""
    checked = 0
    for index in range(20):
        scene = draw_scene((3, index), 128, 160)
        singles = [a for a in scene.annotations if not a.is_crowd and a.area > 800]
        for annotation in singles:
            inside = scene.image[annotation.mask].astype(float).mean(axis=0)
            x, y, w, h = annotation.bbox
            around = np.zeros_like(annotation.mask)
            around[max(0, y - 2) : y + h + 2, max(0, x - 2) : x + w + 2] = True
            for other in scene.annotations:
                around &= ~other.mask
            if around.sum() > 50:
                outside = scene.image[around].astype(float).mean(axis=0)
                checked += 1
                assert np.abs(inside - outside).max() > 5
    assert checked > 10


def test_objects_stay_visible():
    for index in range(30):
        for annotation in draw_scene((5, index), 128, 160).annotations:
            if not annotation.is_crowd:
                # Pixels are counted by their centres, hence the five percent.
                assert annotation.area >= 0.95 * MIN_VISIBLE * SMALL[0]


def test_classes_sizes_crowds_and_empty_images_are_all_there():
    scenes = [draw_scene((0, 0, index), 128, 160) for index in range(100)]
    annotations = [annotation for scene in scenes for annotation in scene.annotations]
    assert {annotation.label for annotation in annotations} == set(range(6))
    areas = np.array([annotation.area for annotation in annotations if not annotation.is_crowd])
    small, large = (areas < 32**2).sum(), (areas >= 96**2).sum()
    assert small > 80
    assert large >= 5
    assert len(areas) - small - large > 80
    assert sum(annotation.is_crowd for annotation in annotations) >= 2
    assert sum(not scene.annotations for scene in scenes) >= 2


def test_colour_does_not_tell_the_class():
    """A nearest-mean classifier on the mean colour stays near chance (one in six)."""
    colours, labels = [], []
    for index in range(300):
        scene = draw_scene((1, index), 96, 128)
        for annotation in scene.annotations:
            if not annotation.is_crowd:
                colours.append(scene.image[annotation.mask].mean(axis=0))
                labels.append(annotation.label)
    colours, labels = np.array(colours), np.array(labels)
    half = len(labels) // 2
    means = np.array([colours[:half][labels[:half] == k].mean(axis=0) for k in range(6)])
    predicted = np.linalg.norm(colours[half:, None] - means, axis=2).argmin(axis=1)
    assert (predicted == labels[half:]).mean() < 0.27


@pytest.mark.parametrize("field", FIELDS)
def test_textures_lie_between_0_and_1_and_vary(field):
    values = field(np.random.RandomState(0), 40, 56)
    assert values.shape == (40, 56)
    assert values.min() >= 0
    assert values.max() <= 1
    assert np.ptp(values) > 0.3


def test_pycocotools_reads_masks_boxes_and_areas(coco):
    assert coco.dataset["annotations"]
    for annotation in coco.dataset["annotations"]:
        mask = coco.annToMask(annotation).astype(bool)
        rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert annotation["area"] == mask.sum()
        assert annotation["bbox"] == [cols[0], rows[0], cols[-1] - cols[0] + 1, rows[-1] - rows[0] + 1]


def test_files_hold_the_scenes(root, coco):
    cv2 = pytest.importorskip("cv2")
    for image in coco.dataset["images"][:5]:
        read = cv2.imread(str(root / "train" / image["file_name"]))[:, :, ::-1]
        np.testing.assert_array_equal(read, draw_scene((0, 0, image["id"] - 1), 128, 160).image)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_ground_truth_as_detections_scores_1(coco, kind):
    from pycocotools.cocoeval import COCOeval

    detections = [
        {
            "image_id": annotation["image_id"],
            "category_id": annotation["category_id"],
            "score": 1.0,
            "bbox": annotation["bbox"],
            "segmentation": coco.annToRLE(annotation),
        }
        for annotation in coco.dataset["annotations"]
        if not annotation["iscrowd"]
    ]
    evaluation = COCOeval(coco, coco.loadRes(detections), kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_detections_in_a_crowd_are_ignored(coco):
    from pycocotools.cocoeval import COCOeval

    crowd = next(annotation for annotation in coco.dataset["annotations"] if annotation["iscrowd"])
    x, y, w, h = crowd["bbox"]
    inside = {"category_id": crowd["category_id"], "score": 1.0, "bbox": [x + w / 4, y + h / 4, w / 2, h / 2]}
    evaluation = COCOeval(coco, coco.loadRes([{"image_id": crowd["image_id"], **inside}]), "bbox")
    evaluation.params.imgIds = [crowd["image_id"]]
    evaluation.evaluate()
    ignored = [entry["dtIgnore"] for entry in evaluation.evalImgs if entry and entry["dtIds"]]
    assert ignored
    assert all(entry.all() for entry in ignored)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31))
def test_run_lengths_agree_with_pycocotools(height, width, seed):
    from pycocotools import mask as reference

    mask = np.random.RandomState(seed).rand(height, width) < 0.4
    lengths = run_lengths(mask)
    decoded = reference.decode(reference.frPyObjects({"size": [height, width], "counts": lengths}, height, width))
    np.testing.assert_array_equal(decoded.astype(bool), mask)


def test_a_finished_set_is_intact_and_a_damaged_one_is_not(tmp_path):
    spec = DatasetSpec(seed=3, num_train=3, num_val=2, height=64, width=96)
    calls = []
    assert not is_intact(tmp_path, spec)
    write_dataset(tmp_path, spec, lambda: calls.append(1))
    assert len(calls) == 5
    assert is_intact(tmp_path, spec)
    assert not is_intact(tmp_path, replace(spec, seed=4))
    assert not is_intact(tmp_path, replace(spec, num_val=3))

    image = tmp_path / "train/000001.png"
    content = image.read_bytes()
    image.write_bytes(content[:-1])
    assert not is_intact(tmp_path, spec)
    image.unlink()
    assert not is_intact(tmp_path, spec)
    image.write_bytes(content)
    assert is_intact(tmp_path, spec)
    for damaged in ["", "{", "[]", json.dumps({"version": GENERATOR_VERSION})]:
        (tmp_path / "manifest.json").write_text(damaged)
        assert not is_intact(tmp_path, spec)


def test_a_set_whose_writing_was_interrupted_is_not_intact(tmp_path):
    spec = DatasetSpec(seed=3, num_train=3, num_val=2, height=64, width=96)
    write_dataset(tmp_path, spec)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path, spec, interrupt)
    assert not is_intact(tmp_path, spec)
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "expected a seed of at least 0 and below 2\\*\\*32, got -1"),
        ({"seed": 2**32}, "got 4294967296"),
        ({"num_train": 0}, "expected at least one image per split, got 0 and 100"),
    ],
)
def test_wrong_specifications_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DatasetSpec(**arguments)


def test_images_too_small_are_refused():
    with pytest.raises(ValueError, match="at least 32 x 32 pixels, got 64 x 31"):
        draw_scene((0,), 31, 64)
