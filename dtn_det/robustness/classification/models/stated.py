"""Preprocessing, class names and model arguments stated by timm's checkpoints or the ``config.json`` beside them."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dtn_det._optional import require
from dtn_det.checkpoints.files import FOLDER_FILES, INDEX_END
from dtn_det.checkpoints.state_dict import choose_weights
from dtn_det.datasets.remarks import Remark
from dtn_det.errors import CheckpointError, InputError

_CONFIG = "config.json"
_SETTINGS = ("mean", "std", "interpolation", "input_size")
_CHOSEN_ELSEWHERE = ("img_size", "num_classes", "drop_rate", "drop_path_rate", "drop_block_rate")
"""Arguments of timm's models that follow from the data and the size of the input, or have no effect after training."""


@dataclass(frozen=True)
class StatedSettings:
    """The input settings, classes and arguments that a checkpoint, or the ``config.json`` beside it, states.

    Attributes:
        settings: Some of ``mean``, ``std``, ``interpolation`` and ``input_size``, as in timm's data config.
        places: Where each setting is stated, as the end of a sentence.
        class_names: Names of the classes in the order of the logits; empty if none are stated.
        arguments: Arguments of ``timm.create_model`` that the model was built with, such as ``global_pool``.
        arguments_place: Where the arguments are stated, as the end of a sentence.
    """

    settings: Mapping[str, Any]
    places: Mapping[str, str]
    class_names: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    arguments_place: str = ""

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the input in pixels; None if they are not stated."""
        size = self.settings.get("input_size")
        return None if size is None else (size[1], size[2])

    def over(self, config: Mapping[str, Any], fixed_size: tuple[int, int] | None) -> dict[str, Any]:
        """Return timm's data config, in which the stated settings replace timm's.

        Args:
            fixed_size: Fixed height and width of the model, which no setting changes; None for a model of any size.
        """
        taken = {**config, **self.settings}
        if fixed_size is not None:
            taken["input_size"] = (config["input_size"][0], *fixed_size)
        return taken

    def told(self, config: Mapping[str, Any], taken: Mapping[str, Any], source: str) -> tuple[Remark, ...]:
        """Return remarks on the settings that were taken in place of timm's, and on arguments of the model.

        Args:
            config: timm's data config of the model.
            taken: The settings that were taken.
            source: The checkpoint.
        """
        built: tuple[Remark, ...] = ()
        if self.arguments:
            number = len(self.arguments)
            what = f"{'argument' if number == 1 else 'arguments'} of the model in place of timm's: {self._built()}"
            built = (Remark("stated_arguments", what, source, number),)
        others = [key for key in self.settings if not _same(config[key], taken[key])]
        if not others:
            return built
        values = ", ".join(f"{key} {_text(taken[key])} (timm: {_text(config[key])})" for key in others)
        places = " and ".join(dict.fromkeys(self.places[key] for key in others))
        what = f"{'setting' if len(others) == 1 else 'settings'} of the input {places} went before timm's: {values}"
        return (*built, Remark("stated_settings", what, source, len(others)))

    def facts(self, config: Mapping[str, Any], taken: Mapping[str, Any]) -> dict[str, str]:
        """Return facts for the store: the source of each stated setting that differs from timm's, and the arguments."""
        others = {key: self.places[key] for key in self.settings if not _same(config[key], taken[key])}
        places = "; ".join(f"{key} {place}" for key, place in others.items())
        built = {"arguments of the model": self._built()} if self.arguments else {}
        return {**({"settings of the input": places} if others else {}), **built}

    def _built(self) -> str:
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.arguments.items())
        return f"{arguments}, as stated {self.arguments_place}"


def read_stated(checkpoint: str, content: Mapping[str, Any], name: str) -> StatedSettings:
    """Read the settings in a checkpoint, or for settings that it lacks, in the ``config.json`` beside it.

    timm's training script stores its arguments as ``args``. If an argument was not given, the setting of the model
    named in ``args`` holds. timm and ``dtn-det export`` write ``config.json`` beside ``model.safetensors`` or
    ``pytorch_model.bin``. Beside a checkpoint with another file name, ``config.json`` is read only if it names the same
    architecture. The mean and the standard deviation of a module in the network that normalizes the images, which no
    model of timm has, go before all others.

    Args:
        checkpoint: Path or URL of the checkpoint.
        content: Content of the checkpoint.
        name: timm's name of the model.

    Raises:
        InputError: A stated mean or standard deviation has values that are not finite, or a wrong number of values.
    """
    in_file, names = _of_arguments(content, name), _names_in(content)
    beside, beside_names, beside_built = _beside(checkpoint, name)
    of_network = _of_normalizer(content)
    both = {**beside, **in_file, **of_network}
    settings = {key: both[key] for key in _SETTINGS if key in both}
    where = f"in the args of {checkpoint}"
    places = {key: where if key in in_file else f"in the {_CONFIG} beside it" for key in settings}
    places |= dict.fromkeys(of_network, f"in the normalizer within the network of {checkpoint}")
    built = _built_in(content, name)
    return StatedSettings(
        _checked(settings, places, checkpoint),
        places,
        names or beside_names,
        built or beside_built,
        where if built else f"in the {_CONFIG} beside it",
    )


_NORMALIZER = re.compile(r"(?:^|\.)(?:normali[sz]er?|preprocess)\.(?:new_)?(mean|std|mu|sigma)$")
"""Names of the buffers of modules that normalize images, as in the packages robustness and RobustBench."""


def _of_normalizer(content: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    """Return the mean and the standard deviation of a normalizing module; empty if the checkpoint has none."""
    try:
        state = choose_weights(content).state
    except CheckpointError:
        return {}
    found = {}
    for name, value in state.items():
        if (match := _NORMALIZER.search(name)) and value.numel() in (1, 3):
            key = {"mu": "mean", "sigma": "std"}.get(match[1], match[1])
            found[key] = tuple(value.float().flatten().tolist()) * (3 // value.numel())
    return found if len(found) == 2 else {}


NOTHING_STATED = StatedSettings({}, {})
"""What is stated with weights that come from no file of the user."""


def _of_arguments(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the settings in the arguments of a training script."""
    args = _args(content)
    given = {key: args.get(key) for key in _SETTINGS}
    if given["input_size"] is None and isinstance(args.get("img_size"), int):
        given["input_size"] = args["img_size"]
    written = isinstance(content.get("arch"), str) and isinstance(content.get("version"), int)
    trained = args.get("model")
    if written and isinstance(trained, str) and trained != name and _architecture(trained) == _architecture(name):
        try:
            settings = require("timm", "cls").get_pretrained_cfg(trained)
        # The installed timm does not have these pretrained weights; another release had them.
        except RuntimeError:
            settings = None
        given = {key: given[key] or getattr(settings, key, None) for key in _SETTINGS}
    return _known(given)


def _args(content: Mapping[str, Any]) -> Mapping[str, Any]:
    args = content.get("args")
    return vars(args) if isinstance(args, argparse.Namespace) else args if isinstance(args, Mapping) else {}


def _built_in(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the arguments that timm's training script built the model with: its ``--model-kwargs`` and ``--gp``."""
    args = _args(content)
    if _architecture(str(args.get("model", name))) != _architecture(name):
        return {}
    given = args.get("model_kwargs")
    built = _of_model(given)
    if isinstance(pool := args.get("gp"), str) and pool:
        built.setdefault("global_pool", pool)
    return built


def _of_model(given: Any) -> dict[str, Any]:
    """Return the arguments in a mapping that affect the model's computation."""
    given = given if isinstance(given, Mapping) else {}
    return {str(key): value for key, value in given.items() if value is not None and key not in _CHOSEN_ELSEWHERE}


def _architecture(name: str) -> str:
    return name.partition(".")[0]


def _beside(checkpoint: str, name: str) -> tuple[dict[str, Any], tuple[str, ...], dict[str, Any]]:
    """Return settings, names of classes and arguments in the ``config.json`` of timm beside a checkpoint."""
    nothing: tuple[dict[str, Any], tuple[str, ...], dict[str, Any]] = ({}, (), {})
    if "://" in checkpoint:
        return nothing
    path = Path(checkpoint).expanduser()
    folder = path if path.is_dir() else path.parent
    try:
        config = json.loads((folder / _CONFIG).read_bytes())
    except (OSError, ValueError):
        return nothing
    if not isinstance(config, Mapping) or not isinstance(architecture := config.get("architecture"), str):
        return nothing
    of_folder = path.is_dir() or path.name.removesuffix(INDEX_END) in FOLDER_FILES
    same = _architecture(architecture) == _architecture(name)
    if not of_folder and not same:
        return nothing
    # Older releases of timm wrote the settings without `pretrained_cfg`, and called the names `labels`.
    settings = config.get("pretrained_cfg")
    settings = settings if isinstance(settings, Mapping) else config
    names = config.get("label_names") or settings.get("label_names") or settings.get("labels")
    arguments = config.get("model_args")
    known = _known(settings)
    if same and isinstance(arguments, Mapping) and "img_size" in arguments:
        known = {**known, **_known({"input_size": _size(arguments["img_size"])})}
    return known, _names(names), _of_model(arguments) if same else {}


def _size(value: Any) -> Any:
    """Convert a pair ``img_size`` to timm's ``input_size`` (3, height, width); return other values unchanged."""
    return (3, *value) if isinstance(value, list | tuple) and len(value) == 2 else value


def _names_in(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the class names in a checkpoint: a list, or the keys of a dict ``class_to_idx`` as in torchvision."""
    numbers = content.get("class_to_idx")
    if (
        isinstance(numbers, Mapping)
        and numbers
        and sorted(map(str, numbers.values())) == sorted(map(str, range(len(numbers))))
    ):
        return tuple(str(name) for name, _ in sorted(numbers.items(), key=lambda item: int(item[1])))
    return next(filter(None, (_names(content.get(key)) for key in ("label_names", "class_names", "classes"))), ())


def _names(names: Any) -> tuple[str, ...]:
    whole = isinstance(names, list | tuple) and all(isinstance(one, str) for one in names)
    return tuple(names) if whole else ()


def _known(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that are stated, in the form of timm's data config."""
    settings: dict[str, Any] = {key: given[key] for key in ("mean", "std") if given.get(key)}
    if isinstance(given.get("interpolation"), str) and given["interpolation"]:
        settings["interpolation"] = given["interpolation"]
    size = given.get("input_size")
    if isinstance(size, int) and size > 0:
        settings["input_size"] = (3, size, size)
    elif isinstance(size, list | tuple) and len(size) == 3 and all(isinstance(one, int) for one in size):
        settings["input_size"] = tuple(size)
    return settings


def _checked(settings: Mapping[str, Any], places: Mapping[str, str], checkpoint: str) -> dict[str, Any]:
    """Check that each mean and standard deviation has 1 or 3 finite numbers; return settings with 3 numbers each."""
    checked = dict(settings)
    for key in ("mean", "std"):
        value = checked.get(key)
        if value is None:
            continue
        values = [value] if isinstance(value, int | float) else value
        good = isinstance(values, list | tuple) and len(values) in (1, 3)
        good = good and all(isinstance(one, int | float) and math.isfinite(one) for one in values)
        if not good or (key == "std" and min(values) <= 0):
            raise InputError(
                f"expected a {key} of 1 or 3 finite numbers{' above 0' * (key == 'std')} for {checkpoint}, got "
                f"{value!r} {places[key]}: write that of the training there"
            )
        checked[key] = tuple(map(float, values)) * (3 if len(values) == 1 else 1)
    return checked


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Sequence) and not isinstance(one, str):
        return len(one) == len(other) and all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "(" + ", ".join(f"{one:.6g}" for one in value) + ")"
