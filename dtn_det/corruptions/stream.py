"""The randomness of one corrupted image: a function of seed, image, corruption and severity, and of nothing else."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

Key = str | int


def check_key(key: object) -> str | None:
    """The key as text: images of the same text are the same image.

    Raises:
        ValueError: It is neither a string nor an integer, so it might not be the same in the next run.
    """
    if key is None:
        return None
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        return str(int(key))
    raise ValueError(
        f"expected key to be a string or an integer that identifies the image, got {type(key).__name__}: pass its "
        "path within the data set, or its id"
    )


class Stream:
    """Random numbers for one image under one corruption.

    The stream follows from its arguments alone, so an image comes out the same in any process, order or batch. No
    global generator is read or written. Uniform bits come straight from NumPy's SFC64, whose stream NumPy keeps for
    good.

    Args:
        seed: Of the whole run.
        key: Identity of the image, such as its path within the data set or its id; None is a key like any other.
        name: Corruption.
        severity: 1 to 5.
    """

    def __init__(self, seed: int, key: Key | None, name: str, severity: int) -> None:
        # A plain string of whatever kind of string it is: NumPy's have a representation of their own.
        text = repr((int(seed), check_key(key), str.__str__(name), int(severity)))
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        self.generator = np.random.Generator(np.random.SFC64(int.from_bytes(digest, "little")))

    def bits(self, count: int) -> npt.NDArray[np.uint32]:
        """``(count,)`` independent uniform 32-bit numbers."""
        words: npt.NDArray[np.uint64] = self.generator.bit_generator.random_raw((count + 1) // 2)
        # Little-endian on every platform, so that a machine of another byte order draws the same.
        return words.astype("<u8", copy=False).view("<u4")[:count]

    def uniform(self, low: float, high: float) -> float:
        """One number, uniform in ``[low, high)``."""
        return float(self.generator.uniform(low, high))

    def uniforms(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Numbers uniform in ``[0, 1)``."""
        return self.generator.random(shape, dtype=np.float32)

    def normals(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Standard normal numbers."""
        return self.generator.standard_normal(shape, dtype=np.float32)

    def below(self, high: int) -> int:
        """One integer, uniform in ``[0, high)``."""
        return int(self.generator.integers(high))
