"""The key that identifies an image, and the random numbers derived from it.

The numbers depend only on seed, key, corruption and severity.
"""

from __future__ import annotations

import hashlib
import re
from os import PathLike
from pathlib import PurePath

import numpy as np
import numpy.typing as npt

from dtn_det.errors import InputError

Key = str | int
"""The identity of an image: its path within the data set, or its id."""

WNID = re.compile(r"n\d{8}")
"""Pattern of the names of ImageNet's class folders, which are WordNet ids. The key of an image is its path from such a
folder on."""


def check_key(key: object) -> str | None:
    """Return a key as text; None for None. Keys with the same text, such as 7 and ``"7"``, are the same key.

    Raises:
        InputError: The key is neither a string nor an integer, so its text might differ in the next run.
    """
    if key is None:
        return None
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        return str(int(key))
    raise InputError(
        f"expected key to be a string or an integer that identifies the image, got {type(key).__name__}: pass its "
        "path within the data set, or its id"
    )


def image_key(path: str | PathLike[str], root: str | PathLike[str] | None = None) -> str:
    """Return the key of an image that has no id: the part of its path that stays the same when the data are moved.

    Args:
        path: Path of the image.
        root: Folder of the data set; the key is the path relative to it. Without ``root``, the key is the path from an
            ImageNet class folder on, or otherwise the name of the file.

    Returns:
        A path with forward slashes.

    Raises:
        InputError: The image is not below ``root``.

    Example:
        >>> image_key("/data/imagenet/val/n01440764/ILSVRC2012_val_00000293.JPEG")
        'n01440764/ILSVRC2012_val_00000293.JPEG'
        >>> image_key("/data/photos/2024/cat.png")
        'cat.png'
        >>> image_key("/data/photos/2024/cat.png", root="/data/photos")
        '2024/cat.png'
    """
    image = PurePath(path)
    if root is not None:
        try:
            return image.relative_to(root).as_posix()
        except ValueError:
            raise InputError(f"expected an image in {str(root)!r}, got {str(path)!r}: name its data root") from None
    folders = [index for index, part in enumerate(image.parts[:-1]) if WNID.fullmatch(part)]
    start = folders[-1] if folders else len(image.parts) - 1
    return PurePath(*image.parts[start:]).as_posix()


class Stream:
    """Random numbers for an image under a corruption.

    The numbers depend only on the arguments, so an image is corrupted in the same way in any process, order or batch.
    No global generator is used. Uniform bits come directly from NumPy's SFC64, whose numbers NumPy promises never to
    change.

    Args:
        seed: Seed of the whole run.
        key: Identity of the image, such as its path within the data set or its id. All images with the key None get the
            same numbers.
        name: Name of the corruption.
        severity: 1 to 5.
    """

    def __init__(self, seed: int, key: Key | None, name: str, severity: int) -> None:
        # The repr of NumPy's strings differs from that of Python's, so any string is first converted to Python's type.
        text = repr((int(seed), check_key(key), str.__str__(name), int(severity)))
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        self.generator = np.random.Generator(np.random.SFC64(int.from_bytes(digest, "little")))

    def bits(self, count: int) -> npt.NDArray[np.uint32]:
        """Draw ``(count,)`` independent uniform 32-bit numbers."""
        words: npt.NDArray[np.uint64] = self.generator.bit_generator.random_raw((count + 1) // 2)
        # Little-endian on every platform, so that machines of another byte order draw the same numbers.
        return words.astype("<u8", copy=False).view("<u4")[:count]

    def uniform(self, low: float, high: float) -> float:
        """Draw one number, uniform in ``[low, high)``."""
        return float(self.generator.uniform(low, high))

    def uniforms(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Draw numbers uniform in ``[0, 1)``."""
        return self.generator.random(shape, dtype=np.float32)

    def normals(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Draw standard normal numbers."""
        return self.generator.standard_normal(shape, dtype=np.float32)

    def below(self, high: int) -> int:
        """Draw one integer, uniform in ``[0, high)``."""
        return int(self.generator.integers(high))
