"""DTN for vision backbones and detectors.

Importing the package registers the backbones of :mod:`dtn_det.backbones`, the transform ``ImageCorruption`` and the
parts of classifiers with MMEngine. So a config needs nothing but ``custom_imports = dict(imports=['dtn_det'])``. A
registered class is imported when a config builds it. :mod:`dtn_det.layers` and the conversions of built models need
torch alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dtn_det._registry import register

if TYPE_CHECKING:
    from dtn_det.conversion import (
        NormPlan,
        Replacements,
        convert_attention,
        convert_norm,
        convert_tokenization,
        plan_attention,
        plan_norms,
        plan_tokenization,
    )

__all__ = [
    "NormPlan",
    "Replacements",
    "__version__",
    "convert_attention",
    "convert_norm",
    "convert_tokenization",
    "plan_attention",
    "plan_norms",
    "plan_tokenization",
]

__version__ = "0.1.0"

register()


def __getattr__(name: str) -> Any:
    """Import the conversions on first use, because they need torch, and much of the package works without torch."""
    if name in __all__:
        from dtn_det import conversion

        return getattr(conversion, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
