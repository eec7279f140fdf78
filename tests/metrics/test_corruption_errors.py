"""mCE and its relatives against definitions and published numbers."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from metric_tables import grid

from dtn_det.corruptions.catalog import BENCHMARK, EXTRA, GROUPS, SEVERITIES
from dtn_det.metrics import (
    CellError,
    baseline_frame,
    corruption_error,
    mean_corruption_error,
    mean_error,
    relative_corruption_error,
    relative_mean_corruption_error,
)
from dtn_det.metrics.baselines import ALEXNET_ERRORS, ALEXNET_EXTRA_ERRORS, alexnet_errors


def errors(function, clean=0.3, **kwargs):
    return grid(function, clean, column="error", **kwargs)


@pytest.mark.parametrize("mean", [mean_corruption_error, relative_mean_corruption_error])
def test_alexnet_has_exactly_100(mean):
    found = mean(baseline_frame("alexnet"))
    assert found.value == 100
    assert set(found.by_corruption.values()) == {100}
    assert list(found.by_corruption) == list(BENCHMARK)
    assert found.by_group == dict.fromkeys(("noise", "blur", "weather", "digital"), 100)
    assert (found.cells, found.expected_cells, found.partial, found.label) == (75, 75, False, "")
    assert (found.baseline, found.clean) == ("alexnet", 0.43478)


@pytest.mark.parametrize("table", [corruption_error, relative_corruption_error])
def test_alexnet_has_exactly_100_of_each_corruption(table):
    found = table(baseline_frame("alexnet"))
    assert found.value.tolist() == [100] * 15
    assert found.corruption.tolist() == list(BENCHMARK)
    assert found.group.tolist() == [group for group in list(GROUPS)[:4] for _ in GROUPS[group]]
    assert (found.cells == 5).all()
    assert (found.expected_cells == 5).all()


def test_alexnet_is_the_published_table(shared_dir):
    published = json.loads((shared_dir / "data/published_results/alexnet_imagenet_c_errors.json").read_text())
    assert {name: list(row) for name, row in ALEXNET_ERRORS.items()} == published["errors"]
    for name, value in published["mean_error"].items():
        assert np.mean(ALEXNET_ERRORS[name]) == pytest.approx(value, abs=1e-9)
    assert mean_error(baseline_frame("alexnet")).value == pytest.approx(0.788993, abs=5e-7)


def test_ratio_of_sums_then_mean():
    """Not the mean of 75 ratios: on severities where the baseline is weak a model may differ."""
    base = errors(lambda cell: 0.1 * cell[1])
    model = errors(lambda cell: 0.5 if cell[1] == 1 else 0.2, clean=0.1)
    found = mean_corruption_error(model, base)
    assert found.value == pytest.approx(100 * (0.5 + 4 * 0.2) / 1.5)
    assert found.baseline == "table"
    assert relative_mean_corruption_error(
        model, base.assign(error=base.error.where(base.severity > 0, 0.05))
    ).value == (pytest.approx(100 * (0.4 + 4 * 0.1) / (1.5 - 5 * 0.05)))


def test_groups_are_means_of_their_corruptions():
    model = errors(lambda cell: 0.5 if cell[0] in GROUPS["noise"] else 0.25 if cell[0] == "fog" else 0.1)
    base = errors(0.5)
    assert mean_corruption_error(model, base).by_group == pytest.approx(
        {"noise": 100, "blur": 20, "weather": 27.5, "digital": 20}
    )
    assert mean_error(model).by_group == pytest.approx({"noise": 0.5, "blur": 0.1, "weather": 0.1375, "digital": 0.1})


def test_mean_error_by_severity_and_of_the_top_5():
    found = mean_error(errors(lambda cell: cell[1] / 10).rename(columns={"error": "top5_error"}), column="top5_error")
    assert found.metric == "mean top5 error"
    assert found.value == pytest.approx(0.3)
    assert found.by_severity == pytest.approx({severity: severity / 10 for severity in SEVERITIES})
    assert str(found) == "mean top5 error 0.3"


def test_the_extra_corruptions_never_mix_with_the_fifteen():
    frame = errors(lambda cell: 0.9 if cell[0] in EXTRA else 0.2, corruptions="all").iloc[::-1]
    base = errors(0.4, corruptions="all")
    assert mean_corruption_error(frame, base).value == pytest.approx(50)
    assert mean_corruption_error(frame, base).metric == "mCE"
    extra = mean_corruption_error(frame, base, corruptions="extra")
    assert (extra.metric, extra.value, extra.expected_cells) == ("mCE (4 extra)", pytest.approx(225), 20)
    both = mean_corruption_error(frame, base, corruptions="all")
    assert (both.metric, both.expected_cells) == ("mCE (15+4)", 95)
    assert both.value == pytest.approx((15 * 50 + 4 * 225) / 19)
    assert both.by_group["extra"] == pytest.approx(225)


def test_alexnet_on_the_extra_corruptions_is_known_as_a_mean():
    frame = errors(lambda cell: ALEXNET_EXTRA_ERRORS[cell[0]], corruptions="extra")
    assert mean_corruption_error(frame, corruptions="extra").value == pytest.approx(100)
    assert set(baseline_frame("alexnet").corruption) == {"clean", *BENCHMARK}
    with pytest.raises(CellError, match=r"AlexNet \(of the extra .* missing \(4\): spatter 1 2 3 4"):
        mean_corruption_error(frame.drop(index=15), corruptions="extra", allow_partial=True)
    assert alexnet_errors((("fog", 2), *((EXTRA[0], one) for one in SEVERITIES))).tolist() == [0.7605, *[0.845388] * 5]


def test_partial_is_labelled_and_nothing_is_filled_in():
    frame = baseline_frame("alexnet")
    frame = frame[(frame.severity == 0) | (frame.severity.isin((1, 3)) & (frame.corruption != "fog"))]
    with pytest.raises(CellError, match=r"missing \(47\)"):
        mean_corruption_error(frame)
    found = mean_corruption_error(frame, allow_partial=True)
    assert found.value == 100
    assert (found.partial, found.cells, found.expected_cells, found.label) == (True, 28, 75, "partial (28/75)")
    assert str(found) == "mCE 100 partial (28/75)"
    assert "fog" not in found.by_corruption
    assert relative_mean_corruption_error(frame, allow_partial=True).value == 100
    assert corruption_error(frame, allow_partial=True).cells.tolist() == [2] * 14


def test_a_baseline_without_the_cells():
    base = errors(0.5)
    base = base[(base.corruption != "fog") | (base.severity != 2)]
    with pytest.raises(CellError, match=r"each cell of the baseline, got missing \(1\): fog 2"):
        mean_corruption_error(errors(0.2), base)
    with pytest.raises(CellError, match=r"the baseline, got missing \(1\): clean"):
        relative_mean_corruption_error(errors(0.2), errors(0.5, clean=None))


def test_a_baseline_that_cannot_divide():
    with pytest.raises(
        CellError, match=r"the baseline makes no error there \(5\): fog 1 2 3 4 5: a ratio .* undefined"
    ):
        mean_corruption_error(errors(0.2), errors(lambda cell: 0.0 if cell[0] == "fog" else 0.5))
    with pytest.raises(CellError, match=r"the corruption does not harm the baseline \(5\): fog 1 2 3 4 5"):
        relative_mean_corruption_error(errors(0.2), errors(lambda cell: 0.2 if cell[0] == "fog" else 0.5, clean=0.2))


def test_a_baseline_of_other_images():
    with pytest.raises(ValueError, match="expected a baseline of the model's 50 images, got one of 40"):
        mean_corruption_error(errors(0.2, num_images=50), errors(0.5, num_images=40))
    assert mean_corruption_error(errors(0.2, num_images=50), errors(0.5)).num_images == 50


def test_unknown_baseline():
    for call in (lambda: mean_corruption_error(errors(0.2), "resnet"), lambda: baseline_frame("resnet")):
        with pytest.raises(ValueError, match="the name of a baseline out of alexnet, got 'resnet'"):
            call()
    with pytest.raises(ValueError, match="expected a table as the baseline of `top5_error`, got 'alexnet'"):
        mean_corruption_error(errors(0.2).rename(columns={"error": "top5_error"}), column="top5_error")


@given(st.lists(st.floats(0.01, 1), min_size=150, max_size=150), st.randoms(use_true_random=False))
def test_against_the_definition(values, random):
    model, base = np.array(values[:75]).reshape(15, 5), np.array(values[75:]).reshape(15, 5)
    frames = []
    for table in (model, base):
        rows = [
            (name, severity, table[row, severity - 1]) for row, name in enumerate(BENCHMARK) for severity in SEVERITIES
        ]
        random.shuffle(rows)
        frames.append(pd.DataFrame(rows, columns=["corruption", "severity", "error"]))
    expected = sum(100 * sum(model[row]) / sum(base[row]) for row in range(15)) / 15
    assert mean_corruption_error(*frames).value == pytest.approx(expected, rel=1e-12)


def robustbench(shared_dir):
    """Errors of the models of RobustBench, in a table each, and the numbers they print."""
    folder = shared_dir / "data/published_results/robustbench_imagenet"
    names, severities, *rows = csv.reader((folder / "unaggregated_results.csv").open())
    for model, *accuracies in rows:
        printed = json.loads((folder / f"{model}.json").read_text())
        frame = pd.DataFrame(
            {
                "corruption": names[1:],
                "severity": [int(one) for one in severities[1:]],
                "error": [1 - float(one) for one in accuracies],
            }
        )
        clean = pd.DataFrame(
            {"corruption": ["clean"], "severity": [0], "error": [1 - float(printed["clean_acc"]) / 100]}
        )
        yield model, pd.concat([frame, clean], ignore_index=True), printed


def test_robustbench_to_a_hundredth(shared_dir):
    models = {name: (frame, printed) for name, frame, printed in robustbench(shared_dir)}
    assert len(models) >= 3
    alexnet = models["AlexNet"][0]
    for frame, printed in models.values():
        found = mean_corruption_error(frame, alexnet)
        assert found.value == pytest.approx(float(printed["corruptions_mce"]), abs=0.00501)
        assert 100 * (1 - mean_error(frame).value) == pytest.approx(float(printed["corruptions_acc"]), abs=0.00501)
    # Against the published errors of AlexNet; the design notes state these.
    assert mean_corruption_error(models["Standard_R50"][0]).value == pytest.approx(76.37, abs=0.00501)
    assert relative_mean_corruption_error(models["Standard_R50"][0]).value == pytest.approx(106.3, abs=0.0501)
    assert relative_mean_corruption_error(models["Tian2022Deeper_DeiT-S"][0]).value == pytest.approx(50.6, abs=0.0501)


@pytest.mark.parametrize(("name", "mce"), [("clean", 76.70), ("Speckle", 68.33), ("ANT", 62.51)])
def test_game_of_noise_to_a_hundredth(shared_dir, name, mce):
    """They print the mean accuracy of each corruption, which stands here for that of each severity."""
    text = (shared_dir / f"data/published_results/game_of_noise/{name}_results.txt").read_text()
    printed = {
        corruption.lower().replace(" ", "_"): (float(accuracy), float(ce))
        for corruption, accuracy, ce in re.findall(r"^([\w ]+): Top1 accuracy ([\d.]+),.* CE: ([\d.]+)$", text, re.M)
    }
    assert set(printed) == set(BENCHMARK)
    found = mean_corruption_error(errors(lambda cell: 1 - printed[cell[0]][0] / 100))
    assert found.value == pytest.approx(mce, abs=0.00501)
    for corruption, (_, ce) in printed.items():
        rounding = 0.005 / np.mean(ALEXNET_ERRORS[corruption]) + 0.00501
        assert found.by_corruption[corruption] == pytest.approx(ce, abs=rounding)
