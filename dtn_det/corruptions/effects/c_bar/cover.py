"""Grey that covers parts of the image: some squares of a rotated chessboard, or straight lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dtn_det.corruptions.effects.settings import EffectSettings
from dtn_det.corruptions.image import ByteImage
from dtn_det.corruptions.stream import Stream
from dtn_det.system.compiled import compiled

_GREY = 128


@dataclass(frozen=True)
class Chessboard:
    """The random parameters of a chessboard.

    Attributes:
        angle: Angle of the board's rotation about the upper left corner of the image, in radians.
        field: Side of a square, in pixels.
        covered: ``(n, n)``, True where the black square in a row and column is covered. Rows above the corner and
            columns to the left of the corner have negative indices, which count from the end.
    """

    angle: float
    field: float
    covered: npt.NDArray[np.bool_]


def checkerboard_cutout(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Cover some of the black squares of a chessboard with grey."""
    (magnitude,) = settings.parameters
    return apply_chessboard(image, draw_chessboard(settings.stream, len(image), magnitude))


def draw_chessboard(stream: Stream, side: int, magnitude: float) -> Chessboard:
    """Draw the random parameters of a chessboard, for an image of ``side`` x ``side`` pixels."""
    angle = stream.uniform(0, 2 * np.pi)
    field = stream.uniform(0.1, 0.25) * side
    number = int(4 * side // field)
    return Chessboard(angle, field, stream.generator.random((number, number)) < 0.1 * magnitude)


def apply_chessboard(image: ByteImage, board: Chessboard) -> ByteImage:
    """Cover the chosen squares of a chessboard over an image whose height equals its width."""
    out = image.copy()
    _cover(out, np.cos(board.angle), np.sin(board.angle), board.field, board.covered)
    return out


@compiled
def _cover(out: ByteImage, cosine: float, sine: float, field: float, covered: npt.NDArray[np.bool_]) -> None:
    side, number = len(out), len(covered)
    for row in range(side):
        for column in range(side):
            down = (cosine * row + sine * column) / field
            right = (cosine * column - sine * row) / field
            if int(np.floor(down)) % 2 != int(np.floor(right)) % 2:
                continue
            # int rounds towards zero, so the squares on both sides of the corner have index 0, and are covered
            # together.
            i, j = int(down), int(right)
            if covered[i + number if i < 0 else i, j + number if j < 0 else j]:
                for c in range(3):
                    out[row, column, c] = _GREY


@dataclass(frozen=True)
class Lines:
    """The random parameters of the lines.

    Attributes:
        ends: ``(n, 4)`` row and column of the first end of each line, then row and column of its second end, in pixels.
            Ends may be outside the image.
    """

    ends: npt.NDArray[np.int64]


def lines(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Draw grey lines over the image."""
    (magnitude,) = settings.parameters
    return apply_lines(image, draw_lines(settings.stream, len(image), magnitude))


def draw_lines(stream: Stream, side: int, magnitude: float) -> Lines:
    """Draw the random parameters of the lines, for an image of ``side`` x ``side`` pixels."""
    angle = stream.uniform(0, 2 * np.pi)
    variation = stream.uniform(0.1, 1)
    return Lines(line_ends(side, angle, variation, stream.generator.random((line_count(side, magnitude), 3))))


def line_count(side: int, magnitude: float) -> int:
    """Return the number of lines for a square image with this side in pixels."""
    return int(magnitude / 10 * side)


def line_ends(side: int, angle: float, variation: float, uniforms: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the ends of lines whose length is twice the side of the image.

    Args:
        side: Side of the image, in pixels.
        angle: Mean angle of the lines, in radians.
        variation: Width of the range of angles around ``angle``, as a share of a full turn.
        uniforms: ``(n, 3)`` random numbers from 0 to 1, for the row of each line's centre, its column and the angle.

    Returns:
        ``(n, 4)``: see :class:`Lines`.
    """
    centres = side * uniforms[:, :2]
    angles = angle + 2 * np.pi * variation * (uniforms[:, 2] - 0.5)
    reach = side * np.stack((np.cos(angles), np.sin(angles)), axis=1)
    return np.concatenate((centres - reach, centres + reach), axis=1).astype(np.int64)


def apply_lines(image: ByteImage, drawn: Lines) -> ByteImage:
    """Draw lines over a square image."""
    out = image.copy()
    # A line spans at most 2 * side + 1 rows and columns, and sets at most three pixels per row and column.
    places, shares = np.empty((8 * len(image) + 8, 2), np.int64), np.empty(8 * len(image) + 8)
    for row, column, last_row, last_column in drawn.ends:
        _draw_line(out, row, column, last_row, last_column, places, shares)
    return out


@compiled
def _draw_line(
    out: ByteImage,
    row: int,
    column: int,
    last_row: int,
    last_column: int,
    places: npt.NDArray[np.int64],
    shares: npt.NDArray[np.float64],
) -> None:
    """Blend one line with smooth edges into the image, after A. Zingl, "A Rasterizing Algorithm for Drawing Curves".

    ``error`` is proportional to the distance from the exact line. A pixel may get two shares of grey: then the later
    one counts. Each share is blended with the image as it was before the line.
    """
    side = len(out)
    rows, columns = abs(last_row - row), abs(last_column - column)
    row_step, column_step = (1 if row < last_row else -1), (1 if column < last_column else -1)
    length = np.sqrt(rows * rows + columns * columns) if rows + columns > 0 else 1.0
    error, count = columns - rows, 0
    while True:
        places[count], shares[count] = (row, column), 1 - abs(error - columns + rows) / length
        count += 1
        before, column_before = error, column
        if 2 * before >= -columns:
            if column == last_column:
                break
            if before + rows < length:
                places[count], shares[count] = (row + row_step, column), 1 - abs(before + rows) / length
                count += 1
            error -= rows
            column += column_step
        if 2 * before <= rows:
            if row == last_row:
                break
            if columns - before < length:
                places[count], shares[count] = (row, column_before + column_step), 1 - abs(columns - before) / length
                count += 1
            error += columns
            row += row_step
    inside = 0
    values = np.empty((count, 3), np.uint8)
    for index in range(count):
        i, j, share = places[index, 0], places[index, 1], shares[index]
        if 0 <= i < side and 0 <= j < side:
            places[inside, 0], places[inside, 1] = i, j
            for c in range(3):
                values[inside, c] = np.uint8((1 - share) * out[i, j, c] + share * _GREY)
            inside += 1
    for index in range(inside):
        for c in range(3):
            out[places[index, 0], places[index, 1], c] = values[index, c]
