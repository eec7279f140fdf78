"""Read a config and merge `--cfg-options` into it, with errors and warnings for options without effect.

MMEngine accepts any key and ignores unknown ones. Most configs also have variables at their top level, such as
``data_root``. While the file is read, their values are copied to the places of use. So an option that sets such a
variable later has no effect.
"""

from __future__ import annotations

import argparse
import difflib
import inspect
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtn_det._optional import require
from dtn_det.errors import InputError

if TYPE_CHECKING:
    from mmengine.config import Config

# Keys of a config that MMEngine, MMDetection and mmpretrain read in addition to the arguments of the Runner.
_READ_ELSEWHERE = frozenset(
    {
        *("activation_checkpointing", "auto_scale_lr", "compile", "custom_imports", "data_root", "dataset_type"),
        *("efficient_conv_bn_eval", "find_unused_parameters", "gpu_ids", "model_wrapper_cfg", "runner_type"),
        *("strategy", "sync_bn", "vis_backends"),
    }
)
# Keys in _READ_ELSEWHERE that have no effect as options. Most are only variables of a config. Others, such as
# custom_imports, take effect before the options are merged.
_VARIABLES = frozenset({"custom_imports", "data_root", "dataset_type", "gpu_ids", "vis_backends"})
_PREFIXES = ("tta_",)
_SHOWN = 4
FOLDER_ADVICE = "name the folder with --data-root DIR"
"""Advice of most commands on how to set the folder of the data set."""


def load_config(path: str, options: dict[str, Any] | None = None, folder_advice: str = FOLDER_ADVICE) -> Config:
    """Read a config and merge the values of `--cfg-options` into it, with a warning for options without effect.

    Args:
        options: Dotted keys and their values.
        folder_advice: Advice on how to set the folder of the data set, because the option ``data_root`` has no effect.

    Returns:
        The resolved config; the modules of its `custom_imports` are imported.

    Raises:
        FileNotFoundError: There is no such file. The message lists configs with similar names.
        InputError: The path is a folder, the file is not a config, or an option does not fit the config.
        ImportError: The config inherits from a config of a package that is not installed.
    """
    file = Path(path)
    if file.is_dir():
        configs = sorted(str(inner) for inner in file.glob("*.py"))
        which = f"the configs in it, such as {configs[0]}" if configs else "your configs, such as FOLDER/NAME.py"
        raise InputError(f"expected a config file, got the folder {path!r}: name one of {which}")
    if not file.is_file():
        raise FileNotFoundError(f"expected a config file, got {path!r}: there is no such file{_similar_configs(file)}")
    if file.suffix not in (".py", ".json", ".yaml", ".yml"):
        raise InputError(f"expected a config that ends in .py, .json or .yaml, got {path!r}")
    try:
        cfg: Config = require("mmengine.config", "det").Config.fromfile(path)
    except ModuleNotFoundError as error:
        # For a base such as "mmpretrain::..." MMEngine reports that the package is missing, but not how to install it.
        if "mmpretrain" in str(error):
            require("mmpretrain", "cls")
        raise
    except ImportError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(
            f"expected a config in {path!r}, got {type(error).__name__}: {error}: mend the file, or name another"
        ) from error
    if is_classifier(cfg):
        require("mmpretrain.models", "cls")
    elif cfg.get("default_scope") == "mmdet":
        require("mmdet.models", "det")
    if options:
        check_option_keys(cfg, options)
        for sentence in ineffective_options(cfg, options, folder_advice):
            if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0":
                print(f"warning: {sentence}", file=sys.stderr)
        # `data_root` must keep the folder that the config was written for, because `--data-root` replaces this folder
        # in all paths.
        options = {key: value for key, value in options.items() if key != "data_root"}
        try:
            cfg.merge_from_dict(options)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise InputError(
                f"expected --cfg-options to fit the config, got {options} ({error}): "
                "the config that a run leaves in its work-dir shows every key"
            ) from error
    return cfg


def is_classifier(cfg: Config) -> bool:
    """Return whether a config is for mmpretrain, whose hooks and metrics have other names than MMDetection's."""
    return bool(cfg.get("default_scope") == "mmpretrain")


def parse_options(texts: Sequence[str] | None) -> dict[str, Any] | None:
    """Read the values of ``--cfg-options`` as MMEngine does.

    Args:
        texts: One ``KEY=VALUE`` each, as on the command line.

    Returns:
        The values under dotted keys; None if there are no options.

    Raises:
        InputError: An option has no ``=``.
    """
    if not texts:
        return None
    wrong = [text for text in texts if "=" not in text]
    if wrong:
        raise InputError(f"expected KEY=VALUE for --cfg-options, got {wrong[0]!r}")
    found = argparse.Namespace()
    require("mmengine.config", "det").DictAction([], "options")(None, found, list(texts))
    return found.options


def check_option_keys(cfg: Mapping[str, Any], options: Iterable[str]) -> None:
    """Check that each option begins with a key that the config has or that MMEngine reads.

    Args:
        options: Dotted keys of the options, such as ``model.norm_cfg.type``.

    Raises:
        InputError: Nothing reads a key. The message suggests a similar key.
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


def ineffective_options(
    cfg: Mapping[str, Any], options: Iterable[str], folder_advice: str = FOLDER_ADVICE
) -> list[str]:
    """Find options that have no effect on a run, and suggest what to set instead.

    Args:
        cfg: The config, before the options are merged.
        folder_advice: Advice on how to set the folder of the data set, because the option ``data_root`` has no effect.

    Returns:
        One sentence for each such option.
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
            advice = folder_advice
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


def schedule_warning(cfg: Mapping[str, Any]) -> str | None:
    """Return advice on what to set if the last learning-rate scheduler does not end together with the training.

    Args:
        cfg: A config with `train_cfg` and `param_scheduler`.

    Returns:
        One line; None if both end together or the scheduler has no end.

    Example:
        >>> scheduler = dict(type="CosineAnnealingLR", T_max=3, end=3)
        >>> print(schedule_warning(dict(train_cfg=dict(max_epochs=40), param_scheduler=scheduler)))
        expected the last scheduler (CosineAnnealingLR) to end at max_epochs=40, got end=3, T_max=3: add --cfg-options \
param_scheduler.end=40 param_scheduler.T_max=40
    """
    train = cfg.get("train_cfg") or {}
    by_epoch = train.get("max_epochs") is not None
    length = train.get("max_epochs") if by_epoch else train.get("max_iters")
    schedulers = cfg.get("param_scheduler")
    if isinstance(schedulers, Mapping):
        named = [("param_scheduler", schedulers)]
    else:
        named = [(f"param_scheduler.{index}", one) for index, one in enumerate(schedulers or ())]
    named = [(key, one) for key, one in named if isinstance(one, Mapping) and one.get("by_epoch", True) == by_epoch]
    if length is None or not named:
        return None
    key, last = named[-1]
    wanted = {"end": length, "T_max": length - last.get("begin", 0)}
    wrong = {name: value for name, value in wanted.items() if last.get(name) not in (None, value)}
    if not wrong:
        return None
    found = ", ".join(f"{name}={last[name]}" for name in wrong)
    options = " ".join(f"{key}.{name}={value}" for name, value in wrong.items())
    milestones = f", and {key}.milestones to match" if "milestones" in last else ""
    return (
        f"expected the last scheduler ({last.get('type')}) to end at {'max_epochs' if by_epoch else 'max_iters'}="
        f"{length}, got {found}: add --cfg-options {options}{milestones}"
    )


def _runner_arguments() -> set[str]:
    return {*inspect.signature(require("mmengine.runner", "det").Runner.__init__).parameters} - {"self", "cfg"}


def _copies(name: str, value: Any, node: Any, path: str = "") -> Iterator[str]:
    """Yield the dotted keys in ``node`` with the given value; for a number or boolean, only keys called ``name``."""
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


def _similar_configs(file: Path) -> str:
    names = {str(path.name): str(path) for path in Path("configs").glob("*/*.py")}
    close = difflib.get_close_matches(file.name, names, n=3)
    return f"; did you mean {' or '.join(names[name] for name in close)}?" if close else ""
