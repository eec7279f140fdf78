"""Load image classifiers of Hugging Face's transformers: ``hf:FOLDER`` or ``hf:NAME`` of its hub."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dtn_det._optional import require
from dtn_det.checkpoints.state_dict import some
from dtn_det.errors import ClassCountError, InputError
from dtn_det.robustness.classification.models.classifier import Classifier, View
from dtn_det.robustness.classification.models.timm import hub_asked_once
from dtn_det.robustness.pixel_values import check_unit_range, small_for_bytes

HF = "hf:"

_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of resampling filters, which image processors store."""


def load_hugging_face(source: str, num_classes: int) -> Classifier:
    """Load an image classifier of transformers and its image processor.

    The processor scales and normalises the images. It does not crop them, because the images of a sweep are centre
    crops already. Images of another size than the processor's output are resized to it. Names of classes are those of
    ``id2label``.

    Args:
        source: ``hf:`` and the name of a model on the hub or a folder that ``save_pretrained`` has written.
        num_classes: Number of classes of the data.

    Raises:
        InputError: There is no such model, it is no image classifier, its classifier is not in the weights, or it has
            no image processor.
        ClassCountError: The model has another number of classes.
    """
    name = source.removeprefix(HF)
    model, processor = load_model_and_processor(name)
    if model.config.num_labels != num_classes:
        raise ClassCountError(source, model.config.num_labels, num_classes)
    settings = processor.to_dict()
    where = f"in the preprocessor_config.json of {name!r}"
    if settings.get("do_rescale", True) and settings.get("do_normalize", True) and settings.get("image_mean"):
        check_unit_range(settings["image_mean"], settings["image_std"], where, "write there")
    bytes_as_they_are = not settings.get("do_rescale", True) and settings.get("do_normalize", True)
    given = {"mean": settings.get("image_mean"), "std": settings.get("image_std")} if bytes_as_they_are else {}
    view = _view(settings, where)
    return Classifier(
        name=Path(name).resolve().name if Path(name).exists() else name.rpartition("/")[2],
        source=source,
        network=model,
        forward=_forward(model, processor, settings),
        view=view,
        protocol={
            "input": "as corrupted" if view.size is None else f"{view.size[0]}x{view.size[1]} {view.interpolation}",
            "normalization": f"mean {settings.get('image_mean')} std {settings.get('image_std')}, by "
            f"{type(processor).__name__}",
        },
        versions={"transformers": metadata.version("transformers")},
        training={"pretrained": name},
        num_classes=model.config.num_labels,
        class_names=class_names(model.config.id2label),
        remarks=small_for_bytes(given, name, f"the {type(processor).__name__} without do_rescale"),
    )


def load_model_and_processor(
    name: str,
    auto_class: str = "AutoModelForImageClassification",
    what: str = "an image classifier",
    *,
    fast: bool = True,
) -> tuple[Any, Any]:
    """Load a model, whose weights must all be there and fit its config, and its image processor.

    Args:
        name: Name of a model on the hub, or a folder that ``save_pretrained`` has written.
        auto_class: Class of transformers that loads the model.
        what: The kind of the model, for messages.
        fast: Whether to take the processor of the fast kind, which works on tensors, if the model has one.

    Returns:
        The model, in evaluation mode and float32, and its image processor.

    Raises:
        InputError: There is no such model or image processor, or weights are missing or of other shapes.
    """
    transformers = require("transformers", "cls")
    if not name:
        raise InputError("expected a folder or a name of the hub after 'hf:', got nothing: name one")
    local = Path(name).is_dir()
    if local and not (Path(name) / "config.json").is_file():
        raise InputError(f"expected a folder with a config.json after 'hf:', got {name!r} without: name another")
    options = {"local_files_only": local, "trust_remote_code": False}
    with _quiet(transformers), hub_asked_once() as fault:
        made = _made(
            f"{what} of transformers",
            name,
            "" if local else fault,
            lambda: getattr(transformers, auto_class).from_pretrained(
                name, output_loading_info=True, ignore_mismatched_sizes=True, **options
            ),
        )
        processor = _made(
            "an image processor (preprocessor_config.json)",
            name,
            "" if local else fault,
            lambda: transformers.AutoImageProcessor.from_pretrained(name, use_fast=fast, **options),
        )
    model, loading = made
    for found in loading["mismatched_keys"]:
        key = found if isinstance(found, str) else found[0]  # newer versions add the shapes
        raise InputError(
            f"expected weights of the shapes that the config.json of {name!r} states, got another one of {key} than "
            f"{tuple(model.state_dict()[key].shape)}: write the settings of the training into config.json, such as one "
            "name in id2label for each class"
        )
    lacking = loading["missing_keys"]
    if lacking:
        raise InputError(
            f"expected all weights of {type(model).__name__} in {name!r}, got none for {some(lacking, 3)}: name a "
            "checkpoint with a trained classifier"
        )
    return model.float().eval(), processor


def _made(what: str, name: str, fault: str, make: Callable[[], Any]) -> Any:
    """Return what a function of transformers makes; raise an InputError if it fails."""
    # The library and its client of the hub raise errors of many kinds.
    try:
        return make()
    except Exception as error:
        lines = (str(error).strip() or "no reason").splitlines()
        told = " ".join(line.strip() for line in lines[: 2 if lines[0].endswith(":") else 1])
        raise InputError(
            f"expected {what} in {name!r}, got {f'{fault}, and ' if fault else ''}{type(error).__name__}: {told}: name "
            "a folder that save_pretrained of the model and of its processor have written, or another model"
        ) from error


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Silence the warnings of transformers within the block."""
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(verbosity)


def _view(settings: Mapping[str, Any], where: str) -> View:
    """Return the size of a processor's output and its interpolation."""
    cropped = settings.get("do_center_crop") and settings.get("crop_size")
    size = cropped or (settings.get("size") if settings.get("do_resize", True) else None)
    if not size:
        return View()
    side = size if isinstance(size, int) else size.get("shortest_edge")
    height, width = (side, side) if side else (size.get("height"), size.get("width"))
    interpolation = _FILTERS.get(settings.get("resample", 2))
    if not height or not width or interpolation is None:
        raise InputError(
            f"expected a size of height and width or of the shortest edge, and one of Pillow's filters from 0 to 3, "
            f"{where}, got {size} and {settings.get('resample')}: wrap the model as python:MODULE:FUNCTION"
        )
    return View((height, width), interpolation)


def _forward(model: nn.Module, processor: Any, settings: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    """Return the function from 8-bit images to logits."""
    # A processor warns of switches that it does not have.
    off = {switch: False for switch in ("do_resize", "do_center_crop") if switch in settings}

    def forward(images: Tensor) -> Tensor:
        inputs = processor(list(images), return_tensors="pt", input_data_format="channels_first", **off)
        pixels: Tensor = inputs["pixel_values"]
        logits: Tensor = model(pixels.to(images.device, torch.float32)).logits
        return logits

    return forward


def class_names(names: Mapping[int, str]) -> tuple[str, ...]:
    """Return the names of the classes in the order of the logits; empty if they are the placeholders LABEL_0 etc."""
    if all(str(name) == f"LABEL_{number}" for number, name in names.items()):
        return ()
    return tuple(str(names[number]) for number in sorted(names))
