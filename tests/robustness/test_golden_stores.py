"""Stores of version 0.1.0 are read as on the day on which they were written: the same numbers, the same refusals."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_stores import GOLDEN, write_golden_detector

from dtn_det.cli.main import main
from dtn_det.reports.collect import ReportOptions, collect
from dtn_det.robustness.store import Store
from dtn_det.robustness.store.manifest import ModelManifest

MCE = shlex.split(
    "--profile cifar-c --corruptions contrast fog --severities 5 --unit-size 6 --workers 0 --device cpu "
    "--on-bad-image record --baseline first"
)
MPC = shlex.split(
    "--corruptions fog impulse_noise --severities 3 --unit-size 2 --workers 0 --device cpu --on-bad-image record "
    "--name golden"
)

Outcome = tuple[int, str, str]
Run = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def _as_they_were_made(monkeypatch: pytest.MonkeyPatch):
    """One thread, and a terminal on which no table is cut."""
    monkeypatch.setenv("COLUMNS", "250")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def copied(task: str, folder: Path) -> Path:
    """A copy of a golden store with its data, in which a run may write."""
    shutil.copytree(GOLDEN / task, folder)
    return folder / "store"


@pytest.fixture
def mce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command of the golden store of classifiers in a copy of its folder."""
    copied("classification", tmp_path / "golden")
    monkeypatch.chdir(tmp_path / "golden")

    def run(store: str = "store", *more: str) -> Outcome:
        return (main(mce_arguments(store, *more)), *capsys.readouterr())

    return run


def mce_arguments(store: str, *more: str) -> list[str]:
    models = ["python:golden_stores:first", "python:golden_stores:second"]
    return ["mce", *models, "--data", "images", "--store", store, *MCE, *more]


@pytest.fixture(scope="module")
def classifiers_of_today(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the classifiers as it is written now; to be copied before a run writes in it."""
    folder = tmp_path_factory.mktemp("today") / "golden"
    copied("classification", folder)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(mce_arguments("written-now"))
    torch.set_num_threads(before)
    return folder / "written-now"


@pytest.fixture(scope="session")
def golden_detector(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    pytest.importorskip("mmdet", reason="detectors need MMDetection")
    return write_golden_detector(tmp_path_factory.mktemp("golden_detector"))


@pytest.fixture
def mpc(
    golden_detector: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Runs the command of the golden store of a detector in a copy of its folder."""
    copied("detection", tmp_path / "golden")
    monkeypatch.chdir(tmp_path / "golden")

    def run(store: str = "store", *more: str) -> Outcome:
        code = main(["mpc", *golden_detector, "--data-root", ".", "--store", store, *MPC, *more])
        return (code, *capsys.readouterr())

    return run


def printed(task: str) -> dict[str, Any]:
    return json.loads((GOLDEN / task / "printed.json").read_text())


def numbers(store: Path, kind: str, baseline: str | None = None) -> dict[tuple[str, str, str, int], float]:
    """The numbers of a report: by model, name, scope and severity."""
    report = collect([store], ReportOptions(baseline=baseline, replicates=0))
    (section,) = (one for one in report.sections if one.kind == kind)
    columns = ("model", "name", "scope", "severity", "value")
    rows = zip(*(section.numbers[column].tolist() for column in columns), strict=True)
    return {(model, name, scope, int(severity)): value for model, name, scope, severity, value in rows}


def units(store: Path) -> dict[str, tuple[bytes, int]]:
    """The content of each file of records, and when it was written."""
    files = sorted(store.glob("models/*/unit-*.parquet"))
    return {str(path.relative_to(store)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_classifiers_have_the_numbers_that_were_printed() -> None:
    found = numbers(GOLDEN / "classification" / "store", "top1", "first")
    for model, was in printed("classification")["models"].items():
        for name, severity, error, top5, _ in was["cells"]:
            assert found[model, "error", name, severity] == pytest.approx(100 * error, abs=1e-9)
            assert found[model, "top-5 error", name, severity] == pytest.approx(100 * top5, abs=1e-9)
        for corruption, error in was["CE"].items():
            assert found[model, "CE", corruption, 0] == pytest.approx(error, abs=1e-9)
        assert found[model, "mean error", "", 0] == pytest.approx(100 * was["mean error"], abs=1e-9)
        for name in ("mCE", "relative mCE"):
            assert found[model, name, "", 0] == pytest.approx(was[name], abs=1e-9)


def test_detectors_have_the_numbers_that_were_printed() -> None:
    pytest.importorskip("faster_coco_eval", reason="COCO's evaluation")
    for kind, was in printed("detection")["kinds"].items():
        found = numbers(GOLDEN / "detection" / "store", kind)
        for name, severity, _, metrics in was["cells"]:
            for metric, value in metrics.items():
                if value == -1:
                    assert ("golden", metric, name, severity) not in found
                else:
                    assert found["golden", metric, name, severity] == pytest.approx(100 * value, abs=1e-9)
        for metric, value in was["mPC"].items():
            assert found["golden", f"mPC {metric}", "", 0] == pytest.approx(100 * value, abs=1e-9)
        for metric, value in was["rPC"].items():
            assert found["golden", f"rPC {metric}", "", 0] == pytest.approx(value, abs=1e-9)


def test_the_names_in_old_manifests_are_read_as_those_of_today() -> None:
    path = GOLDEN / "detection" / "store" / "models" / "golden" / "model.json"
    written = json.loads(path.read_text())["protocol"]
    read = Store.open(GOLDEN / "detection" / "store").model("golden").manifest.protocol
    assert {"batch size", "model settings"} <= set(written)
    assert read["batch_size"] == written["batch size"] == "4"
    assert read["model_settings"] == written["model settings"]
    assert {"batch_size", "precision", "device"} <= set(read)
    assert not any(" " in key for key in read)
    of_classifier = Store.open(GOLDEN / "classification" / "store").model("first").manifest.protocol
    assert {"batch_size", "precision", "device"} <= set(of_classifier)
    mixed = ModelManifest.from_dict({**json.loads(path.read_text()), "protocol": {"precision": "mixed"}})
    assert mixed.protocol == {"precision": "amp"}


def test_a_finished_store_of_classifiers_is_shown_and_stays(mce: Run) -> None:
    before = units(Path("store"))
    code, out, _ = mce()
    assert code == printed("classification")["code"] == 1
    assert units(Path("store")) == before
    for number in ("46.67", "13.33", "33.33", "28.57", "71.43", "50.00", "58.33", "23.33", "6.67"):
        assert number in out
    assert "3 of 3 units are done already" in out
    assert "1 bad image left out" in out
    assert "images/cat/image_1.png: cannot be read" in out


def test_a_finished_store_of_a_detector_is_shown_and_stays(mpc: Run) -> None:
    before = units(Path("store"))
    code, out, err = mpc()
    assert code == printed("detection")["code"] == 1
    assert units(Path("store")) == before
    for number in ("1.39", "2.84", "203.51", "5.35", "7.67", "1.52", "186.89", "4.80", "0.87"):
        assert number in out
    assert "3 of 3 units are done already" in err
    assert "images/000000000057.jpg: expected a complete image" in out


def test_a_missing_unit_of_classifiers_is_made_again(mce: Run) -> None:
    model = Store.open(Path("store")).model("second")
    then = model.read(1)
    (model.folder / "unit-000001.parquet").unlink()
    mce()
    again = model.read(1)
    assert again.schema.equals(then.schema)
    for name in ("image", "cell", "prediction", "correct", "correct_top5"):
        assert again[name].to_pylist() == then[name].to_pylist()


def test_a_missing_unit_of_a_detector_is_made_again(mpc: Run) -> None:
    model = Store.open(Path("store")).model("golden")
    then = model.read(2)
    (model.folder / "unit-000002.parquet").unlink()
    mpc()
    again = model.read(2)
    assert again.schema.equals(then.schema)
    for name in ("image", "cell", "labels", "error"):
        assert again[name].to_pylist() == then[name].to_pylist()


def same_verdict(run: Run, options: list[str]) -> None:
    """The golden store and one of today's are taken or refused alike, in the same words."""
    verdicts = []
    shutil.copytree("store", "written-then")
    for store in ("written-then", "written-now"):
        code, _, err = run(store, *options)
        errors = [line for line in err.splitlines() if "images/s" not in line and "cells" not in line]
        verdicts.append((code, "\n".join(errors).replace(store, "written")))
    shutil.rmtree("written-then")
    assert verdicts[0] == verdicts[1]


OTHER_CLASSIFIERS = {
    "seed": ["--seed", "1"],
    "cells": ["--severities", "4"],
    "unit": ["--unit-size", "5"],
    "batch": ["--batch-size", "64"],
    "amp": ["--amp"],
    "classes": ["--classes", "sorted"],
    "limit": ["--limit", "4"],
    "jpeg": ["--jpeg"],
    "bad": ["--on-bad-image", "fail"],
    "swapped": ["--names", "second", "first"],
}


@pytest.mark.parametrize("options", OTHER_CLASSIFIERS.values(), ids=OTHER_CLASSIFIERS)
def test_classifiers_go_on_or_are_refused_as_in_a_store_of_today(
    mce: Run, classifiers_of_today: Path, options: list[str]
) -> None:
    shutil.copytree(classifiers_of_today, "written-now")
    same_verdict(mce, options)


OTHER_DETECTORS = {
    "seed": ["--seed", "1"],
    "cells": ["--severities", "4"],
    "unit": ["--unit-size", "3"],
    "batch": ["--batch-size", "3"],
    "limit": ["--limit", "4"],
    "engine": ["--engine", "1"],
    "settings": ["--cfg-options", "model.test_cfg.rcnn.max_per_img=20"],
    "bad": ["--on-bad-image", "fail"],
}


def test_detectors_go_on_or_are_refused_as_in_a_store_of_today(mpc: Run) -> None:
    mpc("written-now")
    for options in OTHER_DETECTORS.values():
        same_verdict(mpc, options)
