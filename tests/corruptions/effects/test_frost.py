import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import photographs, rmse, textured
from PIL import Image
from rival_agreement import both, summarize

from dtn_det.corruptions import corrupt
from dtn_det.corruptions.effects import frost
from dtn_det.corruptions.effects.frost import texture_set
from dtn_det.corruptions.profiles import PROFILES, get_profile
from dtn_det.corruptions.stream import Stream

WITH_FROST = sorted(name for name, profile in PROFILES.items() if profile.has_frost)

# RMSE to clean at severities 1 to 5 of the original generator (github.com/hendrycks/robustness, make_imagenet_c.py),
# before JPEG, over 40 ImageNet images with one random texture each.
ORIGINAL = (64.9, 79.9, 87.7, 84.6, 88.7)

# RMSE to clean at severities 1 to 5 over 40 COCO images of `imagecorruptions` 1.0.0 (2019) and 1.1.2, whose functions
# are the same, with the original textures.
PUBLISHED_COCO_C = (61.4, 75.7, 83.3, 80.4, 84.5)


@pytest.fixture
def folder(shared_dir):
    return shared_dir / "data" / "imagenet_c_samples" / "frost"


@pytest.mark.parametrize("size", [(224, 224), (800, 1333), (1333, 800), (480, 640), (32, 700)])
@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("engine", [1, 2])
def test_equals_the_package_for_the_same_part_of_a_texture(monkeypatch, folder, size, severity, engine):
    package = pytest.importorskip("imagecorruptions")
    textures = get_profile("coco-c", engine).num_frost_textures
    image = textured(*size)
    for key in range(4):
        stream = Stream(0, str(key), "frost", severity)
        # Called with one argument for the number of the texture, with two for the place of the part.
        monkeypatch.setattr(
            np.random,
            "randint",
            lambda *ends, stream=stream: stream.below(textures if len(ends) == 1 else ends[-1]),
        )
        theirs = package.corrupt(image, corruption_name="frost", severity=severity)
        monkeypatch.undo()
        ours = corrupt(image, "frost", severity, key=str(key), profile="coco-c", frost_folder=folder, engine=engine)
        difference = np.abs(ours.astype(int) - theirs)
        assert difference.max() <= 1
        # Sums that are whole numbers, a tenth of all at severity 3, may round either way.
        assert (difference > 0).mean() < (0.08 if severity == 3 else 0.01)


@pytest.mark.parametrize(
    ("profile", "side", "scale"), [("imagenet-c", 224, 1.0), ("cifar-c", 32, 0.2), ("tiny-imagenet-c", 64, 0.3)]
)
def test_original_profiles_follow_their_generators(folder, profile, side, scale):
    image = textured(side, side)
    drawn = set()
    for key in range(40):
        stream = Stream(0, key, "frost", 2)
        number = stream.below(5)
        drawn.add(number)
        texture = texture_set(folder).textures[number]
        texture = texture if scale == 1 else cv2.resize(texture, (0, 0), fx=scale, fy=scale)
        top, left = stream.below(texture.shape[0] - side), stream.below(texture.shape[1] - side)
        weight, ice = get_profile(profile).parameters("frost", 2)
        expected = np.clip(weight * image + ice * texture[top : top + side, left : left + side], 0, 255).astype(
            np.uint8
        )
        found = corrupt(image, "frost", 2, key=key, profile=profile, jpeg=False, frost_folder=folder)
        difference = np.abs(found.astype(int) - expected)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.02
    assert drawn == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("profile", "engine", "expected"),
    [*((profile, None, 5) for profile in WITH_FROST), ("coco-c", 1, 6)],
)
def test_textures_that_are_drawn(monkeypatch, profile, engine, expected):
    drawn = set()

    def fitting_texture(folder, number, height, width, rules):
        drawn.add(number)
        return np.zeros((height + 1, width + 1, 3), np.uint8)

    monkeypatch.setattr(frost, "_fitting_texture", fitting_texture)
    for key in range(60):
        corrupt(np.zeros((64, 64, 3), np.uint8), "frost", 5, key=key, profile=profile, engine=engine)
    assert drawn == set(range(expected))


def test_as_strong_as_for_the_published_coco_c(shared_dir, folder):
    files = sorted((shared_dir / "data" / "coco_mini" / "val2017").glob("*.jpg"))[:40]
    images = [np.array(Image.open(file).convert("RGB")) for file in files]
    assert len(images) == 40
    for severity, expected in zip(range(1, 6), PUBLISHED_COCO_C, strict=True):
        found = [
            rmse(corrupt(image, "frost", severity, key=f"{k} {draw}", profile="coco-c", frost_folder=folder), image)
            for k, image in enumerate(images)
            for draw in range(4)
        ]
        error = np.std(found) / np.sqrt(len(found))
        # Both numbers are means of random draws. With six textures every one is 7 % lower, more than 3 errors.
        assert np.mean(found) == pytest.approx(expected, abs=3 * error), severity
        assert np.mean(found) == pytest.approx(expected, rel=0.045), severity


@pytest.mark.parametrize("profile", WITH_FROST)
@pytest.mark.parametrize("size", [(32, 32), (314, 560), (315, 560), (601, 100), (100, 901), (1000, 40)])
def test_a_texture_always_exceeds_the_image(profile, size):
    for number in range(6):
        ice = frost._fitting_texture(None, number, *size, get_profile(profile))
        assert ice.shape[0] > size[0]
        assert ice.shape[1] > size[1]
        original = texture_set(None).textures[number].shape
        assert ice.shape[0] / ice.shape[1] == pytest.approx(original[0] / original[1], rel=0.04)


def test_rescaled_textures_are_kept_unless_they_are_huge():
    frost._rescaled.cache_clear()
    profile = get_profile("coco-c")
    first, second = (frost._fitting_texture(None, 0, 100, 100, profile) for _ in range(2))
    assert first is second
    kept = frost._rescaled.cache_info().currsize
    huge = frost._fitting_texture(None, 0, 2200, 3000, profile)
    assert huge.nbytes > 2 * 2**20
    assert frost._rescaled.cache_info().currsize == kept


@given(
    st.sampled_from([(32, 32), (33, 57), (32, 700), (700, 32), (47, 61)]),
    st.integers(1, 5),
    st.sampled_from(WITH_FROST),
    st.integers(0, 2**32),
)
def test_any_size_comes_out_the_same_each_time(size, severity, profile, seed):
    image = textured(*size)
    before = image.copy()
    found, again = (
        corrupt(image, "frost", severity, seed=seed, key="k", profile=profile, jpeg=False) for _ in range(2)
    )
    assert found.shape == image.shape
    assert found.dtype == np.uint8
    assert rmse(found, image) > 3
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(found, again)


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize(("count", "draws"), [(10, 6), pytest.param(40, 10, marks=pytest.mark.slow)])
def test_textures_that_ship_are_as_strong_as_the_original_ones(shared_dir, folder, severity, count, draws):
    images = photographs(shared_dir, count)
    for profile in ("imagenet-c", "coco-c"):
        # The same keys draw the same parts of the textures.
        ours = summarize(images, "frost", severity, draws, profile=profile)
        theirs = summarize(images, "frost", severity, draws, profile=profile, frost_folder=folder)
        assert ours.strength != theirs.strength
        assert ours.strength == pytest.approx(theirs.strength, rel=0.03)
        assert ours.means == pytest.approx(theirs.means, rel=0.03)
        assert ours.energy == pytest.approx(theirs.energy, rel=0.25)


@pytest.mark.parametrize(
    ("severities", "count", "draws", "tolerance"),
    [((1, 3, 5), 12, 8, 0.1), pytest.param(range(1, 6), 40, 8, 0.05, marks=pytest.mark.slow)],
)
def test_textures_that_ship_agree_with_the_package(shared_dir, severities, count, draws, tolerance):
    pytest.importorskip("imagecorruptions")
    images = photographs(shared_dir, count)
    ratios = []
    for severity in severities:
        # The fork that is installed draws from six textures, as engine 1 did.
        ours, theirs = both(images, "frost", severity, draws, engine=1)
        ratios.append(ours.strength / theirs.strength)
        # Six textures differ in brightness by a factor of two, so 320 draws tell the strength to 3 %, and 96 to 6 %.
        assert ours.means == pytest.approx(theirs.means, rel=tolerance), severity
        assert ours.energy == pytest.approx(theirs.energy, rel=0.3), severity
    assert ratios == pytest.approx([1] * len(ratios), abs=max(tolerance, 0.08))
    assert np.mean(ratios) == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize("original_textures", [False, True])
@pytest.mark.parametrize("draws", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_agrees_with_the_original_generator(shared_dir, folder, original_textures, draws):
    images = photographs(shared_dir, 40)
    for severity, expected in zip(range(1, 6), ORIGINAL, strict=True):
        options = {"frost_folder": folder} if original_textures else {}
        found = summarize(images, "frost", severity, draws, profile="imagenet-c", **options)
        # The 40 random textures behind a number make it uncertain by 5 % by themselves.
        assert found.strength == pytest.approx(expected, rel=0.08), severity
