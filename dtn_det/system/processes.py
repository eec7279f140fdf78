"""Worker processes and interrupts.

Workers use one thread each, do not receive interrupts from the keyboard (Ctrl-C), and end when their parent ends. The
parent ends on an interrupt even if a library suppresses the KeyboardInterrupt.
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
    # One thread each is enough, because users start about as many workers as there are cores. hotcoco reads
    # RAYON_NUM_THREADS alone.
    **dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS"), "1"
    )
}


@contextlib.contextmanager
def worker_environment() -> Iterator[None]:
    """Limit each process that starts within the block to one thread, through environment variables."""
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
    """Block Ctrl-C in processes that start within the block, because a terminal sends it to all processes."""
    # Starting multiprocessing's resource tracker unblocks the signal, so the tracker must be started first.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def interrupts_remembered() -> Iterator[Callable[[], None]]:
    """If Ctrl-C interrupts the block, raise KeyboardInterrupt again at its end, in case the exception was lost.

    Python raises KeyboardInterrupt at any place in the code. Within a bare ``except:``, as in OpenCV's import, or
    within a callback, as for the locks of the import system, the exception is lost and the run continues.

    Yields:
        A function that raises KeyboardInterrupt if there was an interrupt. It is also called at the end of the block.
    """
    before = signal.getsignal(signal.SIGINT)
    # Only the main thread can set handlers. A process that ignores interrupts continues to ignore them.
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
    """Return whether an error means that a worker process of a torch data loader died.

    torch raises this error in the main process, at any place in the code.
    """
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid")


def end_with_parent() -> None:
    """Make this process of multiprocessing end as soon as its parent ends, even if the parent is killed."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
