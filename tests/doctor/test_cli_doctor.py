from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from dtn_det.cli import main as cli
from dtn_det.doctor import checks as doctor
from dtn_det.doctor.checks import Check
from dtn_det.doctor.probes import Outcome

BROKEN = (
    Check("torch", "ok", "2.12.1 (torch); CUDA 13.0"),
    Check(
        "mmcv operators", "error", "2.3.6 [broken]; ImportError: undefined symbol", "python -m pip install onedl-mmcv"
    ),
    Check("timm", "absent", "not installed", "python -m pip install 'dtn-det[cls]'"),
)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "diagnose", lambda: BROKEN)


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("rich", [True, False])
def test_report(rich: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if rich:
        pytest.importorskip("rich")
    else:
        monkeypatch.setitem(sys.modules, "rich.console", None)
    assert cli.main(["doctor"]) == 1
    out = capsys.readouterr().out
    for check in BROKEN:
        assert check.name in out
    assert "[broken]" in out
    assert "mmcv operators (error):\n    python -m pip install onedl-mmcv\n" in out
    assert out.rstrip().endswith("1 broken: run the commands above.")


def test_checks_are_shown_as_they_come(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen = []

    def slow() -> Iterator[Check]:
        for check in BROKEN:
            yield check
            seen.append(check.name in capsys.readouterr().out)

    monkeypatch.setattr(doctor, "diagnose", slow)
    assert cli.main(["doctor"]) == 1
    assert seen == [True] * len(BROKEN)


@pytest.mark.usefixtures("broken")
def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["healthy"] is False
    assert report["checks"][1] == {
        "name": "mmcv operators",
        "status": "error",
        "detail": "2.3.6 [broken]; ImportError: undefined symbol",
        "fix": "python -m pip install onedl-mmcv",
    }


def check_report(capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert [check for check in report["checks"] if check["status"] == "error"] == []
    assert code == 0
    names = {check["name"] for check in report["checks"]}
    assert {"python", "torch", "torchvision", "mmcv operators", "mmdet", "GPU", "DTN's CPU kernels"} <= names


def test_this_environment_is_healthy(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The probes, in this process, which has imported most of the packages already."""

    def run_here(code: str) -> Outcome:
        facts: dict[str, object] = {}
        try:
            exec(code, {"facts": facts})
        except ModuleNotFoundError as error:
            return Outcome(error=str(error), missing=error.name)
        return Outcome(facts=facts)

    monkeypatch.setattr(doctor, "run_probe", run_here)
    check_report(capsys)


@pytest.mark.slow
def test_each_probe_runs_in_a_process_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    check_report(capsys)
