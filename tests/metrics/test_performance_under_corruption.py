"""mPC and rPC against definitions, published numbers, and the cases in which MMDetection's script is wrong."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from metric_tables import grid

from dtn_det.corruptions.catalog import BENCHMARK, EXTRA, GROUPS, SEVERITIES
from dtn_det.metrics import (
    METRICS,
    CellError,
    mean_performance_under_corruption,
    performance_table,
    relative_performance_under_corruption,
)


def test_definition():
    frame = grid(lambda cell: 0.01 * (1 + BENCHMARK.index(cell[0])) * cell[1] / 5, clean=0.4)
    by_corruption = {name: 0.01 * (1 + index) * 3 / 5 for index, name in enumerate(BENCHMARK)}
    mean = mean_performance_under_corruption(frame)
    assert mean.metric == "mPC AP"
    assert mean.by_corruption == pytest.approx(by_corruption)
    assert list(mean.by_corruption) == list(BENCHMARK)
    assert mean.value == pytest.approx(0.08 * 3 / 5)
    assert mean.by_severity == pytest.approx({severity: 0.08 * severity / 5 for severity in SEVERITIES})
    assert mean.by_group == pytest.approx(
        {group: np.mean([by_corruption[name] for name in GROUPS[group]]) for group in list(GROUPS)[:4]}
    )
    relative = relative_performance_under_corruption(frame)
    assert relative.metric == "rPC AP"
    assert relative.clean == 0.4
    assert relative.value == pytest.approx(100 * mean.value / 0.4)
    for kind in ("by_corruption", "by_group", "by_severity"):
        expected = {key: 100 * value / 0.4 for key, value in getattr(mean, kind).items()}
        assert getattr(relative, kind) == pytest.approx(expected)


class TestCasesInWhichMMDetectionIsWrong:
    """The true mPC is 0.2 and P 0.4; MMDetection counts whatever was not evaluated as AP 0."""

    def test_full_grid(self):
        assert mean_performance_under_corruption(grid()).value == pytest.approx(0.2)
        assert relative_performance_under_corruption(grid()).value == pytest.approx(50)

    def test_severities_0_2_4(self):
        """The example in its documentation: 0.080 and 20 %."""
        frame = grid()
        frame = frame[frame.severity.isin((0, 2, 4))]
        for mean in (mean_performance_under_corruption, relative_performance_under_corruption):
            with pytest.raises(CellError, match=r"missing \(45\): gaussian_noise 1 3 5, shot_noise 1 3 5"):
                mean(frame)
        found = mean_performance_under_corruption(frame, allow_partial=True)
        assert (found.value, found.label) == (pytest.approx(0.2), "partial (30/75)")
        assert relative_performance_under_corruption(frame, allow_partial=True).value == pytest.approx(50)

    def test_severity_1_alone(self):
        """0.040 and inf %, as P is taken as 0."""
        frame = grid(clean=None)
        frame = frame[frame.severity == 1]
        with pytest.raises(CellError, match=r"missing \(61\): clean, gaussian_noise 2 3 4 5"):
            relative_performance_under_corruption(frame)
        with pytest.raises(CellError, match=r"missing \(1\): clean:"):
            relative_performance_under_corruption(frame, allow_partial=True)
        found = mean_performance_under_corruption(frame, allow_partial=True)
        assert (found.value, found.label) == (pytest.approx(0.2), "partial (15/75)")
        assert found.by_severity == pytest.approx({1: 0.2})

    def test_interrupted_before_zoom_blur(self):
        """0.187 and 46.7 %."""
        frame = grid()
        frame = frame[frame.corruption != "zoom_blur"]
        with pytest.raises(CellError, match=r"missing \(5\): zoom_blur 1 2 3 4 5"):
            mean_performance_under_corruption(frame)
        found = mean_performance_under_corruption(frame, allow_partial=True)
        assert (found.value, found.label) == (pytest.approx(0.2), "partial (70/75)")
        assert "zoom_blur" not in found.by_corruption

    def test_hold_out_corruptions_first(self):
        """0.147 and 36.7 %, as the benchmark is the first fifteen it meets."""
        frame = grid(lambda cell: 0.001 if cell[0] in EXTRA else 0.2, corruptions="all")
        frame = pd.concat([frame[frame.corruption.isin(EXTRA)], frame[~frame.corruption.isin(EXTRA)]])
        assert mean_performance_under_corruption(frame).value == pytest.approx(0.2)
        assert relative_performance_under_corruption(frame).value == pytest.approx(50)
        both = mean_performance_under_corruption(frame, corruptions="all")
        assert (both.metric, both.value) == ("mPC (15+4) AP", pytest.approx((15 * 0.2 + 4 * 0.001) / 19))

    def test_no_corruption(self):
        """0.000 and 0 %."""
        frame = grid().iloc[:1]
        with pytest.raises(CellError, match=r"missing \(75\)"):
            mean_performance_under_corruption(frame)
        with pytest.raises(ValueError, match="expected corrupted cells in the model, got none"):
            mean_performance_under_corruption(frame, allow_partial=True)


@pytest.mark.parametrize("allow_partial", [False, True])
def test_no_performance_on_clean_images(allow_partial):
    with pytest.raises(CellError, match=r"clean `AP` 0 \(1\): clean: the rPC is undefined; report the mPC"):
        relative_performance_under_corruption(grid(clean=0.0), allow_partial=allow_partial)
    assert mean_performance_under_corruption(grid(clean=0.0)).value == pytest.approx(0.2)


def test_table_of_metrics():
    frame = grid().assign(AP50=lambda table: table.AP * 2)
    found = performance_table(frame, ["AP", "AP50"])
    assert found.metric.tolist() == ["AP", "AP50"]
    assert found[["P", "mPC", "rPC"]].to_numpy() == pytest.approx(np.array([[0.4, 0.2, 50], [0.8, 0.4, 50]]))
    assert found[["cells", "expected_cells"]].to_numpy().tolist() == [[75, 75]] * 2
    with pytest.raises(CellError, match=r"`APs` -1, COCO's mark for no ground truth of that size .*\(76\)"):
        performance_table(frame.assign(APs=-1.0), ["AP", "APs"])


def published(path, task):
    """A table of the raw results of the benchmark's authors, which repeat the clean row for every corruption."""
    raw = json.loads(path.read_text())
    rows = [
        ("clean" if severity == "0" else name, int(severity), *(cell[task][metric] for metric in METRICS))
        for name, severities in raw.items()
        for severity, cell in severities.items()
        if severity != "0" or name == "gaussian_noise"
    ]
    return pd.DataFrame(rows, columns=["corruption", "severity", *METRICS])


def test_coco_c_to_a_hundredth(shared_dir):
    folder = shared_dir / "data/published_results/detection_c"
    summary = pd.read_csv(folder / "summary_recomputed.csv")
    checked = 0
    for row in summary.itertuples():
        path = folder / row.file
        if not path.exists() or not row.file.startswith("coco/"):
            continue
        frame = published(path, row.metric.split()[0])
        found = relative_performance_under_corruption(frame)
        assert 100 * found.clean == pytest.approx(row.P_clean, abs=0.00501)
        assert 100 * mean_performance_under_corruption(frame).value == pytest.approx(row.mPC_first15, abs=0.00501)
        assert found.value == pytest.approx(row.rPC_percent, abs=0.00501)
        checked += 1
    assert checked >= 5


def test_the_published_run_of_faster_rcnn(shared_dir):
    """P, mPC and rPC of all metrics, as the design notes have them from the authors' results."""
    frame = published(shared_dir / "data/published_results/detection_c/coco/faster_rcnn_r50_fpn_1x_coco.json", "bbox")
    found = performance_table(frame).set_index("metric")[["P", "mPC", "rPC"]] * [100, 100, 1]
    expected = {
        "AP": (36.33, 18.20, 50.11),
        "AP50": (58.37, 31.37, 53.74),
        "AP75": (39.14, 18.56, 47.42),
        "APs": (21.20, 8.47, 39.95),
        "APm": (40.15, 19.87, 49.49),
        "APl": (46.73, 26.13, 55.90),
    }
    for metric, numbers in expected.items():
        assert found.loc[metric].tolist() == pytest.approx(numbers, abs=0.00501)
    assert 100 * mean_performance_under_corruption(frame, corruptions="all").value == pytest.approx(19.44, abs=0.00501)
    per_corruption = mean_performance_under_corruption(frame).by_corruption
    assert 100 * per_corruption["zoom_blur"] == pytest.approx(7.59, abs=0.00501)
    assert 100 * per_corruption["brightness"] == pytest.approx(32.17, abs=0.00501)
