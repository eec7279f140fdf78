"""Test-time augmentation for any MMDetection config: each image as it is and mirrored, boxes merged."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from dtn_det.errors import InputError

if TYPE_CHECKING:
    from mmengine.config import Config

PACK_META_KEYS = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction")


def enable_tta(cfg: Config) -> None:
    """Change a config so that testing merges the boxes of augmented views.

    The config's own `tta_model` and `tta_pipeline` are used where it has them; else each image is seen as it is and
    mirrored, and the boxes are merged by non-maximum suppression.

    Args:
        cfg: Config with a `test_dataloader`; changed in place.

    Raises:
        ValueError: The evaluator asks for masks, which MMDetection does not merge, or the test pipeline does not end in
            `PackDetInputs`.
    """
    for evaluator in _as_list(cfg.test_evaluator):
        metrics = _as_list(evaluator.get("metric", []))
        if "segm" in metrics:
            raise InputError(
                f"expected an evaluator of boxes for --tta, which merges no masks, got metric={metrics}: "
                "add --cfg-options test_evaluator.metric=bbox"
            )
    dataset = cfg.test_dataloader.dataset
    while "dataset" in dataset:
        dataset = dataset["dataset"]
    if "tta_pipeline" not in cfg:
        cfg.tta_pipeline = flip_pipeline(dataset.pipeline)
    if "tta_model" not in cfg:
        cfg.tta_model = {
            "type": "DetTTAModel",
            "tta_cfg": {"nms": {"type": "nms", "iou_threshold": 0.5}, "max_per_img": 100},
        }
    dataset.pipeline = cfg.tta_pipeline
    cfg.model = {**cfg.tta_model, "module": cfg.model}


def flip_pipeline(pipeline: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pipeline with its last step, `PackDetInputs`, done for the image as it is and for its mirror image."""
    last = pipeline[-1]["type"] if pipeline else None
    if last != "PackDetInputs":
        raise InputError(
            f"expected a test pipeline that ends in PackDetInputs, got {last!r} at its end: "
            "give the config a tta_pipeline of its own"
        )
    flips = [{"type": "RandomFlip", "prob": 1.0}, {"type": "RandomFlip", "prob": 0.0}]
    pack = [{"type": "PackDetInputs", "meta_keys": PACK_META_KEYS}]
    return [*copy.deepcopy(pipeline[:-1]), {"type": "TestTimeAug", "transforms": [flips, pack]}]


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
