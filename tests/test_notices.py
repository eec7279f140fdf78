"""What MMDetection prints about a missing data service does not reach the user; everything else does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mmdet")

ROOT = Path(__file__).resolve().parents[1]
# The datasets print their notice late, when a Runner or a user imports them.
AND_DATASETS = "; import mmdet.datasets, mmpretrain.datasets"


def output(*command: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=-1,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_notices_exist() -> None:
    """If this fails, the packages have mended it and `dtn_det._registry.drop_notices` can go."""
    assert "Could not import OneDL" in output("-c", "import mmdet.datasets")


def test_import_prints_nothing() -> None:
    pytest.importorskip("mmpretrain")
    assert output("-W", "ignore", "-c", "from dtn_det.layers import DTN" + AND_DATASETS) == ""


def test_complexity_prints_its_table_alone() -> None:
    config = "configs/dtn_demo/atss_dtn-swin-nano_fpn_shapes.py"
    text = output("-W", "ignore", "-m", "dtn_det.cli.main", "complexity", config, "--shape", "64", "64")
    assert text.startswith("ATSS (DTNSwinTransformer)")


def test_other_lines_pass(capsys: pytest.CaptureFixture[str]) -> None:
    from mmengine.logging import print_log

    from dtn_det._registry import NOTICES, drop_notices

    drop_notices()
    for notice in NOTICES:
        print_log(notice)
    print_log("Could not import OneDL: the disk is full")
    print_log({"a": 1})
    assert capsys.readouterr().out == "Could not import OneDL: the disk is full\n{'a': 1}\n"
