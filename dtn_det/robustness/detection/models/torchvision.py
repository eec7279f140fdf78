"""Load detectors of torchvision: ``torchvision:NAME``, ``torchvision:NAME@FILE`` or ``torchvision:NAME@random``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from dtn_det._optional import require
from dtn_det.checkpoints.load import Loaded, fit_weights
from dtn_det.checkpoints.read import read_checkpoint
from dtn_det.checkpoints.two_networks import WeightsKind
from dtn_det.corruptions.image import ByteImage
from dtn_det.datasets.remarks import Remark
from dtn_det.errors import InputError
from dtn_det.robustness.detection.models.category_ids import StatedClasses
from dtn_det.robustness.detection.models.pixels import PixelModel

TORCHVISION = "torchvision:"
_RANDOM = "random"
_MASK_THRESHOLD = 0.5
_NAME_KEYS = ("classes", "class_names", "categories", "label_names", "names")
# torchvision evaluates its own COCO_V1 weights of these models with an epsilon of 0 in their frozen norms.
_WITHOUT_EPSILON = (
    "fasterrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
)


def load_torchvision(source: str, device: torch.device, weights: WeightsKind | None = None) -> PixelModel:
    """Load a detector of torchvision, with the settings of its builder.

    Without a file, the weights are torchvision's best, and their categories name the classes. From a file, the number
    of classes is that of its weights.

    Args:
        source: ``torchvision:NAME``, or the same with ``@`` and a checkpoint, or ``@random`` for random weights, the
            same in every run.
        weights: Which weights to take from a file with plain weights and an average.

    Raises:
        InputError: torchvision has no such detector, or its weights cannot be had.
        CheckpointError: The file cannot be read or does not fit.
    """
    models = require("torchvision.models", "det")
    name, at, file = source.removeprefix(TORCHVISION).partition("@")
    known = models.list_models(module=models.detection)
    if name not in known:
        raise InputError(f"expected a detector of torchvision out of {', '.join(known)}, got {name!r}: name one")
    if at and not file:
        raise InputError(f"expected a file after the @ of {source!r}, got nothing: name one, or leave the @ out")
    best = models.get_model_weights(name).DEFAULT
    names = best.meta["categories"]
    classes = StatedClasses(dict(enumerate(names)), f"torchvision's {best}", len(names))
    training: Mapping[str, str] = {}
    remarks: tuple[Remark, ...] = ()
    if file and file != _RANDOM:
        network, loaded, classes = _of_file(models, name, file, weights)
        training, remarks = loaded.facts, loaded.remarks
    elif file:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = models.get_model(name, weights=None, weights_backbone=None, num_classes=len(names))
        remarks = (Remark("random_weights", "model with random weights, as asked", source),)
    else:
        network = _pretrained(models, name, best)
        training = {"pretrained": str(best)}
    network = network.to(device).eval()
    return PixelModel(
        name=name,
        # Names without folders, so that files may be moved.
        source=source if not file else f"{TORCHVISION}{name}@{file.rstrip('/').rpartition('/')[2]}",
        adapter="torchvision",
        detect=_detect(network, device),
        classes=classes,
        network=network,
        packages=("torchvision",),
        protocol={"model_settings": f"{name}, defaults of torchvision, masks above {_MASK_THRESHOLD}"},
        training=training,
        remarks=remarks,
    )


def _pretrained(models: Any, name: str, best: Any) -> nn.Module:
    try:
        network: nn.Module = models.get_model(name, weights=best)
    # The download raises errors of several packages, RuntimeError for a damaged file.
    except Exception as error:
        raise InputError(
            f"expected the weights {best} of torchvision, got {type(error).__name__}: {error}: check the network, or "
            f"give a file, {TORCHVISION}{name}@FILE"
        ) from error
    return network


def _of_file(models: Any, name: str, file: str, weights: WeightsKind | None) -> tuple[nn.Module, Loaded, StatedClasses]:
    """Build a model of as many classes as a checkpoint has, and load its weights."""
    content = read_checkpoint(file)

    def build(count: int) -> nn.Module:
        network: nn.Module = models.get_model(name, weights=None, weights_backbone=None, num_classes=count)
        return network

    count = _num_classes(build, content) or len(models.get_model_weights(name).DEFAULT.meta["categories"])
    network = build(count)
    if not any(key.endswith("num_batches_tracked") for key in _keys(content)):
        _freeze(network, 0.0 if name in _WITHOUT_EPSILON and count == 91 else None)
    advice = "name the torchvision model that it was trained as"
    loaded = fit_weights(network, content, file, weights=weights, advice=advice)
    network.load_state_dict(loaded.state, strict=False)
    return network, loaded, replace(_stated(loaded.content, count, file), count=count)


def _num_classes(build: Callable[[int], nn.Module], content: Mapping[str, Any]) -> int | None:
    """Return the number of classes with which a builder makes weights of the shapes in a file; None if none fits."""
    with torch.device("meta"):
        two, three = (build(count).state_dict() for count in (2, 3))
    for key, tensor in two.items():
        for axis, (side, longer) in enumerate(zip(tensor.shape, three[key].shape, strict=True)):
            shape = _shape(content, key) if longer != side else None
            if shape is not None and len(shape) == tensor.ndim:
                more, rest = divmod(shape[axis] - side, longer - side)
                return 2 + more if rest == 0 and more >= -1 else None
    return None


def _shape(content: Mapping[str, Any], key: str) -> tuple[int, ...] | None:
    """Return the shape of a tensor in a checkpoint, in whatever part of it; None if there is none."""
    for name, value in content.items():
        if isinstance(value, torch.Tensor) and (name == key or str(name).endswith(f".{key}")):
            return tuple(value.shape)
        if isinstance(value, Mapping) and (found := _shape(value, key)) is not None:
            return found
    return None


def _keys(content: Mapping[str, Any]) -> list[str]:
    found = []
    for name, value in content.items():
        found += _keys(value) if isinstance(value, Mapping) else [str(name)]
    return found


def _freeze(network: nn.Module, epsilon: float | None) -> None:
    """Replace batch norms by frozen ones, whose weights a file without counts of batches has."""
    frozen: Any = require("torchvision.ops", "det").FrozenBatchNorm2d
    for part in list(network.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(part, name, frozen(child.num_features, child.eps if epsilon is None else epsilon))


def _stated(content: Mapping[str, Any], count: int, file: str) -> StatedClasses:
    """Return the names of classes in a checkpoint: of all classes, or of all but the background."""
    for key in _NAME_KEYS:
        names = content.get(key)
        if (
            isinstance(names, list | tuple)
            and len(names) in (count, count - 1)
            and all(isinstance(name, str) for name in names)
        ):
            first = count - len(names)
            return StatedClasses({first + place: name for place, name in enumerate(names)}, f"{key!r} of {file}")
    return StatedClasses(source=file)


def _detect(network: nn.Module, device: torch.device) -> Callable[[list[ByteImage]], list[dict[str, Any]]]:
    def detect(images: list[ByteImage]) -> list[dict[str, Any]]:
        inputs = [torch.from_numpy(image).to(device).permute(2, 0, 1).float().div(255) for image in images]
        found = []
        for one in network(inputs):
            result = {"boxes": one["boxes"], "scores": one["scores"], "category_ids": one["labels"]}
            if "masks" in one:
                result["masks"] = one["masks"][:, 0] > _MASK_THRESHOLD
            found.append(result)
        return found

    return detect
