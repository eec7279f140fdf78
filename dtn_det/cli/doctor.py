"""`dtn-det doctor`: check what is installed, and print the commands that repair what does not work."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dtn_det.doctor.checks import Check

STYLES = {"ok": "green", "absent": "dim", "warning": "yellow", "error": "bold red"}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `doctor`."""
    parser = subparsers.add_parser(
        "doctor",
        help="check the installation and say how to mend it",
        description="Try every package that DTN and detection need, and print the command that mends what is broken. "
        "Exits with 1 where something that is installed does not work.",
    )
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")


def run(args: argparse.Namespace) -> int:
    """Run `dtn-det doctor`; return 0 if nothing is broken, else 1."""
    from dtn_det.doctor.checks import diagnose, is_healthy

    if args.json:
        checks = tuple(diagnose())
        report = {"healthy": is_healthy(checks), "checks": [dataclasses.asdict(check) for check in checks]}
        print(json.dumps(report, indent=2))
    else:
        checks = _shown(diagnose())
    return 0 if is_healthy(checks) else 1


def _shown(checks: Iterable[Check]) -> tuple[Check, ...]:
    """Print each check as soon as it is known, and at the end the commands; return all checks."""
    print("Each package is tried in a process of its own, which may take a minute.")
    line = _line_printer()
    found = []
    for check in checks:
        line(check)
        found.append(check)
    # Print commands below the table and unwrapped, so that they can be copied.
    for check in found:
        if check.fix is not None:
            print(f"{check.name} ({check.status}):\n    {check.fix}")
    broken = sum(check.status == "error" for check in found)
    print(f"{broken} broken: run the commands above." if broken else "Nothing is broken.")
    return tuple(found)


def _line_printer() -> Callable[[Check], None]:
    """Return a function that prints a check on a line, in colour where rich works."""
    try:
        from rich.console import Console
        from rich.text import Text
    # rich may be the broken package.
    except ImportError:
        return lambda check: print(f"{check.name:24} {check.status:8} {check.detail}", flush=True)
    console = Console(soft_wrap=True)

    def line(check: Check) -> None:
        console.print(Text.assemble(f"{check.name:24} ", (f"{check.status:8} ", STYLES[check.status]), check.detail))

    return line
