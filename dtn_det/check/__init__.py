"""`dtn-det check` says what a folder, annotation file, checkpoint or store is, before anything is run."""

from dtn_det.check.paths import CheckResult, inspect_path, inspect_paths

__all__ = ["CheckResult", "inspect_path", "inspect_paths"]
