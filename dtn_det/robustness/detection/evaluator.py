"""Whether a config asks for the evaluation that mPC is: COCO's, of boxes or masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dtn_det._optional import require
from dtn_det.datasets.remarks import Remark
from dtn_det.errors import InputError

if TYPE_CHECKING:
    from mmengine.config import Config

# They write results and judge nothing.
_WRITERS = ("DumpResults", "DumpDetResults", "DumpProposals")
_COCO_CLASSES = ("CocoMetric", "FasterCocoMetric")
# Data sets of COCO's format whose protocol is another.
_OTHER_PROTOCOLS = ("LVISV05Dataset", "LVISV1Dataset", "CocoPanopticDataset")
_KINDS = {"bbox", "segm"}


def check_protocol(cfg: Config, split: str, dataset: type) -> tuple[Remark, ...]:
    """See that the config's evaluator and data set are of COCO's protocol.

    Args:
        cfg: The config.
        split: `test` or `val`.
        dataset: Class of its data set.

    Returns:
        Options of the evaluator that make other numbers in MMDetection's own test.

    Raises:
        ValueError: They are of another protocol, or the evaluator is to give other numbers than AP.
    """
    modules = require("mmdet.datasets", "det")
    for name in _OTHER_PROTOCOLS:
        other = getattr(modules, name, None)
        if other is not None and issubclass(dataset, other):
            raise InputError(
                f"expected a data set of COCO's protocol in {split}_dataloader, got {dataset.__name__}, whose AP "
                "follows other rules: test it with MMDetection, or evaluate its boxes as COCO does with --cfg-options "
                f"{split}_dataloader.dataset.type=CocoDataset {split}_evaluator.type=CocoMetric"
            )
    evaluators = cfg.get(f"{split}_evaluator")
    single = isinstance(evaluators, Mapping)
    remarks: list[Remark] = []
    for place, one in enumerate([evaluators] if single else evaluators or []):
        if isinstance(one, Mapping):
            key = f"{split}_evaluator" if single else f"{split}_evaluator.{place}"
            remarks += _check_evaluator(one, key)
    return tuple(remarks)


def _check_evaluator(settings: Mapping[str, Any], key: str) -> list[Remark]:
    kind = settings.get("type")
    name = kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))
    name = name.rpartition(".")[2]
    if name in _WRITERS:
        return []
    if name not in _COCO_CLASSES:
        raise InputError(
            f"expected COCO's evaluation (CocoMetric) as {key}, got {name}, whose numbers follow other rules: test it "
            f"with MMDetection, or evaluate by COCO's rule with --cfg-options {key}.type=CocoMetric"
        )
    metric = settings.get("metric", "bbox")
    metrics = {metric} if isinstance(metric, str) else set(metric)
    if not metrics & _KINDS:
        raise InputError(
            f"expected bbox or segm among the metrics of {key}, got {', '.join(sorted(metrics))}: ask for AP with "
            f"--cfg-options {key}.metric=bbox"
        )
    if settings.get("iou_thrs") is not None:
        raise InputError(
            f"expected the IoU thresholds of COCO, 0.5 to 0.95, got {key}.iou_thrs={settings['iou_thrs']!r}: take them "
            f"with --cfg-options {key}.iou_thrs=None"
        )
    told = {
        "proposal_nums": "COCO's 1, 10 and 100 boxes an image are taken",
        "format_only": "results are evaluated all the same",
    }
    return [
        Remark("evaluator_options", f"option of the evaluator that mpc does not follow: {what}", key, 1, (option,))
        for option, what in told.items()
        if settings.get(option) and tuple(_listed(settings[option])) != (100, 300, 1000)
    ]


def _listed(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
