"""Recognise checkpoints in formats that cannot be read, and say how to convert them."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from dtn_det.errors import CheckpointError

_EXPORTED = {
    ".onnx": "ONNX",
    ".tflite": "LiteRT (TensorFlow Lite)",
    ".mlmodel": "Core ML",
    ".mlpackage": "Core ML",
    ".engine": "TensorRT",
    ".plan": "TensorRT",
    ".pte": "ExecuTorch",
    ".gguf": "GGUF",
}
_FOR_JAX = (
    "no conversion serves all models of JAX, whose layers have other names and orders of axes: take the weights for "
    "PyTorch, or convert them with the script of the model's authors"
)
_FOR_TF = (
    "take the weights for PyTorch, or convert them with the script of the model's authors; if the model is of Hugging "
    "Face's transformers 4, AutoModelForImageClassification.from_pretrained(FOLDER, from_{library}=True)"
    ".save_pretrained(NEW_FOLDER) does it"
)
_AGAIN = "it is not the file itself"


@dataclass(frozen=True)
class OtherFormat:
    """A file or folder in a format that cannot be read.

    Attributes:
        what: The format, with an article, such as ``a SavedModel of TensorFlow``.
        action: Advice on how to convert it, as the end of a sentence.
    """

    what: str
    action: str


def check_format(path: Path) -> None:
    """Check that a file or folder is not in a format of another library.

    Raises:
        CheckpointError: The file or folder is in such a format. The message names the format and how to convert it.
    """
    found = other_format(path)
    if found is not None:
        raise CheckpointError(
            f"expected weights as torch.save or safetensors writes them, got {path}, {found.what}: {found.action}"
        )


def other_format(path: Path) -> OtherFormat | None:
    """Return the format of a checkpoint if it is one that is recognised but cannot be read; else None."""
    if path.is_dir():
        return _of_folder(path)
    if not path.is_file():
        return None
    return _by_name(path) or _by_content(path)


def _of_folder(folder: Path) -> OtherFormat | None:
    distributed = _distributed(folder)
    if distributed is not None:
        return _dcp(distributed)
    root = _deepspeed_root(folder)
    if root is not None:
        return _deepspeed(root)
    for inner in (folder, folder / "default", folder / "state"):
        if any((inner / name).is_file() for name in ("_CHECKPOINT_METADATA", "_METADATA", "manifest.ocdbt")):
            return OtherFormat("a checkpoint of Orbax, for JAX", _FOR_JAX)
    if (folder / "saved_model.pb").is_file():
        return OtherFormat("a SavedModel of TensorFlow", _FOR_TF.format(library="tf"))
    if any(folder.glob("*.data-?????-of-?????")) and any(folder.glob("*.index")):
        return OtherFormat("a checkpoint of TensorFlow", _FOR_TF.format(library="tf"))
    if (folder / "config.json").is_file():
        for name, library in {"tf_model.h5": "tf", "flax_model.msgpack": "flax"}.items():
            if (folder / name).is_file():
                what = f"a folder with weights for {'TensorFlow' if library == 'tf' else 'Flax'} alone ({name})"
                return OtherFormat(what, _FOR_TF.format(library=library))
    if folder.suffix in _EXPORTED:
        return _exported(folder.suffix)
    return None


def _distributed(folder: Path) -> Path | None:
    """Return a distributed checkpoint of a model, which is ``folder`` or a folder in it; None if there is none."""
    if _is_distributed(folder):
        return folder
    inner = sorted(path.parent for path in folder.glob("*/.metadata") if _is_distributed(path.parent))
    models = [path for path in inner if not path.name.startswith("optim")]
    return models[0] if models else inner[0] if inner else None


def _is_distributed(folder: Path) -> bool:
    return (folder / ".metadata").is_file() and any(folder.glob("*.distcp"))


def _dcp(folder: Path) -> OtherFormat:
    return OtherFormat(
        "a distributed checkpoint of PyTorch, as FSDP writes it in parts (*.distcp)",
        f"write it to one file with `python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder} "
        "model.pth`, and name that file",
    )


def _deepspeed_root(folder: Path) -> Path | None:
    """Return the folder with DeepSpeed's script and one folder for each step; None if it is not DeepSpeed's."""
    if any(folder.glob("*_optim_states.pt")) or any(folder.glob("*mp_rank_*_model_states.pt")):
        return folder.parent
    steps = any(path.is_dir() for path in folder.glob("global_step*"))
    return folder if steps or (folder / "zero_to_fp32.py").is_file() else None


def _deepspeed(root: Path) -> OtherFormat:
    return OtherFormat(
        "a checkpoint of DeepSpeed, whose weights are in the files of several processes",
        f"in {root}, run `python zero_to_fp32.py . weights`, the script that DeepSpeed has put there, and name what it "
        "writes",
    )


def _by_name(path: Path) -> OtherFormat | None:
    if (path.suffix == ".distcp" or path.name == ".metadata") and _is_distributed(path.parent):
        return _dcp(path.parent)
    if path.name.endswith("_optim_states.pt") or re.fullmatch(r"zero_pp_rank_\d+_mp_rank_\d+_\w+\.pt", path.name):
        return _deepspeed(path.parent.parent)
    if path.suffix in _EXPORTED:
        return _exported(path.suffix)
    if path.suffix == ".msgpack":
        return OtherFormat("a file of Flax, for JAX", _FOR_JAX)
    if re.search(r"\.data-\d{5}-of-\d{5}$", path.name) or (
        path.suffix == ".index" and any(path.parent.glob(f"{path.stem}.data-*"))
    ):
        return OtherFormat("a part of a checkpoint of TensorFlow", _FOR_TF.format(library="tf"))
    return None


def _exported(suffix: str) -> OtherFormat:
    return OtherFormat(
        f"a model in the format {_EXPORTED[suffix]}, which is written for running it elsewhere",
        "name the checkpoint from which it was exported",
    )


def _by_content(path: Path) -> OtherFormat | None:
    with path.open("rb") as stream:
        start = stream.read(512)
    text = start.lstrip().lower()
    if text.startswith(b"version https://git-lfs.github.com/spec"):
        return OtherFormat(
            f"a pointer of Git LFS; {_AGAIN}", f"run `git lfs pull` in its repository, {path.parent}, to fetch that"
        )
    if text.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return OtherFormat(
            f"a web page; {_AGAIN}",
            "open its address in a browser to see why, remove it, and download from the link of the file",
        )
    if start.startswith(b"\x89HDF\r\n"):
        return OtherFormat("a file of HDF5, as Keras writes weights", _FOR_TF.format(library="tf"))
    if start.startswith(b"GGUF"):
        return _exported(".gguf")
    if start.startswith(b"\x1f\x8b"):
        return OtherFormat("a file compressed with gzip", "unpack it, and name what is in it")
    return _of_archive(path) if start.startswith(b"PK") and zipfile.is_zipfile(path) else None


def _of_archive(path: Path) -> OtherFormat | None:
    """Return the format of a ZIP archive; None for an archive of ``torch.save``."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    ends = {name.partition("/")[2] for name in names}
    if "constants.pkl" in ends and any(end.startswith("code/") for end in ends):
        return OtherFormat(
            "a model in TorchScript",
            "write its weights to a new file with "
            f"torch.save(torch.jit.load({str(path)!r}, 'cpu').state_dict(), NEW_FILE), and name that",
        )
    if "archive_format" in ends or "serialized_exported_program.json" in names:
        return OtherFormat(
            "a model of torch.export",
            "write its weights to a new file with "
            f"torch.save(dict(torch.export.load({str(path)!r}).state_dict), NEW_FILE), and name that",
        )
    if "data.pkl" in ends:
        return None
    if any(name.endswith(".weights.h5") for name in names):
        return OtherFormat("a model of Keras", _FOR_TF.format(library="tf"))
    if names and all(name.endswith(".npy") for name in names):
        return OtherFormat(
            "an archive of NumPy, as JAX's vision transformers are published",
            "for a vision transformer of timm, its load_pretrained(FILE) reads it: write its state_dict() to a new "
            "file with torch.save, and name that",
        )
    return OtherFormat("a ZIP archive that torch.save has not written", "unpack it, and name the file in it")
