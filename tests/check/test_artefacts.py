"""`dtn-det check` names what this package itself writes, and what of it commands can read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from odd_coco_files import plain_content
from odd_folders import write_classes, write_image

pytest.importorskip("pyarrow")

import pandas as pd
from report_stores import classifier_store

from dtn_det.check import inspect_path
from dtn_det.cli.main import main
from dtn_det.reports.collect import ReportOptions, collect
from dtn_det.reports.formats.csv_json import to_json
from dtn_det.reports.overview.collect import collect_overview
from dtn_det.reports.overview.grouping import open_sets
from dtn_det.reports.overview.write import overview_json
from dtn_det.robustness.importing import Imported, ImportSource, write_imported


def imported(name: str) -> Imported:
    frame = pd.DataFrame({"corruption": ["clean", "fog"], "severity": [0, 1], "error": [0.1, 0.2]})
    return Imported(name, "classification", ImportSource({"results.csv": "ab"}, "robustbench"), {"top1": frame})


def test_a_store_of_imported_results_alone(tmp_path: Path) -> None:
    write_imported(tmp_path, imported("Standard"))
    (result,) = inspect_path(tmp_path)
    assert (result.kind, result.is_good) == ("imported_store", True)
    assert dict(result.facts) == {
        "task": ["classification"],
        "models": ["Standard (from robustbench)"],
        "kinds of results": ["top1"],
        "corruptions": ["clean", "fog"],
        "files": ["results.csv"],
    }
    for part in ("aggregates", "aggregates/Standard.json"):
        (result,) = inspect_path(tmp_path / part)
        assert (result.kind, result.is_good) == ("imported_store_part", False)
        assert result.problems[0].endswith(f"name {tmp_path}")
    (tmp_path / "aggregates/Standard.parquet").write_bytes(b"PAR1")
    (result,) = inspect_path(tmp_path)
    assert "got a damaged file" in result.problems[0]


def test_a_class_folder_named_aggregates_is_none(tmp_path: Path) -> None:
    write_classes(tmp_path, ("aggregates", "sand"))
    (tmp_path / "aggregates/list.json").write_text("[1]")
    (result,) = inspect_path(tmp_path)
    assert (result.kind, result.facts["classes"]) == ("class_folders", 2)


def test_a_store_its_parts_and_its_report(tmp_path: Path) -> None:
    store = classifier_store(tmp_path / "store", {"dtn": 1}, images=4, cells=(("clean", 0), ("fog", 1)))
    write_imported(store, imported("Standard"))
    (result,) = inspect_path(store)
    assert (result.kind, result.is_good) == ("store", True)
    assert result.facts["models"] == ["dtn (complete)"]
    assert result.facts["imported models"] == ["Standard (from robustbench)"]
    for part in ("store.json", "images.parquet", "models", "models/dtn", "models/dtn/model.json"):
        (result,) = inspect_path(store / part)
        assert (result.kind, result.is_good) == ("store_part", False)
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "report.json").write_text(to_json(collect([store], ReportOptions(models=["dtn"], replicates=0))))
    write_image(folder / "figures" / "groups.png", (64, 64))
    (result,) = inspect_path(folder)
    assert (result.kind, result.is_good) == ("report", False)
    assert result.facts["models"] == ["dtn (measured)"]
    assert result.problems[0].endswith(f"open {folder / 'report.html'}, or name the store that it was made from")
    assert inspect_path(folder / "figures")[0].kind == "report_part"


def test_a_folder_of_stores_and_its_report(tmp_path: Path) -> None:
    folder = tmp_path / "stores"
    for name in ("imagenet-r", "imagenet-sketch"):
        classifier_store(folder / name, {"dtn": 1}, images=4, cells=(("clean", 0),))
    whole, *each = inspect_path(folder)
    assert (whole.kind, whole.facts) == ("stores", {"sets": ["imagenet-r", "imagenet-sketch"]})
    assert [result.kind for result in each] == ["store", "store"]
    report = tmp_path / "report"
    report.mkdir()
    overview = collect_overview(open_sets([folder]), ReportOptions(replicates=0))
    (report / "report.json").write_text(overview_json(overview))
    (report / "sets").mkdir()
    (result,) = inspect_path(report)
    assert (result.kind, result.facts["sets"]) == ("report", ["imagenet-r", "imagenet-sketch"])
    assert None not in result.facts.values()
    assert result.facts["models"] == ["dtn (measured)"]
    assert inspect_path(report / "sets")[0].kind == "report_part"


@pytest.mark.usefixtures("in_process")
def test_a_corrupted_coco_data_set(tmp_path: Path) -> None:
    content = plain_content()
    source = tmp_path / "clean"
    for image in content["images"]:
        image.update(width=64, height=48)
        write_image(source / "val" / image["file_name"], (64, 48))
    content["annotations"] = content["annotations"][:-1]
    (source / "annotations").mkdir()
    (source / "annotations/val.json").write_text(json.dumps(content))
    options = ["--corruptions", "brightness", "--severities", "2", "--workers", "1"]
    assert main(["corrupt", str(source), str(tmp_path / "c"), *options]) == 0
    whole, file = inspect_path(tmp_path / "c")
    assert whole.kind == "corrupted_coco"
    assert whole.is_good
    assert (whole.facts["clean images"], whole.facts["corruptions"], whole.facts["severities"]) == (
        6,
        ["brightness"],
        ["2"],
    )
    assert whole.facts["corruption"].startswith("coco-c ")
    assert Path(file.path) == tmp_path / "c/brightness/2/annotations/val.json"
    assert (file.kind, file.is_good, file.facts["images"]) == ("coco", True, 6)
    assert inspect_path(tmp_path / "c/corruptions.json")[0].kind == "corrupted_coco_part"


@pytest.mark.usefixtures("in_process")
def test_a_corrupted_class_folder_says_by_what(tmp_path: Path) -> None:
    write_classes(tmp_path / "clean", ("cat", "dog"))
    options = ["--corruptions", "brightness", "--severities", "2", "--workers", "1", "--profile", "imagenet-c"]
    assert main(["corrupt", str(tmp_path / "clean"), str(tmp_path / "c"), *options]) == 0
    (result,) = inspect_path(tmp_path / "c")
    assert result.kind == "corrupted"
    assert "imagenet-c " in result.facts["corruption"]


def test_a_work_dir_is_named_and_its_last_checkpoint_checked(tmp_path: Path) -> None:
    run = tmp_path / "20260102_030405"
    (run / "vis_data").mkdir(parents=True)
    (tmp_path / "config.py").write_text("")
    (result,) = inspect_path(tmp_path)
    assert (result.kind, result.is_good) == ("work_dir", False)
    assert "got logs alone" in result.problems[0]
    for number in (1, 2):
        torch.save({"state_dict": {"a": torch.zeros(number)}}, tmp_path / f"epoch_{number}.pth")
    (tmp_path / "last_checkpoint").write_text("/elsewhere/epoch_1.pth")
    whole, last = inspect_path(tmp_path)
    assert whole.is_good
    assert whole.facts == {
        "runs": ["20260102_030405"],
        "config": ["config.py"],
        "checkpoints": ["epoch_1.pth", "epoch_2.pth"],
        "last checkpoint": "epoch_1.pth",
    }
    assert (last.kind, last.facts["numbers"]) == ("checkpoint", 1)
    assert inspect_path(run)[0].problems[0].endswith(f"name {tmp_path}")


@pytest.mark.parametrize(
    ("name", "content", "kind", "is_good"),
    [
        ("inspect.json", {"model": "a.py", "blocks": 4}, "inspection", False),
        ("settings.json", {"corruptor": "coco-c"}, "demo", False),
        ("listops.json", {"generator": 1, "max_depth": 10}, "listops", True),
    ],
)
def test_other_folders(name: str, content: dict[str, object], kind: str, is_good: bool, tmp_path: Path) -> None:
    write_image(tmp_path / "train" / "picture.png", (64, 64))
    (tmp_path / name).write_text(json.dumps(content))
    (result,) = inspect_path(tmp_path)
    assert (result.kind, result.is_good) == (kind, is_good)
    assert [value for value in content.values() if value in result.facts.values()]
    assert inspect_path(tmp_path / name)[0].kind == f"{kind}_part"


def test_an_exported_model_is_called_so(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file({"fc.weight": torch.zeros(3, 2)}, str(tmp_path / "model.safetensors"))
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "dtn_converted"}))
    (result,) = inspect_path(tmp_path)
    assert (result.kind, result.title) == (
        "checkpoint",
        "exported model (weights and config.json, timm's dtn_converted)",
    )
