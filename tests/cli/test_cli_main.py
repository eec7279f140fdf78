from __future__ import annotations

import argparse
import os
import runpy
import subprocess
import sys
import types
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from dtn_det.cli import main as cli
from dtn_det.errors import InputError

Run = Callable[[argparse.Namespace], int]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], None]:
    """Make `dtn-det work` the only command, with the given run."""

    def install(run: Run) -> None:
        module = types.ModuleType("fake_command")

        def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
            subparsers.add_parser("work", help="does work").add_argument("--times", type=int, default=1)

        module.add_parser, module.run = add_parser, run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "fake_command", module)
        monkeypatch.setattr(cli, "COMMANDS", (cli.Command("work", "fake_command"),))
        monkeypatch.delenv("DTN_DET_DEBUG", raising=False)

    return install


def failing(error: BaseException) -> Run:
    def run(args: argparse.Namespace) -> int:
        raise error

    return run


@pytest.mark.parametrize("code", [0, 1])
def test_exit_code_is_the_command_s(command: Callable[[Run], None], code: int) -> None:
    command(lambda args: code)
    assert cli.main(["work"]) == code


def test_arguments_reach_the_command(command: Callable[[Run], None]) -> None:
    seen: list[int] = []
    command(lambda args: seen.append(args.times) or 0)
    assert cli.main(["work", "--times", "3"]) == 0
    assert seen == [3]


@pytest.mark.parametrize("argv", [[], ["no-such-command"], ["work", "--times", "many"], ["work", "--no-such-option"]])
def test_wrong_usage_exits_with_2(command: Callable[[Run], None], argv: list[str]) -> None:
    command(lambda args: 0)
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    assert caught.value.code == 2


def test_interrupt_exits_with_130(command: Callable[[Run], None], capsys: pytest.CaptureFixture[str]) -> None:
    command(failing(KeyboardInterrupt()))
    assert cli.main(["work"]) == 130
    assert capsys.readouterr().err.strip() == "dtn-det: interrupted"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (InputError("expected 3 classes, got 2"), "dtn-det: error: expected 3 classes, got 2\n"),
        (ValueError("math domain error"), "dtn-det: error: ValueError: math domain error\n"),
        (KeyError("bbox"), "dtn-det: error: KeyError: 'bbox'\n"),
        (RuntimeError(), "dtn-det: error: RuntimeError\n"),
    ],
)
def test_an_error_is_one_message(
    command: Callable[[Run], None], capsys: pytest.CaptureFixture[str], error: Exception, message: str
) -> None:
    command(failing(error))
    assert cli.main(["work"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(message)
    assert "--debug" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("argv", [["--debug", "work"], ["work", "--debug"]])
def test_debug_shows_the_traceback(
    command: Callable[[Run], None], capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    command(failing(InputError("expected 3 classes, got 2")))
    assert cli.main(argv) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "dtn-det: error: expected 3 classes, got 2" in err


def test_debug_from_the_environment(
    command: Callable[[Run], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command(failing(ValueError("wrong")))
    monkeypatch.setenv("DTN_DET_DEBUG", "1")
    assert cli.main(["work"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_command_that_needs_models_names_the_extra(
    command: Callable[[Run], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(lambda args: 0)
    monkeypatch.setattr(cli, "COMMANDS", (cli.Command("work", "fake_command", requires=(("mmdet", "det"),)),))
    monkeypatch.setitem(sys.modules, "mmdet", None)
    assert cli.main(["work"]) == 1
    assert "mmdet" in capsys.readouterr().err


def test_a_command_that_does_not_import_is_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "COMMANDS", (cli.Command("work", "no_such_module"),))
    assert cli.main(["work"]) == 1
    assert capsys.readouterr().err.startswith("dtn-det: error: No module named 'no_such_module'\n")


def run_cli(*arguments: str, code: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    start = f"import sys; from dtn_det.cli import main as entry; sys.argv[1:] = {list(arguments)!r}"
    program = f"{start}\n{code or 'entry.main()'}"
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_version(option: str) -> None:
    done = run_cli(option)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"dtn-det {metadata.version('dtn-det')}"


def test_help_lists_the_commands_and_loads_nothing_heavy() -> None:
    code = """
try:
    entry.main()
except SystemExit as error:
    assert error.code == 0
print("loaded:", sorted({"torch", "mmdet", "mmengine", "numpy", "pandas", "rich", "cv2"} & set(sys.modules)))
"""
    done = run_cli("--help", code=code)
    assert done.returncode == 0, done.stderr
    for command in cli.COMMANDS:
        assert f"\n    {command.name}  " in done.stdout
    assert "loaded: []" in done.stdout


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "chatty.py").write_text(
        "def add_parser(subparsers):\n    subparsers.add_parser('chatty')\n"
        "def run(args):\n    print('line\\n' * 100000)\n    return 0\n"
    )
    code = (
        "from dtn_det.cli import main as cli\ncli.COMMANDS = (cli.Command('chatty', 'chatty'),)\nsys.exit(cli.main())"
    )
    program = f"import sys; sys.argv[1:] = ['chatty']\n{code}"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_the_package_runs_as_a_module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["dtn_det", "--version"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("dtn_det", run_name="__main__")
    assert capsys.readouterr().out.split() == ["dtn-det", metadata.version("dtn-det")]
