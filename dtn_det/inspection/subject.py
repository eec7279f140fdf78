"""The subject of an inspection: a model with its weights, and one image prepared for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dtn_det._optional import require
from dtn_det.checkpoints.files import check_checkpoint
from dtn_det.checkpoints.two_networks import WeightsKind
from dtn_det.datasets.remarks import Remark
from dtn_det.errors import InputError
from dtn_det.training.config import is_classifier, load_config

if TYPE_CHECKING:
    from mmengine.config import Config

IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class Subject:
    """A network, and one image that is prepared for it.

    Attributes:
        model: Name of the config without its folder, or ``timm:NAME``.
        checkpoint: Name of the file without its folder.
        image: Name of the file without its folder.
        network: The model in evaluation mode.
        run: Runs the network on the image, at least as far as the end of the backbone.
        picture: ``(h, w, 3)`` uint8 RGB, the image at the size at which the network sees it, without padding.
        input_size: Height and width of the network's input in pixels, padding included.
        image_size: Height and width of the image file in pixels.
        remarks: What was decided when the checkpoint was read.
    """

    model: str
    checkpoint: str
    image: str
    network: nn.Module
    run: Callable[[], object]
    picture: NDArray[np.uint8]
    input_size: tuple[int, int]
    image_size: tuple[int, int]
    remarks: tuple[Remark, ...] = ()


def load_subject(
    model: str, checkpoint: str, image: str, device: str = "cpu", weights: WeightsKind | None = None
) -> Subject:
    """Build a model, load its weights, and prepare an image by the model's own test pipeline.

    Args:
        model: Path of a config of MMDetection or mmpretrain, or ``timm:NAME``.
        checkpoint: Path or URL of its weights; ``random`` for an untrained model of timm.

    Raises:
        FileNotFoundError: A file is missing.
        InputError: An argument has a value that does not fit, or the arguments do not fit together.
        CheckpointError: The checkpoint cannot be read or does not fit the model.
    """
    from dtn_det.robustness.sweep import pick_device

    image_size = check_image(image)
    target = pick_device(device)
    config = None if model.startswith("timm:") else load_config(model)
    if config is not None:
        check_checkpoint(checkpoint)
        if not isinstance(config.get("model"), Mapping):
            raise InputError(
                f"expected a config with a model, got {model} without: name that of a detector or classifier"
            )
    if config is not None and not is_classifier(config):
        found = _detector(config, model, checkpoint, image, target, weights)
    else:
        head = {} if config is None else config.model.get("head") or {}
        classes = head.get("num_classes", IMAGENET_CLASSES)
        found = _classifier(f"{model}@{checkpoint}", classes, image, target, weights)
    name = model if config is None else Path(model).stem
    return Subject(name, Path(checkpoint).name, Path(image).name, image_size=image_size, **found)


def check_image(path: str) -> tuple[int, int]:
    """Check that an image can be read to its end, and return its height and width in pixels.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: The file is not an image, or is damaged.
    """
    pillow = require("PIL.Image", "det")
    if not Path(path).is_file():
        what = "a folder" if Path(path).is_dir() else "nothing there"
        raise FileNotFoundError(f"expected an image, got {path!r}, which is {what}: name a JPEG or PNG file")
    try:
        with pillow.open(path) as file:
            file.load()
            width, height = file.size
    # Pillow raises many kinds of errors for broken files.
    except Exception as error:
        raise InputError(
            f"expected an image, got {path!r}, which cannot be read ({type(error).__name__}: {error}): name a JPEG or "
            "PNG file that opens elsewhere"
        ) from error
    return height, width


def _detector(
    config: Config, model: str, checkpoint: str, image: str, device: torch.device, weights: WeightsKind | None
) -> dict[str, Any]:
    """Return the fields of a :class:`Subject` for a detector."""
    from dtn_det.robustness.detection.models.mmdetection import build_detector

    scope = require("mmengine.registry", "det").DefaultScope
    with scope.overwrite_default_scope(config.get("default_scope", "mmdet")):
        sample = _through_pipeline(config, model, image)
        built = build_detector(config, checkpoint, device, weights=weights)
    detector: Any = built.model
    if not hasattr(detector, "backbone"):
        raise InputError(
            f"expected a detector with a backbone in {model}, got {type(detector).__name__} without: name the config "
            "of the detector itself"
        )
    pixels: torch.Tensor = sample["inputs"]  # (3, h, w), BGR
    data = {"inputs": [pixels], "data_samples": [sample["data_samples"]]}
    prepared: torch.Tensor = detector.data_preprocessor(data, False)["inputs"]
    picture = pixels.flip(0).permute(1, 2, 0).clamp(0, 255).to(torch.uint8).contiguous().numpy()
    return {
        "network": detector,
        "run": lambda: detector.backbone(prepared),
        "picture": picture,
        "input_size": (prepared.shape[-2], prepared.shape[-1]),
        "remarks": built.remarks,
    }


def _through_pipeline(config: Config, model: str, image: str) -> dict[str, Any]:
    """Return the image as the test pipeline packs it, without annotations."""
    from dtn_det.robustness.detection.data import build_pipeline

    dataset = (config.get("test_dataloader") or {}).get("dataset") or {}
    if not dataset.get("pipeline"):
        raise InputError(
            f"expected one data set with a pipeline in test_dataloader of {model}, got none: name a config that can be "
            "tested"
        )
    load, rest = build_pipeline(dataset["pipeline"])
    result: dict[str, Any] | None = {"img_path": image, "img_id": 0}
    try:
        for step in (*load, *rest):
            result = None if result is None else step(result)
    except (KeyError, TypeError, ValueError, AssertionError, AttributeError) as error:
        raise InputError(
            f"expected the test pipeline of {model} to take {image!r}, got {type(error).__name__}: {error}: name a "
            "config whose pipeline begins with LoadImageFromFile"
        ) from error
    if result is None or not isinstance(result.get("inputs"), torch.Tensor):
        raise InputError(
            f"expected the test pipeline of {model} to end in PackDetInputs with one image, got another end: leave "
            "test-time augmentation out"
        )
    return result


def _classifier(
    source: str, classes: int, image: str, device: torch.device, weights: WeightsKind | None
) -> dict[str, Any]:
    """Return the fields of a :class:`Subject` for a classifier."""
    from dtn_det.robustness.classification.models.loading import load_classifier

    classifier = load_classifier(source, classes, weights)
    pillow = require("PIL.Image", "cls")
    with pillow.open(image) as file:
        pixels = file.convert("RGB")
    if classifier.view.size is not None:
        height, width = classifier.view.size
        pixels = pixels.resize((width, height), pillow.Resampling[classifier.view.interpolation.upper()])
    picture = np.array(pixels, dtype=np.uint8)
    network = classifier.network.to(device)
    inputs = torch.from_numpy(picture).permute(2, 0, 1).unsqueeze(0).to(device)
    return {
        "network": network,
        "run": lambda: classifier.forward(inputs),
        "picture": picture,
        "input_size": (picture.shape[0], picture.shape[1]),
        "remarks": classifier.remarks,
    }
