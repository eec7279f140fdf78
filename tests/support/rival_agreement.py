"""Comparison of a corruption with `imagecorruptions` over many images and draws."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from pictures import rmse

from dtn_det.corruptions import corrupt


@dataclass
class Summary:
    strength: float  # mean RMSE to clean
    means: np.ndarray  # of the channels
    energy: np.ndarray  # mean energy of the corrupted image by band of frequency


BANDS = np.array([1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2])  # cycles per pixel


def summarize(images, name, severity, draws, **options) -> Summary:
    strengths, means, energies = [], [], []
    for k, image in enumerate(images):
        for draw in range(draws):
            out = corrupt(image, name, severity, key=f"{k} {draw}", jpeg=False, **options)
            strengths.append(rmse(out, image))
            means.append(out.mean(axis=(0, 1)))
            if draw < 2:
                energies.append(band_energy(out))
    return Summary(float(np.mean(strengths)), np.mean(means, axis=0), np.mean(energies, axis=0))


def band_energy(image: np.ndarray) -> np.ndarray:
    grey = image.mean(axis=2)
    height, width = grey.shape
    power = np.abs(np.fft.rfft2((grey - grey.mean()) * np.hanning(height)[:, None] * np.hanning(width))) ** 2
    return np.bincount(bands(height, width), power.reshape(-1), len(BANDS) + 1)


@cache
def bands(height: int, width: int) -> np.ndarray:
    """The band of each frequency."""
    return np.digitize(np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)), BANDS).reshape(-1)


def both(images, name, severity, draws, **options) -> tuple[Summary, Summary]:
    ours = summarize(images, name, severity, draws, profile="coco-c", **options)
    return ours, summarize(images, name, severity, draws, profile="coco-c", backend="imagecorruptions")
