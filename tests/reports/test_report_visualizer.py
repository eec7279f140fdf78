from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from made_up import classification_report, detection_report
from PIL import Image

from dtn_det.reports.contents import Report
from dtn_det.reports.figures import draw_figures
from dtn_det.reports.visualizer import log_report, report_scalars
from dtn_det.system.drawing import COLUMN

pytest.importorskip("mmengine")
pytest.importorskip("tensorboard")


@pytest.fixture(scope="module")
def report() -> Report:
    return detection_report(["ln", "dtn"], 20, ["fog"], [1, 2], metrics=("AP",), replicates=10)


@pytest.fixture(scope="module")
def figures(report: Report) -> list[str]:
    return list(draw_figures(report).figures)


def value(report: Report, model: str, name: str, scope: str = "", severity: int = 0) -> float:
    frame = report.sections[-1].numbers
    chosen = (frame["model"] == model) & (frame["name"] == name) & (frame["scope"] == scope)
    found = frame[chosen & (frame["severity"] == severity) & (frame["set"] == "benchmark")]
    assert len(found) == 1
    return float(found["value"].iloc[0])


def test_tensorboard_gets_numbers_and_figures(report: Report, figures: list[str], tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log_report(report, tmp_path, step=7)
    events = EventAccumulator(str(tmp_path / "vis_data"), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    tags = events.Tags()
    for tag, wanted in {
        "robustness/dtn/mPC_AP": value(report, "dtn", "mPC AP"),
        "robustness/ln/rPC_AP": value(report, "ln", "rPC AP"),
        "robustness/dtn/weather/mPC_AP": value(report, "dtn", "mPC AP", "weather"),
    }.items():
        (event,) = events.Scalars(tag)
        assert event.step == 7
        assert event.value == pytest.approx(wanted, rel=1e-6)
    curve = events.Scalars("robustness/dtn/mPC_AP_by_severity")
    wanted = {severity: value(report, "dtn", "mPC AP", severity=severity) for severity in (1, 2)}
    assert {event.step: event.value for event in curve} == pytest.approx(wanted, rel=1e-6)
    assert sorted(tags["images"]) == sorted(f"robustness_{name}" for name in figures)
    (image,) = events.Images("robustness_severities_bbox")
    assert image.step == 7
    assert image.width == round(COLUMN * 300)
    with Image.open(io.BytesIO(image.encoded_image_string)) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    # Blue of the first model, and a white ground.
    assert (pixels == (0, 0x72, 0xB2)).all(-1).any()
    assert (pixels == 255).all(-1).mean() > 0.5


def test_a_visualizer_of_the_user_gets_them_too(report: Report, figures: list[str], tmp_path: Path) -> None:
    from mmengine.visualization import Visualizer

    visualizer = Visualizer(vis_backends=[{"type": "LocalVisBackend"}], save_dir=str(tmp_path))
    log_report(report, visualizer)
    lines = [json.loads(line) for line in (tmp_path / "vis_data" / "scalars.json").read_text().splitlines()]
    assert {"robustness/ln/P_AP": value(report, "ln", "P AP"), "step": 0} in lines
    images = {path.name for path in (tmp_path / "vis_data" / "vis_image").iterdir()}
    assert images == {f"robustness_{name}_0.png" for name in figures}


def test_numbers_of_classifiers() -> None:
    report = classification_report(["a", "b"], images=20, corruptions=["fog", "saturate"], baseline="a", replicates=0)
    found = {scalar.tag: scalar.value for scalar in report_scalars(report) if scalar.step is None}
    assert found["robustness/a/mCE"] == pytest.approx(100)
    assert found["robustness/b/mCE"] == pytest.approx(value(report, "b", "mCE"))
    assert found["robustness/b/clean_error"] == pytest.approx(value(report, "b", "error", "clean"))
    assert found["robustness/b/weather/mean_error"] == pytest.approx(value(report, "b", "mean error", "weather"))
    assert "robustness/b/extra/mean_error" in found
    assert "robustness/b/mean_ECE" in found
    tags = [(scalar.tag, scalar.step) for scalar in report_scalars(report)]
    assert len(set(tags)) == len(tags)


def test_numbers_of_masks_are_told_apart() -> None:
    report = detection_report(["net"], 20, ["fog"], [1], ("bbox", "segm"), metrics=("AP",), replicates=0)
    found = {scalar.tag: scalar.value for scalar in report_scalars(report)}
    assert found["robustness/net/segm_mPC_AP"] == pytest.approx(value(report, "net", "mPC AP"))
    assert found["robustness/net/mPC_AP"] > found["robustness/net/segm_mPC_AP"]


def test_a_missing_tensorboard_names_the_extra(report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match=r"needs `tensorboard`: pip install 'dtn-det\[report\]'"):
        log_report(report, tmp_path)
