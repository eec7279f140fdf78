"""`dtn-det check`: what a folder, annotation file, checkpoint or store is, before anything is run."""

from dtn_det.check.inspection import inspect_path, inspect_paths
from dtn_det.check.result import CheckResult

__all__ = ["CheckResult", "inspect_path", "inspect_paths"]
