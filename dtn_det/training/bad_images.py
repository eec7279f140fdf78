"""Explain which image stopped a run of MMEngine, and what is wrong with the image."""

from __future__ import annotations

import re
from pathlib import Path

from dtn_det.corruptions.image import read_image
from dtn_det.errors import BadImageError

# What MMCV's LoadImageFromFile raises for bytes that it cannot decode. If a worker process failed, the message follows
# the traceback of the worker, in a line that begins with the class of the error.
_NOT_DECODED = re.compile(r"^(?:AssertionError: )?failed to load image: (.+)$", re.MULTILINE)


def explain_bad_image(error: BaseException, classes_in_folders: bool = False) -> str | None:
    """Explain the failure of a run, if an image that cannot be decoded caused it.

    The images are not decoded before a run, because this takes as long as reading the whole set.

    Args:
        error: What the run raised, also if a worker process of a data loader raised it first.
        classes_in_folders: True if the data set is a folder of class folders; False if an annotation file lists it.

    Returns:
        One sentence with the file, the cause and what to do; None if the failure has another cause.
    """
    found = _NOT_DECODED.findall(str(error))
    if not isinstance(error, AssertionError) or not found:
        return None
    path = found[-1]
    out = "move it out of its class folder" if classes_in_folders else "take it out of the annotation file"
    return f"expected images that can be read, got {path}: {_cause(Path(path))}. Fetch it again, or {out}"


def _cause(path: Path) -> str:
    try:
        read_image(path, upright=True)
    except BadImageError as error:
        return str(error)
    return "OpenCV cannot decode it, though Pillow can"
