"""The line in which stores and folders record how their images were corrupted; it is written and read only here.

A store of results contains such a line in one of these forms. The manifest of a corrupted folder has only the first
form.

* ``imagenet-c jpeg85 rgb seed=0 frost=procedural engine=1``: the images were corrupted by this package's engine. With
  ``imagecorruptions-imaug=1.1.5`` in place of the last two parts, imagecorruptions-imaug corrupted the images. Profiles
  without frost, such as ``imagenet-c-bar``, have no part that begins with ``frost=``.
* ``files made with imagenet-c jpeg85 ...``: the images were read from a folder with this line in its manifest.
* ``files``: the images were read from a folder without such a record, such as ImageNet-C as published.
* :data:`IMPORTED_RESULTS`: another program evaluated the images.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dtn_det.corruptions.profiles import CHANGES

_LINE = re.compile(
    r"(?P<profile>\S+) (?:no-jpeg|jpeg(?P<quality>\d+)) (?P<order>rgb|bgr) seed=(?P<seed>-?\d+)"
    r"(?:(?: frost=(?P<textures>\S+))? engine=(?P<engine>\d+)| (?P<package>.+))?"
)
_FILES, _MADE_WITH = "files", " made with "

IMPORTED_RESULTS = "imported results; how the images were corrupted is not known"
"""The line of a store whose results another program computed from images that this package did not see."""


@dataclass(frozen=True)
class Identity:
    """Everything that determines the pixels of corrupted images, given the clean images. ``str`` returns the line.

    Attributes:
        profile: Name of the benchmark.
        jpeg_quality: Quality of the JPEG round trip; None if the images were not saved as JPEG.
        channel_order: ``'rgb'`` or ``'bgr'``.
        seed: Seed of all randomness.
        textures: Name of the frost textures; None if another package made the images, or if the profile has no frost.
        engine: First version of the engine that produced these pixels for the profile; None for another package.
        package: Name and version of another package that made the images; None for this package's engine.
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
        maker = self.package
        if self.engine is not None:
            maker = f"engine={self.engine}" if self.textures is None else f"frost={self.textures} engine={self.engine}"
        return f"{self.profile} {jpeg} {self.channel_order} seed={self.seed}{'' if maker is None else f' {maker}'}"

    @classmethod
    def parse(cls, line: str) -> Identity | None:
        """Parse a line of the first form; return None for any other text."""
        match = _LINE.fullmatch(line)
        if match is None:
            return None
        quality, engine = (None if match[part] is None else int(match[part]) for part in ("quality", "engine"))
        return cls(
            match["profile"], quality, match["order"], int(match["seed"]), match["textures"], engine, match["package"]
        )


@dataclass(frozen=True)
class CorruptionOrigin:
    """Where corrupted images come from. ``str`` returns the line for a store.

    Attributes:
        from_files: True if the images were read from files; False if they were corrupted during the evaluation.
        made_by: How the images were corrupted. None if the files have no record of it, or if :attr:`text` is not in the
            form that :class:`Identity` writes.
        text: The line.
    """

    from_files: bool
    made_by: Identity | None
    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def is_untold(self) -> bool:
        """True if the images were read from files without a record of how they were corrupted."""
        return self.text == _FILES

    @classmethod
    def parse(cls, text: str) -> CorruptionOrigin:
        """Parse the line of a store, in any of its forms."""
        line = text.removeprefix(_FILES + _MADE_WITH)
        return cls(text == _FILES or line != text, Identity.parse(line), text)

    @classmethod
    def of_files(cls, line: str | None) -> CorruptionOrigin:
        """Describe images that are read from a folder.

        Args:
            line: The identity in the folder's manifest; None if the folder has no manifest.
        """
        return cls.parse(_FILES if line is None else f"{_FILES}{_MADE_WITH}{line}")


def engine_changes(one: str, other: str) -> str:
    """Describe what the engine changed between the versions that made the images of two stores or folders.

    Args:
        one: Line of the first store or folder, in any form.
        other: Line of the second store or folder.

    Returns:
        The changes in their common profile, as the end of a sentence; empty without changes, or if the profiles differ.
    """
    found = [CorruptionOrigin.parse(line).made_by for line in (one, other)]
    versions = [identity.engine for identity in found if identity is not None and identity.engine is not None]
    profiles = {identity.profile for identity in found if identity is not None}
    if len(versions) < 2 or len(profiles) > 1:
        return ""
    between = range(min(versions) + 1, max(versions) + 1)
    changes = [(profile, version) for profile in profiles for version in between]
    return "; ".join(CHANGES[change] for change in changes if change in CHANGES)
