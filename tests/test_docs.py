"""Every command of the pages in docs/ is one that exists, and their Python runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from dtn_det.cli.main import build_parser

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", flags=re.M | re.S)
PAGES = sorted((ROOT / "docs").glob("*.md"))


def blocks(language: str) -> list[tuple[str, str]]:
    return [(page.name, text) for page in PAGES for found, text in BLOCK.findall(page.read_text()) if found == language]


def commands() -> list[tuple[str, str]]:
    """The calls of `dtn-det`, also through torchrun."""
    lines = [(page, line.strip()) for page, text in blocks("bash") for line in text.splitlines()]
    found = [(page, line.replace("torchrun --nproc-per-node 8 -m dtn_det.cli.main", "dtn-det")) for page, line in lines]
    return [(page, line) for page, line in found if line.startswith("dtn-det ")]


@pytest.mark.parametrize(("page", "command"), commands())
def test_commands_are_understood(page: str, command: str) -> None:
    arguments = shlex.split(command, comments=True)[1:]
    assert build_parser(arguments).parse_args(arguments).command == arguments[0]
    # Configs that pages name lie where they say; variables stand for several.
    for path in re.findall(r"configs/[\w./-]+\.py", command):
        assert (ROOT / path).is_file(), path


@pytest.mark.parametrize(("page", "code"), blocks("python"))
def test_python_runs(
    page: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    # What a block writes must not stay in the project.
    monkeypatch.chdir(tmp_path)
    exec(compile(code, page, "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out


def test_param_groups_are_those_of_the_configs() -> None:
    engine = pytest.importorskip("mmengine")
    optim = pytest.importorskip("mmengine.optim")
    (code,) = [text for _, text in blocks("python") if "param_groups = " in text]
    found: dict[str, Any] = {}
    exec(code, found)
    cfg = engine.Config.fromfile(ROOT / "configs" / "_base_" / "dtn_paramwise.py")
    settings = {"type": "AdamW", "lr": found["rate"], "weight_decay": found["decay"]}
    wrapper = optim.build_optim_wrapper(
        found["model"], {"optimizer": settings, "paramwise_cfg": cfg.deit_paramwise_cfg.to_dict()}
    )
    wanted = {id(group["params"][0]): group for group in wrapper.optimizer.param_groups}
    for group, (name, parameter) in zip(found["param_groups"], found["model"].named_parameters(), strict=True):
        same = wanted[id(parameter)]
        assert group["lr"] == pytest.approx(same["lr"]), name
        assert group["weight_decay"] == same["weight_decay"], name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target
