"""Registration with MMDetection when it can be imported."""

import importlib
import importlib.util
import os
import warnings


def register_with_mmdet() -> bool:
    """Import :mod:`dtn_det.models`, which registers the backbones, unless MMDetection is not installed.

    A MMDetection that is installed and cannot be imported (the usual cause: an mmcv compiled for another torch) gives
    a warning and no error, since the layers work without it. `DTN_DET_DEFER_REGISTRATION=1` in the environment leaves
    the import to whoever needs the backbones: the command line starts so, and `--help` does not load MMDetection.

    Returns:
        Whether the backbones are registered.
    """
    if os.environ.get("DTN_DET_DEFER_REGISTRATION") == "1" or importlib.util.find_spec("mmdet") is None:
        return False
    try:
        importlib.import_module("dtn_det.models")
    # A broken installation shows as anything: ImportError, OSError of a library, AssertionError of a version check.
    except Exception as error:
        warnings.warn(
            f"MMDetection is installed and cannot be imported, so the DTN backbones are not registered "
            f"({type(error).__name__}: {error}). `dtn-det doctor` says what is wrong and how to mend it; "
            f"dtn_det.layers works without it.",
            stacklevel=3,
        )
        return False
    return True
