"""The benchmarks that the engine can reproduce: their parameters, and the peculiarities of their generators."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType

from dtn_det.corruptions.catalog import (
    CIFAR_C_BAR_CATALOG,
    IMAGENET_C_BAR_CATALOG,
    IMAGENET_C_CATALOG,
    Catalog,
    check_name,
    check_severity,
)
from dtn_det.corruptions.severities import (
    CIFAR_C,
    CIFAR_C_BAR,
    COCO_C,
    IMAGENET_C,
    IMAGENET_C_BAR,
    TINY_IMAGENET_C,
    Parameters,
    Table,
)
from dtn_det.errors import InputError


@dataclass(frozen=True)
class Profile:
    """A benchmark.

    Attributes:
        name: Name of the profile, which users choose.
        table: Parameters of each corruption at each severity.
        jpeg_quality: Quality of the JPEG files of the benchmark; None if it was not published as JPEG files.
        catalog: The corruptions of the benchmark with their groups.
        original: True if the benchmark was made by its authors' generators, False for `imagecorruptions`. If True, the
            elastic transform begins with a random affine map and has its parameters in pixels. Zoomed layers are then
            cropped around their centre, and pixelate uses a box filter also to enlarge.
        frost_scale: Factor by which the frost textures are resized before cropping, such as 1.1 for `imagecorruptions`.
        engine: First version of the engine that makes the pixels of this profile.
        num_frost_textures: Number of textures that frost chooses from, counted from the first of the six. The
            generators list six files but use only the first five. This holds for the generators of Hendrycks and
            Dietterich, and for `imagecorruptions` 1.0.0 to 1.1.2, with which COCO-C was published.
        side: Side of the square images for which the strengths were chosen, in pixels; None for any size.
        cropped: True if the authors resized the clean images to 256 pixels and cropped them to 224 x 224 before
            corrupting them.
        square: True if the corruptions are defined for square images only.
    """

    name: str
    table: Table
    jpeg_quality: int | None
    catalog: Catalog = IMAGENET_C_CATALOG
    original: bool = True
    frost_scale: float = 1.0
    engine: int = 1
    num_frost_textures: int = 5
    side: int | None = None
    cropped: bool = False
    square: bool = False

    @property
    def has_frost(self) -> bool:
        """True if the pixels of one of the corruptions depend on the frost textures."""
        return "frost" in self.catalog.names

    @property
    def is_small(self) -> bool:
        """True if the benchmark has small images, which are corrupted at their original size."""
        return self.side is not None and not self.cropped

    def check_size(self, width: int, height: int) -> None:
        """Check that the corruptions are defined for images of this width and height.

        Args:
            width: Width of an image, in pixels.
            height: Height of the image, in pixels.

        Raises:
            InputError: The corruptions are defined for square images only, and the image is not square.
        """
        if self.square and width != height:
            raise InputError(
                f"expected a square image, for which alone the corruptions of {self.name} are defined, got "
                f"{width} x {height}: cut it, as --resize and resize_and_crop do"
            )

    def parameters(self, name: str, severity: int) -> Parameters:
        """Return the parameters of a corruption: see :mod:`dtn_det.corruptions.severities`.

        Raises:
            InputError: The name or the severity is unknown.
        """
        check_name(name, self.catalog)
        check_severity(severity)
        return self.table[name][severity - 1]


PROFILES = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile("imagenet-c", IMAGENET_C, jpeg_quality=85, side=224, cropped=True),
            Profile("coco-c", COCO_C, jpeg_quality=None, original=False, frost_scale=1.1, engine=2),
            Profile("cifar-c", CIFAR_C, jpeg_quality=None, frost_scale=0.2, side=32),
            Profile("tiny-imagenet-c", TINY_IMAGENET_C, jpeg_quality=85, frost_scale=0.3, side=64),
            Profile("imagenet-c-bar", IMAGENET_C_BAR, 85, IMAGENET_C_BAR_CATALOG, side=224, cropped=True, square=True),
            Profile("cifar-c-bar", CIFAR_C_BAR, None, CIFAR_C_BAR_CATALOG, side=32, square=True),
        )
    }
)


EARLIER_PROFILES = MappingProxyType(
    {("coco-c", 1): replace(PROFILES["coco-c"], engine=1, num_frost_textures=6)},
)
"""Earlier versions of profiles, by the name of the profile and the version of the engine."""

CHANGES = MappingProxyType(
    {
        ("coco-c", 2): "since engine 2 the frost of coco-c is drawn from five textures, as for the published COCO-C; "
        "engine 1 drew from six, whose frost is 7 % weaker",
    }
)
"""Description of what a version of the engine changed in a profile, by the name of the profile and that version."""


def get_profile(name: str, engine: int | None = None) -> Profile:
    """Return a profile by its name.

    Args:
        name: Name of the profile.
        engine: Version of the engine whose pixels to reproduce; None for the latest.

    Raises:
        InputError: The name is unknown, or the profile never had that version.
    """
    if name not in PROFILES:
        raise InputError(f"expected a profile out of {', '.join(PROFILES)}, got {name!r}")
    latest = PROFILES[name]
    if engine is None or engine == latest.engine:
        return latest
    if engine not in engines(name):
        known = " or ".join(map(str, engines(name)))
        raise InputError(f"expected engine {known} for the profile {name}, got {engine!r}: leave it out for the latest")
    return EARLIER_PROFILES[name, engine]


def check_swept(name: str) -> None:
    """Check that a profile has the corruptions of ImageNet-C, because mPC is a mean over them.

    Raises:
        InputError: The name is unknown, or the profile has other corruptions.
    """
    catalog = get_profile(name).catalog
    if catalog is not IMAGENET_C_CATALOG:
        swept = [profile.name for profile in PROFILES.values() if profile.catalog is IMAGENET_C_CATALOG]
        raise InputError(
            f"expected a profile out of {', '.join(swept)}, over whose corruptions mPC is defined, got "
            f"{name!r}: `dtn-det mce` and `dtn-det corrupt` take the corruptions of {catalog.title}"
        )


def engines(name: str) -> tuple[int, ...]:
    """Return the versions of the engine whose pixels can be reproduced for a profile, the latest last.

    Raises:
        InputError: The name is unknown.
    """
    latest = get_profile(name).engine
    return (*(version for profile, version in EARLIER_PROFILES if profile == name), latest)


def size_remark(name: str, width: int, height: int) -> str | None:
    """Return a remark for the user if images do not have the size that a profile was made for; else None.

    Blurs, textures and displacements are defined in pixels, so the same parameters are weaker on larger images.

    Args:
        name: Name of the profile.
        width: Width of an image, in pixels.
        height: Height of the image, in pixels.

    Raises:
        InputError: The name is unknown.
    """
    side = get_profile(name).side
    if side is None or (width, height) == (side, side):
        return None
    return (
        f"the strengths of {name} were chosen for images of {side} x {side} pixels, and these have {width} x {height}: "
        "numbers cannot be compared with those of that benchmark; coco-c is for images of any size"
    )
