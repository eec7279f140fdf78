"""The detector with which several tests of the check compare files."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtn_det.check.model import Target, read_target


@pytest.fixture(scope="session")
def target(project_root: Path) -> Target:
    pytest.importorskip("mmdet")
    return read_target(str(project_root / "configs/dtn_bccd/atss_dtn-swin-nano_fpn_24e_bccd.py"))
