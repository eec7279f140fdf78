"""Names and groups of the corruptions of each benchmark, and their selection by users.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
arXiv:1903.12261, Section 3: fifteen corruptions in four groups make the benchmark, four more are held out for
validation. Their names are in the order of the paper's tables.

Mintun, Kirillov and Xie, "On Interaction Between Augmentations and Corruptions in Natural Corruption Robustness",
arXiv:2102.11273: the C-bar benchmarks, with ten corruptions for ImageNet and ten for CIFAR that are unlike the
corruptions of ImageNet-C. Their names are spelled and ordered as in the authors' files imagenet_c_bar.csv and
cifar10_c_bar.csv (github.com/facebookresearch/augmentation-corruption, imagenet_c_bar). The groups are defined by this
package.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from dtn_det.errors import InputError

GROUPS = MappingProxyType(
    {
        "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
        "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
        "weather": ("snow", "frost", "fog", "brightness"),
        "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
        "extra": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
    }
)
"""The corruptions of each group. mCE and mPC exclude the group ``extra``."""

EXTRA = GROUPS["extra"]
"""The four hold-out corruptions."""

BENCHMARK = tuple(name for group, names in GROUPS.items() if group != "extra" for name in names)
"""The fifteen corruptions of ImageNet-C."""

ALL = BENCHMARK + EXTRA
"""All nineteen corruptions."""

SEVERITIES = (1, 2, 3, 4, 5)
"""The severities of each corruption, from the weakest to the strongest."""


@dataclass(frozen=True)
class Catalog:
    """The corruptions that a family of benchmarks consists of.

    Attributes:
        title: Name of the first benchmark with these corruptions, such as ``ImageNet-C``.
        profile: Name of that benchmark's profile; empty if the corruptions are read from files and not made.
        names: All corruptions, in the order of the benchmark's tables.
        groups: The corruptions of each group; every corruption is in one group.
        extra: Corruptions that the benchmark's mean leaves out.
    """

    title: str
    profile: str
    names: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]
    extra: tuple[str, ...] = ()

    @property
    def benchmark(self) -> tuple[str, ...]:
        """The corruptions over which the benchmark's mean is taken."""
        return tuple(name for name in self.names if name not in self.extra)

    @property
    def sets(self) -> dict[str, tuple[str, ...]]:
        """The corruptions that a name such as ``all`` or ``noise`` stands for."""
        return {"all": self.names, "benchmark": self.benchmark, **self.groups}


IMAGENET_C_CATALOG = Catalog("ImageNet-C", "imagenet-c", ALL, GROUPS, EXTRA)
"""The nineteen corruptions of ImageNet-C, COCO-C, CIFAR-10-C and Tiny-ImageNet-C."""

IMAGENET_C_BAR_CATALOG = Catalog(
    "ImageNet-C-bar",
    "imagenet-c-bar",
    (
        *("caustic_refraction", "inverse_sparkles", "sparkles", "perlin_noise", "blue_noise_sample", "plasma_noise"),
        *("checkerboard_cutout", "cocentric_sine_waves", "single_frequency_greyscale", "brownish_noise"),
    ),
    MappingProxyType(
        {
            "noise": ("perlin_noise", "blue_noise_sample", "plasma_noise", "brownish_noise"),
            "pattern": ("checkerboard_cutout", "cocentric_sine_waves", "single_frequency_greyscale"),
            "light": ("inverse_sparkles", "sparkles"),
            "distortion": ("caustic_refraction",),
        }
    ),
)
"""The ten corruptions of ImageNet-C-bar."""

CIFAR_C_BAR_CATALOG = Catalog(
    "CIFAR-10-C-bar",
    "cifar-c-bar",
    (
        *("blue_noise_sample", "checkerboard_cutout", "inverse_sparkles", "pinch_and_twirl", "ripple"),
        *("brownish_noise", "circular_motion_blur", "lines", "sparkles", "transverse_chromatic_abberation"),
    ),
    MappingProxyType(
        {
            "noise": ("blue_noise_sample", "brownish_noise"),
            "pattern": ("checkerboard_cutout", "lines"),
            "light": ("inverse_sparkles", "sparkles"),
            "distortion": ("pinch_and_twirl", "ripple", "transverse_chromatic_abberation"),
            "blur": ("circular_motion_blur",),
        }
    ),
)
"""The ten corruptions of CIFAR-10-C-bar and CIFAR-100-C-bar."""

IMAGENET_3DCC_CATALOG = Catalog(
    "ImageNet-3DCC",
    "",
    (
        *("near_focus", "far_focus", "bit_error", "color_quant", "flash", "fog_3d"),
        *("h265_abr", "h265_crf", "iso_noise", "low_light", "xy_motion_blur", "z_motion_blur"),
    ),
    MappingProxyType(
        {
            "depth_of_field": ("near_focus", "far_focus"),
            "camera_motion": ("xy_motion_blur", "z_motion_blur"),
            "lighting": ("flash", "low_light"),
            "video": ("bit_error", "h265_abr", "h265_crf"),
            "weather": ("fog_3d",),
            "noise": ("color_quant", "iso_noise"),
        }
    ),
)
"""The twelve corruptions of ImageNet-3DCC."""

CATALOGS = (IMAGENET_C_CATALOG, IMAGENET_C_BAR_CATALOG, CIFAR_C_BAR_CATALOG, IMAGENET_3DCC_CATALOG)
"""The catalogues of all benchmarks."""


EVERY = tuple(dict.fromkeys(name for catalog in CATALOGS for name in catalog.names))
"""The corruptions of all benchmarks, each once."""

EVERY_GROUP = MappingProxyType(
    {
        group: tuple(dict.fromkeys(name for catalog in CATALOGS for name in catalog.groups.get(group, ())))
        for group in dict.fromkeys(group for catalog in CATALOGS for group in catalog.groups)
    }
)
"""The corruptions of each group over all benchmarks."""


def catalog_for(names: Iterable[str]) -> Catalog:
    """Return the first catalogue that has all known corruptions among the names; ImageNet-C's if there is none."""
    known = [name for name in names if name in EVERY]
    return next((one for one in CATALOGS if all(name in one.names for name in known)), IMAGENET_C_CATALOG)


def catalog_of(names: Iterable[str], among: Iterable[Catalog] = CATALOGS) -> Catalog:
    """Return the first catalogue that has all the names. By default ImageNet-C's is tried first.

    Raises:
        InputError: No catalogue has all of the names.
    """
    wanted = list(names)
    for catalog in among:
        if all(name in catalog.names for name in wanted):
            return catalog
    unknown = [name for name in wanted if not any(name in catalog.names for catalog in CATALOGS)]
    if unknown:
        check_name(unknown[0])
    raise InputError(f"expected corruptions of one benchmark, got {of_benchmarks(wanted)}: name those of one of them")


def of_benchmarks(names: Iterable[str]) -> str:
    """Name one of the corruptions for each benchmark that has any, such as ``fog of ImageNet-C and ...``."""
    wanted = list(names)
    left, parts = list(wanted), []
    for catalog in sorted(CATALOGS, key=lambda one: -sum(name in one.names for name in wanted)):
        if own := [name for name in left if name in catalog.names]:
            parts.append(f"{own[0]} of {catalog.title}")
            left = [name for name in left if name not in own]
    return " and ".join(parts)


def group_of(name: str, catalog: Catalog | None = None) -> str:
    """Return the group of a corruption.

    Args:
        name: Name of the corruption.
        catalog: The catalogue whose groups are meant; None for the first that has the corruption.

    Raises:
        InputError: The name is unknown.
    """
    catalog = catalog_of([name]) if catalog is None else catalog
    check_name(name, catalog)
    return next(group for group, names in catalog.groups.items() if name in names)


def check_name(name: str, catalog: Catalog = IMAGENET_C_CATALOG) -> None:
    """Check that a catalogue has a corruption of this name; raise an InputError otherwise."""
    if name not in catalog.names:
        raise InputError(f"expected a corruption out of {', '.join(catalog.names)}, got {name!r}{elsewhere(name)}")


def elsewhere(name: str) -> str:
    """Return the end of a message: which benchmarks have a corruption, and how to choose them. Empty if none has."""
    found = [catalog for catalog in CATALOGS if name in catalog.names]
    titles, profiles = " and ".join(one.title for one in found), " or ".join(one.profile for one in found)
    how = f"name the profile {profiles}" if profiles else "name a folder of that benchmark's images"
    return f", a corruption of {titles}: {how}" if found else ""


def check_severity(severity: int) -> None:
    """Check that a severity is an integer from 1 to 5; raise an InputError otherwise."""
    if isinstance(severity, bool) or not hasattr(severity, "__index__") or severity not in SEVERITIES:
        raise InputError(f"expected a severity from 1 to 5 (a clean image needs no corruption), got {severity!r}")


def select_corruptions(words: Iterable[str], catalog: Catalog = IMAGENET_C_CATALOG) -> tuple[str, ...]:
    """Select corruptions by their names, and by the names of groups such as ``noise``, ``benchmark`` or ``all``.

    Args:
        words: Names of corruptions and groups.
        catalog: The corruptions to choose from.

    Returns:
        The names of the corruptions, each once, in the order of the catalogue.

    Raises:
        InputError: A word is not such a name, or there are no words.

    Example:
        >>> select_corruptions(["fog", "noise"])
        ('gaussian_noise', 'shot_noise', 'impulse_noise', 'fog')
    """
    chosen: set[str] = set()
    for word in words:
        if word in catalog.sets:
            chosen.update(catalog.sets[word])
        elif word in catalog.names:
            chosen.add(word)
        else:
            hint = elsewhere(word)
            if not hint and (close := difflib.get_close_matches(word, (*catalog.names, *catalog.sets), n=1)):
                hint = f"; did you mean {close[0]!r}?"
            raise InputError(
                f"expected corruptions out of {', '.join(catalog.names)}, or {', '.join(catalog.sets)} for several, "
                f"got {word!r}{hint}"
            )
    if not chosen:
        raise InputError(
            f"expected at least one corruption, got none: name some, or {', '.join(catalog.sets)} for several"
        )
    return tuple(name for name in catalog.names if name in chosen)


def select_severities(severities: Iterable[int]) -> tuple[int, ...]:
    """Return the severities, each once, in ascending order.

    Raises:
        InputError: A severity is not an integer from 1 to 5, or there are none.
    """
    chosen = set()
    for severity in severities:
        check_severity(severity)
        chosen.add(severity)
    if not chosen:
        raise InputError("expected at least one severity, got none: name some from 1 to 5")
    return tuple(severity for severity in SEVERITIES if severity in chosen)
