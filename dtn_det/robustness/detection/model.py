"""Build a detector from a config and a checkpoint, and run it on images."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from dtn_det._optional import require
from dtn_det.checkpoints.load import load_weights
from dtn_det.checkpoints.two_networks import WeightsKind
from dtn_det.cost.complexity import config_complexity
from dtn_det.cost.facts import ModelFacts, training_facts
from dtn_det.datasets.configs.classes import checkpoint_classes
from dtn_det.datasets.remarks import Remark, counted
from dtn_det.errors import InputError
from dtn_det.robustness.detection.images import BadImage, DetectionImages
from dtn_det.robustness.pixel_values import small_for_bytes

if TYPE_CHECKING:
    from mmengine.config import Config


@dataclass(frozen=True)
class Detector:
    """A detector with its weights.

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
            with self._memory(len(inputs)), self._precision():
                done = step({"inputs": list(inputs), "data_samples": samples})
            found = [one.pred_instances for one in done]
            for one in found:
                _check_finite("boxes and scores", (one.bboxes, one.scores))
        except FloatingPointError as error:
            path = sample.metainfo.get("img_path")
            advice = "try without --amp" if self.amp else "check the checkpoint"
            raise InputError(f"expected {error} that are numbers, got others for {path}: {advice}") from error
        return found

    @contextlib.contextmanager
    def _memory(self, count: int) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"expected {counted(count, 'image')} at once to fit into the memory of {self.device}, got: "
                f"{str(error).splitlines()[0]} Free the device and start again to continue; or give a smaller "
                "--batch-size and another --name, for what is finished was made with this one. It is kept"
            ) from error

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.device.type) if self.amp else contextlib.nullcontext()


def build_detector(
    cfg: Config, checkpoint: str, device: torch.device, amp: bool = False, weights: WeightsKind | None = None
) -> Detector:
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
    return Detector(model.to(device).eval(), device, amp, settings_hash, *classes, training, remarks)


def _check_features(part: str, module: torch.nn.Module, inputs: Any, output: Any) -> None:
    """Forward hook that raises a FloatingPointError if the features of a part hold NaN or infinity."""
    _check_finite(f"features of the {part}", output if isinstance(output, list | tuple) else (output,))


def _check_finite(what: str, values: Sequence[Any]) -> None:
    """Raise a FloatingPointError if a tensor holds NaN or infinity."""
    if not all(torch.isfinite(one).all() for one in values if isinstance(one, torch.Tensor)):
        raise FloatingPointError(what)


def detection_facts(cfg: Config, detector: Detector, images: DetectionImages) -> ModelFacts:
    """Return how a detector was trained, and its FLOPs for the first image after the test pipeline.

    Args:
        images: The images of the sweep, under the clean cell alone.

    Returns:
        The facts, without FLOPs if the first image is bad or the detector cannot be traced.
    """
    first = images[0]
    if isinstance(first, BadImage):
        return ModelFacts(training=detector.training)
    preprocess: Any = detector.model.data_preprocessor
    padded = preprocess({"inputs": [first.inputs[0]], "data_samples": [first.sample.new()]}, False)["inputs"]
    height, width = padded.shape[-2:]
    try:
        flops = config_complexity(cfg, (height, width)).total.flops
    except ValueError:
        return ModelFacts(training=detector.training)
    return ModelFacts(flops, f"{height}x{width}", detector.training)
