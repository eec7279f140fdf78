"""Try code in a process of its own, since a compiled package that does not match torch may crash it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_MARK = "dtn-det probe: "
# The facts are the last line of the output, because packages may print other lines during import.
_WRAPPER = """
import json, sys
facts = {{}}
{code}
sys.stdout.flush()
print("\\n{mark}" + json.dumps(facts))
"""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a probe.

    Attributes:
        facts: The entries of the dictionary `facts` that the code has filled; empty if it failed.
        error: The last line of the traceback, or how the process ended; `None` if the code ran to its end.
        missing: Name of the module that is not installed, if that is why the code failed.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    missing: str | None = None


def run_probe(code: str, timeout: float = 180.0) -> Outcome:
    """Run code in a new process of this interpreter.

    Args:
        code: Python statements, which may put values that JSON can hold into a dictionary `facts`.
        timeout: Seconds after which the process is ended.

    Returns:
        The facts, or the reason why there are none. No error is raised, whatever the code does.
    """
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    program = _WRAPPER.format(code=code, mark=_MARK)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=environment,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome(error=f"did not end within {timeout:g} s")
    if done.returncode < 0:
        return Outcome(error=f"crashed with {_signal_name(-done.returncode)}")
    if done.returncode > 0:
        return _failure(done.stderr, done.returncode)
    _, mark, answer = done.stdout.rpartition(_MARK)
    if not mark:
        return Outcome(error="ended the process without a word")
    return Outcome(facts=json.loads(answer))


def _failure(stderr: str, returncode: int) -> Outcome:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    error = lines[-1] if lines else f"ended with exit code {returncode}"
    missing = None
    if error.startswith("ModuleNotFoundError: No module named "):
        missing = error.split("'")[1]
    return Outcome(error=error, missing=missing)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
