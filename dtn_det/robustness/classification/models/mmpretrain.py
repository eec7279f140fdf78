"""Load models of mmpretrain, which users name ``CONFIG@CHECKPOINT``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import Tensor

from dtn_det._optional import require
from dtn_det.checkpoints.load import load_weights
from dtn_det.checkpoints.two_networks import WeightsKind
from dtn_det.cost.facts import training_facts
from dtn_det.datasets.class_names import facts_of_names, names_left_out
from dtn_det.datasets.configs.classes import checkpoint_classes
from dtn_det.datasets.configs.settings import innermost_settings
from dtn_det.datasets.remarks import Remark
from dtn_det.errors import InputError
from dtn_det.robustness.classification.models.classifier import Classifier, View
from dtn_det.robustness.pixel_values import small_for_bytes
from dtn_det.training.config import load_config

_LOADING = ("LoadImageFromFile",)
_PACKING = ("PackInputs", "PackClsInputs")
_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")


def load_mmpretrain(
    source: str, num_classes: int, weights: WeightsKind | None = None, *, view: View | None = None
) -> Classifier:
    """Build the model of a config of mmpretrain and load its checkpoint.

    Images are resized to the size that the model's test pipeline produces. They are not cropped, because the images of
    a sweep are centre crops already.

    Args:
        source: ``CONFIG@CHECKPOINT``.
        num_classes: Number of classes of the data set, for messages.
        view: The form of the images for the model; None for the form that its test pipeline produces.

    Raises:
        ValueError: The config has no classifier, or its test pipeline has a step that is not known here.
        CheckpointError: The checkpoint does not fit.
    """
    path, checkpoint = split_source(source)
    if not checkpoint:
        raise InputError(f"expected CONFIG@CHECKPOINT for a model of mmpretrain, got {source!r}: name the checkpoint")
    config = load_config(path)
    registry = require("mmpretrain.registry", "cls")
    require("mmpretrain.models", "cls")
    view = view or configured_view(config, path)
    if view is None or config.get("model") is None:
        raise InputError(
            f"expected a config of mmpretrain with `model` and `test_dataloader`, got {path} without: name another"
        )
    settings = {**config.model}
    preprocessor = settings.setdefault("data_preprocessor", {**(config.get("data_preprocessor") or {})})
    preprocessor.setdefault("type", "ClsDataPreprocessor")
    # The weights come from the checkpoint, so the weights from which training began need not be loaded.
    settings.pop("init_cfg", None)
    try:
        # If a detector was built before, mmengine would look up names without a scope in MMDetection.
        with require("mmengine.registry", "cls").DefaultScope.overwrite_default_scope("mmpretrain"):
            model = registry.MODELS.build(settings)
    except (KeyError, TypeError) as error:
        raise InputError(f"expected the model of {path} to be one of mmpretrain, got {error}") from error
    # mmpretrain's wrappers of timm's and Hugging Face's models have a loss module and no head.
    if not hasattr(model, "extract_feat") or not (getattr(model, "head", None) or getattr(model, "loss_module", None)):
        kind = type(model).__name__
        raise InputError(f"expected a classifier in {path}, got {kind} without a head: name another config")
    loaded = load_weights(model, checkpoint, weights=weights, advice=f"name the checkpoint of {path}")
    model.eval()
    class_names, told = _class_names(config, loaded.content, _num_classes(model), checkpoint)
    to_rgb = bool(preprocessor.get("to_rgb", False))
    return Classifier(
        name=f"{Path(path).stem}@{Path(checkpoint).stem}",
        source=source,
        network=model,
        forward=lambda images: _logits(model, images),
        view=view,
        protocol={
            "input": "as corrupted" if view.size is None else f"{view.size[0]}x{view.size[1]} {view.interpolation}",
            "normalization": f"mean {preprocessor.get('mean')} std {preprocessor.get('std')} to_rgb {to_rgb}",
            "classes": str(num_classes),
        },
        versions={name: metadata.version(f"onedl-{name}") for name in ("mmpretrain", "mmengine")},
        training={**training_facts(config, loaded.content), **loaded.facts, **facts_of_names(told)},
        num_classes=_num_classes(model),
        class_names=class_names,
        class_order="sorted",
        remarks=(*loaded.remarks, *told, *small_for_bytes(preprocessor, path)),
    )


def _num_classes(model: Any) -> int | None:
    """Return the number of classes of the head; None if it is unknown, so that the logits are counted."""
    number = getattr(getattr(model, "head", None), "num_classes", None)
    return number if isinstance(number, int) else None


def _class_names(
    config: Any, content: Mapping[str, Any], number: int | None, checkpoint: str
) -> tuple[tuple[str, ...], tuple[Remark, ...]]:
    """Return the names of the classes in the checkpoint, else in the config, in the order of the logits.

    If the number of names in the checkpoint is not the number of classes, these names are left out, with a remark.
    """
    names, _ = checkpoint_classes(content)
    told: tuple[Remark, ...] = ()
    if names and number is not None and len(names) != number:
        told = (names_left_out(names, number, checkpoint),)
        names = None
    if not names:
        dataset: Any = next((one for _, one in innermost_settings(config, "train_dataloader")), {})
        names = dataset.get("classes") or (dataset.get("metainfo") or {}).get("classes")
    if isinstance(names, str) or not names:
        return (), told
    return tuple(map(str, names)), told


def split_source(source: str) -> tuple[str, str]:
    """Split ``CONFIG.py@CHECKPOINT`` into config and checkpoint. Names of folders may contain an ``@`` too."""
    path, suffix, checkpoint = source.partition(".py@")
    return path + suffix.rstrip("@"), checkpoint


def pipeline_view(pipeline: Sequence[Mapping[str, Any]], path: str) -> View:
    """Return the image size that a test pipeline produces, and its interpolation.

    Raises:
        ValueError: The pipeline has a step that is not known here.
    """
    size: tuple[int, int] | None = None
    interpolation = "bilinear"
    for step in pipeline:
        kind = str(step.get("type")).rpartition(".")[2]
        if kind in (*_LOADING, *_PACKING):
            continue
        if kind == "ResizeEdge":
            size = None
        elif kind == "CenterCrop":
            size = _pair(step["crop_size"])
        elif kind == "Resize":
            # mmcv's scale is (width, height).
            size = _pair(step["scale"])[::-1]
        else:
            known = ", ".join((*_LOADING, "ResizeEdge", "Resize", "CenterCrop", *_PACKING))
            raise InputError(
                f"expected a test pipeline of {known} in {path}, got {kind}: wrap the model as python:MODULE:FUNCTION"
            )
        named = step.get("interpolation", "bilinear")
        interpolation = named if named in _INTERPOLATIONS and kind != "CenterCrop" else interpolation
    return View(size, interpolation)


def configured_view(config: Any, path: str) -> View | None:
    """Return the image size that a config's test pipeline produces, and its interpolation; None without a pipeline.

    Raises:
        InputError: The pipeline has a step that is not known here.
    """
    loader = config.get("test_dataloader") or config.get("val_dataloader") or {}
    pipeline = (loader.get("dataset") or {}).get("pipeline")
    return None if pipeline is None else pipeline_view(pipeline, path)


def _logits(model: Any, images: Tensor) -> Tensor:
    # Convert to BGR, in which mmpretrain's pipelines load images. The preprocessor then converts to the model's order.
    prepared = model.data_preprocessor({"inputs": images.flip(1).contiguous()})["inputs"]
    logits: Tensor = model(prepared, mode="tensor")
    return logits


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    first, second = value
    return first, second
