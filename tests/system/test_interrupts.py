from __future__ import annotations

import contextlib
import os
import signal
import threading

import pytest

from dtn_det.system.processes import interrupts_remembered


def swallow() -> None:
    """What a bare `except:` in a library does to an interrupt."""
    with contextlib.suppress(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_swallowed_interrupt_is_raised_by_the_next_check():
    before = signal.getsignal(signal.SIGINT)
    with contextlib.suppress(KeyboardInterrupt), interrupts_remembered() as check:
        check()
        swallow()
        with pytest.raises(KeyboardInterrupt):
            check()
    assert signal.getsignal(signal.SIGINT) is before


def test_or_at_the_end_of_the_block():
    with pytest.raises(KeyboardInterrupt), interrupts_remembered():
        swallow()


def test_blocks_within_each_other_both_remember():
    with (
        pytest.raises(KeyboardInterrupt),
        interrupts_remembered(),
        contextlib.suppress(KeyboardInterrupt),
        interrupts_remembered(),
    ):
        swallow()


def test_without_an_interrupt_nothing_happens():
    with interrupts_remembered() as check:
        check()


def test_an_ignored_interrupt_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts_remembered() as check:
            os.kill(os.getpid(), signal.SIGINT)
            check()
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_it_leaves_the_handler_alone():
    handlers = []

    def look() -> None:
        with interrupts_remembered() as check:
            check()
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGINT)]
