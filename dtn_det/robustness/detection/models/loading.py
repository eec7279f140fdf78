"""Load the detectors that users name, such as ``python:MODULE:FUNCTION`` or a config of MMDetection."""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dtn_det.checkpoints.two_networks import WeightsKind
from dtn_det.datasets.remarks import Remark, counted
from dtn_det.errors import InputError
from dtn_det.robustness.detection.models.category_ids import StatedClasses
from dtn_det.robustness.detection.models.pixels import PixelModel
from dtn_det.robustness.options import DetectorSource
from dtn_det.robustness.store.files import check_name
from dtn_det.robustness.store.manifest import hash_weights
from dtn_det.robustness.user_code import PYTHON, call_factory, import_callable

PREFIXES = (PYTHON, "torchvision:", "hf:", "onnx:")
FORMS = (
    "CONFIG CHECKPOINT or CONFIG@CHECKPOINT of MMDetection, torchvision:NAME, torchvision:NAME@FILE, "
    "hf:FOLDER_OR_NAME, onnx:FILE or python:MODULE:FUNCTION"
)
_CONFIG = re.compile(r"(?P<config>.+?\.(?:py|json|ya?ml))(?:@(?P<checkpoint>.+))?")
_NAMED = re.compile(r"(?P<name>[^=:/@]+)=(?P<model>.+)")


def parse_sources(words: Sequence[str], names: Sequence[str] | None = None) -> tuple[DetectorSource, ...]:
    """Return the models that the words of a command name.

    Args:
        words: Each a model, ``NAME=MODEL``, or a config that the word of its checkpoint follows.
        names: Names of the models in the store and in reports; None for names made from the models.

    Raises:
        InputError: A word is no model, a config lacks a checkpoint, or a name is given twice or is missing.
    """
    found: list[DetectorSource] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        named = _NAMED.fullmatch(word)
        name = None if named is None or Path(word).exists() else named["name"]
        model = word if name is None or named is None else named["model"]
        if model.startswith(PREFIXES):
            found.append(DetectorSource(model, name=name))
            continue
        config = _CONFIG.fullmatch(model)
        if config is not None and config["checkpoint"]:
            found.append(DetectorSource(config["config"], config["checkpoint"], name))
        elif rest and not rest[0].startswith(PREFIXES) and _CONFIG.fullmatch(rest[0]) is None:
            found.append(DetectorSource(model, rest.pop(0), name))
        else:
            raise InputError(f"expected MODEL to be {FORMS}, got {model!r} alone: name the model, or its checkpoint")
    if names is not None:
        if len(names) != len(found):
            raise InputError(
                f"expected --names for {counted(len(found), 'model')}, got {len(names)}: give each model one name"
            )
        found = [DetectorSource(one.model, one.checkpoint, name) for one, name in zip(found, names, strict=True)]
    for one in found:
        if one.name is not None:
            check_name(one.name)
    return tuple(found)


def load_pixel_model(source: str, device: torch.device, weights: WeightsKind | None = None) -> PixelModel:
    """Load a detector that takes images.

    Args:
        source: The model as the user named it, with a prefix out of :data:`PREFIXES`.
        weights: Which weights to take from a file with plain weights and an average.

    Raises:
        ValueError: The source has no such prefix, or the model cannot be loaded.
    """
    if source.startswith(PYTHON):
        return load_python_detector(source)
    if source.startswith("torchvision:"):
        from dtn_det.robustness.detection.models.torchvision import load_torchvision

        return load_torchvision(source, device, weights)
    if source.startswith("hf:"):
        from dtn_det.robustness.detection.models.hugging_face import load_hugging_face_detector

        return load_hugging_face_detector(source, device)
    if source.startswith("onnx:"):
        from dtn_det.robustness.detection.models.onnx import load_onnx

        return load_onnx(source, device)
    raise InputError(f"expected MODEL to be {FORMS}, got {source!r}")


def load_python_detector(source: str) -> PixelModel:
    """Load a detector that is a function or another callable of the user.

    The function takes a list of images and returns a list of mappings: see :attr:`PixelModel.detect`. A function or
    class that can be called without arguments makes such a callable. The callable may have an attribute ``names``, a
    list of class names or a mapping from category id to name; without it, ``category_ids`` are those of the annotation
    file.

    Raises:
        InputError: There is no such function, or it makes nothing that can be called.
    """
    name, function = import_callable(source)
    if _is_factory(function):
        made = call_factory(function, source, "a detector")
        if not callable(made):
            raise InputError(
                f"expected {source!r} to return a function from a list of images to boxes, got "
                f"{type(made).__name__}: name a function that takes the images, or one that returns such a function"
            )
    else:
        made = function
    if isinstance(made, nn.Module):
        made.eval()
    networks = list(_networks(made))
    code = _code(source, function)
    digest, remarks = _digest(networks, code, source)
    return PixelModel(
        name=name,
        source=source,
        adapter="python",
        detect=made,
        classes=_stated_names(getattr(made, "names", None), source),
        network=networks[0] if len(networks) == 1 else None,
        weights_hash=digest,
        # Records of a function that was mended are not mixed with those before, which may be wrong.
        protocol={"code": code[1]},
        remarks=remarks,
    )


def _is_factory(function: Any) -> bool:
    """Return whether a callable makes a detector, because it can be called without arguments."""
    if isinstance(function, nn.Module) or not (inspect.isroutine(function) or inspect.isclass(function)):
        return False
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError):
        return False
    return True


def _networks(made: Any) -> Iterator[nn.Module]:
    """Yield the modules that a callable holds: itself, its attributes, its closure, or globals that its code names."""
    function = getattr(made, "__func__", made)
    held: list[Any] = [made, getattr(made, "__self__", None), *_values(made), *_values(getattr(made, "__self__", None))]
    code = getattr(function, "__code__", None)
    if code is not None:
        held += [cell.cell_contents for cell in function.__closure__ or ()]
        held += [function.__globals__[name] for name in code.co_names if name in function.__globals__]
    seen: set[int] = set()
    for part in held:
        # Wrappers of other libraries hold the module as an attribute named model, RF-DETR as that of another.
        for _ in range(4):
            if isinstance(part, nn.Module):
                if id(part) not in seen:
                    seen.add(id(part))
                    yield part
                break
            part = getattr(part, "model", None)


def _values(made: Any) -> list[Any]:
    return list(getattr(made, "__dict__", {}).values()) if not inspect.isfunction(made) else []


def _code(source: str, function: Any) -> tuple[str, str]:
    """Return the name and the hash of the file of a function, or its source as the user named it where it has none."""
    module = sys.modules.get(source.removeprefix(PYTHON).partition(":")[0])
    try:
        file = getattr(module, "__file__", None)
        path = Path(file or inspect.getfile(function if inspect.isroutine(function) else type(function)))
        return path.name, hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, TypeError):
        return source, hashlib.sha256(source.encode()).hexdigest()


def _digest(networks: Sequence[nn.Module], code: tuple[str, str], source: str) -> tuple[str, tuple[Remark, ...]]:
    """Return a hash of the weights, or where there is no module, of the file of the code, with a remark."""
    if networks:
        return hashlib.sha256("".join(hash_weights(one.state_dict()) for one in networks).encode()).hexdigest(), ()
    what = (
        f"model without a torch module that can be seen: the store knows it by {code[0]}, so give it another name when "
        "its weights change"
    )
    return code[1], (Remark("weights_unseen", what, source),)


def _stated_names(names: Any, source: str) -> StatedClasses:
    if names is None:
        return StatedClasses(source="the contract of python: models, ids of the annotation file", way="dataset")
    pairs = names.items() if isinstance(names, Mapping) else enumerate(names)
    try:
        return StatedClasses({int(number): str(name) for number, name in pairs}, f"{source}'s names")
    except (TypeError, ValueError) as error:
        raise InputError(
            f"expected names of {source!r} as a list of texts or a mapping from category id to name, got {names!r:.80}"
        ) from error
