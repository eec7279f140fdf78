"""Two processes of one program, as for DistributedDataParallel."""

import os
import subprocess
import sys
from pathlib import Path

import dtn_det


def run_two_processes(program: str, *arguments: str) -> None:
    """Run a program with the arguments RANK and these, once for each of two ranks, and expect it to end well."""
    env = {**os.environ, "PYTHONPATH": str(Path(dtn_det.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(rank), *arguments],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
