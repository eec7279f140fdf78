"""Choose a random part of a data set's images that is the same in every run.

The seed, and the path or id of an image, decide whether a part holds the image. A smaller part is contained in any
larger part. Stores record the number of images and the seed, but not the list of images. The texts that are hashed
below must therefore never change, or stored runs could not be continued.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence

from dtn_det.datasets.folders.image_files import by_folders
from dtn_det.errors import InputError

_NAME = re.compile(r"limit=(?P<limit>\d+) of \d+ seed=(?P<seed>\d+)\b")


def choose_paths(paths: Sequence[str], limit: int | None, seed: int) -> Sequence[str]:
    """Choose images that are identified by their paths, as in class folders and corrupted trees.

    Args:
        limit: Number of images to choose; None for all.

    Returns:
        The chosen paths, sorted by folder and then by name; without a limit, all paths in their given order.

    Raises:
        InputError: The limit is below 1.
    """
    if limit is None:
        return paths
    return sorted((paths[place] for place in _lowest(paths, limit, seed, _path_hash)), key=by_folders)


def shuffled(paths: Sequence[str], seed: int) -> list[int]:
    """Return the indices of some paths in a random order that depends on the seed and the paths alone."""
    return _lowest(paths, len(paths), seed, _path_hash)


def choose_ids(ids: Sequence[object], limit: int | None, seed: int) -> list[int]:
    """Choose images that are identified by ids, as in COCO files.

    Args:
        limit: Number of images to choose; None for all.

    Returns:
        The indices of the chosen images among ``ids``, in ascending order.

    Raises:
        InputError: The limit is below 1.
    """
    if limit is None:
        return list(range(len(ids)))
    return sorted(_lowest([str(one) for one in ids], limit, seed, _id_hash))


def _lowest(names: Sequence[str], limit: int, seed: int, hash_of: Callable[[int, str], bytes]) -> list[int]:
    """Return the indices of the ``limit`` names with the lowest hashes."""
    if limit < 1:
        raise InputError(f"expected a limit of at least 1 image, got {limit}")
    return sorted(range(len(names)), key=lambda place: hash_of(seed, names[place]))[:limit]


def _path_hash(seed: int, path: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{path}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _id_hash(seed: int, text: str) -> bytes:
    return hashlib.blake2b(f"{seed} {text}".encode("utf-8", "surrogateescape")).digest()


def selection_name(limit: int | None, total: int, seed: int) -> str:
    """Return the name of a selection for a store: ``'all'``, or a text such as ``'limit=500 of 50000 seed=0'``."""
    return "all" if limit is None or limit >= total else f"limit={limit} of {total} seed={seed}"


def read_selection(name: str) -> tuple[int, int] | None:
    """Return the limit and the seed in the name of a selection; None if all images were taken.

    The reader of corrupted folders appends a text such as ``in the tree, of 50000 clean images`` to the name. This text
    is ignored.
    """
    found = _NAME.match(name)
    return None if found is None else (int(found["limit"]), int(found["seed"]))
