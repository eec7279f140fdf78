"""An image that cannot be decoded stops a run with one sentence, also where a worker process reads it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest
from tiny_coco import tiny_config

from dtn_det.training.bad_images import explain_bad_image

RETINANET = "retinanet_dtn-pvtv2-b0_fpn_1x_coco"


@pytest.fixture
def root(coco: Path, tmp_path: Path) -> Path:
    """The COCO folder with the first half of one training image, which OpenCV does not decode."""
    folder = shutil.copytree(coco, tmp_path / "coco")
    file = json.loads((folder / "annotations" / "instances_train2017.json").read_text())
    path = folder / "train2017" / file["images"][3]["file_name"]
    path.write_bytes(path.read_bytes()[:40])
    return folder


@pytest.mark.parametrize("workers", [0, 1])
def test_training_names_the_image(
    workers: int, root: Path, train_tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = tiny_config(RETINANET)
    cfg.train_dataloader.num_workers = workers
    cfg.dump(str(tmp_path / "config.py"))
    arguments = [str(tmp_path / "config.py"), "--work-dir", str(tmp_path / "work"), "--data-root", str(root)]
    assert train_tool.main(arguments) == 1
    error = capsys.readouterr().err.rpartition("tools/train.py: error: ")[2]
    assert error.startswith(f"expected images that can be read, got {root}/train2017/000000000003.jpg: ")
    assert error.endswith("Fetch it again, or take it out of the annotation file\n")
    assert error.count("\n") == 1


def test_other_failures_are_not_explained(tmp_path: Path) -> None:
    assert explain_bad_image(AssertionError("shapes differ")) is None
    assert explain_bad_image(RuntimeError("failed to load image: a.jpg")) is None
    told = explain_bad_image(AssertionError(f"failed to load image: {tmp_path / 'a.jpg'}"), classes_in_folders=True)
    assert told == (
        f"expected images that can be read, got {tmp_path / 'a.jpg'}: there is no such file. Fetch it again, or move "
        "it out of its class folder"
    )
