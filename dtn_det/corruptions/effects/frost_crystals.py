"""Drawings of ice on glass: needles, feathers, wrinkles and droplets. Callers adjust the range of the shades."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dtn_det.corruptions.image import FloatImage
from dtn_det.corruptions.stream import Stream
from dtn_det.system.compiled import compiled

Strokes = npt.NDArray[np.float32]
"""Strokes ``(N, 9)``: x and y of both ends, half the width at both ends, shade, gain and opacity.

The shade is that of the middle line. It rises by the gain from the middle line to one rim, and falls by the gain to the
other."""

Floats = npt.NDArray[np.floating]
Range = tuple[float, float]
Size = tuple[int, int]


def needles(stream: Stream, size: Size, density: float, length: Range, half_width: Range) -> FloatImage:
    """Draw needles of ice that cross each other, each lit from one side.

    Args:
        stream: Random numbers.
        size: Height and width, in pixels.
        density: Number of needles per pixel.
        length: Smallest and largest length, in pixels; short needles are more frequent.
        half_width: Smallest and largest half of the width, in pixels; slim needles are more frequent.

    Returns:
        ``(H, W)`` shades.
    """
    x, y, turn, stretch, girth, shade, gain, cross = stream.uniforms((8, int(density * size[0] * size[1])))
    angle = _grain(x, y, size) + 1.2 * (turn - 0.5) + np.where(cross < 0.4, 1.05, 0)
    reach, half = _within(length, stretch**2), _within(half_width, girth**2)
    # Some needles begin outside the picture.
    x, y = x * (size[1] + 40) - 20, y * (size[0] + 40) - 20
    ends = (x, y, x + reach * np.cos(angle), y + reach * np.sin(angle))
    return _drawing(size, 0.5, _strokes(*ends, half, half * 0.2, shade, gain - 0.4, 0.55))


def feathers(
    stream: Stream, size: Size, density: float, length: Range, spacing: float, spread: float, arms: int
) -> FloatImage:
    """Draw crystals of spines with barbs on both sides, bright on dark.

    Args:
        stream: Random numbers.
        size: Height and width, in pixels.
        density: Number of crystals per pixel.
        length: Smallest and largest length of a spine, in pixels.
        spacing: Distance between barbs, in pixels.
        spread: Length of the longest barbs, relative to the spine.
        arms: Largest number of spines that start at one point.

    Returns:
        ``(H, W)`` shades.
    """
    crystals = stream.uniforms((7, int(density * size[0] * size[1])))
    arm, crystals = _members(1 + (crystals[4] * arms).astype(np.intp), crystals)
    x, y, turn, stretch, _, shade, bend = crystals
    angle = 2 * np.pi * turn + 1.1 * arm + 0.5 * np.sin(7 * arm + 9 * bend)
    reach = _within(length, stretch**2) * (1 - 0.15 * (arm % 3))
    steps = np.maximum(reach / spacing, 3).astype(np.intp)
    spines = np.stack((x * size[1], y * size[0], angle, bend - 0.5, reach, 0.35 + 0.65 * shade, steps))
    step, (x, y, angle, bend, reach, shade, steps) = _members(steps, spines)
    # The barbs start at points along the spines, which are slightly bent.
    place, before = (step + 1) / (steps + 1), step / (steps + 1)
    direction = angle + 0.5 * bend * place
    tip = (x + reach * place * np.cos(direction), y + reach * place * np.sin(direction))
    direction_before = angle + 0.5 * bend * before
    root = (x + reach * before * np.cos(direction_before), y + reach * before * np.sin(direction_before))
    barb = reach * spread * np.minimum(1, 5 * place) * (1 - place) ** 0.7
    sides = [
        _strokes(
            *tip, tip[0] + barb * np.cos(direction + lean), tip[1] + barb * np.sin(direction + lean),
            0.24 * spacing, 0.1 * spacing, light * shade, 0.3, 0.9,
        )
        # Side branches of ice leave the spine at 60 degrees. Here they lean a little towards the tip, and one side is
        # in the shade.
        for lean, light in ((0.85, 1.0), (-0.85, 0.75))
    ]  # fmt: skip
    spine = _strokes(*root, *tip, 0.12 * spacing, 0.12 * spacing, shade, 0.0, 0.6)
    # Strokes are ordered by crystal, so that later crystals cover earlier ones.
    return _drawing(size, 0.0, np.stack([*sides, spine], axis=1).reshape(-1, 9))


def _members(counts: npt.NDArray[np.intp], groups: Floats) -> tuple[npt.NDArray[np.intp], Floats]:
    """Number the members of each group from 0, and repeat the group's column for each member."""
    number = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
    return number, np.repeat(groups, counts, axis=1)


def wrinkles(stream: Stream, size: Size, density: float, length: Range) -> FloatImage:
    """Draw folds in a sheet of ice, each bright on one side and dark on the other.

    Args:
        stream: Random numbers.
        size: Height and width, in pixels.
        density: Number of folds per pixel.
        length: Smallest and largest length, in pixels; short folds are more frequent.

    Returns:
        ``(H, W)`` shades.
    """
    parts = 7
    x, y, stretch, height, turn, girth, *wander = stream.uniforms((6 + parts, int(density * size[0] * size[1])))
    angle = _grain(x, y, size) + 1.2 * (turn - 0.5)
    x, y = x * size[1], y * size[0]
    step = _within(length, stretch**3) / parts
    strokes = []
    for part in range(parts):
        angle = angle + 1.3 * (wander[part] - 0.5)
        next_x, next_y = x + step * np.cos(angle), y + step * np.sin(angle)
        middle = 1 - abs(2 * part + 1 - parts) / parts
        half = 0.9 + 1.6 * girth * middle
        opacity = (0.25 + 0.6 * height**2) * (0.3 + 0.7 * middle)
        strokes.append(_strokes(x, y, next_x, next_y, half, half, 0.5, -1.0, opacity))
        x, y = next_x, next_y
    return _drawing(size, 0.5, np.concatenate(strokes))


def droplets(stream: Stream, size: Size, streak: float) -> FloatImage:
    """Draw frozen droplets, some of which have run down the glass.

    Args:
        stream: Random numbers.
        size: Height and width, in pixels.
        streak: Longest distance that a droplet has run, in pixels.

    Returns:
        ``(H, W)`` shades.
    """
    x, y, fate, shade, girth, aside = stream.uniforms((6, size[0] * size[1] // 14))
    x, y = x * size[1], y * size[0]
    half = 0.5 + 0.9 * girth
    runs = fate < 0.25
    # Droplets run along the tracks of earlier droplets.
    x = np.where(runs, np.round(x / 5) * 5 + 2 * (aside - 0.5), x)
    ends = (x, y, np.where(runs, x, x + half), y + np.where(runs, shade * streak, half))
    return _drawing(size, 0.4, _strokes(*ends, half, half, shade, 0.3, 0.6))


def clouds(stream: Stream, size: Size, cell: int) -> FloatImage:
    """Draw smooth noise.

    Args:
        stream: Random numbers.
        size: Height and width, in pixels.
        cell: Distance between independent values, in pixels.

    Returns:
        ``(H, W)`` shades from 0 to 1.
    """
    values = stream.uniforms((size[0] // cell + 2, size[1] // cell + 2))
    (above, down), (before, right) = (_cells(length, cell) for length in size)
    rows = values[above] + down[:, None] * (values[above + 1] - values[above])
    smooth: FloatImage = rows[:, before] + right * (rows[:, before + 1] - rows[:, before])
    return smooth


def _cells(length: int, cell: int) -> tuple[npt.NDArray[np.intp], FloatImage]:
    """Return the cell of each pixel of an axis, and the weight of the next cell, which rises smoothly from 0 to 1."""
    position = np.arange(length) / cell
    index = position.astype(np.intp)
    share = (position - index).astype(np.float32)
    return index, share * share * (3 - 2 * share)


def _within(ends: Range, share: Floats) -> Floats:
    return ends[0] + (ends[1] - ends[0]) * share


def _grain(x: Floats, y: Floats, size: Size) -> Floats:
    """Return a direction that changes slowly across the picture, because crystals grow along their neighbours."""
    x, y = 6 * x * size[1] / size[0], 6 * y
    direction: Floats = 1.3 * np.sin(x + 1.7 * np.sin(0.7 * y)) + 1.1 * np.cos(1.3 * y + np.sin(0.9 * x))
    return direction


def _strokes(*columns: Floats | float) -> Strokes:
    return np.stack(np.broadcast_arrays(*columns), axis=1).astype(np.float32)


def _drawing(size: Size, background: float, strokes: Strokes) -> FloatImage:
    canvas = np.full(size, background, np.float32)
    _paint(canvas, strokes)
    return canvas


@compiled
def _paint(canvas: FloatImage, strokes: Strokes) -> None:
    """Paint the strokes onto the canvas, one after the other, with smooth rims and straight ends."""
    height, width = canvas.shape
    for k in range(strokes.shape[0]):
        x0, y0, x1, y1, half0, half1, shade, gain, opacity = strokes[k]
        along_x, along_y = x1 - x0, y1 - y0
        length = max(np.sqrt(along_x * along_x + along_y * along_y), np.float32(1e-3))
        along_x /= length
        along_y /= length
        margin = max(half0, half1) + 1
        first_row, last_row = max(int(min(y0, y1) - margin), 0), min(int(max(y0, y1) + margin), height - 1)
        first_column, last_column = max(int(min(x0, x1) - margin), 0), min(int(max(x0, x1) + margin), width - 1)
        for row in range(first_row, last_row + 1):
            for column in range(first_column, last_column + 1):
                dx, dy = np.float32(column) - x0, np.float32(row) - y0
                side = dx * along_y - dy * along_x
                if abs(side) > margin:
                    continue
                place = (dx * along_x + dy * along_y) / length
                half = half0 + (half1 - half0) * min(max(place, np.float32(0)), np.float32(1)) + np.float32(0.5)
                beyond = max(-place, place - np.float32(1)) * length
                cover = min(half - abs(side), np.float32(1)) * min(np.float32(1) - beyond, np.float32(1))
                if cover > 0 and beyond < 1:
                    value = shade + gain * max(min(side / half, np.float32(1)), np.float32(-1))
                    canvas[row, column] += cover * opacity * (value - canvas[row, column])
