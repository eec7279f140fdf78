"""Frost: a picture of ice over the image, and the frost textures from which such pictures are cropped."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy import fft

from dtn_det.corruptions.effects.frost_crystals import clouds, droplets, feathers, needles, wrinkles
from dtn_det.corruptions.effects.frost_statistics import BANDS, TEXTURES, Statistics, layout, quantiles, spectrum
from dtn_det.corruptions.effects.settings import EffectSettings
from dtn_det.corruptions.image import ByteImage, FloatImage
from dtn_det.corruptions.profiles import Profile
from dtn_det.corruptions.stream import Stream
from dtn_det.errors import InputError
from dtn_det.system.compiled import compiled

FILES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg", "frost6.jpg")
"""Names of the original textures, in the order in which the generators draw them."""

PROCEDURAL = "procedural"


@dataclass(frozen=True)
class TextureSet:
    """Six pictures of frost.

    Attributes:
        name: ``procedural`` for pictures that this package draws, else ``original:`` and eight digits of a hash of the
            files.
        textures: Six read-only ``(H, W, 3)`` uint8 RGB pictures.
    """

    name: str
    textures: tuple[ByteImage, ...]


def texture_set(folder: Path | str | None) -> TextureSet:
    """Return the textures of a folder, or the textures that this package draws; cached in each process.

    Args:
        folder: Folder with :data:`FILES`; None for the textures that this package draws.

    Raises:
        FileNotFoundError: The folder or a texture is missing.
        InputError: A texture cannot be read as a picture.
    """
    return _procedural() if folder is None else _read(Path(folder).resolve())


def texture_name(folder: Path | str | None) -> str:
    """Return the name of the textures of :func:`texture_set`, without drawing them."""
    return PROCEDURAL if folder is None else texture_set(folder).name


@functools.lru_cache(maxsize=4)
def _read(folder: Path) -> TextureSet:
    digest = hashlib.sha256()
    textures = []
    for name in FILES:
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(
                f"expected the frost textures {', '.join(FILES)} in {folder}, found no {name}: take them from "
                "github.com/hendrycks/robustness (ImageNet-C/imagenet_c/imagenet_c/frost), or name no "
                "folder: the package then draws textures"
            )
        content = path.read_bytes()
        digest.update(content)
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
        if picture is None:
            raise InputError(f"expected a picture in {path}, got {len(content)} bytes that are none: copy it again")
        textures.append(_frozen(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)))
    return TextureSet(f"original:{digest.hexdigest()[:8]}", tuple(textures))


@functools.cache
def _procedural() -> TextureSet:
    textures = []
    for number, ((draw, patch), statistics) in enumerate(zip(_DRAWINGS, TEXTURES, strict=True), start=1):
        stream = Stream(0, f"texture {number}", "frost", 0)
        drawing, tint = draw(stream, statistics.size), clouds(stream, statistics.size, patch)
        textures.append(_frozen(_in_color(drawing, tint, statistics)))
    return TextureSet(PROCEDURAL, tuple(textures))


def _frozen(texture: ByteImage) -> ByteImage:
    texture.setflags(write=False)
    return texture


def _wrinkled_sheet(stream: Stream, size: tuple[int, int]) -> FloatImage:
    folds = wrinkles(stream, size, 0.022, (10, 90))
    folds *= 0.4 + clouds(stream, size, 70)
    folds += 0.3 * clouds(stream, size, 90)
    return folds


def _bed_of_needles(stream: Stream, size: tuple[int, int]) -> FloatImage:
    return needles(stream, size, 0.03, (8, 75), (1.2, 7.0)) + 0.2 * clouds(stream, size, 60)


def _frozen_droplets(stream: Stream, size: tuple[int, int]) -> FloatImage:
    frozen = droplets(stream, size, 14)
    stars = feathers(stream, size, 0.004, (6, 24), 2.4, spread=0.12, arms=4)
    # Stars grow only where the glass is clear.
    stars *= 3 * np.maximum(clouds(stream, size, 70) - 0.4, 0)
    frozen += stars
    return frozen


def _small_feathers(stream: Stream, size: tuple[int, int]) -> FloatImage:
    return feathers(stream, size, 0.0034, (20, 70), 3.4, spread=0.2, arms=2) * (0.35 + clouds(stream, size, 130))


def _large_feathers(stream: Stream, size: tuple[int, int]) -> FloatImage:
    return feathers(stream, size, 0.001, (50, 170), 5.0, spread=0.35, arms=2) * (0.3 + clouds(stream, size, 90))


_DRAWINGS: tuple[tuple[Callable[[Stream, tuple[int, int]], FloatImage], int], ...] = (
    (_wrinkled_sheet, 120),
    (_bed_of_needles, 16),
    (_bed_of_needles, 16),
    (_frozen_droplets, 10),
    (_small_feathers, 16),
    (_large_feathers, 16),
)
"""The function that draws each texture, and the size of the texture's areas of one tint, in pixels."""


def _in_color(drawing: FloatImage, tint: FloatImage, statistics: Statistics) -> ByteImage:
    """Give a drawing the spectrum, the layout and the quantiles of an original texture.

    Each adjustment changes the other two statistics, so all three are adjusted in turn, the quantiles last.
    """
    green = _with_quantiles(drawing, statistics.quantiles[1])
    for _ in range(3):
        green = _with_layout(_with_spectrum(green, statistics.spectrum), statistics.layout)
        green = _with_quantiles(green, statistics.quantiles[1])
    tint = (tint - tint.mean()) / tint.std() * green.std()
    channels = []
    # Mix green with a tint to get red and blue with the wanted correlations with green. The tint has opposite signs in
    # red and blue.
    for channel, sign in ((0, 1), (1, 0), (2, -1)):
        share = sign * np.sqrt(1 - statistics.correlations[channel // 2] ** 2)
        mixed = np.sqrt(1 - share**2) * (green - green.mean()) + share * tint
        channels.append(_with_quantiles(mixed.astype(np.float32), statistics.quantiles[channel]))
    return np.clip(np.rint(np.stack(channels, axis=2)), 0, 255).astype(np.uint8)


def _with_layout(values: FloatImage, wanted: tuple[tuple[float, ...], ...]) -> FloatImage:
    """Add a smooth shade that brings the means of 3 x 3 cells close to the wanted means."""
    # The factor 1.5 makes up for the later adjustments, which undo part of the shade.
    shade = 1.5 * (np.array(wanted) - layout(values))
    for axis, length in enumerate(values.shape):
        count = shade.shape[axis]
        position = (np.arange(length) + 0.5) * count / length - 0.5
        before = np.clip(position, 0, count - 1.001).astype(np.intp)
        share = np.clip(position, 0, count - 1) - before
        # The transition between cells is smooth, because kinks would be visible.
        share = np.expand_dims(share * share * (3 - 2 * share), 1 - axis)
        shade = (1 - share) * shade.take(before, axis) + share * shade.take(before + 1, axis)
    return values + shade.astype(np.float32)


def _with_quantiles(values: FloatImage, wanted: tuple[float, ...]) -> FloatImage:
    """Map the values with an increasing function, so that they have the wanted quantiles."""
    # One pixel in seven is enough to estimate the quantiles.
    found = quantiles(values.reshape(-1)[::7])
    return np.interp(values, found, wanted).astype(np.float32)


def _with_spectrum(values: FloatImage, wanted: tuple[float, ...]) -> FloatImage:
    """Amplify each frequency to give the bands the wanted mean power; phases, which determine shapes, do not change."""
    gain = np.array(wanted) - spectrum(values)
    # A cosine transform mirrors the drawing at its edges, so one edge does not affect the opposite one.
    height, width = values.shape
    frequency = np.hypot(np.arange(height)[:, None] / height, np.arange(width) / width) / 2
    frequency[0, 0] = BANDS[0]
    decibels = np.interp(np.log2(frequency), np.log2(BANDS) - 0.25, gain)
    changed: FloatImage = fft.idctn(fft.dctn(values) * (10 ** (decibels / 20)).astype(np.float32))
    return changed


_KEPT_BYTES = 8 * 2**20


def frost(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Add a random part of one of the textures to the darkened image."""
    weight, ice_weight = settings.parameters
    height, width = image.shape[:2]
    number = settings.stream.below(settings.profile.num_frost_textures)
    ice = _fitting_texture(settings.frost_folder, number, height, width, settings.profile)
    top, left = settings.stream.below(ice.shape[0] - height), settings.stream.below(ice.shape[1] - width)
    frosty = np.empty_like(image)
    rows = (image.reshape(height, -1), ice.reshape(ice.shape[0], -1)[top:], 3 * left)
    _blend(*rows, np.float32(weight), np.float32(ice_weight), frosty.reshape(height, -1))
    return frosty


def _fitting_texture(folder: Path | str | None, number: int, height: int, width: int, profile: Profile) -> ByteImage:
    """Return a texture at the scale of the profile, further enlarged if the image is larger than this texture."""
    texture = texture_set(folder).textures[number]
    rows, columns = texture.shape[:2]
    scale = profile.frost_scale
    if not profile.original:
        scale *= max(height / rows, width / columns, 1)
    elif round(rows * scale) <= height or round(columns * scale) <= width:
        # The original generators do not enlarge such textures, because all their images were smaller.
        scale = max((height + 1) / rows, (width + 1) / columns)
    if scale == 1:
        return texture
    # Textures for unusually large images are not cached, because they would fill the memory.
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
