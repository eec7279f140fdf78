"""Hooks of MMEngine that make the training of the demonstration repeatable and visible."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import set_random_seed

from dtn_det.demo.progress import Progress, Report


class ReseedHook(Hook):  # type: ignore[misc]
    """Seeds all generators at the start of every epoch.

    A training that was killed and resumed then draws the same numbers as one that ran through.

    Args:
        seed: Seed of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_train_epoch(self, runner: Any) -> None:
        """Seed by run and epoch."""
        set_random_seed((self.seed * 1000 + runner.epoch) % 2**32)


class ProgressHook(Hook):  # type: ignore[misc]
    """Reports every iteration.

    Args:
        report: Called with the progress.
    """

    def __init__(self, report: Report) -> None:
        self.report = report

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Report the iteration and its loss."""
        loss = f"loss {float(outputs['loss']):.2f}" if outputs else ""
        self.report(Progress("train", runner.iter + 1, runner.max_iters, loss))
