"""The learning rate of the Long-Range Arena behind its warm-up."""

from __future__ import annotations

from typing import Any

from mmengine.optim import _ParamScheduler

from dtn_det.errors import InputError

# MMEngine's own for a scheduler without an end.
INF = int(1e9)


class InverseSqrtLR(_ParamScheduler):  # type: ignore[misc]
    """A learning rate that falls with the square root of the step: ``lr * sqrt(begin / step)`` from ``begin`` on.

    At ``begin`` it is that of the optimizer, where a linear warm-up ends.

    Args:
        optimizer: The optimizer or its wrapper.
        begin: Step of the run at which it begins, at least 1.
        end: Step at which it ends; a run that is shorter than ``begin`` never gets there.
        **kwargs: Further arguments of MMEngine's schedulers.

    Raises:
        ValueError: ``begin`` below 1.
    """

    def __init__(self, optimizer: Any, begin: int, end: int = INF, **kwargs: Any) -> None:
        if begin < 1:
            raise InputError(f"expected begin of at least 1, the last step of a warm-up, got {begin}")
        super().__init__(optimizer, "lr", begin, max(end, begin + 1), **kwargs)

    def _get_value(self) -> list[float]:
        if self.last_step == 0:
            return [group["lr"] for group in self.optimizer.param_groups]
        # `last_step` counts from `begin` on.
        step = self.begin + self.last_step
        factor = ((step - 1) / step) ** 0.5
        return [group["lr"] * factor for group in self.optimizer.param_groups]
