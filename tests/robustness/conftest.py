"""Data and models that several tests of the sweeps share; nothing of it may be changed."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mmengine.config import Config

    from dtn_det.cost.complexity import Complexity


@pytest.fixture(scope="session", autouse=True)
def _costs_counted_once() -> Iterator[None]:
    """Count the cost of a detector only for the first of all runs with the same model and image size."""
    if find_spec("mmdet") is None:
        yield
        return
    from dtn_det.robustness.detection.models import mmdetection

    found: dict[tuple[str, tuple[int, int]], Complexity] = {}
    count = mmdetection.config_complexity

    def remembered(cfg: Config, shape: tuple[int, int]) -> Complexity:
        key = (repr(cfg.get("model")), shape)
        if key not in found:
            found[key] = count(cfg, shape)
        return found[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mmdetection, "config_complexity", remembered)
        yield


@pytest.fixture(scope="session")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small COCO set."""
    pytest.importorskip("mmdet", reason="detectors need MMDetection")
    from detection_files import write_coco

    return write_coco(tmp_path_factory.mktemp("data") / "coco")


@pytest.fixture(scope="session")
def detector(coco: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The config of a small detector of boxes and masks, and its checkpoint."""
    from detection_files import write_detector

    config, checkpoint = write_detector(coco, tmp_path_factory.mktemp("detector"))
    return str(config), str(checkpoint)
