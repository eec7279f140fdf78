"""All nineteen corruptions of ImageNet-C: faithful, reproducible, fast."""

from dtn_det.corruptions.catalog import ALL, BENCHMARK, EXTRA, GROUPS, SEVERITIES, group_of
from dtn_det.corruptions.engine import ENGINE_VERSION, Corruptor, corrupt
from dtn_det.corruptions.profiles import PROFILES

__all__ = [
    "ALL",
    "BENCHMARK",
    "ENGINE_VERSION",
    "EXTRA",
    "GROUPS",
    "PROFILES",
    "SEVERITIES",
    "Corruptor",
    "corrupt",
    "group_of",
]
