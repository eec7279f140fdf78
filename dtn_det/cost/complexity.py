"""FLOPs and parameters of a detector and of its LayerNorm twin, by part and kind of module.

The twin is the same detector with LayerNorm in place of DTN. MMEngine's analyzer counts a trace in which each DTN layer
computes LayerNorm. So the analyzer's total is the twin's, and agrees with published figures. The analyzer would miss
most of DTN's FLOPs, so they are computed by formulas from the height and width of each layer's input in the trace
(:mod:`dtn_det.cost.flops`).
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dtn_det._optional import require
from dtn_det.cost.flops import DTNFlops, LayerCost, as_layer_norm
from dtn_det.errors import InputError
from dtn_det.layers import DTN

if TYPE_CHECKING:
    import pandas as pd
    from mmengine.config import Config

CONVENTION = "one multiply-add = one FLOP, one image, DTN's axis filters over their full range"
HEADINGS = ("part", "kind", "params (M)", "FLOPs (G)", "LN params (M)", "LN FLOPs (G)")
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
# Texts to search for in a module's class name, in this order; the first text found decides the kind of the module.
KINDS_BY_NAME = (("Attention", "attention"), ("MSA", "attention"), ("FFN", "ffn"), ("Mlp", "ffn"), ("Patch", "patches"))


@dataclass(frozen=True)
class CostRow:
    """The cost of all modules of one kind in one part of the detector.

    Attributes:
        part: Path of the part, such as `backbone.stages.0`, `neck` or `roi_head.mask_head`.
        kind: `dtn`, `norm`, `attention`, `ffn`, `patches`, `conv`, `linear` or `other`.
    """

    part: str
    kind: str
    params: int
    flops: int
    ln_params: int
    ln_flops: int

    def texts(self) -> tuple[str, ...]:
        """The row as the cells of a table with :data:`HEADINGS`."""
        values = (self.params / 1e6, self.flops / 1e9, self.ln_params / 1e6, self.ln_flops / 1e9)
        return self.part, self.kind, *(f"{value:.3f}" for value in values)


@dataclass(frozen=True)
class Complexity:
    """The FLOPs and parameters of a detector.

    Attributes:
        model: Names of the classes of the detector and of its backbone.
        shape: Height and width of the input in pixels.
        rows: The cost of each part and kind, in the order of the model's parts.
    """

    model: str
    shape: tuple[int, int]
    rows: tuple[CostRow, ...]
    layers: tuple[LayerCost, ...]

    @property
    def title(self) -> str:
        """A line with the model, its input, and the convention of the counts."""
        return f"{self.model}, input {self.shape[0]} x {self.shape[1]}; {CONVENTION}"

    @property
    def total(self) -> CostRow:
        """The sum of all rows."""
        fields = ("params", "flops", "ln_params", "ln_flops")
        return CostRow("total", "", *(sum(getattr(row, field) for row in self.rows) for field in fields))

    @property
    def dtn(self) -> DTNFlops:
        """The sum of the FLOPs over :attr:`layers`."""
        fields = DTNFlops.__dataclass_fields__
        return DTNFlops(**{field: sum(getattr(layer.flops, field) for layer in self.layers) for field in fields})

    def to_dict(self) -> dict[str, Any]:
        """Return all attributes, totals and the counting convention as a dict for JSON."""
        return {**asdict(self), "total": asdict(self.total), "dtn": asdict(self.dtn), "convention": CONVENTION}

    def to_frame(self) -> pd.DataFrame:
        """Return the rows and their total as a data frame."""
        return require("pandas", "cli").DataFrame([asdict(row) for row in (*self.rows, self.total)])

    def to_csv(self) -> str:
        """Return the rows and their total as CSV."""
        return self.to_frame().to_csv(index=False)

    def to_markdown(self) -> str:
        """Return the tables as Markdown, in millions of parameters and billions of FLOPs."""
        lines = [self.title, "", f"| {' | '.join(HEADINGS)} |", "|---|---|---:|---:|---:|---:|"]
        lines += [f"| {' | '.join(row.texts())} |" for row in (*self.rows, self.total)]
        if self.layers:
            lines += ["", f"{len(self.layers)} DTN layers:", "", "| part of DTN | FLOPs (G) |", "|---|---:|"]
            lines += [f"| {name} | {value / 1e9:.3f} |" for name, value in dtn_parts(self.dtn)]
        return "\n".join(lines)


def dtn_parts(cost: DTNFlops) -> list[tuple[str, int]]:
    """Return the parts of DTN's FLOPs, with their names in tables."""
    return [
        ("axis filters, mean", cost.mean_filter),
        ("axis filters, second moment", cost.square_filter),
        ("axis matrices", cost.axis_matrices),
        ("elementwise", cost.elementwise),
        ("total", cost.total),
        ("LayerNorm in its place", cost.layer_norm),
        ("with N x N matrices instead", cost.dense),
    ]


def config_complexity(cfg: Config, shape: tuple[int, int] = (800, 1280)) -> Complexity:
    """Count the FLOPs and parameters of a config's detector, without loading weights.

    Two-stage detectors are counted as in published figures, independent of the boxes that untrained weights would find.
    Box heads are counted on as many proposals as the test settings allow (1000), and mask heads on as many boxes as the
    test settings keep (100).

    Args:
        cfg: Any MMDetection config.
        shape: Height and width of the input in pixels, at least 32 each.

    Raises:
        ImportError: MMDetection is missing. The message names the extra that installs it.
        InputError: The config has no model, the shape is too small, or the detector cannot be traced.
    """
    if "model" not in cfg:
        raise InputError("expected a config with a model, got none: name a whole config, not a part of one")
    if min(shape) < 32:
        raise InputError(f"expected an input of at least 32 x 32 pixels, got {shape[0]} x {shape[1]}")
    require("mmdet.models", "det")
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.model import revert_sync_batchnorm

    register_all_modules(init_default_scope=cfg.get("default_scope", "mmdet") == "mmdet")
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(0)
        model = revert_sync_batchnorm(MODELS.build(_keep_all_proposals(cfg.model))).eval()
        images = torch.rand(1, 3, *shape)
    return model_complexity(model, images)


def model_complexity(model: nn.Module, images: Tensor) -> Complexity:
    """Count the FLOPs and parameters of a detector.

    Args:
        model: An MMDetection detector in evaluation mode.
        images: One image, `(1, 3, H, W)`.

    Raises:
        InputError: The detector cannot be traced.
    """
    from mmengine.analysis import FlopAnalyzer

    with as_layer_norm(model) as costs, _traceable(model, images), _quiet():
        try:
            handler = FlopAnalyzer(model, (images,))
            handler.set_op_handle("aten::scaled_dot_product_attention", _attention_flops)
            handler.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
            counted = handler.by_module()
        except Exception as error:
            raise InputError(
                f"expected a detector that takes images alone and can be traced at {tuple(images.shape[-2:])}, got "
                f"{type(model).__name__} ({type(error).__name__}: {error}): try another --shape"
            ) from error
    layers = costs()
    backbone = type(getattr(model, "backbone", model)).__name__
    height, width = images.shape[-2:]
    return Complexity(f"{type(model).__name__} ({backbone})", (height, width), _rows(model, counted, layers), layers)


def _attention_flops(inputs: list[Any], outputs: list[Any]) -> int:
    """Count the two matrix products of fused attention, because MMEngine has no rule for this operator."""
    query, key, value = (tensor.type().sizes() for tensor in inputs[:3])
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


@contextlib.contextmanager
def _traceable(model: nn.Module, images: Tensor) -> Iterator[None]:
    """Within the block, make the detector's forward accept images alone, as tracing requires."""
    from mmdet.models.roi_heads import CascadeRoIHead
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    height, width = images.shape[-2:]
    sizes = dict.fromkeys(("img_shape", "ori_shape", "pad_shape", "batch_input_shape"), (height, width))
    sample = DetDataSample(metainfo={**sizes, "scale_factor": (1.0, 1.0), "img_id": 0})
    # Some detectors read the ground truth even in evaluation.
    sample.gt_instances = InstanceData(bboxes=images.new_zeros(0, 4), labels=images.new_zeros(0, dtype=torch.long))
    model.forward = functools.partial(model.forward, data_samples=[sample], mode="tensor")
    cascades: list[Any] = [module for module in model.modules() if type(module) is CascadeRoIHead and module.with_mask]
    for cascade in cascades:
        cascade._mask_forward = functools.partial(_masks_of_kept_boxes, cascade._mask_forward, cascade.test_cfg)
    try:
        with torch.no_grad():
            yield
    finally:
        del model.forward
        for cascade in cascades:
            del cascade._mask_forward


def _masks_of_kept_boxes(
    forward: Callable[..., dict[str, Tensor]], test_cfg: dict[str, Any], stage: int, x: Any, rois: Tensor
) -> dict[str, Tensor]:
    """Run the mask head of one stage of a cascade on as many boxes as the test settings keep per image.

    The traced forward would run the mask head on each proposal, unlike inference and published figures. The other boxes
    get empty masks, so that there is a mask for each box.
    """
    kept = rois[: test_cfg["max_per_img"]]
    result = forward(stage, x, kept)
    masks = result["mask_preds"]
    result["mask_preds"] = torch.cat([masks, masks.new_zeros(len(rois) - len(kept), *masks.shape[1:])])
    return result


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Within the block, suppress the warnings of tracing, which do not concern the count."""
    logger = logging.getLogger("mmengine")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _keep_all_proposals(model: Any) -> Any:
    """Return the model's settings with an RPN that keeps overlapping boxes, which gives the most proposals."""
    settings = model.copy()
    rpn = (settings.get("test_cfg") or {}).get("rpn")
    if rpn and "nms" in rpn:
        test_cfg = {**settings["test_cfg"], "rpn": {**rpn, "nms": {**rpn["nms"], "iou_threshold": 1.0}}}
        settings["test_cfg"] = test_cfg
    return settings


def _rows(model: nn.Module, counted: dict[str, int], layers: tuple[LayerCost, ...]) -> tuple[CostRow, ...]:
    dtn_cost: dict[str, int] = defaultdict(int)
    for layer in layers:
        dtn_cost[layer.name] += layer.flops.total - layer.flops.layer_norm
    sums: dict[tuple[str, str], list[int]] = {}
    seen: set[int] = set()

    def add(part: str, kind: str, params: int, flops: int, ln_params: int, ln_flops: int) -> None:
        row = sums.setdefault((part, kind), [0, 0, 0, 0])
        for index, value in enumerate((params, flops, ln_params, ln_flops)):
            row[index] += value

    def walk(name: str, module: nn.Module, inherited: str | None) -> None:
        kind = inherited or _kind(module)
        part = _part(model, name)
        # Count parameters and operations for the outermost module around them that has a known kind.
        children = {f"{name}.{child}".lstrip("."): inner for child, inner in module.named_children()}
        own = counted.get(name, 0) - sum(counted.get(child, 0) for child in children)
        params = [p for p in module.parameters(recurse=False) if id(p) not in seen]
        seen.update(map(id, params))
        size = sum(p.numel() for p in params)
        if isinstance(module, DTN):
            add(part, "dtn", size, own + dtn_cost[name], module.weight.numel() + module.bias.numel(), own)
        else:
            # Modules inside DTN hold its positional coefficients, which LayerNorm lacks.
            add(part, kind or "other", size, own, 0 if kind == "dtn" else size, own)
        for child, inner in children.items():
            walk(child, inner, kind)

    walk("", model, None)
    return tuple(CostRow(part, kind, *values) for (part, kind), values in sums.items() if any(values))


def _kind(module: nn.Module) -> str | None:
    if isinstance(module, DTN):
        return "dtn"
    if isinstance(module, NORMS):
        return "norm"
    for fragment, kind in KINDS_BY_NAME:
        if fragment in type(module).__name__:
            return kind
    if isinstance(module, nn.modules.conv._ConvNd):
        return "conv"
    return "linear" if isinstance(module, nn.Linear) else None


def _part(model: nn.Module, name: str) -> str:
    """Return the part of the detector that contains a module, such as `neck` or `backbone.stages.0`."""
    names = name.split(".")
    if names[0] == "":
        return type(model).__name__
    depth = 1
    if names[0] in ("backbone", "roi_head") and len(names) > 1:
        depth = 2
        if names[0] == "backbone" and isinstance(model.get_submodule(".".join(names[:2])), nn.ModuleList):
            depth = 3
    return ".".join(names[:depth])
