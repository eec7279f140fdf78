import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import photographs, rmse, textured
from PIL import Image
from rival_agreement import both

from dtn_det.corruptions import corrupt
from dtn_det.corruptions.effects import spatter
from dtn_det.corruptions.profiles import PROFILES

MUD_SEVERITIES = (4, 5)


def package_spatter(monkeypatch, image, severity, liquid):
    """What `imagecorruptions` makes of a blurred liquid."""
    package = pytest.importorskip("imagecorruptions.corruptions")
    blur = package.gaussian
    # The first blur is that of the liquid, the second that of the mud.
    waiting = [lambda *_, **__: liquid.astype(np.float64), blur]
    monkeypatch.setattr(package, "gaussian", lambda *args, **options: waiting.pop(0)(*args, **options))
    corrupted: np.ndarray = package.spatter(Image.fromarray(image), severity)
    return corrupted.astype(np.uint8)


@pytest.mark.parametrize("severity", range(1, 6))
def test_equals_the_package_for_the_same_liquid(monkeypatch, severity):
    image = textured(120, 150)
    seen = []
    blur = spatter.gaussian_filter
    monkeypatch.setattr(
        spatter, "gaussian_filter", lambda *args, **options: seen.append(blur(*args, **options)) or seen[-1]
    )
    found = corrupt(image, "spatter", severity, key="a", profile="coco-c")
    assert (found != image).any(axis=2).mean() > 0.01
    difference = np.abs(found.astype(int) - package_spatter(monkeypatch, image, severity, seen[0]))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.02


def test_quantiles_are_those_of_the_normal_distribution():
    table = spatter._normal_quantiles(0.65, 0.3)
    assert table.shape == (2**16,)
    assert (np.diff(table) >= 0).all()
    assert table.mean() == pytest.approx(0.65, abs=1e-5)
    assert table.std() == pytest.approx(0.3, rel=1e-3)
    assert np.mean(((table - 0.65) / 0.3) ** 4) == pytest.approx(3, rel=0.01)
    assert table[-1] > 0.65 + 4 * 0.3


def test_water_brightens_and_mud_darkens():
    image = np.full((200, 200, 3), 120, np.uint8)
    for severity in range(1, 6):
        change = corrupt(image, "spatter", severity, key=2, jpeg=False).astype(int) - 120
        assert (change <= 0).all() if severity in MUD_SEVERITIES else (change >= 0).all()
        # Where drops are thickest they have their colour: water adds it, mud hides what is behind.
        red, _, blue = change.reshape(-1, 3)[np.abs(change).sum(axis=2).argmax()]
        assert blue < red < 0 if severity in MUD_SEVERITIES else blue > red > 0


def test_without_a_drop_the_image_stays(monkeypatch):
    image = textured(40, 40)
    monkeypatch.setattr(spatter, "gaussian_filter", lambda noise, *_, **__: np.zeros_like(noise))
    for severity in range(1, 6):
        np.testing.assert_array_equal(corrupt(image, "spatter", severity, jpeg=False), image)


@given(
    st.sampled_from([(32, 32), (33, 57), (32, 700), (700, 32), (47, 61)]),
    st.integers(1, 5),
    st.sampled_from([name for name, profile in PROFILES.items() if "spatter" in profile.catalog.names]),
    st.integers(0, 2**32),
)
def test_any_size_comes_out_the_same_each_time(size, severity, profile, seed):
    image = textured(*size)
    before = image.copy()
    found, again = (
        corrupt(image, "spatter", severity, seed=seed, key="k", profile=profile, jpeg=False) for _ in range(2)
    )
    assert found.shape == image.shape
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(found, again)


def test_another_key_moves_the_drops():
    image = textured(100, 100)
    for severity in range(1, 6):
        first, second = (corrupt(image, "spatter", severity, key=key, jpeg=False) for key in "ab")
        assert rmse(first, second) > 0.5


@pytest.mark.parametrize(("count", "draws"), [(8, 4), pytest.param(40, 12, marks=pytest.mark.slow)])
def test_agrees_with_the_package(shared_dir, count, draws):
    images = photographs(shared_dir, count)
    for severity in range(1, 6):
        ours, theirs = both(images, "spatter", severity, draws)
        assert ours.strength == pytest.approx(theirs.strength, rel=0.05), severity
        assert ours.means == pytest.approx(theirs.means, rel=0.01), severity
        assert ours.energy == pytest.approx(theirs.energy, rel=0.12), severity
