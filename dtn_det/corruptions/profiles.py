"""Benchmarks whose images the engine makes: parameters, and the habits of their generators."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from dtn_det.corruptions.catalog import check_name, check_severity
from dtn_det.corruptions.severities import CIFAR_C, COCO_C, IMAGENET_C, TINY_IMAGENET_C, Parameters, Table


@dataclass(frozen=True)
class Profile:
    """One benchmark.

    Attributes:
        name: How users call it.
        table: Parameters of each corruption and severity.
        jpeg_quality: Quality of the JPEG files that the benchmark was published in, or None where it was not.
        original: Made by the generators of Hendrycks and Dietterich and not by `imagecorruptions`: the elastic
            transform begins with a random affine map and counts in pixels, zoomed layers are trimmed around their
            centre, pixelate averages on its way up too, frost draws from the first five textures.
        frost_scale: Scale of the frost textures before a crop; `imagecorruptions` enlarges them by 1.1.
    """

    name: str
    table: Table
    jpeg_quality: int | None
    original: bool
    frost_scale: float

    def parameters(self, name: str, severity: int) -> Parameters:
        """The parameters of a corruption: see :mod:`dtn_det.corruptions.severities`.

        Raises:
            ValueError: An unknown name or severity.
        """
        check_name(name)
        check_severity(severity)
        return self.table[name][severity - 1]


PROFILES = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile("imagenet-c", IMAGENET_C, jpeg_quality=85, original=True, frost_scale=1.0),
            Profile("coco-c", COCO_C, jpeg_quality=None, original=False, frost_scale=1.1),
            Profile("cifar-c", CIFAR_C, jpeg_quality=None, original=True, frost_scale=0.2),
            Profile("tiny-imagenet-c", TINY_IMAGENET_C, jpeg_quality=85, original=True, frost_scale=0.3),
        )
    }
)


def get_profile(name: str) -> Profile:
    """The profile of a name.

    Raises:
        ValueError: An unknown name.
    """
    if name not in PROFILES:
        raise ValueError(f"expected a profile out of {', '.join(PROFILES)}, got {name!r}")
    return PROFILES[name]
