"""How far a long run is: bars on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LOG_SECONDS = 15.0
"""Least time between two lines of a log."""

Advance = Callable[[int], None]


@contextmanager
def meter(console: Console, title: str, total: int, unit: str, log_seconds: float = LOG_SECONDS) -> Iterator[Advance]:
    """Show the progress of what happens within the block.

    Args:
        console: Where to; a bar if it is a terminal, lines otherwise.
        title: What is done.
        total: Steps in all.
        unit: What a step is, in the plural.
        log_seconds: Least time between two lines.

    Yields:
        A function to be called with the number of steps that were just done.
    """
    if console.is_terminal:
        with _bar(console, title, total, unit) as advance:
            yield advance
    else:
        with _lines(console, title, total, unit, log_seconds) as advance:
            yield advance


@contextmanager
def _bar(console: Console, title: str, total: int, unit: str) -> Iterator[Advance]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    started = time.monotonic()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=total, rate="")
        done = 0

        def advance(steps: int) -> None:
            nonlocal done
            done += steps
            rate = done / max(time.monotonic() - started, 1e-9)
            progress.update(task, advance=steps, rate=f"{rate:,.0f} {unit}/s")

        yield advance


@contextmanager
def _lines(console: Console, title: str, total: int, unit: str, log_seconds: float) -> Iterator[Advance]:
    line = _Line(console, title, total, log_seconds, unit, begun=True)
    done = 0

    def advance(steps: int) -> None:
        nonlocal done
        done += steps
        line.update(done)

    yield advance


class Stage(Protocol):
    """Tells how far a stage is."""

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        """Report.

        Args:
            done: Steps done.
            total: Steps in all; None where that has not changed.
            note: A few words, such as the loss.
        """


class AddStage(Protocol):
    """Adds a stage; see :func:`stages`."""

    def __call__(self, title: str, total: int | None, *, done: int = 0, note: str = "") -> Stage:
        """Add.

        Args:
            title: What is done.
            total: Steps in all, or None where that is not known yet.
            done: Steps that were done before.
            note: A few words.
        """


@contextmanager
def stages(console: Console, log_seconds: float = LOG_SECONDS) -> Iterator[AddStage]:
    """Show the progress of several stages, some of them at the same time.

    Args:
        console: Where to; a bar for each stage if it is a terminal, otherwise lines: a stage's first step, its last,
            and some between.
        log_seconds: Least time between two lines of a stage.

    Yields:
        A function that adds a stage and returns another, to be called with how far it is.
    """
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=console) as progress:
            yield partial(_add_bar, progress)
    else:
        yield partial(_add_line, console, log_seconds)


def _add_bar(progress: Progress, title: str, total: int | None, *, done: int = 0, note: str = "") -> Stage:
    task = progress.add_task(title, start=done == total, total=total, completed=done, note=note)

    def update(done: int, total: int | None = None, note: str = "") -> None:
        progress.start_task(task)
        progress.update(task, completed=done, total=total, note=note)

    return update


def _add_line(
    console: Console, log_seconds: float, title: str, total: int | None, *, done: int = 0, note: str = ""
) -> Stage:
    finished = done == total
    line = _Line(console, title, total, log_seconds, begun=finished)
    if finished:
        line.update(done, note=note)
    return line.update


class _Line:
    """The lines of a log about one stage, not more than one in `log_seconds`, but for its first and last.

    A stage that has not `begun` does so with its first update, for which it may wait long.
    """

    def __init__(
        self, console: Console, title: str, total: int | None, log_seconds: float, unit: str = "", *, begun: bool
    ) -> None:
        self.console, self.title, self.total, self.log_seconds, self.unit = console, title, total, log_seconds, unit
        self.started = self.shown = time.monotonic()
        self.first = 0
        self.begun = begun

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        now = time.monotonic()
        self.total = self.total if total is None else total
        first_of_all = not self.begun
        if first_of_all:
            self.begun, self.started, self.first = True, now, done
        if first_of_all or done == self.total or now - self.shown >= self.log_seconds:
            self.shown = now
            self.console.print(self._text(done, note, now), soft_wrap=True, highlight=False, markup=False)

    def _text(self, done: int, note: str, now: float) -> str:
        rate = (done - self.first) / max(now - self.started, 1e-9)
        unit = f" {self.unit}" if self.unit else ""
        text = f"{self.title}: {done:,}"
        if self.total is not None:
            text += f" of {self.total:,}{unit} ({done / self.total:.0%})"
        if unit:
            text += f", {rate:,.0f}{unit}/s"
        if note:
            text += f", {note}"
        if self.total is not None and rate > 0 and done < self.total:
            text += f", {duration((self.total - done) / rate)} left"
        return text


def duration(seconds: float) -> str:
    """A time span for people.

    Example:
        >>> duration(3725.4)
        '1:02:05'
    """
    return str(timedelta(seconds=round(seconds)))


def size(num_bytes: float) -> str:
    """A number of bytes for people.

    Example:
        >>> size(49.6e9)
        '49.6 GB'
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:,.1f} {unit}"
    return f"{num_bytes:.0f} bytes"
