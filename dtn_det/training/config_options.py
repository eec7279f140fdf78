"""Whether `--cfg-options` name parts of a config that something reads: MMEngine takes any key, and leaves it alone.

Most configs have variables at their top, such as ``data_root``, whose values are copied where they are used when the
file is read: an option for such a name comes too late, and changes nothing.
"""

from __future__ import annotations

import argparse
import difflib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dtn_det._optional import require
from dtn_det.errors import InputError

# What MMEngine, MMDetection and mmpretrain read from a config besides the arguments of the Runner.
_READ_ELSEWHERE = frozenset(
    {
        *("activation_checkpointing", "auto_scale_lr", "compile", "custom_imports", "data_root", "dataset_type"),
        *("efficient_conv_bn_eval", "find_unused_parameters", "gpu_ids", "model_wrapper_cfg", "runner_type"),
        *("strategy", "sync_bn", "vis_backends"),
    }
)
# Of these, names that configs have for themselves; custom_imports are imported before options are merged.
_VARIABLES = frozenset({"custom_imports", "data_root", "dataset_type", "gpu_ids", "vis_backends"})
_PREFIXES = ("tta_",)
_SHOWN = 4


def parse_options(texts: Sequence[str] | None) -> dict[str, Any] | None:
    """Read the values of ``--cfg-options`` as MMEngine does.

    Args:
        texts: ``KEY=VALUE`` each, as from the command line.

    Returns:
        Values by dotted keys; None where there are none.

    Raises:
        ValueError: One has no ``=``.
    """
    if not texts:
        return None
    wrong = [text for text in texts if "=" not in text]
    if wrong:
        raise InputError(f"expected KEY=VALUE for --cfg-options, got {wrong[0]!r}")
    found = argparse.Namespace()
    require("mmengine.config", "det").DictAction([], "options")(None, found, list(texts))
    options: dict[str, Any] = found.options
    return options


def check_option_keys(cfg: Mapping[str, Any], options: Iterable[str]) -> None:
    """See that options begin with a key that the config has, or that MMEngine reads.

    Args:
        cfg: The config, before the options are merged.
        options: Their dotted keys, such as `model.norm_cfg.type`.

    Raises:
        ValueError: A key that nothing reads; the message has those that look like it.
    """
    known = {*cfg, *_runner_arguments(), *_READ_ELSEWHERE}
    for option in options:
        key, dot, rest = option.partition(".")
        if key not in known and not key.startswith(_PREFIXES):
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}{dot}{rest}?" if close else f"the config has {', '.join(sorted(cfg))}"
            raise InputError(
                f"expected --cfg-options that begin with a key of the config, got {option!r}, which nothing reads: "
                f"{hint}"
            )


def ineffective_options(cfg: Mapping[str, Any], options: Iterable[str]) -> list[str]:
    """Options that change nothing in a run, with what to set in their place.

    Args:
        cfg: The config, before the options are merged.
        options: Their dotted keys.

    Returns:
        A sentence for each.
    """
    read = {*_runner_arguments(), *_READ_ELSEWHERE} - _VARIABLES
    said = []
    for option in options:
        key, dot, rest = option.partition(".")
        if key in read or key.startswith(_PREFIXES):
            continue
        used = {name: cfg[name] for name in cfg if name in read}
        copies = list(_copies(key, cfg[key], used)) if key in cfg else []
        loader = f"{key.removesuffix('_pipeline')}_dataloader"
        if not copies and key.endswith("_pipeline") and loader in cfg:
            copies = [f"{loader}.dataset.pipeline"]
        if key == "data_root":
            advice = "name the folder with --data-root DIR"
        elif copies:
            more = f" and {len(copies) - _SHOWN} more" if len(copies) > _SHOWN else ""
            advice = f"set {', '.join(f'{path}{dot}{rest}' for path in copies[:_SHOWN])}{more}"
        else:
            advice = (
                "change the config's file, or a key that the run reads: its work-dir has the config with all of them"
            )
        said.append(
            f"--cfg-options {option} changes nothing in the run, for the value of {key} is copied where it is used "
            f"when the config is read: {advice}"
        )
    return said


def _runner_arguments() -> set[str]:
    return {*inspect.signature(require("mmengine.runner", "det").Runner.__init__).parameters} - {"self", "cfg"}


def _copies(name: str, value: Any, node: Any, path: str = "") -> Iterator[str]:
    """Keys at which a value stands, numbers and switches only where the key has the variable's name."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(node, Mapping):
        items = node.items()
    elif isinstance(node, list | tuple):
        items = enumerate(node)
    for key, inner in items:
        where = f"{path}.{key}" if path else str(key)
        plain = not isinstance(value, str | Mapping | list | tuple) or not value
        if type(inner) is type(value) and inner == value and (not plain or key == name):
            yield where
        else:
            yield from _copies(name, value, inner, where)
