"""The entry point of the corruptions: :func:`corrupt` and :class:`Corruptor` corrupt an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeVar

import numpy as np
from PIL import Image

from dtn_det.corruptions import imagecorruptions_backend
from dtn_det.corruptions.catalog import GROUPS, check_name, check_severity
from dtn_det.corruptions.effects import blur, color, defocus, digital, elastic, fog, frost, noise, snow, spatter
from dtn_det.corruptions.effects.c_bar import (
    caustics,
    cover,
    perlin,
    plasma,
    sparkles,
    spectral,
    splines,
    warps,
    waves,
)
from dtn_det.corruptions.effects.digital import round_trip
from dtn_det.corruptions.effects.frost import texture_name
from dtn_det.corruptions.effects.settings import EffectSettings
from dtn_det.corruptions.identity import Identity
from dtn_det.corruptions.image import ByteImage, check_image, to_rgb
from dtn_det.corruptions.profiles import PROFILES, Profile, engines, get_profile
from dtn_det.corruptions.stream import Key, Stream
from dtn_det.errors import InputError

ENGINE_VERSION = max(profile.engine for profile in PROFILES.values())
"""Latest version of the engine.

It increases whenever the same arguments produce other pixels in a profile than before. That profile then has the new
version."""

ChannelOrder = Literal["rgb", "bgr"]
Backend = Literal["dtn_det", "imagecorruptions"]


@dataclass(frozen=True)
class Corruptor:
    """Corrupts images according to the rules of a benchmark.

    The resulting pixels depend only on the image, its key, the corruption, the severity and these attributes.

    Attributes:
        profile: ``imagenet-c``, ``coco-c``, ``cifar-c``, ``tiny-imagenet-c``, ``imagenet-c-bar`` or ``cifar-c-bar``.
        seed: Seed of all randomness.
        jpeg: Whether to save the result as JPEG and read it again, as for the published files; None to follow the
            benchmark.
        channel_order: The order of channels in which the corruption receives an RGB image. ``'bgr'`` gives results that
            can be compared with published results of MMDetection's models, whose images were corrupted as BGR.
        frost_folder: Folder with the original textures ``frost1.png`` to ``frost6.jpg``; None for the textures that
            this package draws, and for profiles without frost.
        backend: ``'dtn_det'`` for this engine, ``'imagecorruptions'`` for the package of that name.
        engine: Version of the engine whose pixels to reproduce; None for the latest.

    Raises:
        InputError: An attribute is invalid.
        FileNotFoundError: A texture is missing.
    """

    profile: str = "imagenet-c"
    seed: int = 0
    jpeg: bool | None = None
    channel_order: ChannelOrder = "rgb"
    frost_folder: Path | str | None = None
    backend: Backend = "dtn_det"
    engine: int | None = None

    def __post_init__(self) -> None:
        rules = self.rules
        if self.channel_order not in ("rgb", "bgr"):
            raise InputError(f"expected channel_order to be 'rgb' or 'bgr', got {self.channel_order!r}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int | np.integer):
            raise InputError(f"expected seed to be an integer, got {self.seed!r}")
        if self.jpeg is not None and not isinstance(self.jpeg, bool):
            raise InputError(f"expected jpeg to be True, False or None for the profile's habit, got {self.jpeg!r}")
        if self.backend not in ("dtn_det", "imagecorruptions"):
            raise InputError(f"expected backend to be 'dtn_det' or 'imagecorruptions', got {self.backend!r}")
        if self.backend == "imagecorruptions":
            imagecorruptions_backend.check(rules)
            if self.engine is not None:
                raise InputError(
                    f"expected engine {self.engine} only with backend='dtn_det', got {self.backend!r}: leave one out"
                )
        if self.frost_folder is not None:
            if not rules.has_frost:
                raise InputError(
                    f"expected no frost textures with the profile {self.profile}, none of whose corruptions is frost, "
                    f"got {str(self.frost_folder)!r}: leave them out"
                )
            texture_name(self.frost_folder)

    @property
    def rules(self) -> Profile:
        """The profile in the requested version of the engine."""
        return get_profile(self.profile, self.engine)

    @property
    def jpeg_quality(self) -> int | None:
        """The quality of the JPEG round trip; None if the result is not saved as JPEG."""
        habit = self.rules.jpeg_quality
        if self.jpeg is None:
            return habit
        return (habit or 85) if self.jpeg else None

    @property
    def identity(self) -> str:
        """The settings as one line, stored with results, so that results of different settings are not compared."""
        common = (self.profile, self.jpeg_quality, self.channel_order, int(self.seed))
        if self.backend == "imagecorruptions":
            return str(Identity(*common, package=imagecorruptions_backend.version()))
        textures = texture_name(self.frost_folder) if self.rules.has_frost else None
        return str(Identity(*common, textures, self.rules.engine))

    @classmethod
    def from_identity(cls, identity: str, frost_folder: Path | str | None = None) -> Corruptor:
        """Build the corruptor that made the images of a store, even if this was an earlier version of the engine.

        Args:
            identity: The line of :attr:`identity` in the store.
            frost_folder: Folder of the original textures, if the line mentions them.

        Raises:
            InputError: The line is not an identity, or this engine or these textures cannot produce the same pixels.
            FileNotFoundError: A texture is missing.
        """
        wanted = Identity.parse(identity)
        if wanted is None:
            raise InputError(
                f"expected the identity of corruptions, such as {cls().identity!r}, got {identity!r}: they were not "
                "made by this engine"
            )
        if wanted.engine is not None and wanted.engine not in engines(wanted.profile):
            found = replace(wanted, engine=get_profile(wanted.profile).engine)
            raise InputError(
                f"expected corruptions {identity!r}, got {str(found)!r} here: take the version that made them"
            )
        original = wanted.textures is not None and wanted.textures.startswith("original")
        corruptor = cls(
            wanted.profile,
            wanted.seed,
            wanted.jpeg_quality is not None,
            "rgb" if wanted.channel_order == "rgb" else "bgr",
            frost_folder if original else None,
            "imagecorruptions" if wanted.engine is None else "dtn_det",
            wanted.engine,
        )
        if corruptor.identity != identity:
            advice = "name the folder of the original frost textures" if original else "take the version that made them"
            raise InputError(f"expected corruptions {identity!r}, got {corruptor.identity!r} here: {advice}")
        return corruptor

    def __call__(self, image: ByteImage, name: str, severity: int, key: Key | None = None) -> ByteImage:
        """Corrupt an image as :func:`corrupt` does."""
        rules = self.rules
        check_name(name, rules.catalog)
        check_severity(severity)
        image = check_image(image)
        rules.check_size(image.shape[1], image.shape[0])
        if self.channel_order == "bgr":
            image = np.ascontiguousarray(image[:, :, ::-1])
        stream = Stream(self.seed, key, name, severity)
        if self.backend == "imagecorruptions":
            out = imagecorruptions_backend.corrupt(image, name, severity, stream)
        else:
            out = FUNCTIONS[name](image, EffectSettings(name, severity, rules, stream, self.frost_folder))
        if self.channel_order == "bgr":
            out = np.ascontiguousarray(out[:, :, ::-1])
        return out if self.jpeg_quality is None else round_trip(out, self.jpeg_quality)


def corrupt(
    image: ByteImage,
    name: str,
    severity: int,
    *,
    seed: int = 0,
    key: Key | None = None,
    profile: str = "imagenet-c",
    jpeg: bool | None = None,
    channel_order: ChannelOrder = "rgb",
    frost_folder: Path | str | None = None,
    backend: Backend = "dtn_det",
    engine: int | None = None,
) -> ByteImage:
    """Corrupt an image.

    The same arguments produce the same pixels, in any process and order. Global random states are neither read nor
    changed.

    Args:
        image: ``(H, W, 3)`` uint8 RGB array of at least 32 x 32 pixels; a square for the profiles ``imagenet-c-bar``
            and ``cifar-c-bar``.
        name: One of :data:`dtn_det.corruptions.ALL`, or another name in the profile's
            :class:`~dtn_det.corruptions.catalog.Catalog`.
        severity: 1 to 5.
        seed: See :class:`Corruptor`, which also describes all arguments after ``key``.
        key: Identity of the image, such as its id, or its path within the data set. Images with the same key get the
            same random pattern, and so do all images without a key.
        profile: ``imagenet-c``, ``coco-c``, ``cifar-c``, ``tiny-imagenet-c``, ``imagenet-c-bar`` or ``cifar-c-bar``.
        jpeg: True, False or None.
        channel_order: ``'rgb'`` or ``'bgr'``.
        frost_folder: Folder of textures or None.
        backend: ``'dtn_det'`` or ``'imagecorruptions'``.
        engine: Version of the engine or None.

    Returns:
        ``(H, W, 3)`` uint8 RGB array.

    Raises:
        InputError: An argument is invalid.
        FileNotFoundError: A frost texture is missing.

    Example:
        >>> image = np.zeros((224, 224, 3), np.uint8)
        >>> corrupt(image, "fog", 3, key="n01440764/ILSVRC2012_val_00000293.JPEG").shape
        (224, 224, 3)
    """
    return Corruptor(profile, seed, jpeg, channel_order, frost_folder, backend, engine)(image, name, severity, key)


FUNCTIONS: Mapping[str, Callable[[ByteImage, EffectSettings], ByteImage]] = MappingProxyType(
    {
        **dict.fromkeys((*GROUPS["noise"], "speckle_noise"), noise.add_noise),
        "defocus_blur": defocus.defocus_blur,
        "glass_blur": blur.glass_blur,
        "motion_blur": blur.motion_blur,
        "zoom_blur": blur.zoom_blur,
        "gaussian_blur": blur.gaussian_blur,
        "snow": snow.snow,
        "frost": frost.frost,
        "fog": fog.fog,
        "brightness": color.brightness,
        "spatter": spatter.spatter,
        "contrast": color.contrast,
        "elastic_transform": elastic.elastic_transform,
        "pixelate": digital.pixelate,
        "jpeg_compression": digital.jpeg_compression,
        "saturate": color.saturate,
        "blue_noise_sample": spectral.blue_noise_sample,
        "brownish_noise": spectral.brownish_noise,
        "caustic_refraction": caustics.caustic_refraction,
        "checkerboard_cutout": cover.checkerboard_cutout,
        "circular_motion_blur": splines.circular_motion_blur,
        "cocentric_sine_waves": waves.cocentric_sine_waves,
        "inverse_sparkles": sparkles.inverse_sparkles,
        "lines": cover.lines,
        "perlin_noise": perlin.perlin_noise,
        "pinch_and_twirl": warps.pinch_and_twirl,
        "plasma_noise": plasma.plasma_noise,
        "ripple": warps.ripple,
        "single_frequency_greyscale": waves.single_frequency_greyscale,
        "sparkles": sparkles.sparkles,
        "transverse_chromatic_abberation": splines.transverse_chromatic_abberation,
    }
)
"""The function of each corruption, by its name."""


Picture = TypeVar("Picture", np.ndarray, Image.Image)  # type: ignore[type-arg]


@dataclass(frozen=True)
class Corrupt:
    """A corruption at a severity, for the ``__getitem__`` of a data set of `torch.utils.data`.

    It can be pickled, and produces the same pixels in any worker.

    Attributes:
        name: Name of the corruption.
        severity: 1 to 5, or 0 to leave images unchanged.
        corruptor: Corruptor of the images.

    Raises:
        InputError: The name or the severity is unknown.

    Example:
        >>> fog = Corrupt("fog", 3)
        >>> fog(Image.new("RGB", (224, 224)), "n01440764/ILSVRC2012_val_00000293.JPEG").size
        (224, 224)
    """

    name: str
    severity: int
    corruptor: Corruptor = field(default_factory=Corruptor)

    def __post_init__(self) -> None:
        check_name(self.name, self.corruptor.rules.catalog)
        # False and 0.0 are refused as mistakes, although they equal 0.
        if isinstance(self.severity, bool | float) or self.severity != 0:
            check_severity(self.severity)

    def __call__(self, image: Picture, key: Key | None = None) -> Picture:
        """Corrupt an image.

        Args:
            image: ``(H, W, 3)`` uint8 RGB array, or a Pillow image with 8 bits per channel.
            key: Identity of the image, such as :func:`dtn_det.corruptions.stream.image_key` of its path.

        Returns:
            An array for an array, and an RGB Pillow image for a Pillow image.

        Raises:
            InputError: The image cannot be corrupted.
        """
        if isinstance(image, Image.Image):
            rgb = to_rgb(image)
            return rgb if self.severity == 0 else Image.fromarray(self(np.asarray(rgb), key))
        return image if self.severity == 0 else self.corruptor(image, self.name, self.severity, key)
