"""What happened to the images of ImageNet before they were corrupted."""

from __future__ import annotations

from PIL import Image

RESIZE, CROP = 256, 224


def resize_and_crop(image: Image.Image) -> Image.Image:
    """Resize the short side to 256, bilinear and antialiased, and cut the central 224 x 224 out.

    The generator of ImageNet-C used ``Resize(256)`` and ``CenterCrop(224)`` of torchvision; this gives the same pixels.
    An image that is 224 x 224 already is left alone: it went through this before.
    """
    if image.size == (CROP, CROP):
        return image
    width, height = image.size
    short = min(width, height)
    image = image.resize((RESIZE * width // short, RESIZE * height // short), Image.Resampling.BILINEAR)
    # Python's rounding to even, as in torchvision.
    left, top = round((image.width - CROP) / 2), round((image.height - CROP) / 2)
    return image.crop((left, top, left + CROP, top + CROP))
