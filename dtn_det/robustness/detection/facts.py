"""What is worth knowing of a detector besides its numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dtn_det.cost.complexity import config_complexity
from dtn_det.cost.facts import ModelFacts
from dtn_det.robustness.detection.images import BadImage, DetectionImages
from dtn_det.robustness.detection.model import Detector

if TYPE_CHECKING:
    from mmengine.config import Config


def detection_facts(cfg: Config, detector: Detector, images: DetectionImages) -> ModelFacts:
    """How a detector was trained, and what it costs for the first image, as it comes out of the pipeline.

    Args:
        cfg: Its config.
        detector: The model.
        images: Under one cell.

    Returns:
        Without the cost, where the image is bad or the detector cannot be traced.
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
