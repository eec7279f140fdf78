"""Worker processes and interrupts.

Workers run with one thread each, do not see the keyboard's interrupts and never outlive their parent. The parent obeys
an interrupt even where a library swallows it.
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
    # There are as many processes as cores.
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"),
}


@contextlib.contextmanager
def worker_environment() -> Iterator[None]:
    """Give the processes that are started within the block one thread each, through the environment."""
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
    """Keep the keyboard's interrupts, which go to all processes, from those started within the block."""
    # multiprocessing's resource tracker lifts the block when it starts, so it has to run already.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def interrupts_remembered() -> Iterator[Callable[[], None]]:
    """Make sure that an interrupt within the block ends it, at the latest when the block ends.

    Python raises KeyboardInterrupt wherever the interpreter happens to be. If that is within a bare ``except:``, as in
    OpenCV's import, or within a callback, as the import system has for its locks, the exception is lost and the run
    goes on.

    Yields:
        A function that raises KeyboardInterrupt again if there was one. It is called at the end of the block too.
    """
    before = signal.getsignal(signal.SIGINT)
    # Only the main thread can set handlers. An interrupt that is ignored stays ignored.
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
    """Return True for the error by which torch tells that a worker process of a data loader died.

    torch raises it wherever the main process happens to be at that moment.
    """
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid")


def end_with_parent() -> None:
    """End this process, which multiprocessing started, as soon as its parent ends, however that happens."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
