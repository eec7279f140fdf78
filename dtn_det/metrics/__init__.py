"""Robustness in numbers: corruption errors, performance under corruption, calibration, and confidence intervals."""

from dtn_det._optional import require
from dtn_det.errors import CellError

for _module in ("numba", "pandas"):
    require(_module, "eval")

from dtn_det.corruptions.cells import CLEAN
from dtn_det.metrics.ap_samples import ap_samples, average_precision
from dtn_det.metrics.baselines import BASELINES, baseline_frame
from dtn_det.metrics.calibration import calibration, expected_calibration_error, reliability
from dtn_det.metrics.cells import all_cells
from dtn_det.metrics.classification import (
    corruption_error,
    mean_corruption_error,
    mean_error,
    relative_corruption_error,
    relative_mean_corruption_error,
)
from dtn_det.metrics.coco_evaluators import matches_from_evaluator
from dtn_det.metrics.coco_matches import CocoMatches
from dtn_det.metrics.detection import (
    LVIS_METRICS,
    METRICS,
    mean_performance_under_corruption,
    performance_table,
    relative_performance_under_corruption,
)
from dtn_det.metrics.formulas import Summary
from dtn_det.metrics.intervals import (
    Intervals,
    Quantity,
    classification_differences,
    classification_intervals,
    detection_differences,
    detection_intervals,
)
from dtn_det.metrics.record_samples import calibration_error_samples, error_samples, mean_samples
from dtn_det.metrics.resampling import Difference, Interval, Samples
from dtn_det.metrics.selective import selective_metrics, selective_samples

__all__ = [
    "BASELINES",
    "CLEAN",
    "LVIS_METRICS",
    "METRICS",
    "CellError",
    "CocoMatches",
    "Difference",
    "Interval",
    "Intervals",
    "Quantity",
    "Samples",
    "Summary",
    "all_cells",
    "ap_samples",
    "average_precision",
    "baseline_frame",
    "calibration",
    "calibration_error_samples",
    "classification_differences",
    "classification_intervals",
    "corruption_error",
    "detection_differences",
    "detection_intervals",
    "error_samples",
    "expected_calibration_error",
    "matches_from_evaluator",
    "mean_corruption_error",
    "mean_error",
    "mean_performance_under_corruption",
    "mean_samples",
    "performance_table",
    "relative_corruption_error",
    "relative_mean_corruption_error",
    "relative_performance_under_corruption",
    "reliability",
    "selective_metrics",
    "selective_samples",
]
