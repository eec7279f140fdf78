from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dtn_det.system.processes import worker_died

BLOCKED = """
import multiprocessing, signal, sys
from dtn_det.system.processes import interrupts_blocked

def blocked():
    sys.exit(0 if signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()) else 3)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with interrupts_blocked():
        # Its lock starts multiprocessing's tracker of resources, as the queues of a loader do.
        queue = context.Queue()
        processes = [context.Process(target=blocked) for _ in range(2)]
        for process in processes:
            process.start()
    for process in processes:
        process.join()
    own = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    print([process.exitcode for process in processes], own)
"""


def test_the_first_processes_of_a_program_are_deaf_to_interrupts_too(tmp_path):
    script = tmp_path / "blocked.py"
    script.write_text(BLOCKED)
    environment = dict(os.environ)
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[0, 0] False", done.stderr


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), True),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), True),
        (RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback"), False),
        (ValueError("DataLoader worker (pid 7) is killed"), False),
    ],
)
def test_deaths_of_workers_and_errors_in_them_are_told_apart(error, is_one):
    assert worker_died(error) is is_one
