"""A fixed, random part of a data set's images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from dtn_det.datasets.folders.image_files import by_folders
from dtn_det.errors import InputError


def choose_paths(paths: Sequence[str], limit: int | None, seed: int) -> Sequence[str]:
    """All paths as they come, or a part of them, folder by folder; a smaller part is contained in any larger one.

    Args:
        paths: Of the images, within the data set.
        limit: How many to take; None for all.
        seed: Of the choice.

    Raises:
        ValueError: A limit below 1.
    """
    if limit is None:
        return paths
    if limit < 1:
        raise InputError(f"expected a limit of at least 1 image, got {limit}")

    def rank(path: str) -> bytes:
        return hashlib.blake2b(f"{seed}\0{path}".encode("utf-8", "surrogatepass"), digest_size=16).digest()

    return sorted(sorted(paths, key=rank)[:limit], key=by_folders)


def selection_name(limit: int | None, total: int, seed: int) -> str:
    """How a selection is called in a store: ``'all'`` or ``'limit=500 of 50000 seed=0'``."""
    return "all" if limit is None or limit >= total else f"limit={limit} of {total} seed={seed}"
