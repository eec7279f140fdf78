"""Data and models that several tests of the sweeps share; nothing of it may be changed."""

from __future__ import annotations

from pathlib import Path

import pytest


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
