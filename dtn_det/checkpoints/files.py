"""Checks that a file is a complete checkpoint, without reading all of it."""

from __future__ import annotations

import json
import os
import pickle
import re
import zipfile
from pathlib import Path

from dtn_det.checkpoints.formats import check_format
from dtn_det.datasets.remarks import Remark
from dtn_det.errors import CheckpointError, CheckpointNotFoundError

CHECKPOINT_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".tar", ".safetensors")
"""Suffixes of checkpoint files. ``.safetensors`` files are written by safetensors, all others by ``torch.save``."""

FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of the file of weights in a folder of Hugging Face, the preferred one first.

If the weights are in parts, an index has such a name with INDEX_END added. A file is preferred to its index, as in
transformers and timm.
"""

ADAPTER_CONFIG = "adapter_config.json"
"""File that PEFT writes beside an adapter. An adapter is no model by itself."""

INDEX_END = ".index.json"
"""Suffix of an index, the JSON file that lists which part of the weights contains each tensor."""

_PART = re.compile(r"-(\d{5})-of-(\d{5})(?=\.\w+$)")


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the existing weight files and index files of a Hugging Face folder, in order of preference."""
    names = (f"{name}{end}" for name in FOLDER_FILES for end in ("", INDEX_END))
    return tuple(folder / name for name in names if (folder / name).is_file())


def transformers_class(source: str) -> str | None:
    """Return the class of the model in a folder of Hugging Face's transformers; None if the folder is no such.

    Args:
        source: Path of the folder or of a file in it, or a URL.
    """
    path = Path(source).expanduser()
    folder = path if path.is_dir() else path.parent
    try:
        config = {} if "://" in source else json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return None
    # Folders of timm, and those of timm's models within transformers, name timm's architecture.
    if not isinstance(config, dict) or "architecture" in config or not isinstance(config.get("model_type"), str):
        return None
    classes = config.get("architectures")
    return str(classes[0]) if isinstance(classes, list) and classes else config["model_type"]


def network_files(source: str) -> tuple[Path, ...]:
    """Return one file for each network in a folder of Accelerate; empty if the folder has fewer than two networks.

    Accelerate's ``save_state`` writes the networks of a training as ``model.safetensors``, ``model_1.safetensors`` and
    so on, or as ``pytorch_model.bin``, ``pytorch_model_1.bin``.
    """
    files = () if "://" in source else weight_files(Path(source).expanduser())[:1]
    for first in files:
        numbered = re.compile(rf"{re.escape(first.stem)}_(\d+){re.escape(first.suffix)}")
        others = {int(found[1]): path for path in first.parent.iterdir() if (found := numbered.fullmatch(path.name))}
        if others:
            return (first, *(others[number] for number in sorted(others)))
    return ()


def folder_remarks(source: str) -> tuple[Remark, ...]:
    """If a Hugging Face folder has several weight files, return a remark that names the file that is read."""
    files = () if "://" in source else weight_files(Path(source).expanduser())
    if len(files) < 2:
        return ()
    taken, *left = (path.name for path in files)
    what = (
        f"sets of weights are in the folder, and {taken} was taken, as transformers and timm do; name another, such as "
        f"{files[1]}, to take that"
    )
    return (Remark("folder_files", what, source, len(files), tuple(left)),)


def holds_weights(folder: Path) -> bool:
    """Return whether a folder holds a Hugging Face model: weights under the usual names, or a config and any weights.

    A folder with an adapter counts too, so that reading it raises an error that explains why adapters cannot be loaded.
    """
    if (folder / ADAPTER_CONFIG).is_file():
        return True
    if weight_files(folder):
        return True
    weights = (path for end in (".safetensors", ".bin") for path in folder.glob(f"*{end}"))
    return (folder / "config.json").is_file() and any(path.is_file() for path in weights)


def check_no_part(path: Path) -> None:
    """Check, by the name of a file, that it is not one of several parts of a model's weights.

    Raises:
        CheckpointError: The file is one of several parts.
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
    """Return whether a file of ``torch.save`` is complete, in its format since torch 1.6.

    Such a file is a ZIP archive. The archive's directory is at the end, so a file that was cut off has none.
    """
    return zipfile.is_zipfile(path)


def check_checkpoint(path: str) -> str:
    """Check that a checkpoint exists and is complete, and return its path. A URL is not checked.

    Args:
        path: A file, the index of several files, a folder of Hugging Face, or a URL.

    Raises:
        CheckpointNotFoundError: There is no such file.
        CheckpointError: The file is no checkpoint, is one of several parts, or was cut off.
    """
    if "://" in path:
        return path
    file = Path(path).expanduser()
    if weight_files(file) or (file.name.endswith(INDEX_END) and file.is_file()):
        return path
    check_format(file)
    if holds_weights(file):
        return path
    if not file.is_file():
        found = sorted(str(other) for other in file.parent.glob("*.pth"))
        there = f"; in {str(file.parent)!r} there are {', '.join(found)}" if found else ""
        raise CheckpointNotFoundError(f"expected a checkpoint, got {path!r}: there is no such file{there}")
    check_no_part(file)
    if not (_is_safetensors(file) or _is_old_format(file) or is_whole(file)):
        if file.suffix not in CHECKPOINT_SUFFIXES:
            raise CheckpointError(
                f"expected a checkpoint that training wrote, a .pth file, got {path!r}, which is not one: name another"
            )
        raise CheckpointError(
            f"expected a checkpoint, got {path!r}, which is not one or was cut off: delete it and fetch it again, or "
            "name another"
        )
    return path


def _is_old_format(file: Path) -> bool:
    """Return whether a file may be a bare pickle of torch before 1.6, whose completeness only a full read can show."""
    with file.open("rb") as stream:
        return stream.read(1) == pickle.PROTO


def _is_safetensors(file: Path) -> bool:
    """Return whether a file has a safetensors header and is at least as long as the header requires."""
    if file.suffix != ".safetensors":
        return False
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        return 8 + length <= file.stat().st_size and stream.read(1) == b"{"
