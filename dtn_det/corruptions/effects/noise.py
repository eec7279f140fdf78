"""Noise that treats each value of the image independently: gaussian, shot, impulse and speckle noise.

Such noise maps each of 256 grey levels to a random level. The 256 x 256 transition matrix follows from the definition
and is the same for all images. So no value is drawn from a normal or Poisson distribution: one random number and two
look-ups in the level's row of Walker's alias table are enough (Walker, "An efficient method for generating discrete
random variables with general distributions", 1977). Probabilities are exact to 2^-24.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
from scipy import stats

from dtn_det.corruptions.effects.settings import EffectSettings
from dtn_det.corruptions.image import ByteImage
from dtn_det.corruptions.severities import Parameters
from dtn_det.errors import InputError
from dtn_det.system.compiled import compiled

LEVELS = 256

Matrix = npt.NDArray[np.float64]


def add_noise(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Draw each output value from the distribution of the noise at the grey level of the input.

    Args:
        image: ``(H, W, 3)`` uint8.
        settings: Settings of ``gaussian_noise``, ``shot_noise``, ``impulse_noise`` or ``speckle_noise``.

    Returns:
        ``(H, W, 3)`` uint8.
    """
    noisy = np.empty_like(image)
    table = _alias_table(settings.name, settings.parameters)
    _draw(image.reshape(-1), settings.stream.bits(image.size), table, noisy.reshape(-1))
    return noisy


def transition_matrix(name: str, parameters: Parameters) -> Matrix:
    """Return the ``(256, 256)`` probabilities: row = input level, column = output level; rows sum to 1."""
    (parameter,) = parameters
    level = np.arange(LEVELS, dtype=np.float64)[:, None]
    if name == "gaussian_noise":
        return _normal_noise(level, np.full_like(level, parameter * 255))
    if name == "speckle_noise":
        return _normal_noise(level, level * parameter)
    if name == "shot_noise":
        return _shot_noise(level, parameter)
    if name == "impulse_noise":
        matrix = np.eye(LEVELS) * (1 - parameter)
        matrix[:, [0, -1]] += parameter / 2
        return matrix
    raise InputError(f"expected a noise, got {name!r}")


def _normal_noise(level: Matrix, deviation: Matrix) -> Matrix:
    """Return the transition matrix of normal noise, clipped and rounded down. A deviation of 0 keeps the level."""
    # The upper end of each output level. All values below 1 become 0, all values from 255 on become 255.
    upper = np.append(np.arange(1, LEVELS, dtype=np.float64), np.inf)
    spread = np.where(deviation == 0, 1, deviation)
    below = stats.norm.cdf((upper - level) / spread)
    matrix = np.diff(below, axis=1, prepend=0)
    return np.where(deviation == 0, np.eye(LEVELS), matrix)


def _shot_noise(level: Matrix, photons: float) -> Matrix:
    """Return the transition matrix of shot noise: row = input level, column = output level.

    The output is a Poisson count with mean ``photons * level / 255``, scaled back, clipped and rounded down.
    """
    # All counts of at least `photons` are clipped to 255, so their probabilities are added up.
    counts = np.arange(int(np.ceil(photons)))
    outputs = np.minimum(counts / photons, 1) * 255
    mean = photons * level / 255
    matrix = np.zeros((LEVELS, LEVELS))
    for count, output in zip(counts, outputs, strict=True):
        matrix[:, int(output)] += stats.poisson.pmf(count, mean[:, 0])
    matrix[:, -1] += stats.poisson.sf(counts[-1], mean[:, 0])
    return matrix


@functools.lru_cache(maxsize=64)
def _alias_table(name: str, parameters: Parameters) -> npt.NDArray[np.uint32]:
    """Return the alias tables, a row per level, with thresholds in the upper 24 bits and aliases in the lower 8."""
    matrix = transition_matrix(name, parameters)
    table = _build_alias_table(matrix / matrix.sum(axis=1, keepdims=True))
    table.setflags(write=False)
    return table


@compiled
def _build_alias_table(matrix: Matrix) -> npt.NDArray[np.uint32]:
    levels = matrix.shape[0]
    table = np.empty((levels, levels), dtype=np.uint32)
    small, large = np.empty(levels, dtype=np.int64), np.empty(levels, dtype=np.int64)
    for row in range(levels):
        share = matrix[row] * levels
        num_small = num_large = 0
        alias = np.arange(levels)
        for k in range(levels):
            if share[k] < 1:
                small[num_small] = k
                num_small += 1
            else:
                large[num_large] = k
                num_large += 1
        while num_small > 0 and num_large > 0:
            num_small -= 1
            lesser, greater = small[num_small], large[num_large - 1]
            alias[lesser] = greater
            share[greater] -= 1 - share[lesser]
            if share[greater] < 1:
                num_large -= 1
                small[num_small] = greater
                num_small += 1
        # Columns that rounding leaves over become their own alias.
        for k in range(num_small):
            alias[small[k]] = small[k]
        for k in range(levels):
            threshold = min(max(round(share[k] * 2.0**24), 0), 2**24 - 1)
            table[row, k] = (threshold << 8) | alias[k]
    return table


@compiled
def _draw(
    values: npt.NDArray[np.uint8],
    bits: npt.NDArray[np.uint32],
    table: npt.NDArray[np.uint32],
    out: npt.NDArray[np.uint8],
) -> None:
    flat = table.reshape(-1)
    for i in range(values.size):
        # Of each random number, 8 bits choose the column, and 24 bits choose between the column and its alias.
        column = bits[i] & np.uint32(255)
        entry = flat[(np.uint32(values[i]) << np.uint32(8)) | column]
        out[i] = np.uint8(column) if (bits[i] >> np.uint32(8)) < (entry >> np.uint32(8)) else np.uint8(entry)
