"""Entry point of the `dtn-det` command: runs the subcommand, and turns errors into a message and an exit code.

A subcommand is a module with `add_parser(subparsers)`, which adds the parser of its name, and `run(args) -> int`, which
returns the exit code. The modules keep heavy imports inside `run`, so that `--help` and `--version` answer at once.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Final

from dtn_det._optional import require
from dtn_det.errors import InputError

EXIT_FAILURE: Final = 1
EXIT_INTERRUPTED: Final = 130


@dataclass(frozen=True)
class Command:
    """A subcommand: its name, its module, and whether it needs MMDetection."""

    name: str
    module: str
    needs_models: bool


COMMANDS: Final = (
    Command("doctor", "dtn_det.cli.doctor", needs_models=False),
    Command("demo", "dtn_det.cli.demo", needs_models=True),
    Command("check", "dtn_det.cli.check", needs_models=False),
    Command("complexity", "dtn_det.cli.complexity", needs_models=True),
    Command("corrupt", "dtn_det.cli.corrupt", needs_models=False),
    Command("mce", "dtn_det.cli.mce", needs_models=False),
    Command("mpc", "dtn_det.cli.mpc", needs_models=True),
    Command("import", "dtn_det.cli.import_results", needs_models=False),
    Command("report", "dtn_det.cli.report", needs_models=False),
    Command("compare", "dtn_det.cli.compare", needs_models=False),
    Command("inspect", "dtn_det.cli.inspect", needs_models=False),
    Command("export", "dtn_det.cli.export", needs_models=False),
    Command("listops", "dtn_det.cli.listops", needs_models=False),
)

# Commands that continue when they are run again after an interrupt. `corrupt` does too, but prints so itself.
_CONTINUING: Final = (["demo"], ["mce"], ["mpc"], ["listops"])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: Arguments after the program's name; None for the arguments of the process.

    Returns:
        0 on success, 1 on failure, 130 after an interrupt. Wrong usage exits with 2 through `SystemExit`.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or os.environ.get("DTN_DET_DEBUG") == "1"
    try:
        args = build_parser(arguments).parse_args(arguments)
        command = next(command for command in COMMANDS if command.name == args.command)
        if command.needs_models:
            # MMDetection prints while it loads; standard output is for the subcommand only.
            with contextlib.redirect_stdout(sys.stderr):
                require("mmdet", extra="det")
                require("mmdet.models", extra="det")
        code = importlib.import_module(command.module).run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        kept = "; what is finished is kept, and the same command continues" if arguments[:1] in _CONTINUING else ""
        print(f"\ndtn-det: interrupted{kept}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader, such as `| head`, has closed the pipe: redirect standard output, or the flush at exit would fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    except Exception as error:
        return _report(error, debug=debug)
    return int(code)


def build_parser(arguments: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Build the parser.

    Args:
        arguments: The arguments that will be parsed. If they name a subcommand, only its module is imported.

    Returns:
        The parser, with the named subcommand only, or with all if none is named.
    """
    parser = argparse.ArgumentParser(
        prog="dtn-det",
        description="Dynamic Token Normalization for detectors, and robustness you can measure.",
        epilog="`dtn-det COMMAND --help` tells more about a command.",
    )
    parser.add_argument("-V", "--version", action="version", version=f"dtn-det {metadata.version('dtn-det')}")
    debug_help = "show the traceback of an error (or set DTN_DET_DEBUG=1)"
    parser.add_argument("--debug", action="store_true", help=debug_help)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    named = next((argument for argument in arguments if not argument.startswith("-")), None)
    chosen = [command for command in COMMANDS if command.name == named] or COMMANDS
    for command in () if named is None and {"-V", "--version"} & set(arguments) else chosen:
        importlib.import_module(command.module).add_parser(subparsers)
    for subparser in subparsers.choices.values():
        # Without SUPPRESS, the subparser's default would undo the flag of `dtn-det --debug COMMAND`.
        subparser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=debug_help)
    return parser


def _report(error: Exception, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    text = str(error)
    # Messages of these three classes need no class name. Messages of other classes say little without it.
    if not text or not isinstance(error, InputError | ImportError | OSError):
        text = f"{type(error).__name__}: {text}".rstrip(": ")
    print(f"dtn-det: error: {text}", file=sys.stderr)
    if not debug:
        print("Run again with --debug for the traceback.", file=sys.stderr)
    return EXIT_FAILURE


if __name__ == "__main__":
    sys.exit(main())
