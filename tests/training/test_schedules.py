"""Schedules that do not end with the training are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import config_catalog as detectors
import pytest
from mmengine.config import Config

from dtn_det.training.config import schedule_warning

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("dtn_*/*.py"))
COSINE = {"type": "CosineAnnealingLR", "begin": 5, "end": 30, "T_max": 25}


@pytest.mark.parametrize("path", [path for path in CONFIGS if "dtn-" in path.stem], ids=lambda path: path.stem)
def test_configs_end_together(path: Path) -> None:
    if path.stem in detectors.CONFIGS:  # other tests have resolved them
        cfg = detectors.resolve(path.stem)
    else:
        if "mmpretrain::" in path.read_text() or path.parent.name in ("dtn_imagenet", "dtn_cifar"):
            pytest.importorskip("mmpretrain")
        cfg = Config.fromfile(path)
    assert schedule_warning(cfg) is None


@pytest.mark.parametrize(
    ("train", "schedulers", "warning"),
    [
        (
            {"max_epochs": 40},
            [{"type": "LinearLR", "by_epoch": False, "end": 500}, COSINE],
            "expected the last scheduler (CosineAnnealingLR) to end at max_epochs=40, got end=30, T_max=25: add "
            "--cfg-options param_scheduler.1.end=40 param_scheduler.1.T_max=35",
        ),
        (
            {"max_epochs": 40},
            [{**COSINE, "end": 40}],
            "expected the last scheduler (CosineAnnealingLR) to end at max_epochs=40, got T_max=25: add --cfg-options "
            "param_scheduler.0.T_max=35",
        ),
        (
            {"max_iters": 100},
            {"type": "MultiStepLR", "by_epoch": False, "end": 90, "milestones": [60]},
            "expected the last scheduler (MultiStepLR) to end at max_iters=100, got end=90: add --cfg-options "
            "param_scheduler.end=100, and param_scheduler.milestones to match",
        ),
        ({"max_epochs": 30}, [COSINE], None),
        ({"max_epochs": 30}, [{"type": "LinearLR", "by_epoch": False, "end": 500}], None),
        ({"max_iters": 30}, [{"type": "InverseSqrtLR", "by_epoch": False, "begin": 5}], None),
        ({"max_epochs": 30}, None, None),
        (None, [COSINE], None),
    ],
)
def test_warning(train: dict[str, Any] | None, schedulers: Any, warning: str | None) -> None:
    assert schedule_warning({"train_cfg": train, "param_scheduler": schedulers}) == warning
