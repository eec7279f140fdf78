"""Whether `--cfg-options` name parts of a config that something reads: MMEngine takes any key, and leaves it alone."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from dtn_det._optional import require

# What MMEngine, MMDetection and mmpretrain read from a config besides the arguments of the Runner.
_READ_ELSEWHERE = frozenset(
    {
        *("activation_checkpointing", "auto_scale_lr", "compile", "custom_imports", "data_root", "dataset_type"),
        *("efficient_conv_bn_eval", "find_unused_parameters", "gpu_ids", "model_wrapper_cfg", "runner_type"),
        *("strategy", "sync_bn", "vis_backends"),
    }
)
_PREFIXES = ("tta_",)


def check_option_keys(cfg: Mapping[str, Any], options: Iterable[str]) -> None:
    """See that options begin with a key that the config has, or that MMEngine reads.

    Args:
        cfg: The config, before the options are merged.
        options: Their dotted keys, such as `model.norm_cfg.type`.

    Raises:
        ValueError: A key that nothing reads; the message has those that look like it.
    """
    arguments = inspect.signature(require("mmengine.runner", "det").Runner.__init__).parameters
    known = {*cfg, *arguments, *_READ_ELSEWHERE} - {"self", "cfg"}
    for option in options:
        key, dot, rest = option.partition(".")
        if key not in known and not key.startswith(_PREFIXES):
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}{dot}{rest}?" if close else f"the config has {', '.join(sorted(cfg))}"
            raise ValueError(
                f"expected --cfg-options that begin with a key of the config, got {option!r}, which nothing reads: "
                f"{hint}"
            )
