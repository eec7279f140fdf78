"""Programs of several processes, as torchrun starts them, without the seconds that each of its processes takes."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from warm_python import WarmPython


def start_ranks(
    python: WarmPython, arguments: Sequence[str], count: int = 2, env: Mapping[str, str] | None = None, **options: Any
) -> list[subprocess.Popen[Any]]:
    """Start a program once for each rank, with torchrun's environment variables.

    Args:
        python: Starts the processes.
        arguments: Of the interpreter, such as ``-m`` and a module, and of the program.
        count: Number of processes.
        env: Environment, this process's if None.
        options: Those of ``subprocess.Popen``.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    sizes = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    shared = {**(os.environ if env is None else env), **address, **sizes}
    return [
        python.popen(arguments, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, **options)
        for rank in range(count)
    ]


def run_ranks(
    python: WarmPython, arguments: Sequence[str], count: int = 2, env: Mapping[str, str] | None = None, **options: Any
) -> list[str]:
    """Run a program in several processes to its end, which must be a success; the standard output of each."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = start_ranks(python, arguments, count, env, **streams, **options)
    try:
        printed = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    codes = [process.returncode for process in processes]
    assert codes == count * [0], "\n".join(text[-4000:] for both in printed for text in both)
    return [output for output, _ in printed]
