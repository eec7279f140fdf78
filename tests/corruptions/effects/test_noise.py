"""The four noises: their transition matrices and the sampling from them."""

import numpy as np
import pytest

from dtn_det.corruptions import PROFILES
from dtn_det.corruptions.effects import noise
from dtn_det.corruptions.effects.settings import EffectSettings
from dtn_det.corruptions.stream import Stream

OF_IMAGENET_C = [name for name, profile in PROFILES.items() if "gaussian_noise" in profile.catalog.names]
NOISES = ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise")


def from_the_definition(name, parameter, level, rng, count):
    """Draws as the benchmarks' generators define them."""
    x = np.full(count, level / 255)
    if name == "gaussian_noise":
        x = x + rng.normal(0, parameter, count)
    elif name == "speckle_noise":
        x = x + x * rng.normal(0, parameter, count)
    elif name == "shot_noise":
        x = rng.poisson(x * parameter) / parameter
    else:
        hit = rng.random(count) < parameter
        x = np.where(hit, rng.random(count) < 0.5, x)
    # The small number keeps a level that was divided by 255 from falling below itself.
    return np.uint8(np.clip(x, 0, 1) * 255 + 1e-9)


@pytest.mark.parametrize("profile", OF_IMAGENET_C)
@pytest.mark.parametrize("name", NOISES)
def test_rows_are_the_distributions_of_the_definition(profile, name):
    rng = np.random.default_rng(0)
    count = 200_000
    for severity in (1, 3, 5):
        (parameter,) = parameters = PROFILES[profile].parameters(name, severity)
        matrix = noise.transition_matrix(name, parameters)
        np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)
        for level in (0, 1, 60, 128, 254, 255):
            seen = np.bincount(from_the_definition(name, parameter, level, rng, count), minlength=256) / count
            expected = matrix[level]
            # Six standard deviations of a share of `count` draws.
            assert (np.abs(seen - expected) <= 6 * np.sqrt(expected * (1 - expected) / count) + 1e-5).all()


@pytest.mark.parametrize("name", NOISES)
def test_the_alias_table_holds_the_matrix(name):
    parameters = PROFILES["imagenet-c"].parameters(name, 3)
    table = noise._alias_table(name, parameters)
    threshold, alias = (table >> 8) / 2**24, table & 255
    held = np.zeros((256, 256))
    for row in range(256):
        held[row] += threshold[row] / 256
        np.add.at(held[row], alias[row], (1 - threshold[row]) / 256)
    np.testing.assert_allclose(held, noise.transition_matrix(name, parameters), atol=2e-7)


def test_draws_follow_the_matrix_and_are_independent():
    image = np.full((500, 500, 3), 100, dtype=np.uint8)
    profile = PROFILES["imagenet-c"]
    noisy = noise.add_noise(image, EffectSettings("gaussian_noise", 2, profile, Stream(0, "a", "gaussian_noise", 2)))
    matrix = noise.transition_matrix("gaussian_noise", profile.parameters("gaussian_noise", 2))
    seen = np.bincount(noisy.reshape(-1), minlength=256) / noisy.size
    assert (np.abs(seen - matrix[100]) <= 6 * np.sqrt(matrix[100] / noisy.size) + 1e-6).all()
    deviation = noisy.astype(float) - noisy.mean()
    for shift, axis in ((1, 0), (1, 1), (1, 2), (2, 1)):
        correlation = (deviation * np.roll(deviation, shift, axis)).mean() / deviation.var()
        assert abs(correlation) < 6 / np.sqrt(noisy.size)


def test_an_unknown_noise():
    with pytest.raises(ValueError, match="expected a noise, got 'fog'"):
        noise.transition_matrix("fog", (1.0,))
