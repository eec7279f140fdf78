"""Read checkpoints from paths and URLs. Only tensors and plain data are accepted, so that no file can run code."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import numpy as np
import torch
from torch import Tensor

from dtn_det._optional import require
from dtn_det.checkpoints.files import ADAPTER_CONFIG, FOLDER_FILES, INDEX_END, check_no_part, weight_files
from dtn_det.checkpoints.formats import check_format
from dtn_det.checkpoints.state_dict import MERGE, some
from dtn_det.errors import CheckpointError, CheckpointNotFoundError

_TERMINAL_CODE = re.compile(r"\x1b\[[0-9;]*m")
# PyTorch's error message for a class or function that it refuses to load.
_FOREIGN_CLASS = re.compile(r"GLOBAL ([\w.]*\w) was not an allowed global")


def read_checkpoint(source: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a ``.safetensors`` file, a file of ``torch.save``, or a folder of Hugging Face, onto the CPU.

    If the weights are in several parts, the source is their index (``model.safetensors.index.json``) or their folder.
    The index lists which part each tensor is taken from; tensors that it does not list are left out.

    Args:
        source: Path, or URL with ``file://``, ``http://`` or ``https://``. A download is kept in torch's hub folder
            (``TORCH_HOME``) and not fetched again.

    Returns:
        The content of the file: a state dict, or a training checkpoint with the state dict among its values.

    Raises:
        CheckpointNotFoundError: There is no such file.
        CheckpointError: The scheme is not supported, or the URL cannot be fetched. The file is damaged, is one of
            several parts, or is in the format of another library. It holds objects other than tensors and plain data.
        ImportError: The file is in the safetensors format, and the safetensors package is not installed.
    """
    path = _local_path(os.fspath(source))
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise CheckpointNotFoundError(f"expected a checkpoint file at {path}, got none: check the path")
    if path.name.endswith(INDEX_END):
        return _read_parts(path)
    check_no_part(path)
    return _read_file(path)


def is_readable(source: str | os.PathLike[str]) -> bool:
    """Return whether :func:`read_checkpoint` supports a path or the scheme of a URL."""
    return "://" not in os.fspath(source) or urlparse(os.fspath(source)).scheme in ("file", "http", "https")


def _read_folder(folder: Path) -> dict[str, Any]:
    """Read the weights of a model of Hugging Face, from one file or from parts with an index."""
    for path in weight_files(folder):
        return _read_parts(path) if path.name.endswith(INDEX_END) else _read_file(path)
    if (folder / ADAPTER_CONFIG).is_file():
        raise CheckpointError(
            f"expected the weights of a model in the folder {folder}, got {ADAPTER_CONFIG} and an adapter such as "
            f"LoRA, which adds to the weights of another checkpoint: {MERGE}"
        )
    check_format(folder)
    raise CheckpointNotFoundError(
        f"expected weights in the folder {folder}, got none of {', '.join(FOLDER_FILES)} and their index: name a file"
    )


def _read_parts(index: Path) -> dict[str, Any]:
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        part_of = {str(name): Path(str(place)).name for name, place in places.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"expected {index} to have a weight_map of names and files, got {_cause(error)}: fetch it again"
        ) from error
    parts = sorted({*part_of.values()})
    lacking = [part for part in parts if not (index.parent / part).is_file()]
    if lacking:
        raise CheckpointNotFoundError(
            f"expected the parts that {index} names, got none of {', '.join(lacking)}: fetch the rest"
        )
    state: dict[str, Any] = {}
    for part in parts:
        content = _read_file(index.parent / part)
        # Take only the tensors that the index lists for this part: a part may hold further tensors.
        state.update((name, value) for name, value in content.items() if part_of.get(name) == part)
    absent = [name for name in part_of if name not in state]
    if absent:
        raise CheckpointError(
            f"expected the tensors that {index} names in its parts, got {len(absent):,} missing ({some(absent)}): "
            "fetch the parts and the index again, all of one version"
        )
    return state


def _read_file(path: Path) -> dict[str, Any]:
    check_format(path)
    if path.suffix == ".safetensors":
        return dict(_read_safetensors(path))
    try:
        with torch.serialization.safe_globals(_training_globals()):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"expected {path} to be a checkpoint of tensors and plain data, got {_foreign(error)}: if you trust where "
            "it comes from, load it with torch.load(path, weights_only=False) in the program that wrote it, and write "
            "the state dict in it, or the state_dict() of the whole model in it (mostly under 'model', an average "
            "under 'ema'), to a new file with torch.save"
        ) from error
    except (RuntimeError, EOFError) as error:
        raise _damaged(path, error) from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"expected {path} to hold a dict, got {type(checkpoint).__name__}: save a state dict")
    return checkpoint


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file under all their names.

    ``safetensors.torch.save_model`` writes a tensor with several names only once. The metadata of the file map each
    further name to the name that the tensor has in the file.
    """
    safetensors = require("safetensors", "det")
    try:
        tensors: dict[str, Tensor] = require("safetensors.torch", "det").load_file(path)
        with safetensors.safe_open(path, "pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise _damaged(path, error) from error
    stored = set(tensors)
    tensors |= {alias: tensors[name] for alias, name in metadata.items() if alias not in stored and name in stored}
    return tensors


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"expected {path} to be a checkpoint, got a damaged file ({_cause(error)}): delete it and fetch it again"
    )


def _cause(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _foreign(error: pickle.UnpicklingError) -> str:
    """Describe what in a file is not plain data: the class of an object, or else the last reason that PyTorch gives."""
    text = _TERMINAL_CODE.sub("", str(error))
    if found := _FOREIGN_CLASS.search(text):
        return f"one with an object of {found[1]}"
    reason = text.rpartition("WeightsUnpickler error:")[2].strip().splitlines() or [text]
    return f"a file that cannot be read as one ({reason[0].strip()})"


def _local_path(source: str) -> Path:
    url = urlparse(source)
    if url.scheme == "file":
        return Path(url2pathname(url.path))
    if url.scheme in ("http", "https"):
        return _download(source)
    if "://" in source:
        raise CheckpointError(
            f"expected a path or a URL with file://, http:// or https://, got {source!r}: download the file and give "
            f"its path"
        )
    return Path(source).expanduser()


def _download(url: str) -> Path:
    """Download a file once. In a distributed run the first process downloads while the other processes wait."""
    # The name begins with a hash of the URL, because many URLs end in the same name, such as model.safetensors.
    name = f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{Path(urlparse(url).path).name}"
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    first = not distributed or torch.distributed.get_rank() == 0
    if not first:
        torch.distributed.barrier()
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), progress=first)
    except OSError as error:
        raise CheckpointError(
            f"expected to fetch {url}, got {_cause(error)}: check the network, or fetch the file elsewhere "
            "and give its path"
        ) from error
    finally:
        if distributed and first:
            torch.distributed.barrier()
    return path


def _training_globals() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """List the harmless classes that training checkpoints may hold: arguments, numpy arrays and MMEngine's logs."""
    allowed: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [argparse.Namespace, np.ndarray, np.dtype]
    allowed += [type(np.dtype(name)) for name in ("bool", "int32", "int64", "uint32", "float32", "float64")]
    # numpy 2 renamed `numpy.core`, and files of either version must be readable with either version.
    core = importlib.import_module("numpy._core" if hasattr(np, "_core") else "numpy.core").multiarray
    for package in ("numpy._core", "numpy.core"):
        allowed += [(core._reconstruct, f"{package}.multiarray._reconstruct")]
        allowed += [(core.scalar, f"{package}.multiarray.scalar")]
    if importlib.util.find_spec("mmengine") is not None:
        history = importlib.import_module("mmengine.logging.history_buffer").HistoryBuffer

        def history_method(owner: object, name: str) -> Any:
            if owner is not history or name.startswith("_"):
                raise pickle.UnpicklingError(f"attribute {name!r} of {owner!r}")
            return getattr(owner, name)

        # MMEngine's log buffers store methods, pickled as getattr(HistoryBuffer, name). Any other getattr stays
        # forbidden.
        allowed += [history, (history_method, "builtins.getattr")]
    return allowed
