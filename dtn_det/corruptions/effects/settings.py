"""The settings of a corruption, which its function receives together with the image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dtn_det.corruptions.profiles import Profile
from dtn_det.corruptions.severities import Parameters
from dtn_det.corruptions.stream import Stream


@dataclass(frozen=True)
class EffectSettings:
    """How to corrupt one image.

    Attributes:
        name: Name of the corruption.
        severity: 1 to 5.
        profile: The benchmark whose parameters and peculiarities are followed.
        stream: Random numbers of this image.
        frost_folder: Folder of frost textures; None for the textures that this package draws.
    """

    name: str
    severity: int
    profile: Profile
    stream: Stream
    frost_folder: Path | str | None = None

    @property
    def parameters(self) -> Parameters:
        """The parameters of the corruption at this severity: see :mod:`dtn_det.corruptions.severities`."""
        return self.profile.parameters(self.name, self.severity)
