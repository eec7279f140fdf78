"""Brightness, contrast and saturate: corruptions that treat each pixel by itself."""

from __future__ import annotations

import functools

import cv2
import numpy as np
import numpy.typing as npt

from dtn_det.corruptions.effects.settings import EffectSettings
from dtn_det.corruptions.image import ByteImage, to_bytes
from dtn_det.system.compiled import compiled


def contrast(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Move each value towards the mean of its channel over the image."""
    (share,) = settings.parameters
    means = np.array(cv2.mean(image)[:3]) / 255  # (3,)
    levels = np.arange(256, dtype=np.float64)[:, None] / 255
    table = to_bytes(((levels - means) * share + means).clip(0, 1) * 255)  # (256, 3)
    corrupted: ByteImage = cv2.LUT(image, table[None])
    return corrupted


def brightness(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Add an offset to V of HSV. As H and S stay, all channels of a pixel are multiplied by the same factor."""
    (offset,) = settings.parameters
    corrupted = np.empty_like(image)
    _look_up(image.reshape(-1, 3), _brightness_table(offset), corrupted.reshape(-1, 3))
    return corrupted


@functools.lru_cache(maxsize=16)
def _brightness_table(offset: float) -> ByteImage:
    """Return ``(256, 256)`` output levels, by a pixel's largest channel (row) and the level of a channel (column)."""
    levels = np.arange(256, dtype=np.float64) / 255
    value = levels[:, None]
    raised = np.minimum(value + offset, 1)
    # Black has no hue to keep, so it becomes grey.
    factor = np.divide(raised, value, out=np.zeros_like(value), where=value > 0)
    table = np.where(value > 0, factor * levels, raised)
    return to_bytes(table.clip(0, 1) * 255)


@compiled
def _look_up(pixels: ByteImage, table: ByteImage, out: ByteImage) -> None:
    for i in range(pixels.shape[0]):
        red, green, blue = pixels[i, 0], pixels[i, 1], pixels[i, 2]
        row = table[max(red, green, blue)]
        out[i, 0], out[i, 1], out[i, 2] = row[red], row[green], row[blue]


def saturate(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Multiply S of HSV by a factor, then add an offset."""
    factor, offset = settings.parameters
    corrupted = np.empty_like(image)
    _saturate(image.reshape(-1, 3), _saturation_table(factor, offset), corrupted.reshape(-1, 3))
    return corrupted


@functools.lru_cache(maxsize=16)
def _saturation_table(factor: float, offset: float) -> npt.NDArray[np.float32]:
    """Return factors for distances from the largest channel, by a pixel's largest (row) and smallest (column) level."""
    largest, smallest = np.arange(256.0)[:, None], np.arange(256.0)[None]
    saturation = np.divide(largest - smallest, largest, out=np.zeros((256, 256)), where=largest > 0)
    wanted = np.clip(saturation * factor + offset, 0, 1)
    growth = np.divide(wanted, saturation, out=np.zeros_like(wanted), where=saturation > 0)
    # The channels of a grey pixel have no distances to scale, so its entry is the wanted saturation, not a factor.
    return np.where(largest == smallest, wanted, growth).astype(np.float32)


@compiled
def _saturate(pixels: ByteImage, table: npt.NDArray[np.float32], out: ByteImage) -> None:
    for i in range(pixels.shape[0]):
        red, green, blue = pixels[i, 0], pixels[i, 1], pixels[i, 2]
        largest, smallest = max(red, green, blue), min(red, green, blue)
        growth = table[largest, smallest]
        top = np.float32(largest)
        if largest == smallest:
            # Grey has hue 0 in HSV, which is red, so green and blue are lowered to reach the saturation.
            out[i, 0] = largest
            out[i, 1] = out[i, 2] = np.uint8(top * (np.float32(1) - growth))
        else:
            for c in range(3):
                out[i, c] = np.uint8(max(top - (top - np.float32(pixels[i, c])) * growth, np.float32(0)))
