"""Whether a file is a checkpoint that was written to its end, told without reading it."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

from dtn_det.checkpoints.errors import CheckpointError, CheckpointNotFoundError

CHECKPOINT_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".tar", ".safetensors")
"""How checkpoints end; the last is read by safetensors, the others are written by `torch.save`."""

FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
"""What weights are called in folders of Hugging Face; in parts, these names with ``.index.json`` are the index."""


def is_whole(path: str | os.PathLike[str]) -> bool:
    """Whether a file is one that ``torch.save`` wrote to its end, in the format that it has had since 1.6.

    Such a file is a ZIP file, whose directory comes last: a file that was cut off has none.
    """
    return zipfile.is_zipfile(path)


def check_checkpoint(path: str) -> str:
    """Return the path of a checkpoint, which must be one that was written to its end, unless it is a URL.

    Args:
        path: A file, a folder of Hugging Face, or a URL.

    Raises:
        CheckpointNotFoundError: There is no such file.
        CheckpointError: The file is not a checkpoint, or was cut off.
    """
    if "://" in path:
        return path
    file = Path(path).expanduser()
    if any((file / f"{name}{end}").is_file() for name in FOLDER_FILES for end in ("", ".index.json")):
        return path
    if not file.is_file():
        found = sorted(str(other) for other in file.parent.glob("*.pth"))
        there = f"; in {str(file.parent)!r} there are {', '.join(found)}" if found else ""
        raise CheckpointNotFoundError(f"expected a checkpoint, got {path!r}: there is no such file{there}")
    if not (_is_safetensors(file) or _is_old_format(file) or is_whole(file)):
        if file.suffix not in CHECKPOINT_SUFFIXES:
            raise CheckpointError(
                f"expected a checkpoint that training wrote, a .pth file, got {path!r}, which is none: name another"
            )
        raise CheckpointError(
            f"expected a checkpoint, got {path!r}, which is none or was cut off: delete it and fetch it again, or name "
            "another"
        )
    return path


def _is_old_format(file: Path) -> bool:
    """Whether it may be of torch before 1.6: a bare pickle, whose end nobody knows without reading all of it."""
    with file.open("rb") as stream:
        return stream.read(1) == pickle.PROTO


def _is_safetensors(file: Path) -> bool:
    """Whether it has a header of JSON and is no shorter than that says."""
    if file.suffix != ".safetensors":
        return False
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        return 8 + length <= file.stat().st_size and stream.read(1) == b"{"
