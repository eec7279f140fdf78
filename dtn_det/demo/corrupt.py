"""Corruption of images in a test pipeline, reproducible image by image."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from dtn_det._optional import require

ByteArray = npt.NDArray[np.uint8]

CORRUPTIONS = ("gaussian_noise", "motion_blur", "fog", "jpeg_compression")
"""One corruption of each group (noise, blur, weather, digital) whose randomness `imagecorruptions` lets be seeded."""


def corrupt(image: ByteArray, name: str, severity: int, key: str) -> ByteArray:
    """Corrupt an image. The same arguments give the same pixels; numpy's global generator is left as it was.

    Args:
        image: ``(H, W, 3)`` RGB.
        name: One of :data:`CORRUPTIONS`.
        severity: 1 to 5.
        key: Tells images apart; the randomness follows from it, from the name and from the severity.

    Returns:
        ``(H, W, 3)`` RGB.

    Raises:
        ImportError: `imagecorruptions` is missing.
        ValueError: An unknown name or severity.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"expected a corruption out of {', '.join(CORRUPTIONS)}, got {name!r}")
    if severity not in range(1, 6):
        raise ValueError(f"expected a severity from 1 to 5, got {severity}")
    library = require("imagecorruptions", "corruptions")
    state = np.random.get_state()
    np.random.seed(zlib.crc32(f"{key} {name} {severity}".encode()))
    try:
        corrupted: ByteArray = library.corrupt(image, corruption_name=name, severity=severity)
    finally:
        np.random.set_state(state)
    return corrupted


class CorruptImage:
    """Pipeline step that corrupts the loaded image; it belongs right after `LoadImageFromFile`.

    Args:
        name: See :func:`corrupt`.
        severity: See :func:`corrupt`.
        seed: Mixed into the randomness.
    """

    def __init__(self, name: str, severity: int, seed: int) -> None:
        self.name, self.severity, self.seed = name, severity, seed

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Corrupt ``results["img"]``, which MMCV loads as BGR and the corruptions want as RGB."""
        rgb = np.ascontiguousarray(results["img"][:, :, ::-1])
        corrupted = corrupt(rgb, self.name, self.severity, f"{self.seed} {results['img_id']}")
        results["img"] = np.ascontiguousarray(corrupted[:, :, ::-1])
        return results
