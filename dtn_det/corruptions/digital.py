"""Loss of resolution and compression: pixelate and jpeg_compression."""

from __future__ import annotations

import numpy as np
from PIL import Image

from dtn_det.corruptions.image import ByteImage
from dtn_det.corruptions.jpeg import round_trip
from dtn_det.corruptions.order import Order


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
