"""The options that commands share."""

from __future__ import annotations

import argparse

import pytest

from dtn_det.cli import sweep_options
from dtn_det.cli.main import build_parser

COMMANDS = {
    "corrupt": ["source", "target"],
    "mce": ["timm:net", "--data", "data", "--store", "store"],
    "mpc": ["config.py", "weights.pth", "--store", "store"],
}


def parsed(command: str, *options: str) -> argparse.Namespace:
    arguments = [command, *COMMANDS[command], *options]
    return build_parser(arguments).parse_args(arguments)


@pytest.mark.parametrize("command", COMMANDS)
def test_they_mean_the_same_everywhere(command: str) -> None:
    args = parsed(command, "--corruptions", "fog", "noise", "--severities", "2", "--limit", "5", "--seed", "3")
    assert (args.corruptions, args.severities, args.limit, args.seed) == (["fog", "noise"], [2], 5, 3)
    assert parsed(command).severities == (1, 2, 3, 4, 5)


@pytest.mark.parametrize("command", COMMANDS)
def test_severities_are_numbers(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parsed(command, "--severities", "high")
    assert "expected numbers from 1 to 5, got 'high'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["mce", "mpc"])
def test_processes_of_one_machine_share_its_cores(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_options, "num_cores", lambda: 6)
    assert sweep_options.checked_workers(parsed(command)) == 6
    assert sweep_options.checked_workers(parsed(command, "--workers", "0")) == 0
    for processes, workers in (("2", 3), ("8", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        assert sweep_options.checked_workers(parsed(command)) == workers


@pytest.mark.parametrize("command", ["mce", "mpc"])
@pytest.mark.parametrize(("option", "least"), [("--workers", 0), ("--batch-size", 1), ("--unit-size", 1)])
def test_sizes_that_make_no_sense(command: str, option: str, least: int) -> None:
    with pytest.raises(ValueError, match=f"expected {option} to be at least {least}, got {least - 1}"):
        sweep_options.checked_workers(parsed(command, option, str(least - 1)))


@pytest.mark.parametrize("out", ["", " "])
@pytest.mark.parametrize(
    "command",
    [
        ["listops", "--out"],
        ["export", "config.py", "weights.pth", "--out"],
        ["report", "store", "--out"],
        ["demo", "--out"],
        ["demo", "--data-only"],
    ],
)
def test_an_empty_name_is_not_the_current_folder(
    command: list[str], out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        build_parser(command).parse_args([*command, out])
    error = capsys.readouterr().err
    assert f"argument {command[-1]}: expected a folder, got {out!r}: name one, or . for the current folder" in error
