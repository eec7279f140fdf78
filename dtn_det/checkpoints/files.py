"""Whether a file is a checkpoint that was written to its end, told without reading it."""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from pathlib import Path

from dtn_det.errors import CheckpointError, CheckpointNotFoundError

CHECKPOINT_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".tar", ".safetensors")
"""How checkpoints end; the last is read by safetensors, the others are written by `torch.save`."""

FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
"""What weights are called in folders of Hugging Face; in parts, these names with ``.index.json`` are the index."""


ADAPTER_CONFIG = "adapter_config.json"
"""What PEFT writes beside an adapter, which is no model of its own."""

INDEX_END = ".index.json"
"""How the index of weights in parts ends: a JSON file that says in which part each tensor is."""

_PART = re.compile(r"-(\d{5})-of-(\d{5})(?=\.\w+$)")


def holds_weights(folder: Path) -> bool:
    """Whether a folder is a model of Hugging Face: with weights of the usual names, or with a config beside others.

    The folder of an adapter counts as one, so that reading it can say why it cannot be taken.
    """
    if (folder / ADAPTER_CONFIG).is_file():
        return True
    if any((folder / f"{name}{end}").is_file() for name in FOLDER_FILES for end in ("", INDEX_END)):
        return True
    weights = (path for end in (".safetensors", ".bin") for path in folder.glob(f"*{end}"))
    return (folder / "config.json").is_file() and any(path.is_file() for path in weights)


def check_no_part(path: Path) -> None:
    """See that a file is not one of several parts of a model's weights.

    Raises:
        CheckpointError: Its name says that it is.
    """
    part = _PART.search(path.name)
    if part is None or int(part[2]) < 2:
        return
    index = path.with_name(f"{path.name[: part.start()]}{path.name[part.end() :]}{INDEX_END}")
    do = f"name the index, {index}" if index.is_file() else f"fetch the others and {index.name}, and name that file"
    raise CheckpointError(
        f"expected all weights of a model, got {path}, which is part {int(part[1])} of {int(part[2])}: {do}, or the "
        f"folder {path.parent}"
    )


def is_whole(path: str | os.PathLike[str]) -> bool:
    """Whether a file is one that ``torch.save`` wrote to its end, in the format that it has had since 1.6.

    Such a file is a ZIP file, whose directory comes last: a file that was cut off has none.
    """
    return zipfile.is_zipfile(path)


def check_checkpoint(path: str) -> str:
    """Return the path of a checkpoint, which must be one that was written to its end, unless it is a URL.

    Args:
        path: A file, the index of several, a folder of Hugging Face, or a URL.

    Raises:
        CheckpointNotFoundError: There is no such file.
        CheckpointError: The file is not a checkpoint, one of several parts, or was cut off.
    """
    if "://" in path:
        return path
    file = Path(path).expanduser()
    if holds_weights(file) or (file.name.endswith(INDEX_END) and file.is_file()):
        return path
    if not file.is_file():
        found = sorted(str(other) for other in file.parent.glob("*.pth"))
        there = f"; in {str(file.parent)!r} there are {', '.join(found)}" if found else ""
        raise CheckpointNotFoundError(f"expected a checkpoint, got {path!r}: there is no such file{there}")
    check_no_part(file)
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
