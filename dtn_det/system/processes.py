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
    # The processes are as many as the cores.
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"),
}


@contextlib.contextmanager
def worker_environment() -> Iterator[None]:
    """Set the environment that processes started within the block get."""
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
    """Keep interrupts, which the keyboard sends to all processes, from those started within the block."""
    # As it starts, before the first process, multiprocessing's tracker of resources takes the block away.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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


def worker_died(error: BaseException) -> bool:
    """Whether an error is torch's about a worker process of a loader that died.

    It comes wherever the main process happens to be at that moment.
    """
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid")


def end_with_parent() -> None:
    """In a process that was started: end it when its parent ends, however that happens."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
