"""Registration with MMEngine's registries, when the packages that have them can be imported."""

import importlib
import importlib.util
import os
import warnings
from collections.abc import Callable
from typing import Any

TRANSFORM = "ImageCorruption"
MODELS = {
    "ConvertedModel": "dtn_det.conversion.config.converted_model",
    "SmallT2TViT": "dtn_det.classifiers.t2t.SmallT2TViT",
    "NormPooling": "dtn_det.classifiers.pooling.NormPooling",
    "SequenceClassifier": "dtn_det.sequence.classifier.SequenceClassifier",
}
"""What configs of classifiers name besides the backbones, and where it is."""
BESIDE_MODELS = {
    "HOOKS": {"ClassifierEMAHook": "dtn_det.classifiers.average.ClassifierEMAHook"},
    "DATASETS": {"ListOps": "dtn_det.sequence.dataset.ListOpsDataset"},
    "PARAM_SCHEDULERS": {"InverseSqrtLR": "dtn_det.sequence.schedule.InverseSqrtLR"},
}
"""What else they name, by registry."""


def register() -> None:
    """Register the backbones with MMDetection, and the transform and converted models with MMDetection and mmpretrain.

    `DTN_DET_DEFER_REGISTRATION=1` in the environment leaves that to whoever needs it: the command line starts so, and
    `--help` does not load MMDetection.
    """
    if os.environ.get("DTN_DET_DEFER_REGISTRATION") != "1":
        register_with_mmdet()
        register_transform()
        register_conversion()


def register_with_mmdet() -> bool:
    """Import :mod:`dtn_det.models`, which registers the backbones, unless MMDetection is not installed.

    A MMDetection that is installed and cannot be imported (the usual cause: an mmcv compiled for another torch) gives
    a warning and no error, since the layers work without it.

    Returns:
        Whether the backbones are registered.
    """
    if importlib.util.find_spec("mmdet") is None:
        return False
    try:
        importlib.import_module("dtn_det.models")
    # A broken installation shows as anything: ImportError, OSError of a library, AssertionError of a version check.
    except Exception as error:
        warnings.warn(
            f"MMDetection is installed and cannot be imported, so the DTN backbones are not registered "
            f"({type(error).__name__}: {error}). `dtn-det doctor` says what is wrong and how to mend it; "
            f"dtn_det.layers works without it.",
            stacklevel=4,
        )
        return False
    return True


def register_transform() -> bool:
    """Register :class:`dtn_det.corruptions.transforms.ImageCorruption`, unless MMCV is not installed or is broken.

    It is in the root registry, whose transforms any scope finds. What is registered loads the corruptions when a
    pipeline is built: they need packages that training does not, and compile.

    Returns:
        Whether it is registered.
    """
    if importlib.util.find_spec("mmcv") is None:
        return False
    try:
        transforms = importlib.import_module("mmcv.transforms").TRANSFORMS
    # See above; the warning there, or the import of whoever builds a pipeline, says it.
    except Exception:
        return False
    if TRANSFORM not in transforms.module_dict:
        transforms.register_module(name=TRANSFORM, module=_image_corruption)
    return True


def register_conversion() -> bool:
    """Register :data:`MODELS` and :data:`BESIDE_MODELS`, unless MMEngine is not installed or is broken.

    Like the transform they are in the root registries, and loaded when they are built.

    Returns:
        Whether it is registered.
    """
    if importlib.util.find_spec("mmengine") is None:
        return False
    try:
        registries = importlib.import_module("mmengine.registry")
    # As above.
    except Exception:
        return False
    for kind, paths in {"MODELS": MODELS, **BESIDE_MODELS}.items():
        registry = getattr(registries, kind)
        for name, path in paths.items():
            if name not in registry.module_dict:
                registry.register_module(name=name, module=_loaded_when_built(path))
    return True


def _loaded_when_built(path: str) -> Callable[..., Any]:
    def build(*args: Any, **kwargs: Any) -> Any:
        module, _, name = path.rpartition(".")
        return getattr(importlib.import_module(module), name)(*args, **kwargs)

    return build


def _image_corruption(*args: Any, **kwargs: Any) -> Any:
    from dtn_det.corruptions.transforms import ImageCorruption

    return ImageCorruption(*args, **kwargs)
