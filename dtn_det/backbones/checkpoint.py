"""Pretrained weights for the backbones: every key of a checkpoint is loaded, dropped for a known reason, or refused."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.logging import print_log
from mmengine.model.weight_init import PretrainedInit
from torch import nn

from dtn_det.checkpoints.backbone_keys import Family, backbone_weights, resize_tables, to_mmdet
from dtn_det.checkpoints.fit import check_floating_point, compare_weights, with_tied_names
from dtn_det.checkpoints.fresh_norms import FreshNorm, describe_fresh_norms, find_fresh_norms
from dtn_det.checkpoints.load import with_options
from dtn_det.checkpoints.parametrizations import check_parametrizations
from dtn_det.checkpoints.read import read_checkpoint
from dtn_det.checkpoints.several_networks import check_one_network
from dtn_det.errors import CheckpointError, InputError
from dtn_det.layers import ShiftedPatchTokenization

# Output norms of Swin, such as `norm0`: a detector takes the feature maps after them.
_OUTPUT_NORM = re.compile(r"norm\d+\.")


def pretrained_init_cfg(init_cfg: Mapping[str, Any] | None, pretrained: str | None) -> dict[str, Any] | None:
    """Check ``init_cfg`` and the deprecated ``pretrained``, and merge them into one plain dict.

    Args:
        init_cfg: ``dict(type='Pretrained', checkpoint=...)``. With ``type=None`` nothing is loaded: MMDetection's
            ``test_robustness.py`` sets it, because a checkpoint of the whole detector follows.

    Raises:
        TypeError: ``pretrained`` is neither a string nor None.
        ValueError: Both are given, or ``init_cfg`` has another form.
    """
    if not isinstance(pretrained, str | None):
        raise TypeError(f"expected pretrained to be a path, a URL or None, got {pretrained!r}: use init_cfg")
    if pretrained is not None:
        if init_cfg is not None:
            raise InputError("expected one of init_cfg and pretrained, got both: drop pretrained")
        return {"type": "Pretrained", "checkpoint": pretrained}
    if init_cfg is None or (isinstance(init_cfg, Mapping) and init_cfg.get("type", "Pretrained") is None):
        return None
    if (
        not isinstance(init_cfg, Mapping)
        # `type` is optional, because MMDetection's own PVT configs have a checkpoint without a type.
        or init_cfg.get("type", "Pretrained") not in ("Pretrained", PretrainedInit)
        or not isinstance(init_cfg.get("checkpoint"), str)
    ):
        raise InputError(f"expected init_cfg=dict(type='Pretrained', checkpoint=PATH_OR_URL), got {init_cfg!r}")
    return {"type": "Pretrained", **init_cfg}


def load_pretrained(
    backbone: nn.Module, init_cfg: Mapping[str, Any], family: Family, grids: Mapping[str, tuple[int, int]]
) -> None:
    """Load ``init_cfg['checkpoint']`` into a backbone, whatever its format, and account for every key.

    The format is recognised by the keys. The supported formats, each also with DTN weights, are:

    - for Swin: of its authors, of timm (0.9 and later), of mmpretrain, and of MMDetection;
    - for PVT: of its authors, and of MMDetection;
    - for PVTv2: of its authors, of timm, and of MMDetection.

    From a whole detector, the keys under ``backbone.`` are taken. Relative-position tables and position embeddings are
    resized if their sizes differ. Classifier heads, final norms and class tokens are dropped. A checkpoint may lack:

    - for each norm, the parameters that LayerNorm does not have (a weight or bias that only the checkpoint's norm has
      is dropped);
    - the output norms ``norm0`` to ``norm3`` of Swin, which only detectors have;
    - the scales of Locality Self-Attention;
    - the weights of Shifted Patch Tokenization. These are initialised, with a warning, and the weights of the
      checkpoint's patch embedding are dropped.

    Args:
        init_cfg: ``checkpoint``, a path or URL of a ``.pth`` or ``.safetensors`` file. Optional: ``prefix``, to take
            only the keys that start with it, without the prefix; and ``weights``, ``'ema'`` or ``'plain'``, to choose
            the average or the plain weights of a checkpoint with both (by default the average).
        grids: Grid ``(H, W)`` of each position embedding of the backbone, under its name in the state dict.

    Raises:
        CheckpointNotFoundError: No such file.
        CheckpointError: The file cannot be read or is no checkpoint of this family, or its keys are missing, unexpected
            or of another shape.
        ImportError: The file is a ``.safetensors`` one, and the safetensors package is not installed.
    """
    source = init_cfg["checkpoint"]
    check_one_network(source)
    checkpoint = read_checkpoint(source)
    shapes = {key: value.shape for key, value in backbone.state_dict().items()}
    optional = {key for key in shapes if _OUTPUT_NORM.match(key) or key.endswith(".relative_position_index")}
    scales = {key for key in shapes if key.endswith(".scale")}
    new_patches = []
    try:
        found = backbone_weights(checkpoint, family, init_cfg.get("prefix"), init_cfg.get("weights"))
        check_parametrizations(found.state)
        state = to_mmdet(found.state, family)
        check_floating_point(state, backbone.state_dict(), "the model", "the file")
        # Pretrainings with masked images, such as SimMIM's, have a token for the masked patches.
        masks = [key for key in state if key not in shapes and key == "mask_token"]
        left_out = {key for key in state if key not in shapes and _OUTPUT_NORM.match(key)}.union(masks)
        state = {key: value for key, value in state.items() if key not in left_out}
        state = with_tied_names(resize_tables(state, shapes, grids), backbone.state_dict())
        if not scales & set(state):
            optional |= scales
        fresh = find_fresh_norms(backbone, state)
        for one in fresh:
            optional |= one.added
            state = {key: value for key, value in state.items() if key not in one.unused}
        for name, module in backbone.named_modules():
            if isinstance(module, ShiftedPatchTokenization) and f"{name}.patch_norm.weight" not in state:
                state = {key: value for key, value in state.items() if not key.startswith(f"{name}.")}
                new_patches.append(name)
                optional |= {f"{name}.{key}" for key in module.state_dict()}
        fit = compare_weights(state, backbone.state_dict(), optional=optional)
        if not fit:
            told = f"{fit.problems()}. {fit.cause()} {fit.advice()}".rstrip()
            raise CheckpointError(f"expected the weights of the model, got others: {told}")
    except CheckpointError as error:
        raise CheckpointError(f"{source} does not fit {type(backbone).__name__}: {error}") from None
    kept = with_options(backbone, state, checkpoint, source, "keep")
    backbone.load_state_dict(kept.state, strict=False)
    for remark in (*found.remarks(source), *kept.remarks):
        level = logging.WARNING if remark.kind == "norm_options" else logging.INFO
        print_log(remark.sentence(), logger="current", level=level)
    if masks:
        print_log(f"left out of {source}, as it serves its pretraining alone: {', '.join(masks)}", logger="current")
    _report(
        source,
        len(state),
        sorted({key.split(".")[0] for key in shapes if _OUTPUT_NORM.match(key) and key not in state}),
        fresh,
        len(scales - set(state)),
        new_patches,
    )


def _report(
    source: str,
    loaded: int,
    output_norms: list[str],
    fresh: Sequence[FreshNorm],
    new_scales: int,
    new_patches: list[str],
) -> None:
    told = [f"loaded {loaded} tensors from {source}"]
    if output_norms:
        told.append(f"it has no output norms {', '.join(output_norms)}, as usual for a classifier")
    of_norms, warnings = describe_fresh_norms(fresh, "dtn_cfg=dict(init='layernorm')")
    told += of_norms
    if new_scales:
        told.append(f"it has no scales of Locality Self-Attention, and {new_scales} keep their start")
    print_log("; ".join(told), logger="current")
    if new_patches:
        warnings.insert(
            0,
            f"the patches of {', '.join(new_patches)} start anew: {source} has none of Shifted Patch Tokenization, and "
            "plain ones do not fit; train for longer than a fine-tuning, or set spt=False",
        )
    for warning in warnings:
        print_log(warning, logger="current", level=logging.WARNING)
