"""Loss of resolution and compression: pixelate and jpeg_compression."""

from __future__ import annotations

import numpy as np
from PIL import Image

from dtn_det.corruptions.effects.jpeg import round_trip
from dtn_det.corruptions.effects.order import Order
from dtn_det.corruptions.image import ByteImage


def pixelate(image: ByteImage, order: Order) -> ByteImage:
    """Average blocks of pixels, then enlarge them again."""
    (share,) = order.parameters
    height, width = image.shape[:2]
    upwards = Image.Resampling.BOX if order.profile.original else Image.Resampling.NEAREST
    small = Image.fromarray(image).resize((int(width * share), int(height * share)), Image.Resampling.BOX)
    return np.array(small.resize((width, height), upwards))


def jpeg_compression(image: ByteImage, order: Order) -> ByteImage:
    """Save at low quality."""
    (quality,) = order.parameters
    return round_trip(image, int(quality))
