"""Calibration errors against definitions on full distributions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtn_det.metrics import all_cells, calibration, expected_calibration_error, mean_error, reliability
from dtn_det.metrics.calibration import bin_of, brier_scores, log_losses


def distributions(seed, images=200, classes=7):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(images, classes)) * 2
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return probability, rng.integers(classes, size=images)


def record(probability, labels):
    return {
        "confidence": probability.max(1),
        "correct": probability.argmax(1) == labels,
        "true_probability": probability[np.arange(len(labels)), labels],
        "squared_norm": (probability**2).sum(1),
    }


@given(st.integers(0, 2**32 - 1))
def test_against_the_definitions(seed):
    probability, labels = distributions(seed)
    columns = record(probability, labels)
    one_hot = np.eye(probability.shape[1])[labels]
    assert brier_scores(columns["true_probability"], columns["squared_norm"]) == pytest.approx(
        ((probability - one_hot) ** 2).sum(1)
    )
    assert log_losses(columns["true_probability"]) == pytest.approx(-np.log((probability * one_hot).sum(1)))
    gap = 0.0
    for number in range(15):
        low, high = number / 15, (number + 1) / 15
        inside = (columns["confidence"] > low) & (columns["confidence"] <= high)
        if inside.any():
            gap += inside.mean() * abs(columns["correct"][inside].mean() - columns["confidence"][inside].mean())
    assert expected_calibration_error(columns["confidence"], columns["correct"]) == pytest.approx(gap)


def test_reliability_diagram():
    found = reliability([0.05, 0.45, 0.5, 1.0, 0.9, 0.0], [0, 1, 0, 1, 1, 1], bins=4)
    assert found.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert found.counts.tolist() == [2, 2, 0, 2]
    assert found.accuracy == pytest.approx([0.5, 0.5, np.nan, 1], nan_ok=True)
    assert found.confidence == pytest.approx([0.025, 0.475, np.nan, 0.95], nan_ok=True)
    assert found.expected_calibration_error == pytest.approx((2 * 0.475 + 2 * 0.025 + 2 * 0.05) / 6)


def test_an_edge_belongs_to_the_bin_below():
    edges = np.linspace(0, 1, 16)
    assert bin_of(edges).tolist() == [0, *range(15)]
    assert bin_of(np.nextafter(edges[:-1], 2)).tolist() == list(range(15))


def test_perfect_and_wrong():
    assert expected_calibration_error([1.0, 1.0], [1, 1]) == 0
    assert expected_calibration_error([1.0, 1.0], [0, 0]) == 1
    assert brier_scores([1.0, 0.0], [1.0, 1.0]).tolist() == [0, 2]
    assert log_losses([1.0, 0.0]) == pytest.approx([0, 87.3365], abs=1e-3)


def test_by_cell_and_its_mean():
    parts = []
    for number, (corruption, severity) in enumerate(all_cells("benchmark")):
        columns = record(*distributions(number, images=30))
        parts.append(pd.DataFrame({"corruption": corruption, "severity": severity, **columns}))
    found = calibration(pd.concat(parts))
    assert list(zip(found.corruption, found.severity, strict=True)) == list(all_cells("benchmark"))
    assert (found.num_images == 30).all()
    first = parts[0]
    assert found.ece[0] == expected_calibration_error(first.confidence, first.correct)
    assert found.error[0] == pytest.approx(1 - first.correct.mean())
    assert mean_error(found, column="nll", at_most=None).value == pytest.approx(found.nll.mean())
    assert mean_error(found, column="brier", at_most=2).metric == "mean brier"
    assert mean_error(found, column="brier", at_most=2).value == pytest.approx(found.brier.mean())


def test_errors():
    with pytest.raises(ValueError, match=r"one confidence and one `correct` .* got arrays of shapes \(2,\) and \(1,\)"):
        reliability([0.1, 0.2], [1])
    with pytest.raises(ValueError, match="of at least one image, got"):
        reliability([], [])
    with pytest.raises(
        ValueError, match=r"expected `confidence` in \[0, 1\], got 3.0: store probabilities after softmax"
    ):
        reliability([3.0], [1])
    with pytest.raises(ValueError, match=r"expected `confidence` in \[0, 1\], got nan"):
        reliability([np.nan], [1])
    with pytest.raises(ValueError, match="expected `correct` to be 0 or 1, got 7"):
        reliability([0.5], [7])
    with pytest.raises(ValueError, match="expected at least one bin, got 0"):
        reliability([0.5], [1], bins=0)
    with pytest.raises(ValueError, match="expected `true_probability` in"):
        log_losses([-0.1])
    with pytest.raises(ValueError, match="expected `squared_norm` in"):
        brier_scores([0.1], [1.1])
    with pytest.raises(ValueError, match=r"as many `squared_norm` as `true_probability`, got \(1,\) and \(2,\)"):
        brier_scores([0.1, 0.2], [0.1])


@pytest.mark.parametrize("values", [["a"], [1j], [[0.5], [0.5, 0.5]], [np.datetime64("2020")], ["0.5", "0.6"]])
def test_what_is_no_number(values):
    with pytest.raises(ValueError, match=r"expected `confidence` to be an array of numbers, got .*: convert it"):
        expected_calibration_error(values, [1])


@pytest.mark.parametrize("column", ["corruption", "severity"])
def test_records_without_a_cell_are_not_dropped(column):
    columns = record(*distributions(0, images=10))
    frame = pd.DataFrame({"corruption": "fog", "severity": 3, **columns}).astype({column: object})
    frame.loc[[2, 5], column] = None
    with pytest.raises(ValueError, match="expected a corruption and a severity in every record, got none in 2"):
        calibration(frame)


def test_missing_answers_are_told():
    columns = record(*distributions(0, images=10))
    frame = pd.DataFrame({"corruption": "fog", "severity": 3, **columns}).astype({"correct": "boolean"})
    frame.loc[4, "correct"] = pd.NA
    with pytest.raises(ValueError, match="fog 3: expected `correct` to be 0 or 1, got nan"):
        calibration(frame)
    with pytest.raises(ValueError, match="expected a pandas DataFrame as the records, got list"):
        calibration([])


def test_errors_of_a_table_name_column_or_cell():
    frame = pd.DataFrame({"corruption": ["fog"], "severity": [3], **record(*distributions(0, images=1))})
    with pytest.raises(ValueError, match=r"expected the columns .* got .*: add squared_norm$"):
        calibration(frame.drop(columns="squared_norm"))
    with pytest.raises(ValueError, match=r"fog 3: expected `confidence` in \[0, 1\], got 50.0"):
        calibration(frame.assign(confidence=50.0))
