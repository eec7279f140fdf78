"""Detectors of MMDetection: a config with a checkpoint."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dtn_det._optional import require
from dtn_det.checkpoints.files import check_checkpoint
from dtn_det.checkpoints.load import load_weights
from dtn_det.checkpoints.two_networks import WeightsKind
from dtn_det.cost.complexity import config_complexity
from dtn_det.cost.facts import ModelFacts, training_facts
from dtn_det.datasets.class_names import (
    LabelNames,
    ModelClasses,
    NamedSet,
    facts_of_names,
    labels_in_evaluation,
    order_remark,
)
from dtn_det.datasets.configs.classes import checkpoint_classes, head_numbers, training_classes
from dtn_det.datasets.remarks import Remark
from dtn_det.errors import InputError
from dtn_det.robustness.detection.data import DetectionData, check_loader, read_data
from dtn_det.robustness.detection.images import BadImage, CellImages
from dtn_det.robustness.detection.models.detector import Detector, memory_reported, versions
from dtn_det.robustness.detection.records import ImageDetections, from_instances
from dtn_det.robustness.options import DetectionOptions, DetectorSource
from dtn_det.robustness.pixel_values import small_for_bytes
from dtn_det.robustness.store.manifest import ModelManifest, hash_weights
from dtn_det.training import launch
from dtn_det.training.config import load_config, parse_options

if TYPE_CHECKING:
    from mmengine.config import Config


@dataclass(frozen=True)
class MMDetector:
    """A detector of MMDetection with its weights.

    Attributes:
        model: Model of MMDetection, in evaluation mode.
        settings: SHA-256 of the model's settings in the config, test settings included.
        classes: Names of the classes in training; None if the checkpoint does not hold them.
        classes_in_label_order: Whether ``classes`` are known to be in the order of the model's labels.
        training: How the model was trained, as far as config and checkpoint show, and which of several sets of weights
            was loaded.
        remarks: What was decided when the checkpoint was read.
    """

    model: torch.nn.Module
    device: torch.device
    amp: bool
    settings: str
    classes: tuple[str, ...] | None = None
    classes_in_label_order: bool = False
    training: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[Remark, ...] = ()

    @property
    def precision(self) -> str:
        """Name of the precision in the model's manifest."""
        return "amp" if self.amp else "float32"

    @torch.no_grad()
    def detect(self, inputs: torch.Tensor, sample: Any) -> list[Any]:
        """Detect objects in several versions of one image, each with a different corruption.

        Args:
            inputs: The versions, (versions, channels, height, width).

        Returns:
            MMDetection's `pred_instances` for each version.

        Raises:
            ValueError: The accelerator has too little memory, or features, boxes or scores are NaN or infinite.
        """
        samples = [sample.new() for _ in inputs]
        step: Any = self.model.test_step
        try:
            with memory_reported(len(inputs), self.device), self._precision():
                done = step({"inputs": list(inputs), "data_samples": samples})
            found = [one.pred_instances for one in done]
            for one in found:
                _check_finite("boxes and scores", (one.bboxes, one.scores))
        except FloatingPointError as error:
            path = sample.metainfo.get("img_path")
            advice = "try without --amp" if self.amp else "check the checkpoint"
            raise InputError(f"expected {error} that are numbers, got others for {path}: {advice}") from error
        return found

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.device.type) if self.amp else contextlib.nullcontext()


def build_detector(
    cfg: Config, checkpoint: str, device: torch.device, amp: bool = False, weights: WeightsKind | None = None
) -> MMDetector:
    """Build the model of a config once, and load the weights of a checkpoint.

    Args:
        checkpoint: Path or URL.

    Raises:
        CheckpointError: The checkpoint cannot be read or does not fit.
        ValueError: The model cannot be built, or mixed precision is asked for on the CPU.
    """
    if amp and device.type == "cpu":
        raise InputError("expected a GPU for --amp, got none: leave it out")
    if not isinstance(cfg.get("model"), dict):
        raise InputError(f"expected `model` in the config, got {cfg.get('model')!r}: name another config")
    settings = dict(cfg.model)
    if cfg.get("data_preprocessor") is not None:
        settings.setdefault("data_preprocessor", cfg.data_preprocessor)
    try:
        model = require("mmdet.registry", "det").MODELS.build(settings)
    except (KeyError, TypeError, AssertionError, ImportError) as error:
        raise InputError(f"expected a model in the config that builds, got {type(error).__name__}: {error}") from error
    loaded = load_weights(model, checkpoint, weights=weights, advice="name the config that it was trained with")
    # Scores that are NaN pass no threshold, so a model with NaN in its features would seem to find nothing.
    for part in ("backbone", "neck"):
        if isinstance(getattr(model, part, None), torch.nn.Module):
            getattr(model, part).register_forward_hook(partial(_check_features, part))
    text = json.dumps(json.loads(json.dumps(settings, default=str)), sort_keys=True)
    settings_hash = hashlib.sha256(text.encode()).hexdigest()
    training = {**training_facts(cfg, loaded.content), **loaded.facts}
    classes = checkpoint_classes(loaded.content)
    remarks = (*loaded.remarks, *small_for_bytes(settings.get("data_preprocessor"), str(cfg.filename or "the config")))
    return MMDetector(model.to(device).eval(), device, amp, settings_hash, *classes, training, remarks)


def _check_features(part: str, module: torch.nn.Module, inputs: Any, output: Any) -> None:
    """Forward hook that raises a FloatingPointError if the features of a part hold NaN or infinity."""
    _check_finite(f"features of the {part}", output if isinstance(output, list | tuple) else (output,))


def _check_finite(what: str, values: Sequence[Any]) -> None:
    """Raise a FloatingPointError if a tensor holds NaN or infinity."""
    if not all(torch.isfinite(one).all() for one in values if isinstance(one, torch.Tensor)):
        raise FloatingPointError(what)


def detection_facts(cfg: Config, detector: MMDetector, first: CellImages | BadImage) -> ModelFacts:
    """Return how a detector was trained, and its FLOPs for the first image after the test pipeline.

    Args:
        first: The first image of the sweep, as the config's pipeline packs it, under the clean cell alone.

    Returns:
        The facts, without FLOPs if the first image is bad or the detector cannot be traced.
    """
    if isinstance(first, BadImage):
        return ModelFacts(training=detector.training)
    preprocess: Any = detector.model.data_preprocessor
    packed = first.packed[0]
    padded = preprocess({"inputs": [packed.inputs[0]], "data_samples": [packed.sample.new()]}, False)["inputs"]
    height, width = padded.shape[-2:]
    try:
        flops = config_complexity(cfg, (height, width)).total.flops
    except ValueError:
        return ModelFacts(training=detector.training)
    return ModelFacts(flops, f"{height}x{width}", detector.training)


@dataclass(frozen=True)
class OpenedConfig:
    """A config of MMDetection and the data set that it names, before its model is built.

    Attributes:
        settings: The config, with the options of the command.
    """

    source: DetectorSource
    settings: Config
    data: DetectionData


def open_config(source: DetectorSource, options: DetectionOptions) -> OpenedConfig:
    """Read a config and its data set.

    Raises:
        ValueError: The checkpoint or the config cannot be read, or the data set cannot be evaluated.
        OSError: A file is missing.
    """
    check_checkpoint(source.checkpoint)
    cfg = load_config(source.model, parse_options(options.cfg_options))
    require("mmengine.registry", "det").init_default_scope(cfg.get("default_scope") or "mmdet")
    check_loader(cfg, options.split)
    if options.data_root:
        launch.set_data_root(cfg, options.data_root)
    launch.check_data(cfg, [f"{options.split}_dataloader"], options.data_root)
    return OpenedConfig(source, cfg, read_data(cfg, options.split, options.limit, options.limit_seed))


def load_mmdetection(
    opened: OpenedConfig,
    form: int,
    options: DetectionOptions,
    device: torch.device,
    first: Callable[[], CellImages | BadImage],
) -> Detector:
    """Build the detector of a config and load its weights.

    Args:
        form: Index of the config's pipeline among the forms of the images, see :attr:`CellImages.packed`.
        first: Returns the first image of the sweep as the config's pipeline packs it, under the clean cell alone.

    Raises:
        ValueError: The model cannot be built, or it has other classes than the data.
    """
    source, cfg, data = opened.source, opened.settings, opened.data
    built = build_detector(cfg, source.checkpoint, device, options.amp, options.weights)
    labels = _labels(cfg, source, data, built)
    categories = [name for _, name in data.truth.categories]
    places = labels.places(categories)
    training = {**built.training, "label order": labels.evidence, **facts_of_names(labels.remarks)}
    known, keep_masks = replace(built, training=training), data.truth.has_masks

    def detect(images: CellImages, cells: range) -> list[ImageDetections]:
        packed = images.packed[form]
        instances = built.detect(packed.inputs[cells.start : cells.stop], packed.sample)
        found = [from_instances(one, len(categories), masks=keep_masks) for one in instances]
        if places is None:
            return found
        return [replace(one, labels=np.asarray(places, np.int32)[one.labels]) for one in found]

    # The order of the labels is in the protocol only if it is not that of the categories, so that records with and
    # without reordered labels are never mixed.
    own_order = {} if places is None else {"labels": json.dumps(labels.names, ensure_ascii=False)}
    return Detector(
        manifest=ModelManifest(
            name=source.name or Path(source.model).stem,
            # Names without folders, so that the files may be moved.
            source=f"{Path(source.model).name} {os.path.basename(source.checkpoint)}",
            weights_hash=hash_weights(built.model.state_dict()),
            num_parameters=sum(parameter.numel() for parameter in built.model.parameters()),
            protocol={
                "model_settings": built.settings,
                "pipeline": data.pipeline_json,
                "batch_size": str(options.batch_size),
                "precision": built.precision,
                "device": device.type,
                **own_order,
            },
            versions=versions("onedl-mmdetection", "onedl-mmcv", "mmdet", "mmcv"),
        ),
        detect=detect,
        facts=lambda: detection_facts(cfg, known, first()),
        gives_masks=gives_masks(built.model),
        remarks=(*built.remarks, *labels.remarks, *(() if places is None else [order_remark(labels)])),
    )


def _labels(cfg: Config, source: DetectorSource, data: DetectionData, detector: MMDetector) -> LabelNames:
    """Return the name of the class that each label of the detector means.

    Raises:
        ClassNameError: The names cannot be known, or do not agree with the names in the data.
    """
    categories = tuple(name for _, name in data.truth.categories)
    tested = NamedSet(data.where, str(data.dataset.ann_file), tuple(data.dataset.metainfo["classes"]), categories)
    model = ModelClasses(head_numbers(cfg.model), source.checkpoint, detector.classes, detector.classes_in_label_order)
    return labels_in_evaluation([tested], training_classes(cfg, tested), model)


def gives_masks(model: Any) -> bool:
    """Return whether a detector of MMDetection finds masks: it has a head for them, or a head with parts for them."""
    heads = [part for name, part in model.named_children() if name.endswith("_head")]
    inner = (name for head in heads for name, _ in head.named_modules())
    return bool(getattr(model, "with_mask", False)) or any("mask" in name for name in inner)
