"""`dtn-det doctor`: check what is installed, and print the commands that repair what does not work."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
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

    checks = diagnose()
    healthy = is_healthy(checks)
    if args.json:
        print(json.dumps({"healthy": healthy, "checks": [dataclasses.asdict(check) for check in checks]}, indent=2))
    else:
        _show(checks)
    return 0 if healthy else 1


def _show(checks: Sequence[Check]) -> None:
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        # rich may be the broken package: print the checks without it.
        for check in checks:
            print(f"{check.status:8} {check.name:24} {check.detail}")
    else:
        table = Table("check", "status", "found", title="dtn-det doctor")
        for check in checks:
            style = STYLES[check.status]
            table.add_row(check.name, f"[{style}]{check.status}[/]", check.detail.replace("[", "\\["))
        Console(soft_wrap=False).print(table)
    # Print commands below the table and unwrapped, so that they can be copied.
    for check in checks:
        if check.fix is not None:
            print(f"{check.name} ({check.status}):\n    {check.fix}")
    broken = sum(check.status == "error" for check in checks)
    print(f"{broken} broken: run the commands above." if broken else "Nothing is broken.")
