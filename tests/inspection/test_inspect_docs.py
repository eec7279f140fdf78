"""What docs/inspect.md says: its commands parse, its links lead somewhere, its table names the files."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from dtn_det.cli.main import build_parser

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
TEXT = (DOCS / "inspect.md").read_text()
COMMANDS = [
    line for block in re.findall(r"^```bash\n(.*?)^```", TEXT, flags=re.M | re.S) for line in block.splitlines()
]


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("dtn-det ")])
def test_commands_parse(command: str) -> None:
    arguments = shlex.split(command)[1:]
    args = build_parser(arguments).parse_args(arguments)
    assert args.command == arguments[0]


def test_configs_of_the_commands_exist() -> None:
    configs = [word for command in COMMANDS for word in shlex.split(command) if word.endswith(".py")]
    assert len(configs) >= 4
    assert [config for config in configs if not (ROOT / config).is_file()] == []


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#]+)", TEXT)
    assert "inspect.png" in targets
    assert [target for target in targets if not (DOCS / target).exists()] == []


def test_the_picture_is_small() -> None:
    assert 20_000 < (DOCS / "inspect.png").stat().st_size < 300_000


def test_every_file_is_explained() -> None:
    write = pytest.importorskip("dtn_det.inspection.write")
    table = TEXT[TEXT.index("| file |") : TEXT.index("Maps are drawn")]
    explained = {name.removesuffix(".csv") for name in re.findall(r"`(\w+(?:\.csv)?)`", table)}
    assert {*write.FIGURES, *write.TABLES} <= explained
    assert f"`{write.FACTS}`" in table
