"""Worker processes and interrupts.

Workers run with one thread each, do not receive interrupts from the keyboard (Ctrl-C) and never outlive their parent.
The parent ends on an interrupt even if a library swallows the KeyboardInterrupt.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from types import FrameType

_ENVIRONMENT = {
    # Users start about as many workers as there are cores.
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
}


@contextlib.contextmanager
def worker_environment() -> Iterator[None]:
    """Limit processes that are started within the block to one thread each, through environment variables."""
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Keep Ctrl-C, which the terminal sends to all its processes, from those that are started within the block."""
    # The start of multiprocessing's resource tracker unblocks the signal, so it has to run already.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def interrupts_remembered() -> Iterator[Callable[[], None]]:
    """Make sure that an interrupt (Ctrl-C) within the block is not lost, but raised again when the block ends.

    Python raises KeyboardInterrupt wherever the interpreter happens to be. The exception is lost, and the run goes on,
    if that is within a bare ``except:``, as in OpenCV's import, or within a callback, as the import system has for its
    locks.

    Yields:
        A function that raises KeyboardInterrupt if there was an interrupt. It is also called at the end of the block.
    """
    before = signal.getsignal(signal.SIGINT)
    # Only the main thread can set handlers. Where the process ignores interrupts, it goes on doing so.
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


def worker_died(error: BaseException) -> bool:
    """Return whether an error is the one that torch raises after a worker process of a data loader died.

    torch raises it wherever the main process happens to be at that moment.
    """
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid")


def end_with_parent() -> None:
    """Let this process, which multiprocessing started, end as soon as its parent ends, even if that is killed."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
