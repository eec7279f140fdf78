"""What MMDetection prints about a missing data service does not reach the user; everything else does."""

from __future__ import annotations

from pathlib import Path

import pytest
from warm_python import WarmPython

from dtn_det._registry import NOTICES, drop_notices

pytest.importorskip("mmdet")

ROOT = Path(__file__).resolve().parents[1]
# The datasets print their notice late, when a Runner or a user imports them.
IMPORTS = """
import warnings
warnings.simplefilter("ignore")
from dtn_det.layers import DTN
import mmdet.datasets, mmpretrain.datasets
"""


@pytest.mark.parametrize("package", ["mmdet", "mmpretrain"])
def test_the_notices_exist(package: str) -> None:
    """If this fails, the packages have mended it and `dtn_det._registry.drop_notices` can go."""
    folder = Path(pytest.importorskip(package).__file__).parent
    lines = [line for file in (folder / "datasets").glob("*.py") for line in file.read_text().splitlines()]
    assert any(f'"{notice}"' in line or f"'{notice}'" in line for notice in NOTICES for line in lines)


def test_import_prints_nothing(warm_libraries: WarmPython) -> None:
    pytest.importorskip("mmpretrain")
    done = warm_libraries.run(["-c", IMPORTS], cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_other_lines_pass(capsys: pytest.CaptureFixture[str]) -> None:
    from mmengine.logging import print_log

    drop_notices()
    for notice in NOTICES:
        print_log(notice)
    print_log("Could not import OneDL: the disk is full")
    print_log({"a": 1})
    assert capsys.readouterr().out == "Could not import OneDL: the disk is full\n{'a': 1}\n"
