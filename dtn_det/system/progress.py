"""The progress of long runs, shown as bars on a terminal and as lines in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

LOG_SECONDS = 15.0
"""Shortest time between two lines of a stage in a log, in seconds."""

Advance = Callable[[int], None]


class Stage(Protocol):
    """A function that shows the progress of a stage of a run: see :func:`stages`."""

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        """Show the progress of the stage.

        Args:
            done: Number of finished steps.
            total: Number of all steps, if it has changed; else None.
            note: Short text to show beside the progress, such as the loss.
        """


class AddStage(Protocol):
    """A function that adds a stage to the display: see :func:`stages`."""

    def __call__(self, title: str, total: int | None, *, done: int = 0, note: str = "", unit: str = "") -> Stage:
        """Add a stage, and return the function that shows its progress.

        Args:
            total: Number of all steps; None if it is unknown so far.
            done: Number of steps that were finished earlier.
            note: Short text to show beside the progress.
            unit: Name of a step in the plural, such as ``images``. With a unit the speed is shown, and time counts from
                now on. Without a unit, time counts from the first step, which may come much later.
        """


@contextmanager
def stages(console: Console, log_seconds: float = LOG_SECONDS) -> Iterator[AddStage]:
    """Show the progress of several stages, some of them at the same time.

    Args:
        console: A terminal shows a bar for each stage. Other outputs get lines for a stage's first and last step and
            for some steps between.
        log_seconds: Shortest time between two lines of a stage, in seconds.
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
        yield partial(_add_lines, console, log_seconds)


@contextmanager
def meter(console: Console, title: str, total: int, unit: str, log_seconds: float = LOG_SECONDS) -> Iterator[Advance]:
    """Show the progress and the speed of the block, as a run of one stage.

    Args:
        console: See :func:`stages`.
        unit: Name of a step in the plural, such as ``images``.

    Yields:
        A function to call with the number of steps that were finished since its last call.
    """
    done = 0
    with stages(console, log_seconds) as add_stage:
        stage = add_stage(title, total, unit=unit)

        def advance(steps: int) -> None:
            nonlocal done
            done += steps
            stage(done)

        yield advance


class _Count:
    """The state of a stage. The speed excludes steps that were finished before its clock started."""

    def __init__(self, total: int | None, unit: str, *, begun: bool) -> None:
        self.total, self.unit, self.begun = total, unit, begun
        self.done = self.first = 0
        self.started = self.now = time.monotonic()

    def update(self, done: int, total: int | None) -> None:
        self.done, self.now = done, time.monotonic()
        self.total = self.total if total is None else total
        if not self.begun:
            self.begun, self.started, self.first = True, self.now, done

    def words(self, note: str) -> list[str]:
        """Return the speed if there is a unit, the note if there is one, and the time left if it can be estimated."""
        rate = (self.done - self.first) / max(self.now - self.started, 1e-9)
        words = [f"{rate:,.0f} {self.unit}/s"] if self.unit else []
        words += [note] if note else []
        if self.total is not None and rate > 0 and self.done < self.total:
            words.append(f"{duration((self.total - self.done) / rate)} left")
        return words


def _add_bar(
    progress: Progress, title: str, total: int | None, *, done: int = 0, note: str = "", unit: str = ""
) -> Stage:
    begun = done == total or bool(unit)
    task = progress.add_task(title, start=begun, total=total, completed=done, note=note)
    count = _Count(total, unit, begun=begun)

    def update(done: int, total: int | None = None, note: str = "") -> None:
        count.update(done, total)
        progress.start_task(task)
        progress.update(task, completed=done, total=total, note=", ".join(count.words(note)) if unit else note)

    return update


def _add_lines(
    console: Console,
    log_seconds: float,
    title: str,
    total: int | None,
    *,
    done: int = 0,
    note: str = "",
    unit: str = "",
) -> Stage:
    count = _Count(total, unit, begun=done == total or bool(unit))
    shown = count.started

    def update(done: int, total: int | None = None, note: str = "") -> None:
        nonlocal shown
        is_first = not count.begun
        count.update(done, total)
        if is_first or done == count.total or count.now - shown >= log_seconds:
            shown = count.now
            text = f"{title}: {done:,}"
            if count.total is not None:
                text += f" of {count.total:,}{f' {unit}' if unit else ''} ({done / max(1, count.total):.0%})"
            text = ", ".join([text, *count.words(note)])
            say(console, text)

    if done == total:
        update(done, note=note)
    return update


def say(console: Console, text: str) -> None:
    """Print a text as it is: without line breaks, colours or markup."""
    console.print(text, soft_wrap=True, highlight=False, markup=False)


def duration(seconds: float) -> str:
    """Return a time span as text.

    Example:
        >>> duration(3725.4)
        '1:02:05'
    """
    return str(timedelta(seconds=round(seconds)))


def size(num_bytes: float) -> str:
    """Return a number of bytes as text.

    Example:
        >>> size(49.6e9)
        '49.6 GB'
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:,.1f} {unit}"
    return f"{num_bytes:.0f} bytes"
