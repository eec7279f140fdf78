"""Interrupts that no library can swallow."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def interrupts_remembered() -> Iterator[Callable[[], None]]:
    """See to it that an interrupt within the block is obeyed, late at worst.

    A KeyboardInterrupt is raised wherever the interpreter happens to be. In a bare ``except:``, such as OpenCV has in
    its import, or in a callback, such as the import system has for its locks, it gets lost, and the run goes on.

    Yields:
        A function that raises the KeyboardInterrupt again if there was one; it is called at the end of the block too.
    """
    before = signal.getsignal(signal.SIGINT)
    # Other threads cannot set handlers, and an ignored interrupt stays ignored.
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    handler = before
    interrupted = False

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        handler(number, frame)

    def check() -> None:
        if interrupted:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, remember)
    try:
        yield check
        check()
    finally:
        signal.signal(signal.SIGINT, before)
