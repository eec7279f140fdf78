"""The line that says what images were corrupted by, and how two such lines differ."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dtn_det.corruptions.profiles import CHANGES

_LINE = re.compile(
    r"(?P<profile>\S+) (?:no-jpeg|jpeg(?P<quality>\d+)) (?P<order>rgb|bgr) seed=(?P<seed>-?\d+) "
    r"(?:frost=(?P<textures>\S+) engine=(?P<engine>\d+)|(?P<package>.+))"
)


@dataclass(frozen=True)
class Identity:
    """All that the pixels of corrupted images depend on, besides the clean images; ``str`` gives the line.

    Attributes:
        profile: Benchmark.
        jpeg_quality: Of the JPEG round trip, or None without one.
        channel_order: ``'rgb'`` or ``'bgr'``.
        seed: Of all randomness.
        textures: Name of the frost textures; None where another package made the images.
        engine: Version of the engine since which the profile has had these pixels; None for another package.
        package: That other package with its version, or None.
    """

    profile: str
    jpeg_quality: int | None
    channel_order: str
    seed: int
    textures: str | None = None
    engine: int | None = None
    package: str | None = None

    def __str__(self) -> str:
        jpeg = "no-jpeg" if self.jpeg_quality is None else f"jpeg{self.jpeg_quality}"
        maker = f"frost={self.textures} engine={self.engine}" if self.package is None else self.package
        return f"{self.profile} {jpeg} {self.channel_order} seed={self.seed} {maker}"

    @classmethod
    def parse(cls, line: str) -> Identity | None:
        """The identity of a line, or None if it is no such line."""
        match = _LINE.fullmatch(line)
        if match is None:
            return None
        quality, engine = (None if match[part] is None else int(match[part]) for part in ("quality", "engine"))
        return cls(
            match["profile"], quality, match["order"], int(match["seed"]), match["textures"], engine, match["package"]
        )


def engine_changes(one: str, other: str) -> str:
    """What the engine changed between the versions of two lines of one profile; empty if it changed nothing.

    Args:
        one: Line of an identity, also that of a folder: ``files made with ...``.
        other: The same.
    """
    found = [Identity.parse(line.removeprefix("files made with ")) for line in (one, other)]
    versions = [identity.engine for identity in found if identity is not None and identity.engine is not None]
    profiles = {identity.profile for identity in found if identity is not None}
    if len(versions) < 2 or len(profiles) > 1:
        return ""
    between = range(min(versions) + 1, max(versions) + 1)
    changes = [(profile, version) for profile in profiles for version in between]
    return "; ".join(CHANGES[change] for change in changes if change in CHANGES)
