"""A picture that shows an image under many corruptions."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from dtn_det.corruptions.catalog import SEVERITIES
from dtn_det.corruptions.engine import Corruptor
from dtn_det.corruptions.image import ByteImage
from dtn_det.corruptions.stream import Key

_ROWS_PER_BLOCK = 10
_GAP = 4
_INK, _PAPER = (20, 20, 20), (255, 255, 255)


def draw_grid(
    image: ByteImage,
    corruptions: Sequence[str],
    severities: Sequence[int] = SEVERITIES,
    *,
    corruptor: Corruptor,
    key: Key | None = None,
    tile: int = 160,
) -> Image.Image:
    """Draw the clean image and its corruptions, with a labelled row per corruption and a column per severity.

    The image is corrupted at its original size, then reduced. More than ten rows are split into blocks side by side.

    Args:
        image: ``(H, W, 3)`` uint8 RGB array.
        corruptions: Names of the corruptions.
        severities: Severities from 1 to 5.
        corruptor: Corruptor of the image.
        key: Identity of the image.
        tile: Longer side of a picture in the grid, in pixels. A smaller image is not enlarged.
    """
    scale = min(1.0, tile / max(image.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    font = ImageFont.load_default(max(11, tile // 11))
    line = round(font.getbbox("Ag")[3]) + 2 * _GAP
    label = round(max(font.getlength(name) for name in ("clean", *corruptions))) + 2 * _GAP
    rows = ["clean", *corruptions]
    blocks = -(-len(rows) // _ROWS_PER_BLOCK)
    rows_per_block = -(-len(rows) // blocks)
    block_width = label + len(severities) * (width + _GAP) + _GAP
    grid = Image.new("RGB", (blocks * block_width, line + rows_per_block * (height + _GAP)), _PAPER)
    draw = ImageDraw.Draw(grid)

    def show(pixels: ByteImage, x: int, y: int) -> None:
        grid.paste(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS), (x, y))

    for index, row in enumerate(rows):
        left = index // rows_per_block * block_width
        top = line + index % rows_per_block * (height + _GAP)
        draw.text((left + label - _GAP, top + height // 2), row, _INK, font, anchor="rm")
        for column, severity in enumerate(severities):
            x = left + label + column * (width + _GAP)
            if index % rows_per_block == 0:
                draw.text((x + width // 2, line // 2), str(severity), _INK, font, anchor="mm")
            if index > 0:
                show(corruptor(image, row, severity, key), x, top)
        if index == 0:
            show(image, left + label, top)
    return grid
