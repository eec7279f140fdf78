"""Frost: a picture of ice laid over the image."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import cv2
import numpy as np

from dtn_det.corruptions.compiled import compiled
from dtn_det.corruptions.effects.frost_textures import texture_set
from dtn_det.corruptions.effects.order import Order
from dtn_det.corruptions.image import ByteImage
from dtn_det.corruptions.profiles import Profile

_KEPT_BYTES = 8 * 2**20


def frost(image: ByteImage, order: Order) -> ByteImage:
    """Add a random part of one of the textures to the darkened image."""
    weight, ice_weight = order.parameters
    height, width = image.shape[:2]
    number = order.stream.below(order.profile.num_frost_textures)
    ice = _fitting_texture(order.frost_folder, number, height, width, order.profile)
    top, left = order.stream.below(ice.shape[0] - height), order.stream.below(ice.shape[1] - width)
    frosty = np.empty_like(image)
    rows = (image.reshape(height, -1), ice.reshape(ice.shape[0], -1)[top:], 3 * left)
    _blend(*rows, np.float32(weight), np.float32(ice_weight), frosty.reshape(height, -1))
    return frosty


def _fitting_texture(folder: Path | str | None, number: int, height: int, width: int, profile: Profile) -> ByteImage:
    """A texture at the scale of the profile, or a larger one where it would not exceed the image on both axes."""
    texture = texture_set(folder).textures[number]
    rows, columns = texture.shape[:2]
    scale = profile.frost_scale
    if not profile.original:
        scale *= max(height / rows, width / columns, 1)
    elif round(rows * scale) <= height or round(columns * scale) <= width:
        # The original generators never met this case.
        scale = max((height + 1) / rows, (width + 1) / columns)
    if scale == 1:
        return texture
    # Textures for unusually large images would fill the memory.
    rescale = _rescaled if texture.nbytes * scale**2 <= _KEPT_BYTES else _rescaled.__wrapped__
    return rescale(folder, number, scale, profile.original)


@functools.lru_cache(maxsize=24)
def _rescaled(folder: Path | str | None, number: int, scale: float, original: bool) -> ByteImage:
    texture = texture_set(folder).textures[number]
    rescaled: ByteImage
    if original:
        rescaled = cv2.resize(texture, (0, 0), fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    else:
        rows, columns = (math.ceil(length * scale) for length in texture.shape[:2])
        rescaled = cv2.resize(texture, (columns, rows), interpolation=cv2.INTER_CUBIC)
    rescaled.setflags(write=False)
    return rescaled


@compiled
def _blend(
    image: ByteImage, ice: ByteImage, start: int, weight: np.float32, ice_weight: np.float32, out: ByteImage
) -> None:
    height, length = image.shape
    for row in range(height):
        below = ice[row, start : start + length]
        for i in range(length):
            value = weight * np.float32(image[row, i]) + ice_weight * np.float32(below[i])
            out[row, i] = np.uint8(min(value, np.float32(255)))
