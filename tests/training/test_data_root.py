"""`--data-root` and the data roots of the dataloaders."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

from dtn_det.training import launch


def test_a_dataset_with_another_data_root_is_named_with_the_option_for_it(tmp_path: Path) -> None:
    dataset = {"data_root": "elsewhere", "ann_file": "a.json"}
    cfg = Config({"data_root": "data/coco", "train_dataloader": {"dataset": {"dataset": dataset}}})
    launch.set_data_root(cfg, str(tmp_path))
    option = f"--cfg-options train_dataloader.dataset.dataset.data_root={tmp_path}"
    with pytest.raises(FileNotFoundError, match=f"at 'elsewhere/a.json', got nothing there: .*; give it with {option}"):
        launch.check_data(cfg, ["train_dataloader"], str(tmp_path))
