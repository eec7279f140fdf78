"""The corruptions of ImageNet-C, ImageNet-C-bar and CIFAR-10-C-bar: faithful, reproducible and fast.

Importing this package loads only the names of the corruptions. The engine compiles functions and needs the extra
``corruptions``. The engine is imported when one of its names is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dtn_det.corruptions.catalog import ALL, BENCHMARK, EXTRA, GROUPS, SEVERITIES, group_of
from dtn_det.corruptions.profiles import PROFILES

if TYPE_CHECKING:
    from dtn_det.corruptions.engine import ENGINE_VERSION, Corrupt, Corruptor, corrupt

__all__ = [
    "ALL",
    "BENCHMARK",
    "ENGINE_VERSION",
    "EXTRA",
    "GROUPS",
    "PROFILES",
    "SEVERITIES",
    "Corrupt",
    "Corruptor",
    "corrupt",
    "group_of",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from dtn_det.corruptions import engine

        return getattr(engine, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
