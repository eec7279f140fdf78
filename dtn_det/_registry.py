"""Registration with MMEngine's root registries, without importing MMEngine.

A config needs nothing but ``custom_imports = dict(imports=['dtn_det'])``, and importing the layers takes no longer than
importing torch. So each name is registered with a function that imports the class only when a config builds it. Names
are registered as soon as MMEngine's registries exist: immediately if they have been imported, otherwise right after
their import. Whatever the scope, a registry of MMDetection or mmpretrain searches the root registries for a name that
it lacks.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

NAMES: Mapping[str, Mapping[str, str]] = {
    "MODELS": {
        "DTN": "dtn_det.layers.DTN",
        "DTNSwinTransformer": "dtn_det.backbones.DTNSwinTransformer",
        "DTNPyramidVisionTransformer": "dtn_det.backbones.DTNPyramidVisionTransformer",
        "DTNPyramidVisionTransformerV2": "dtn_det.backbones.DTNPyramidVisionTransformerV2",
        "ConvertedModel": "dtn_det.conversion.config.converted_model",
        "SmallT2TViT": "dtn_det.training.parts.SmallT2TViT",
        "NormPooling": "dtn_det.training.parts.NormPooling",
        "SequenceClassifier": "dtn_det.sequence.parts.SequenceClassifier",
    },
    "TRANSFORMS": {
        "ImageCorruption": "dtn_det.corruptions.transforms.ImageCorruption",
        # MMDetection up to 3.3 has a Corrupt too, which takes precedence in the scope mmdet.
        "Corrupt": "dtn_det.corruptions.transforms.MMDetCorrupt",
    },
    "HOOKS": {"ClassifierEMAHook": "dtn_det.training.parts.ClassifierEMAHook"},
    "DATASETS": {"ListOps": "dtn_det.sequence.parts.ListOpsDataset"},
    "PARAM_SCHEDULERS": {"InverseSqrtLR": "dtn_det.sequence.parts.InverseSqrtLR"},
}
"""Import path of each object for configs, by registry and name."""

NOTICES: Final = frozenset({"Could not import OneDL", "Could not import OneDL. Skipping OneDL datasets."})
"""Messages that MMDetection and mmpretrain print when they are imported without a data service that no extra installs.

They log the messages at level DEBUG, but MMEngine's `print_log` prints at every level.
"""


def register() -> None:
    """Register :data:`NAMES` immediately, or as soon as MMEngine is imported. Further calls have no effect."""
    for module, action in (("mmengine.registry", _register_names), ("mmcv.cnn", _register_norm)):
        if module in sys.modules:
            action()
        elif module not in _FINDER.actions:
            _FINDER.actions[module] = action
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)


def _register_names() -> None:
    drop_notices()
    registries = importlib.import_module("mmengine.registry")
    for kind, paths in NAMES.items():
        registry = getattr(registries, kind)
        for name, path in paths.items():
            if name not in registry.module_dict:
                registry.register_module(name=name, module=_imported_when_built(path))


def _register_norm() -> None:
    """Register the class DTN itself, not a function that imports it, because mmcv's `build_norm_layer` needs a class.

    The backbones do not use this name, because a `norm_cfg` of MMDetection also applies to norms that must stay
    LayerNorm.
    """
    models = importlib.import_module("mmengine.registry").MODELS
    models.register_module(name="DTN", module=importlib.import_module("dtn_det.layers").DTN, force=True)


def drop_notices() -> None:
    """Make MMEngine's `print_log` leave out :data:`NOTICES` and print everything else.

    Redirecting the standard output during imports would not suffice, because modules of data sets are imported long
    after modules of models, and not always by the same code.
    """
    vars(importlib.import_module("mmengine.logging.logger"))["print"] = _print


def _print(*values: Any, **options: Any) -> None:
    if len(values) != 1 or not isinstance(values[0], str) or values[0] not in NOTICES:
        builtins.print(*values, **options)


def _imported_when_built(path: str) -> Callable[..., Any]:
    def build(*args: Any, **kwargs: Any) -> Any:
        module, _, name = path.rpartition(".")
        return getattr(importlib.import_module(module), name)(*args, **kwargs)

    return build


class _AfterImport(MetaPathFinder):
    """Calls a function right after a module has been imported for the first time."""

    def __init__(self) -> None:
        self.actions: dict[str, Callable[[], None]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the module with the other import finders, and call the function after the module has been executed."""
        action = self.actions.pop(fullname, None)
        if action is None:
            return None
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_act(module: ModuleType) -> None:
            execute(module)
            action()

        spec.loader.exec_module = execute_and_act  # type: ignore[method-assign]
        return spec


_FINDER = _AfterImport()
