from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import pytest
from made_up import classification_report
from PIL import Image

from dtn_det.reports import figures
from dtn_det.reports.figures import FIGURES, write_figures
from dtn_det.system.drawing import COLUMN, PAGE


def test_files_are_complete_and_say_what_they_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "FIGURES", {name: FIGURES[name] for name in ("severities", "heatmap", "forest")})
    name = "net<&>" + "long" * 40
    report = classification_report([name], images=30, baseline=None, corruptions=["fog"], replicates=10)
    files, left_out = write_figures(report, tmp_path / "figures")
    assert list(files) == ["severities_top1", "heatmap_top1"]
    assert list(left_out) == ["forest_top1"]
    assert sorted(path for paths in files.values() for path in paths) == sorted((tmp_path / "figures").iterdir())
    for paths in files.values():
        pdf, svg, png = paths
        assert (pdf.suffix, svg.suffix, png.suffix) == (".pdf", ".svg", ".png")
        assert pdf.read_bytes().startswith(b"%PDF")
        told = "".join(ElementTree.fromstring(svg.read_bytes()).itertext())
        assert name in told
        assert "imagenet-c" in told
        with Image.open(png) as image:
            image.load()
            assert image.width in (round(COLUMN * 300), round(PAGE * 300))
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
            assert f"Models: {name}" in image.info["Description"]


_SAME = """
import hashlib, sys
from made_up import classification_report
from dtn_det.system.drawing import rendered
from dtn_det.reports.figures import draw_figures

def digests(date):
    report = classification_report(images=20, baseline=None, corruptions=["fog", "snow"], replicates=10, date=date)
    drawn = draw_figures(report)
    for name in ("reliability_top1", "forest_top1"):
        for data in rendered(drawn.figures[name], drawn.titles[name], drawn.about[name]).values():
            yield hashlib.sha256(data).hexdigest()
"""


def test_files_are_the_same_in_every_process_whatever_the_settings() -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(Path(__file__).parents[1] / "support"), *sys.path)),
        "PYTHONHASHSEED": "123",
        "MPLBACKEND": "svg",
    }
    program = f"{_SAME}\nprint(*digests('2026-01-02'), 'matplotlib.pyplot' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    *theirs, pyplot = run.stdout.split()
    here: dict[str, Any] = {}
    exec(_SAME, here)
    settings = {"font.size": 20, "axes.grid": True, "savefig.bbox": "tight", "text.usetex": True, "lines.linewidth": 9}
    with matplotlib.rc_context(settings):
        before = dict(matplotlib.rcParams)
        ours = list(here["digests"]("2031-05-06"))
        assert dict(matplotlib.rcParams) == before
    assert len(ours) == 6
    assert theirs == ours
    assert pyplot == "False"
