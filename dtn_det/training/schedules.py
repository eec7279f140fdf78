"""Whether learning rates are planned for the length of the training: an option can change one without the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def schedule_warning(cfg: Mapping[str, Any]) -> str | None:
    """What to set where the last scheduler ends before or after the training.

    Args:
        cfg: A config with `train_cfg` and `param_scheduler`.

    Returns:
        One line, or None if they agree, or the scheduler has no end.

    Example:
        >>> scheduler = dict(type="CosineAnnealingLR", T_max=3, end=3)
        >>> print(schedule_warning(dict(train_cfg=dict(max_epochs=40), param_scheduler=scheduler)))
        expected the last scheduler (CosineAnnealingLR) to end at max_epochs=40, got end=3, T_max=3: add --cfg-options \
param_scheduler.end=40 param_scheduler.T_max=40
    """
    train = cfg.get("train_cfg") or {}
    by_epoch = train.get("max_epochs") is not None
    length = train.get("max_epochs") if by_epoch else train.get("max_iters")
    schedulers = cfg.get("param_scheduler")
    if isinstance(schedulers, Mapping):
        named = [("param_scheduler", schedulers)]
    else:
        named = [(f"param_scheduler.{index}", one) for index, one in enumerate(schedulers or ())]
    named = [(key, one) for key, one in named if isinstance(one, Mapping) and one.get("by_epoch", True) == by_epoch]
    if length is None or not named:
        return None
    key, last = named[-1]
    wanted = {"end": length, "T_max": length - last.get("begin", 0)}
    wrong = {name: value for name, value in wanted.items() if last.get(name) not in (None, value)}
    if not wrong:
        return None
    found = ", ".join(f"{name}={last[name]}" for name in wrong)
    options = " ".join(f"{key}.{name}={value}" for name, value in wrong.items())
    milestones = f", and {key}.milestones to match" if "milestones" in last else ""
    return (
        f"expected the last scheduler ({last.get('type')}) to end at {'max_epochs' if by_epoch else 'max_iters'}="
        f"{length}, got {found}: add --cfg-options {options}{milestones}"
    )
