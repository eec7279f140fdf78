import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import full_size_photographs, photographs, rmse, textured
from rival_agreement import both

from dtn_det.corruptions import corrupt
from dtn_det.corruptions.effects import snow
from dtn_det.corruptions.effects.settings import EffectSettings
from dtn_det.corruptions.profiles import PROFILES, get_profile
from dtn_det.corruptions.stream import Stream

# RMSE to clean at severities 1 to 5 of the original generator (github.com/hendrycks/robustness, make_imagenet_c.py,
# with ImageMagick 6.9.11), before JPEG, over 40 ImageNet images.
ORIGINAL = (44.9, 71.6, 72.4, 87.1, 98.9)


def order(severity, profile="coco-c", key="a"):
    return EffectSettings("snow", severity, get_profile(profile), Stream(0, key, "snow", severity))


@pytest.mark.parametrize("severity", range(1, 6))
@pytest.mark.parametrize("size", [(224, 224), (61, 130)])
def test_flakes_equal_those_of_the_package_for_the_same_noise(severity, size):
    package = pytest.importorskip("imagecorruptions.corruptions")
    mean, deviation, factor, threshold = order(severity).parameters[:4]
    flakes = snow._flakes(*size, order(severity))
    crop = tuple(math.ceil(length / factor) for length in size)
    # `imagecorruptions` draws noise for the whole image and enlarges its middle.
    drawn = order(severity).stream.normals(needed_noise(size, factor))
    noise = np.zeros(size)
    top, left = ((length - part) // 2 for length, part in zip(size, crop, strict=True))
    noise[top : top + drawn.shape[0], left : left + drawn.shape[1]] = mean + deviation * drawn
    layer = package.clipped_zoom(noise[:, :, None], factor)[: size[0], : size[1], 0]
    layer[layer < threshold] = 0
    expected = layer.clip(0, 1) * 255
    assert (expected > 0).any()
    # At the very threshold, rounding decides between a flake and none.
    assert (np.abs(flakes - expected) < 0.01).mean() > 0.999


def needed_noise(size, factor):
    """Rows and columns of noise that show up in the image, whose enlargement may exceed it by a few pixels."""
    found = []
    for length in size:
        crop = math.ceil(length / factor)
        last = min((length - 1) * (crop - 1) / (round(crop * factor) - 1), crop - 1)
        found.append(min(int(last), crop - 2) + 2)
    return tuple(found)


def test_original_flakes_are_whole_levels():
    original = snow._flakes(50, 60, order(1, "imagenet-c"))
    assert (original == np.round(original)).all()
    assert not (snow._flakes(50, 60, order(1)) % 1 == 0).all()


def test_the_second_layer_is_the_first_upside_down():
    image = np.full((64, 80, 3), 30, np.uint8)
    change = corrupt(image, "snow", 1, profile="coco-c").astype(int)
    assert change.std() > 5
    np.testing.assert_array_equal(change, change[::-1, ::-1])


@pytest.mark.parametrize("severity", range(1, 6))
def test_whitens_as_the_definition_says(severity):
    image = textured(48, 64)
    share = order(severity).parameters[-1]
    streaks = np.zeros((48, 64), np.float32)
    streaks[10, 20] = 40.4
    found = np.empty_like(image)
    snow._blend(image, streaks, share, found)
    value = image / 255
    grey = value @ [0.299, 0.587, 0.114]
    expected = share * value + (1 - share) * np.maximum(value, grey[:, :, None] * 1.5 + 0.5)
    expected[10, 20] += 40 / 255
    expected[37, 43] += 40 / 255
    difference = np.abs(found - np.floor(expected.clip(0, 1) * 255))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.02


@given(
    st.sampled_from([(32, 32), (33, 57), (32, 700), (700, 32), (47, 61)]),
    st.integers(1, 5),
    st.sampled_from([name for name, profile in PROFILES.items() if "snow" in profile.catalog.names]),
    st.integers(0, 2**32),
)
def test_any_size_gives_a_brighter_image_of_its_shape(size, severity, profile, seed):
    image = textured(*size)
    before = image.copy()
    found = corrupt(image, "snow", severity, seed=seed, key="k", profile=profile, jpeg=False)
    assert found.shape == image.shape
    assert found.dtype == np.uint8
    assert found.mean() > image.mean()
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(
        found, corrupt(image, "snow", severity, seed=seed, key="k", profile=profile, jpeg=False)
    )
    other = corrupt(image, "snow", severity, seed=seed + 1, key="k", profile=profile, jpeg=False)
    assert (found != other).any()


def test_agrees_with_the_package(shared_dir):
    pytest.importorskip("imagecorruptions")
    images = photographs(shared_dir, 20)
    for severity in range(1, 6):
        ours, theirs = both(images, "snow", severity, draws=2)
        assert ours.strength == pytest.approx(theirs.strength, rel=0.02), severity
        assert ours.means == pytest.approx(theirs.means, rel=0.01), severity
        assert ours.energy == pytest.approx(theirs.energy, rel=0.12), severity


def test_agrees_with_the_original_generator(shared_dir):
    images = full_size_photographs(shared_dir)
    for severity, expected in zip(range(1, 6), ORIGINAL, strict=True):
        found = [
            rmse(corrupt(image, "snow", severity, key=f"{k} {draw}", jpeg=False), image)
            for k, image in enumerate(images)
            for draw in range(3)
        ]
        assert np.mean(found) == pytest.approx(expected, rel=0.05), severity
