"""How far a long run is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

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
    started = shown = time.monotonic()
    done = 0

    def show() -> None:
        elapsed = max(time.monotonic() - started, 1e-9)
        text = f"{title}: {done:,} of {total:,} {unit} ({done / total:.0%}), {done / elapsed:,.0f} {unit}/s"
        if 0 < done < total:
            text += f", {duration(elapsed / done * (total - done))} left"
        console.print(text, soft_wrap=True, highlight=False, markup=False)

    def advance(steps: int) -> None:
        nonlocal done, shown
        done += steps
        if done >= total or time.monotonic() - shown >= log_seconds:
            shown = time.monotonic()
            show()

    yield advance


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
