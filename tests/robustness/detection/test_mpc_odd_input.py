"""`dtn-det mpc` on configs, annotations, checkpoints and stores that are not what they should be."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet
import pytest
import torch

pytest.importorskip("mmdet", reason="detectors need MMDetection")

from dtn_det.errors import StoreError
from dtn_det.reports import detection as reports_detection
from dtn_det.reports.sweep_results import sweep_report
from dtn_det.robustness.detection import evaluation
from dtn_det.robustness.store import Store

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("model=3", "expected `model` in the config, got 3: name another config"),
        ("test_dataloader=3", "expected test_dataloader with a dataset, and in it a pipeline of steps, got 3"),
        ("test_dataloader.dataset=3", "expected test_dataloader with a dataset, and in it a pipeline of steps"),
        ("test_dataloader.dataset.pipeline=3", "expected test_dataloader with a dataset, and in it a pipeline of step"),
        ("test_dataloader.dataset.pipeline.0=3", "expected --cfg-options to fit the config, got"),
    ],
)
def test_parts_of_a_config_that_are_something_else(mpc: Run, option: str, message: str) -> None:
    code, _, err = mpc("--cfg-options", option)
    assert code == 1
    assert message in err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model = (", "SyntaxError: '(' was never closed"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("raise RuntimeError('no')", "RuntimeError: no"),
        ("\xff", "UnicodeDecodeError"),
    ],
)
def test_configs_that_cannot_be_read(
    mpc: Run, detector: tuple[str, str], tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "broken.py").write_bytes(content.encode("latin1"))
    code, _, err = mpc(model=(str(tmp_path / "broken.py"), detector[1]))
    assert code == 1
    assert f"broken.py', got {message}" in err
    assert "mend the file, or name another" in err


def change_first(key: str, **values: object) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[key][0].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_first("images", id="seven"), "ids of images that are all numbers or all texts"),
        (change_first("images", id=17), "got two that differ"),
        (change_first("annotations", bbox=[float("nan")] * 4), "expected a box of four numbers of each annotation in"),
        (change_first("annotations", area=float("inf")), "got area inf in annotation 0 of image 17: mend the file"),
        (change_first("annotations", iscrowd=None), "got iscrowd None in annotation 0 of image 17: mend the file"),
        (
            change_first("annotations", segmentation=[1, 1, 9, 1, 9, 9]),
            "got a flat list of coordinates in place of a list of polygons",
        ),
        (lambda content: content["annotations"][0].pop("segmentation"), "got 1 of 13 without: add them, or take all"),
    ],
)
def test_annotations_that_would_count_wrongly(
    mpc: Run, coco: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    root = shutil.copytree(coco, tmp_path / "coco")
    content = json.loads((root / "coco.json").read_text())
    change(content)
    (root / "coco.json").write_text(json.dumps(content))
    code, _, err = mpc("--data-root", str(root))
    assert code == 1
    assert message in err


def test_without_any_segmentation_a_model_of_masks_is_evaluated_on_boxes(mpc: Run, coco: Path, tmp_path: Path) -> None:
    root = shutil.copytree(coco, tmp_path / "coco")
    content = json.loads((root / "coco.json").read_text())
    for annotation in content["annotations"]:
        del annotation["segmentation"]
    (root / "coco.json").write_text(json.dumps(content))
    code, out, err = mpc("--data-root", str(root))
    assert code == 0
    assert "have no segmentation, so only boxes are evaluated, not masks" in err
    assert "Boxes: " in out
    assert "Masks: " not in out


def test_weights_and_features_that_are_no_numbers(mpc: Run, detector: tuple[str, str], tmp_path: Path) -> None:
    content = torch.load(detector[1])
    state = content["state_dict"]
    first = next(key for key, value in state.items() if key.startswith("backbone") and value.is_floating_point())
    torch.save({"state_dict": {**state, first: state[first] * float("nan")}}, tmp_path / "nan.pth")
    code, _, err = mpc(model=(detector[0], str(tmp_path / "nan.pth")))
    assert code == 1
    assert f"1 not of numbers ({first})" in err
    huge = {key: value * 1e30 if key.startswith("neck") else value for key, value in state.items()}
    torch.save({"state_dict": huge}, tmp_path / "huge.pth")
    code, _, err = mpc(model=(detector[0], str(tmp_path / "huge.pth")))
    assert code == 1
    assert "expected features of the neck that are numbers, got others for" in err
    assert "check the checkpoint" in err


def test_a_store_that_is_a_file_is_told_first(mpc: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, err = mpc(model=("absent.py", "absent.pth"), store="file")
    assert code == 1
    assert "expected --store to be a folder, got the file" in err


def test_records_of_another_unit_and_other_columns(mpc: Run, finished_mpc: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_mpc, tmp_path / "store")
    units = tmp_path / "store" / "models" / "tiny"
    shutil.copy(units / "unit-000000.parquet", units / "unit-000001.parquet")
    code, _, err = mpc()
    assert code == 1
    assert "unit-000001.parquet, got: rows of other images or cells. Delete the file and start again" in err
    (units / "unit-000001.parquet").unlink()
    assert mpc()[0] == 0
    (model,) = Store.open(tmp_path / "store").models().values()
    model.write(0, model.read(0).drop_columns(["scores"]))
    with pytest.raises(StoreError, match=r"got records without scores: delete the folder and evaluate"):
        sweep_report(model.store, ["tiny"])


def test_a_damaged_list_of_images_is_written_again(mpc: Run, finished_mpc: Path, tmp_path: Path) -> None:
    _, before, _ = mpc(store=str(finished_mpc))
    shutil.copytree(finished_mpc, tmp_path / "store")
    path = tmp_path / "store" / "images.parquet"
    table = arrow.parquet.read_table(path)
    nothing = arrow.array(["[]"] * len(table))
    arrow.parquet.write_table(table.set_column(table.column_names.index("annotations"), "annotations", nothing), path)
    assert mpc()[1] == before


def _die(work: object) -> None:
    os._exit(9)


def test_a_process_that_dies_while_it_evaluates(finished_mpc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (model,) = Store.open(finished_mpc).models().values()
    monkeypatch.setattr(reports_detection, "_PROCESS_BYTES", 0)
    monkeypatch.setattr(evaluation, "_GROUP_BYTES", 1)
    monkeypatch.setattr(reports_detection, "_numbers_of_cells", _die)
    with pytest.raises(ChildProcessError, match="expected processes that evaluate to live, got one that died"):
        sweep_report(model.store, ["tiny"], processes=2)
