from __future__ import annotations

import sys

import numpy as np
import pytest

from dtn_det.demo.corrupt import CORRUPTIONS, CorruptImage, corrupt

pytest.importorskip("imagecorruptions")


@pytest.fixture(scope="module")
def image():
    y, x = np.mgrid[0:40, 0:56]
    return np.stack([4 * x, 5 * y, 128 + 0 * x], axis=2).astype(np.uint8)


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_same_arguments_give_the_same_pixels_whatever_happened_before(image, name, severity):
    first = corrupt(image, name, severity, "7")
    np.random.rand(5)
    second = corrupt(image, name, severity, "7")
    np.testing.assert_array_equal(first, second)
    assert first.shape == image.shape
    assert first.dtype == np.uint8
    assert not np.array_equal(first, image)


@pytest.mark.parametrize("name", ["gaussian_noise", "motion_blur", "fog"])
def test_images_are_corrupted_differently(image, name):
    assert not np.array_equal(corrupt(image, name, 3, "7"), corrupt(image, name, 3, "8"))


def test_higher_severities_change_more(image):
    change = [np.abs(corrupt(image, "gaussian_noise", s, "7") - image.astype(float)).mean() for s in range(1, 6)]
    assert change == sorted(change)


def test_the_global_generator_is_left_as_it_was(image):
    np.random.seed(3)
    expected = np.random.rand(4)
    np.random.seed(3)
    corrupt(image, "gaussian_noise", 1, "7")
    np.testing.assert_array_equal(np.random.rand(4), expected)


def test_the_pipeline_step_hands_over_rgb(image):
    """JPEG treats channels differently, so that the order shows."""
    bgr = np.ascontiguousarray(image[:, :, ::-1])
    step = CorruptImage("jpeg_compression", severity=5, seed=1)
    out = step({"img": bgr, "img_id": 4})["img"]
    np.testing.assert_array_equal(out[:, :, ::-1], corrupt(image, "jpeg_compression", 5, "1 4"))


def test_the_pipeline_step_depends_on_seed_and_image(image):
    outs = [CorruptImage("fog", 3, seed)({"img": image, "img_id": i})["img"] for seed, i in [(0, 1), (1, 1), (0, 2)]]
    assert not np.array_equal(outs[0], outs[1])
    assert not np.array_equal(outs[0], outs[2])


@pytest.mark.parametrize(
    ("name", "severity", "message"),
    [
        ("rain", 1, "expected a corruption out of gaussian_noise, .*, got 'rain'"),
        ("fog", 0, "expected a severity from 1 to 5, got 0"),
        ("fog", 6, "expected a severity from 1 to 5, got 6"),
    ],
)
def test_wrong_arguments_are_refused(image, name, severity, message):
    with pytest.raises(ValueError, match=message):
        corrupt(image, name, severity, "7")


def test_absence_of_the_library_names_the_extra(image, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    with pytest.raises(ImportError, match=r"dtn-det\[corruptions\]"):
        corrupt(image, "fog", 1, "7")
