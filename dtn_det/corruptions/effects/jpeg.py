"""JPEG as the benchmarks used it: Pillow's encoder, 4:2:0 chroma."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from dtn_det.corruptions.image import ByteImage


def round_trip(image: ByteImage, quality: int) -> ByteImage:
    """Encode an RGB image and decode it again.

    The published files of ImageNet-C were written with ``optimize=True`` as well: that packs the same coefficients more
    tightly and changes no pixel.

    Args:
        image: ``(H, W, 3)``.
        quality: 1 to 95.

    Returns:
        ``(H, W, 3)``.
    """
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    file.seek(0)
    with Image.open(file) as decoded:
        return np.array(decoded)
