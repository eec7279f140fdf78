"""Progress that a stage reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a stage is.

    Attributes:
        stage: ``'train'`` or ``'evaluate'``.
        done: Steps done.
        total: Steps in all.
        note: A few words, such as the loss.
    """

    stage: str
    done: int
    total: int
    note: str = ""


Report = Callable[[Progress], None]
