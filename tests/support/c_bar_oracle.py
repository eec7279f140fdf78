"""Parameters that the generator of the C-bar benchmarks' authors sampled, given to this package's transforms.

Where the generator draws inside a transform, it does so by numpy's RandomState from a seed among its parameters. Here
the same numbers are drawn in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dtn_det.corruptions.effects.c_bar import caustics, cover, perlin, plasma, sparkles, spectral, splines, warps, waves


def corrupt_with(name: str, image: np.ndarray, parameters: Mapping[str, Any]) -> np.ndarray:
    """Corrupt an image with sampled parameters, as the file ``records.json`` of the oracle holds them."""
    p = parameters
    random = np.random.RandomState(p.get("seed", 0))
    side = len(image)
    if name == "caustic_refraction":
        drawn = caustics.Caustics(p["time"], p["size"], p["eta"], p["lens_scale"], p["lighting_amount"])
        return caustics.apply_caustics(image, drawn)
    if name == "inverse_sparkles":
        star = sparkles.Star(tuple(p["center"]), _rays(random, p["radius"], p["rays"], 0))
        return sparkles.apply_inverse_sparkles(image, sparkles.InverseSparkle(star, (100 - p["amount"]) / 50))
    if name == "sparkles":
        stars = zip(p["centers"], p["radii"], p["nrays"], strict=True)
        drawn_stars = tuple(sparkles.Star(tuple(at), _rays(random, radius, rays, 1)) for at, radius, rays in stars)
        return sparkles.apply_sparkles(image, drawn_stars)
    if name == "perlin_noise":
        return perlin.apply_turbulence(image, _turbulence(random, p["alpha"]))
    if name == "blue_noise_sample":
        return spectral.apply_blue_mask(image, spectral.BlueMask(_phases(random, side), p["threshold"]))
    if name == "brownish_noise":
        phases = np.stack([_phases(random, side) for _ in range(3)])
        return spectral.apply_brownish_noise(image, spectral.BrownishNoise(phases, p["intensity"]))
    if name == "plasma_noise":
        wave = plasma.Plasma(p["time"], p["iterations"], p["sharpness"], p["scale"], p["intensity"])
        return plasma.apply_plasma(image, wave)
    if name == "checkerboard_cutout":
        field = p["scales"][0]
        number = int(4 * side // field)
        covered = random.uniform(size=(number, number)) < p["fraction"]
        return cover.apply_chessboard(image, cover.Chessboard(p["angle"], field, covered))
    if name == "cocentric_sine_waves":
        rings = waves.Rings(tuple(p["offset"]), p["freq"], p["amplitude"], p["ring_width"], p["intensity"][0])
        return waves.apply_rings(image, rings)
    if name == "single_frequency_greyscale":
        return waves.apply_plane_wave(image, waves.PlaneWave(tuple(p["freq"]), p["phase"], p["intensity"]))
    if name == "pinch_and_twirl":
        return warps.apply_twirls(image, warps.Twirls(np.array(p["angles"]), p["amount"]))
    if name == "ripple":
        ripples = warps.Ripples(tuple(p["amplitudes"]), tuple(p["wavelengths"]), tuple(p["phases"]))
        return warps.apply_ripples(image, ripples)
    if name == "lines":
        uniforms = random.uniform(size=(cover.line_count(side, 10 * p["density"]), 3))
        return cover.apply_lines(image, cover.Lines(cover.line_ends(side, p["angle"], p["angle_variation"], uniforms)))
    if name == "transverse_chromatic_abberation":
        return splines.apply_magnifications(image, splines.Magnifications(tuple(p["scales"])))
    if name == "circular_motion_blur":
        return splines.apply_turning(image, splines.Turning(p["amount"]))
    raise KeyError(name)


def _rays(random: np.random.RandomState, radius: float, number: int, least: float) -> np.ndarray:
    lengths = radius * (1 + 0.25 * random.randn(number))
    return (np.maximum(lengths, least) if least else lengths).astype(np.float32)


def _phases(random: np.random.RandomState, side: int) -> np.ndarray:
    phases = random.uniform(low=0, high=2 * np.pi, size=side * (side // 2))
    if side % 2:
        phases = np.concatenate((phases, random.uniform(low=0, high=2 * np.pi, size=side // 2)))
    return phases.astype(np.float32)


def _turbulence(random: np.random.RandomState, alpha: float) -> perlin.Turbulence:
    # 514 gradients are drawn, of which the first 256 are used.
    vectors = [random.randint(low=0, high=2**31, size=2) % 512 - 256 for _ in range(514)]
    order = np.arange(256)
    for place in range(255, -1, -1):
        other = random.randint(low=0, high=2**31) % 256
        order[place], order[other] = order[other], order[place]
    return perlin.Turbulence(order, perlin.normalized(np.array(vectors[:256]) / 256), alpha)
