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
from dtn_det.system.processes import interrupts_remembered

EXIT_FAILURE: Final = 1
EXIT_INTERRUPTED: Final = 130


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        name: Its name on the command line.
        module: Its Python module.
        requires: Packages that it cannot run without, each with the extra that installs it.
    """

    name: str
    module: str
    requires: tuple[tuple[str, str], ...] = ()


_MODELS: Final = (("mmdet", "det"), ("mmdet.models", "det"))
_SWEEP: Final = (
    *(("cv2", "corruptions"), ("numba", "corruptions")),
    *(("pandas", "eval"), ("pyarrow", "eval"), ("rich", "eval")),
)

COMMANDS: Final = (
    Command("doctor", "dtn_det.cli.doctor"),
    Command("demo", "dtn_det.cli.demo", (*_MODELS, ("rich", "cli"))),
    Command("check", "dtn_det.cli.check"),
    Command("complexity", "dtn_det.cli.complexity", _MODELS),
    Command(
        "corrupt",
        "dtn_det.cli.corrupt",
        tuple((name, "corruptions") for name in ("cv2", "numba", "scipy", "PIL", "rich")),
    ),
    Command("mce", "dtn_det.cli.mce", _SWEEP),
    Command("evaluate", "dtn_det.cli.evaluate", _SWEEP),
    Command("mpc", "dtn_det.cli.mpc", _SWEEP),
    Command("import", "dtn_det.cli.import_results", (("pandas", "eval"), ("pyarrow", "eval"))),
    Command(
        "report",
        "dtn_det.cli.report",
        (
            *(("pandas", "eval"), ("pyarrow", "eval")),
            *((name, "report") for name in ("matplotlib", "plotly", "jinja2")),
        ),
    ),
    Command("compare", "dtn_det.cli.compare", (("pandas", "eval"), ("pyarrow", "eval"), ("rich", "eval"))),
    Command("inspect", "dtn_det.cli.inspect", (("matplotlib", "report"), ("pandas", "cli"), ("rich", "cli"))),
    Command("export", "dtn_det.cli.export"),
    Command("listops", "dtn_det.cli.listops", (("rich", "cli"),)),
)

# Commands that continue an interrupted run if called again, as main then prints. `corrupt` prints this itself.
_CONTINUING: Final = (["demo"], ["mce"], ["evaluate"], ["mpc"], ["listops"])


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
        # Report missing packages before any work. Standard output is for the subcommand only, but MMDetection prints
        # while it loads, so this output is redirected.
        with contextlib.redirect_stdout(sys.stderr), interrupts_remembered():
            for package, extra in command.requires:
                require(package, extra)
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
    # Errors of these three classes explain themselves. Messages of other errors say little without the class name.
    if not text or not isinstance(error, InputError | ImportError | OSError):
        text = f"{type(error).__name__}: {text}".rstrip(": ")
    print(f"dtn-det: error: {text}", file=sys.stderr)
    if not debug:
        print("Run again with --debug for the traceback.", file=sys.stderr)
    return EXIT_FAILURE


if __name__ == "__main__":
    sys.exit(main())
