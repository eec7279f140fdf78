"""The manifest of a corrupted tree: a file with the settings that its images were made with."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dtn_det.corruptions.identity import Identity, engine_changes
from dtn_det.errors import InputError
from dtn_det.system.files import is_temporary

MANIFEST = "corruptions.json"
MANIFEST_VERSION = 1
# Entries that trees of earlier versions lack.
_ADDED = ("classes",)
# Entries that are not compared: a tree may be continued with another limit.
_NOT_COMPARED = ("limit",)


@dataclass(frozen=True)
class Manifest:
    """What all images of a tree have in common.

    Attributes:
        identity: One line on how the images were corrupted: see :mod:`dtn_det.corruptions.identity`.
        layout: One of :data:`dtn_det.corrupted_folders.layouts.LAYOUTS`.
        cropped: True if the clean images went through :func:`dtn_det.corruptions.image.resize_and_crop`.
        file_format: ``'source'``, ``'jpeg'`` or ``'png'``.
        num_images: Number of clean images, of which the tree may hold a part in each corruption and severity.
        images: Hash of the keys and targets of the clean images.
        classes: All class folders of the clean images, if there are any. The classes are numbered over all these
            folders, even if the tree holds only some. Trees of earlier versions do not have this entry.
        limit: Requested number of images in each corruption and severity; None for all, and in trees of earlier
            versions. The limit is not compared, so that a tree can be continued with a higher limit.
    """

    identity: str
    layout: str
    cropped: bool
    file_format: str
    num_images: int
    images: str
    classes: tuple[str, ...] = ()
    limit: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the content of the manifest's file, to be written as JSON."""
        content = {"version": MANIFEST_VERSION, **asdict(self), "classes": list(self.classes)}
        return {key: value for key, value in content.items() if key not in ("classes", "limit") or value}


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Read the manifest in a folder; None if it is absent or cannot be read."""
    try:
        content = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def check_folder(folder: Path, manifest: Manifest) -> None:
    """Check that a folder is empty or holds a tree with this manifest.

    Raises:
        InputError: The folder holds other files, or images that were made with other settings.
    """
    stored = read_manifest(folder)
    if stored is None:
        foreign = sorted(path.name for path in folder.iterdir() if not is_temporary(path.name))
        if foreign:
            raise InputError(
                f"expected DST to be empty or a corrupted tree, got {folder} with {foreign[0]!r} in it: name another"
            )
        return
    wanted = manifest.to_json()
    stored = {**{key: wanted[key] for key in _ADDED if key in wanted}, **stored}
    differing = [key for key in {**wanted, **stored} if key not in _NOT_COMPARED and wanted.get(key) != stored.get(key)]
    if differing:
        changes = "; ".join(f"{key} was {stored.get(key)!r}, is {wanted.get(key)!r}" for key in differing)
        raise InputError(
            f"expected the settings that the images in {folder} were made with, got others ({changes}): "
            f"name another DST, or delete this one{_engines(str(stored.get('identity')), manifest.identity)}"
        )


def _engines(stored: str, wanted: str) -> str:
    """Return advice to continue a tree with its former engine; empty if the current engine makes the same images."""
    changes, identity = engine_changes(stored, wanted), Identity.parse(stored)
    return f", or go on with it by --engine {identity.engine} ({changes})" if changes and identity is not None else ""
