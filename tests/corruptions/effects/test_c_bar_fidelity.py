"""The corruptions of the C-bar benchmarks against images and statistics of their authors' generator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_bar_oracle import corrupt_with
from pictures import rmse
from PIL import Image

from dtn_det.corruptions import PROFILES, corrupt

FOLDERS = {"imagenet-c-bar": "imagenet224", "cifar-c-bar": "cifar32"}
CASES = [(profile, name) for profile in FOLDERS for name in PROFILES[profile].catalog.names]

# The same operations in the same order and precision as the generator's, up to sines: no value may differ.
EXACT = (
    "blue_noise_sample", "checkerboard_cutout", "cocentric_sine_waves", "lines", "single_frequency_greyscale",
    "transverse_chromatic_abberation",
)  # fmt: skip
# Elsewhere values that come out next to a whole number are rounded down to different sides of it.
MAY_DIFFER_BY_1 = 0.002


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
