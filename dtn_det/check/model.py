"""The model with which data and checkpoints are compared: the model of a config, or a model of timm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtn_det._optional import require
from dtn_det.datasets.configs.files import measures_masks
from dtn_det.datasets.configs.folders import class_numbers
from dtn_det.datasets.configs.settings import evaluators
from dtn_det.errors import InputError

if TYPE_CHECKING:
    from mmengine.config import Config
    from torch import nn

TIMM = "timm:"


@dataclass(frozen=True)
class Target:
    """A model that the user named.

    Attributes:
        source: How the user named it: the path of a config, ``timm:NAME`` or ``timm:local-dir:FOLDER``.
        config: The config; None for a model of timm.
        checkpoint: What follows the ``@`` of ``timm:NAME@FILE``; empty if there is no ``@``.
        beside: Paths of the checkpoints that are checked in the same call.
    """

    source: str
    config: Config | None = None
    checkpoint: str = ""
    beside: tuple[str, ...] = ()

    @property
    def is_folder(self) -> bool:
        """True for ``timm:local-dir:FOLDER``, a folder that fixes the number of classes."""
        return self.source.startswith(f"{TIMM}local-dir:")

    @property
    def is_detector(self) -> bool:
        """True for a config of MMDetection."""
        return self.config is not None and self.config.get("default_scope") != "mmpretrain"

    @property
    def gives_masks(self) -> bool:
        """True for a config of a detector that has a mask head, or whose evaluator measures masks."""
        if self.config is None or not self.is_detector:
            return False
        return _has_mask_head(self.config.model) or any(
            measures_masks(metric) for _, metric in evaluators(self.config, "test_dataloader")
        )

    def num_classes(self) -> int | None:
        """Return the number of classes of a classifier; None if its config or model has no such number, or several.

        Raises:
            InputError: A model of timm cannot be built.
        """
        if self.config is None:
            number = getattr(self.build(), "num_classes", None)
            return number if isinstance(number, int) else None
        numbers = set(dict(class_numbers(self.config)).values())
        return numbers.pop() if len(numbers) == 1 else None

    def build(self, num_classes: int | None = None) -> nn.Module:
        """Build the model with random weights, even if its config names weights to load.

        Args:
            num_classes: Number of classes of a timm model; None for the number in its pretrained weights or folder.

        Raises:
            InputError: Building the model fails.
        """
        try:
            model: nn.Module
            if self.config is None:
                settings = {"pretrained": False, **({} if num_classes is None else {"num_classes": num_classes})}
                model = require("timm", "cls").create_model(self.source.removeprefix(TIMM), **settings)
            else:
                library = "mmdet" if self.is_detector else "mmpretrain"
                registry = require(f"{library}.registry", "det" if self.is_detector else "cls").MODELS
                # Parts without a scope, such as the data preprocessor of mmpretrain's TimmClassifier, are looked up in
                # the default one.
                scope = require("mmengine.registry", "det").DefaultScope
                with scope.overwrite_default_scope(library):
                    model = registry.build(_settings(self.config))
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, AssertionError, RuntimeError) as error:
            raise InputError(
                f"expected a model that builds in {self.source}, got {type(error).__name__}: {error}: mend the config, "
                "or name another"
            ) from error
        return model


def read_target(source: str, data_root: str | None = None, options: Mapping[str, Any] | None = None) -> Target:
    """Read the model that the user named.

    Args:
        source: Path of a config of MMDetection or mmpretrain, or a model of timm as `dtn-det mce` takes it:
            ``timm:NAME``, ``timm:NAME@FILE``, ``timm:NAME@random`` or ``timm:local-dir:FOLDER``.
        data_root: Folder in place of the config's ``data_root``.
        options: Values of ``--cfg-options``.

    Raises:
        InputError: The source is none of these.
        FileNotFoundError: There is no such config or checkpoint.
    """
    if source.startswith(TIMM):
        from dtn_det.robustness.classification.models.timm import FOLDER, RANDOM, split_source

        name, checkpoint = split_source(source)
        if checkpoint not in ("", RANDOM) and "://" not in checkpoint and not Path(checkpoint).exists():
            raise FileNotFoundError(f"expected a checkpoint file at {checkpoint}, got none: check the path")
        return Target(source if source.startswith(FOLDER) else f"{TIMM}{name}", checkpoint=checkpoint)
    if source.startswith("hf:"):
        raise InputError(
            f"expected a config or a model of timm to compare with, got {source}: `dtn-det mce {source} --data FOLDER` "
            "compares its classes with those of a folder before it begins"
        )
    from dtn_det.training import launch
    from dtn_det.training.config import load_config

    try:
        config = load_config(source, dict(options or {}), "name the folder of the data set as the path that is checked")
    except FileNotFoundError as error:
        if is_timm_name(source):
            raise FileNotFoundError(f"{error}; timm has a model of that name: {TIMM}{source}") from error
        raise
    if data_root is not None:
        launch.set_data_root(config, data_root)
    return Target(source, config)


def is_timm_name(text: str) -> bool:
    """Return whether timm is installed and has a model named ``text``."""
    from dtn_det.robustness.classification.models.timm import check_name

    try:
        check_name(text)
    except (ImportError, ValueError):
        return False
    return True


def _settings(config: Config) -> Any:
    # Detectors read their settings as attributes, which plain dictionaries do not have.
    settings = require("mmengine.config", "det").ConfigDict(_without_weights(config.model))
    if config.get("data_preprocessor"):
        settings.setdefault("data_preprocessor", config.data_preprocessor)
    return settings


def _without_weights(node: Any) -> Any:
    """Return the settings of a model without the options that make its parts load weights."""
    if isinstance(node, dict):
        return {key: _without_weights(value) for key, value in node.items() if key not in ("init_cfg", "pretrained")}
    if isinstance(node, list | tuple):
        return type(node)(_without_weights(value) for value in node)
    return node


def _has_mask_head(node: Any) -> bool:
    if isinstance(node, dict):
        return bool(node.get("mask_head")) or any(map(_has_mask_head, node.values()))
    return isinstance(node, list | tuple) and any(map(_has_mask_head, node))
