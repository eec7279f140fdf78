"""Parameters of each corruption at severities 1 to 5, by benchmark.

Sources: the generators of Hendrycks and Dietterich (github.com/hendrycks/robustness, ImageNet-C/create_c,
``make_imagenet_c.py``, ``make_cifar_c.py`` and ``make_tinyimagenet_c.py``). For COCO-C: `imagecorruptions`
(github.com/bethgelab/imagecorruptions; Michaelis et al., arXiv:1907.07484), which has the parameters of ImageNet-C
except for the elastic transform. As in these sources, zoom factors are the values of ``np.arange(1, stop, step)``. For
ImageNet-C-bar and CIFAR-10-C-bar: the generator of Mintun et al. (arXiv:2102.11273;
github.com/facebookresearch/augmentation-corruption, imagenet_c_bar, ``imagenet_c_bar.csv`` and ``cifar10_c_bar.csv``).
Each corruption of both benchmarks has one parameter, the magnitude from 0 to 10, which the functions of
`effects/c_bar/` turn into strengths.

The parameters of a severity are:

==================  ====================================================================================================
gaussian_noise      standard deviation, as a share of the value range
shot_noise          photons at full brightness
impulse_noise       share of values set to 0 or 255
speckle_noise       standard deviation relative to the value itself
gaussian_blur       sigma in pixels
defocus_blur        radius of the disk and sigma of its antialiasing, in pixels
glass_blur          sigma, largest offset (both in pixels), rounds
motion_blur         radius and sigma in pixels
zoom_blur           zoom factors that are averaged
snow                mean, deviation, zoom, threshold of flakes; radius, sigma of their motion; share not whitened
frost               weight of the image, weight of the ice
fog                 strength, decay of the roughness from scale to scale
brightness          added to the value of HSV
spatter             mean, deviation, sigma, threshold of drops; strength of water or sigma of mud; 0: water, 1: mud
contrast            share of the deviation from the mean that stays
elastic_transform   amplitude, sigma (both in pixels) and largest shift of the three points of the affine map, in pixels
pixelate            share of the resolution that stays
jpeg_compression    quality
saturate            factor and offset of the saturation of HSV
==================  ====================================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

Parameters = tuple[float, ...]
Table = Mapping[str, tuple[Parameters, ...]]


def _zooms(*ranges: tuple[float, float]) -> tuple[Parameters, ...]:
    return tuple(tuple(np.arange(1, stop, step).tolist()) for stop, step in ranges)


def _scalars(*values: float) -> tuple[Parameters, ...]:
    return tuple((value,) for value in values)


def _elastic(size: float, *values: Parameters) -> tuple[Parameters, ...]:
    return tuple(tuple(size * part for part in value) for value in values)


IMAGENET_C: Table = MappingProxyType(
    {
        "gaussian_noise": _scalars(0.08, 0.12, 0.18, 0.26, 0.38),
        "shot_noise": _scalars(60, 25, 12, 5, 3),
        "impulse_noise": _scalars(0.03, 0.06, 0.09, 0.17, 0.27),
        "speckle_noise": _scalars(0.15, 0.2, 0.35, 0.45, 0.6),
        "gaussian_blur": _scalars(1, 2, 3, 4, 6),
        "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        "zoom_blur": _zooms((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        "snow": (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        "frost": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
        "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        "brightness": _scalars(0.1, 0.2, 0.3, 0.4, 0.5),
        "spatter": (
            (0.65, 0.3, 4, 0.69, 0.6, 0),
            (0.65, 0.3, 3, 0.68, 0.6, 0),
            (0.65, 0.3, 2, 0.68, 0.5, 0),
            (0.65, 0.3, 1, 0.65, 1.5, 1),
            (0.67, 0.4, 1, 0.65, 1.5, 1),
        ),
        "contrast": _scalars(0.4, 0.3, 0.2, 0.1, 0.05),
        # 244 instead of 224 is a mistake in the original generator, with which the published images were made.
        "elastic_transform": _elastic(
            244, (2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)
        ),
        "pixelate": _scalars(0.6, 0.5, 0.4, 0.3, 0.25),
        "jpeg_compression": _scalars(25, 18, 15, 10, 7),
        "saturate": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    }
)

# Amplitude, sigma and shift. The amplitude multiplies noise that is uniform between -0.5 % and 0.5 % of the height.
# Sigma is in per cent of each side. A shift of 0 means that there is no affine map.
_COCO_C_ELASTIC = tuple((250 * factor, 1.0, 0.0) for factor in (0.05, 0.065, 0.085, 0.1, 0.12))

COCO_C: Table = MappingProxyType({**IMAGENET_C, "elastic_transform": _COCO_C_ELASTIC})

CIFAR_C: Table = MappingProxyType(
    {
        "gaussian_noise": _scalars(0.04, 0.06, 0.08, 0.09, 0.10),
        "shot_noise": _scalars(500, 250, 100, 75, 50),
        "impulse_noise": _scalars(0.01, 0.02, 0.03, 0.05, 0.07),
        "speckle_noise": _scalars(0.06, 0.1, 0.12, 0.16, 0.2),
        "gaussian_blur": _scalars(0.4, 0.6, 0.7, 0.8, 1),
        "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        "zoom_blur": _zooms((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        "snow": (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        "frost": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        "brightness": _scalars(0.05, 0.1, 0.15, 0.2, 0.3),
        "spatter": (
            (0.62, 0.1, 0.7, 0.7, 0.5, 0),
            (0.65, 0.1, 0.8, 0.7, 0.5, 0),
            (0.65, 0.3, 1, 0.69, 0.5, 0),
            (0.65, 0.1, 0.7, 0.69, 0.6, 1),
            (0.65, 0.1, 0.5, 0.68, 0.6, 1),
        ),
        "contrast": _scalars(0.75, 0.5, 0.4, 0.3, 0.15),
        "elastic_transform": _elastic(
            32, (0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)
        ),
        "pixelate": _scalars(0.95, 0.9, 0.85, 0.75, 0.65),
        "jpeg_compression": _scalars(80, 65, 58, 50, 40),
        "saturate": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
    }
)

TINY_IMAGENET_C: Table = MappingProxyType(
    {
        "gaussian_noise": _scalars(0.04, 0.08, 0.12, 0.15, 0.18),
        "shot_noise": _scalars(250, 100, 50, 30, 15),
        "impulse_noise": _scalars(0.01, 0.02, 0.05, 0.08, 0.14),
        "speckle_noise": _scalars(0.15, 0.2, 0.25, 0.3, 0.35),
        "gaussian_blur": _scalars(0.5, 0.75, 1, 1.25, 1.5),
        "defocus_blur": ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
        "glass_blur": ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
        "motion_blur": ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
        "zoom_blur": CIFAR_C["zoom_blur"],
        "snow": (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.8),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.8),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
        ),
        "frost": ((1, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)),
        "fog": ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
        "brightness": IMAGENET_C["brightness"],
        "spatter": (
            (0.62, 0.1, 0.7, 0.7, 0.6, 0),
            (0.65, 0.1, 0.8, 0.7, 0.6, 0),
            (0.65, 0.3, 1, 0.69, 0.6, 0),
            (0.65, 0.1, 0.7, 0.68, 0.6, 1),
            (0.65, 0.1, 0.5, 0.67, 0.6, 1),
        ),
        "contrast": IMAGENET_C["contrast"],
        "elastic_transform": _elastic(
            64, (0, 0, 0.08), (0.05, 0.3, 0.06), (0.1, 0.08, 0.06), (0.1, 0.03, 0.03), (0.16, 0.03, 0.02)
        ),
        "pixelate": _scalars(0.9, 0.8, 0.7, 0.6, 0.5),
        "jpeg_compression": _scalars(65, 58, 50, 40, 25),
        "saturate": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2)),
    }
)

IMAGENET_C_BAR: Table = MappingProxyType(
    {
        "caustic_refraction": _scalars(2.35, 3.2, 4.9, 6.6, 9.15),
        "inverse_sparkles": _scalars(1, 2, 4, 9, 10),
        "sparkles": _scalars(1, 2, 3, 5, 6),
        "perlin_noise": _scalars(4.6, 5.2, 5.8, 7.6, 8.8),
        "blue_noise_sample": _scalars(0.8, 1.6, 2.4, 4, 5.6),
        "plasma_noise": _scalars(4.75, 7, 8.5, 9.25, 10),
        "checkerboard_cutout": _scalars(2, 3, 4, 5, 6),
        "cocentric_sine_waves": _scalars(3, 5, 8, 9, 10),
        "single_frequency_greyscale": _scalars(1, 1.5, 2, 4.5, 5),
        "brownish_noise": _scalars(1, 2, 3, 4, 5),
    }
)

CIFAR_C_BAR: Table = MappingProxyType(
    {
        "blue_noise_sample": _scalars(0.7, 1.4, 2.1, 3.5, 4.2),
        "checkerboard_cutout": _scalars(1, 2, 3, 4, 5),
        "inverse_sparkles": _scalars(1, 1.5, 2.5, 4.5, 5),
        "pinch_and_twirl": _scalars(5.5, 6, 6.5, 8.5, 10),
        "ripple": _scalars(5.5, 6, 6.5, 7.5, 8),
        "brownish_noise": _scalars(2.5, 4, 5.5, 6.5, 7),
        "circular_motion_blur": _scalars(2.8, 3.6, 4.4, 5.2, 6),
        "lines": _scalars(0.5, 1, 1.5, 2, 2.5),
        "sparkles": _scalars(0.7, 3.5, 5.6, 6.3, 7),
        "transverse_chromatic_abberation": _scalars(1, 2, 5, 9, 10),
    }
)
