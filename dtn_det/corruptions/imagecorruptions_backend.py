"""A backend that runs the `imagecorruptions` package instead of this engine, for comparison."""

from __future__ import annotations

import threading
from importlib import metadata

import numpy as np
from PIL import Image

from dtn_det._optional import require
from dtn_det.corruptions.image import ByteImage
from dtn_det.corruptions.profiles import Profile
from dtn_det.corruptions.stream import Stream
from dtn_det.errors import InputError

_PACKAGE = "imagecorruptions"
# Corruptions with their own random generators, which the package's `corrupt` does not seed.
_OWN_SEED = ("impulse_noise", "glass_blur")
# The package uses NumPy's global generator, which all threads share.
_LOCK = threading.Lock()


def check(profile: Profile) -> None:
    """Check that the package is installed and supports a profile.

    Raises:
        ImportError: The package is missing or broken.
        InputError: The package does not make the corruptions of the profile.
    """
    if profile.name not in ("coco-c", "imagenet-c"):
        raise InputError(
            f"expected profile 'coco-c' (or 'imagenet-c', whose parameters the package has but for elastic_transform) "
            f"with backend='imagecorruptions', got {profile.name!r}: use backend='dtn_det'"
        )
    require(_PACKAGE, "imagecorruptions")


def version() -> str:
    """Return the name and version of the distribution of the package, such as ``imagecorruptions-imaug=1.1.5``."""
    for distribution in ("imagecorruptions-imaug", "imagecorruptions"):
        try:
            return f"{distribution}={metadata.version(distribution)}"
        except metadata.PackageNotFoundError:
            continue
    return f"{_PACKAGE}=unknown"


def corrupt(image: ByteImage, name: str, severity: int, stream: Stream) -> ByteImage:
    """Corrupt an image with the package, with seeded randomness. NumPy's global generator is restored afterwards."""
    library = require(_PACKAGE, "imagecorruptions")
    seed = int(stream.bits(1)[0])
    with _LOCK:
        state = np.random.get_state()
        np.random.seed(seed)
        try:
            if name in _OWN_SEED:
                function = getattr(library.corruptions, name)
                return np.asarray(function(Image.fromarray(image), severity, seed)).astype(np.uint8)
            corrupted: ByteImage = library.corrupt(image, corruption_name=name, severity=severity)
        finally:
            np.random.set_state(state)
    return corrupted
