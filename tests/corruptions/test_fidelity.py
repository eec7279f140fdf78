"""Against `imagecorruptions`: its pictures, the package itself, and the published generator's statistics."""

import numpy as np
import pytest
from pictures import full_size_photographs, photographs, rmse
from PIL import Image
from scipy import fft

from dtn_det.corruptions import corrupt

DETERMINISTIC = (
    "defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression", "gaussian_blur", "saturate",
)  # fmt: skip
# Share of values that may differ, each by one grey level: floats fall on the other side of a whole number.
MAY_DIFFER = {"defocus_blur": 0.05, "brightness": 0.05, "saturate": 0.25, "zoom_blur": 0.005}

# RMSE to clean of the original generator at severities 1 to 5, before JPEG, over 40 ImageNet images: our own run of it
# (github.com/hendrycks/robustness, make_imagenet_c.py, ImageMagick 6.9.11).
ORIGINAL = {
    "elastic_transform": (49.7, 60.6, 28.1, 28.5, 29.8),
    "motion_blur": (15.3, 19.9, 24.3, 28.2, 30.5),
    "glass_blur": (14.8, 14.4, 21.7, 20.4, 21.9),
}


@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_deterministic_ones_equal_the_oracle(shared_dir, name, severity):
    folder = shared_dir / "data" / "imagenet_c_samples" / "oracle_imagecorruptions"
    image = np.array(Image.open(folder / "input.png").convert("RGB"))
    oracle = np.array(Image.open(folder / f"{name}_{severity}.png").convert("RGB"))
    difference = np.abs(corrupt(image, name, severity, profile="coco-c").astype(int) - oracle)
    assert difference.max() <= 1
    assert (difference > 0).mean() <= MAY_DIFFER.get(name, 1e-3)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_deterministic_ones_equal_the_package_at_another_size(shared_dir, name):
    pytest.importorskip("imagecorruptions")
    files = sorted((shared_dir / "data" / "coco_mini").rglob("*.jpg"))[:2]
    for file, severities in zip(files, ((1, 3, 5), (2, 4)), strict=True):
        image = np.array(Image.open(file).convert("RGB"))
        for severity in severities:
            theirs = corrupt(image, name, severity, profile="coco-c", backend="imagecorruptions")
            difference = np.abs(corrupt(image, name, severity, profile="coco-c").astype(int) - theirs)
            assert difference.max() <= 1, severity
            assert (difference > 0).mean() <= MAY_DIFFER.get(name, 1e-3), severity


def spectrum(differences: list[np.ndarray]) -> np.ndarray:
    """Energy of the changes in eight rings of spatial frequency."""
    height, width = differences[0].shape[:2]
    energy = sum((np.abs(fft.rfft2(difference, axes=(0, 1))) ** 2).sum(axis=2) for difference in differences)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    return np.bincount(np.minimum(frequency * 16, 7).astype(int).reshape(-1), energy.reshape(-1))


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("gaussian_noise", 0.02),
        ("shot_noise", 0.02),
        ("impulse_noise", 0.02),
        ("speckle_noise", 0.02),
        ("motion_blur", 0.02),
        ("glass_blur", 0.05),
        ("elastic_transform", 0.05),
    ],
)
def test_random_ones_agree_with_the_package_in_strength_mean_and_spectrum(shared_dir, name, tolerance):
    pytest.importorskip("imagecorruptions")
    # One angle, one field for a whole image.
    draws = 2 if name in ("motion_blur", "elastic_transform") else 1
    images = photographs(shared_dir, 20 if name in ("glass_blur", "elastic_transform") else 40)
    for severity in range(1, 6):
        strength, mean, energy = {}, {}, {}
        for backend in ("dtn_det", "imagecorruptions"):
            changes = [
                np.subtract(
                    corrupt(image, name, severity, key=f"{k} {draw}", profile="coco-c", backend=backend),
                    image,
                    dtype=np.float32,
                )
                for k, image in enumerate(images)
                for draw in range(draws)
            ]
            strength[backend] = np.sqrt(np.mean([np.mean(change**2) for change in changes]))
            mean[backend] = np.mean([change.mean(axis=(0, 1)) for change in changes], axis=0)
            energy[backend] = spectrum(changes)
        ours, theirs = "dtn_det", "imagecorruptions"
        assert strength[ours] == pytest.approx(strength[theirs], rel=tolerance), severity
        assert mean[ours] == pytest.approx(mean[theirs], abs=0.25), severity
        assert energy[ours] == pytest.approx(energy[theirs], rel=5 * tolerance), severity


@pytest.mark.parametrize("name", ORIGINAL)
def test_random_ones_agree_with_the_original_generator(shared_dir, name):
    # Photographs of full size, for these corruptions depend on how sharp the image is.
    images = full_size_photographs(shared_dir)
    for severity, expected in zip(range(1, 6), ORIGINAL[name], strict=True):
        found = [
            rmse(corrupt(image, name, severity, key=f"{k} {draw}", jpeg=False), image)
            for k, image in enumerate(images)
            for draw in range(2)
        ]
        assert np.mean(found) == pytest.approx(expected, rel=0.05), severity


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("gaussian_noise", (19.8, 42.1, 75.8), (15.2, 30.9, 54.7)),
        ("shot_noise", (20.6, 43.7, 77.5), (16.0, 32.2, 55.2)),
        ("impulse_noise", (24.8, 43.0, 74.5), (18.5, 31.2, 53.6)),
    ],
)
def test_jpeg_removes_as_much_noise_as_in_the_published_files(shared_dir, name, before, after):
    images = photographs(shared_dir, 40)
    for severity, plain, published in zip((1, 3, 5), before, after, strict=True):
        changes = {
            jpeg: np.sqrt(np.mean([
                rmse(corrupt(image, name, severity, key=k, jpeg=jpeg), image) ** 2 for k, image in enumerate(images)
            ]))
            for jpeg in (False, True)
        }  # fmt: skip
        assert changes[True] / changes[False] == pytest.approx(published / plain, rel=0.03)
        assert 0.68 < changes[True] / changes[False] < 0.8
