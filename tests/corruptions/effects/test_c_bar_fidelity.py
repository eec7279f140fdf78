"""The corruptions of the C-bar benchmarks against images and statistics of their authors' generator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_bar_oracle import corrupt_with
from pictures import rmse, textured
from PIL import Image

from dtn_det.corruptions import PROFILES, Corruptor, corrupt

FOLDERS = {"imagenet-c-bar": "imagenet224", "cifar-c-bar": "cifar32"}
CASES = [(profile, name) for profile in FOLDERS for name in PROFILES[profile].catalog.names]

# The same operations in the same order and precision as the generator's, up to sines: no value may differ.
EXACT = (
    "blue_noise_sample", "checkerboard_cutout", "cocentric_sine_waves", "lines", "single_frequency_greyscale",
    "transverse_chromatic_abberation",
)  # fmt: skip
# Elsewhere values that come out next to a whole number are rounded down to different sides of it.
MAY_DIFFER_BY_1 = 0.002

# RMSE to the picture `textured` at severities 1 to 5, without JPEG, for parameters that the generator's own
# `sample_parameters` drew with numpy 2.2: the mean of 300 draws at 224 x 224 and of 1,000 at 32 x 32. This package's
# transforms, which equal the generator's to a grey level, rendered them, so what is tested is what is drawn.
OF_SAMPLED_PARAMETERS = {
    ("imagenet-c-bar", "caustic_refraction"): (14.3, 17.7, 24.4, 30.4, 38.1),
    ("imagenet-c-bar", "inverse_sparkles"): (30.5, 45.0, 66.7, 95.8, 98.8),
    ("imagenet-c-bar", "sparkles"): (7.7, 15.6, 23.5, 39.1, 46.8),
    ("imagenet-c-bar", "perlin_noise"): (21.3, 24.1, 27.0, 35.4, 41.0),
    ("imagenet-c-bar", "blue_noise_sample"): (15.6, 21.1, 27.8, 44.6, 65.1),
    ("imagenet-c-bar", "plasma_noise"): (27.1, 39.5, 47.4, 51.2, 54.9),
    ("imagenet-c-bar", "checkerboard_cutout"): (19.9, 24.3, 28.6, 32.4, 35.1),
    ("imagenet-c-bar", "cocentric_sine_waves"): (11.1, 18.4, 29.0, 32.4, 35.7),
    ("imagenet-c-bar", "single_frequency_greyscale"): (13.8, 20.7, 27.4, 57.3, 62.5),
    ("imagenet-c-bar", "brownish_noise"): (7.7, 15.4, 23.1, 30.1, 36.6),
    ("cifar-c-bar", "blue_noise_sample"): (16.5, 21.7, 27.8, 42.9, 51.9),
    ("cifar-c-bar", "checkerboard_cutout"): (13.2, 20.1, 25.4, 29.7, 33.0),
    ("cifar-c-bar", "inverse_sparkles"): (26.5, 33.2, 44.5, 61.8, 65.0),
    ("cifar-c-bar", "pinch_and_twirl"): (7.2, 7.7, 8.3, 9.7, 10.6),
    ("cifar-c-bar", "ripple"): (15.4, 16.1, 17.6, 20.1, 21.6),
    ("cifar-c-bar", "brownish_noise"): (19.2, 29.9, 39.9, 45.8, 49.0),
    ("cifar-c-bar", "circular_motion_blur"): (27.8, 28.0, 28.5, 29.0, 29.5),
    ("cifar-c-bar", "lines"): (9.2, 16.2, 18.7, 22.9, 26.2),
    ("cifar-c-bar", "sparkles"): (21.6, 25.6, 39.6, 44.1, 48.6),
    ("cifar-c-bar", "transverse_chromatic_abberation"): (12.7, 14.0, 18.3, 23.2, 24.1),
}
SIDES = {"imagenet-c-bar": (224, 300, 40), "cifar-c-bar": (32, 1000, 100)}
"""Side of the picture, number of the generator's draws, and of ours."""


def oracle(shared_dir: Path, profile: str) -> tuple[Path, dict[str, Any]]:
    """Return the folder of the oracle's images of a profile, and what is written about them."""
    folder = shared_dir / "data" / "cbar_oracle" / FOLDERS[profile]
    return folder, json.loads((folder / "records.json").read_text())


def load(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


@pytest.mark.parametrize(("profile", "name"), CASES)
def test_pixels_with_the_parameters_that_the_authors_generator_sampled(
    shared_dir: Path, profile: str, name: str
) -> None:
    folder, content = oracle(shared_dir, profile)
    records = [record for record in content["records"] if record["corruption"] == name]
    assert len(records) >= 4
    for record in records:
        magnitude = PROFILES[profile].parameters(name, record["severity"])
        assert magnitude == (record["magnitude"],)
        found = corrupt_with(name, load(folder / record["clean"]), record["parameters"])
        difference = np.abs(found.astype(int) - load(folder / record["file"]))
        assert difference.max() <= (0 if name in EXACT else 1), record["file"]
        assert (difference > 0).mean() <= MAY_DIFFER_BY_1, record["file"]


@pytest.mark.parametrize("name", PROFILES["cifar-c-bar"].catalog.names)
def test_strengths_on_photographs(shared_dir: Path, name: str) -> None:
    """RMSE to the clean image over our own draws, against the generator's over 24 draws of four photographs."""
    folder, content = oracle(shared_dir, "cifar-c-bar")
    clean = [load(folder / f"{letter}.png") for letter in "abcd"]
    for severity in range(1, 6):
        theirs = content["stats"][f"{name}/{severity}"]
        assert theirs["n"] == 24
        found = [
            rmse(corrupt(image, name, severity, key=f"{index} {draw}", profile="cifar-c-bar"), image)
            for index, image in enumerate(clean)
            for draw in range(1 if name == "circular_motion_blur" else 60)
        ]
        error = theirs["rmse_sd"] / np.sqrt(theirs["n"])
        allowed = max(0.03 * theirs["rmse_mean"], 3 * error)
        assert np.mean(found) == pytest.approx(theirs["rmse_mean"], abs=allowed), severity


@pytest.mark.parametrize("name", PROFILES["imagenet-c-bar"].catalog.names)
def test_strengths_are_those_of_the_two_draws_of_the_generator_on_photographs(shared_dir: Path, name: str) -> None:
    """Two draws fix a mean no better than their spread over the root of two, so this finds gross errors alone."""
    folder, content = oracle(shared_dir, "imagenet-c-bar")
    clean, corruptor = [load(folder / f"{letter}.png") for letter in "ab"], Corruptor("imagenet-c-bar", jpeg=False)
    for severity in (2, 5):
        theirs = content["stats"][f"{name}/{severity}"]
        assert theirs["n"] == 2
        found = np.array([
            [rmse(corruptor(image, name, severity, key), image) for key in range(30)] for image in clean
        ])  # fmt: skip
        # The generator's two draws are one of each photograph.
        error = np.sqrt(np.square(found.std(axis=1)).sum()) / 2
        assert found.mean() == pytest.approx(theirs["rmse_mean"], abs=max(0.03 * theirs["rmse_mean"], 3 * error))


@pytest.mark.parametrize(("profile", "name"), CASES)
def test_draws_are_those_of_the_generator(profile: str, name: str) -> None:
    side, theirs, draws = SIDES[profile]
    image = textured(side, side)
    draws = 1 if name == "circular_motion_blur" else draws
    for severity, expected in zip(range(1, 6), OF_SAMPLED_PARAMETERS[profile, name], strict=True):
        found = [rmse(corrupt(image, name, severity, key=k, profile=profile, jpeg=False), image) for k in range(draws)]
        error = np.std(found) * np.sqrt(1 / draws + 1 / theirs)
        assert np.mean(found) == pytest.approx(expected, abs=max(0.03 * expected, 3.5 * error)), severity
