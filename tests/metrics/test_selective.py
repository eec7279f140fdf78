"""Selective classification and adaptive ECE: held against their definitions, term by term."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtn_det.corruptions.cells import Cell
from dtn_det.errors import InputError
from dtn_det.metrics.resampling import image_counts
from dtn_det.metrics.selective import METRICS, selective_metrics, selective_samples

CELLS = (Cell("clean", 0), Cell("fog", 3))
EXPECTED = [0.23033568807, 0.13682160804, 0.01, 0.30625, 0.04125]


def area(heights: np.ndarray, places: np.ndarray) -> float:
    """The mean height of a curve, by trapezoids."""
    return float((np.diff(places) * (heights[1:] + heights[:-1]) / 2).sum() / (places[-1] - places[0]))


def by_definition(confidence: list[float], correct: list[bool], risk: float = 0.05, coverage: float = 0.8) -> dict:
    """The curves written out for confidences that differ."""
    order = np.argsort(-np.array(confidence))
    errors = 1.0 - np.array(correct, float)[order]
    ranks = np.arange(1, len(errors) + 1)
    risks, coverages = errors.cumsum() / ranks, ranks / len(ranks)
    within = [one for one, at in zip(coverages, risks, strict=True) if at <= risk]
    scores = np.sort(confidence)
    hits = np.array(correct, float)[order][::-1]
    parts = zip(np.array_split(hits, 15), np.array_split(scores, 15), strict=True)
    return {
        "aurc": area(risks, coverages),
        "augrc": area(risks * coverages, coverages),
        "coverage_at_risk": max(within, default=0.0),
        "risk_at_coverage": risks[int(np.ceil(coverage * len(ranks) - 1e-9)) - 1],
        "adaptive_ece": sum(abs(hit.sum() - score.sum()) for hit, score in parts) / len(ranks),
    }


@given(st.integers(2, 60), st.integers(0, 10**6), st.floats(0.0, 1.0))
def test_the_values_are_those_of_the_curves(size: int, seed: int, risk: float) -> None:
    draw = np.random.default_rng(seed)
    confidence = draw.permutation(np.linspace(0.1, 1.0, size))
    correct = draw.random(size) < confidence
    found = selective_metrics(confidence, correct, risk=risk)
    assert found == pytest.approx(by_definition(confidence, correct, risk), abs=1e-12)


def test_values_of_torch_uncertainty() -> None:
    """Made with torch-uncertainty 0.13.0: AURC, AUGRC, CovAt5Risk, RiskAt80Cov, AdaptiveCalibrationError(15 bins)."""
    confidence = 0.3 + 0.7 * np.arange(200) / 200
    correct = np.arange(200) * 7 % 10 < 4 + np.arange(200) // 35
    found = selective_metrics(confidence, correct)
    assert [found[name] for name in METRICS] == pytest.approx(EXPECTED, abs=1e-6)


def test_equal_confidences_count_as_the_mean_over_their_orders() -> None:
    confidence, correct = np.array([0.9, 0.7, 0.7, 0.7, 0.2]), np.array([True, False, True, True, False])
    tied = selective_metrics(confidence, correct, coverage=0.6)
    orders = [
        by_definition([0.9, 0.703, 0.702, 0.701, 0.2], [True, *(correct[list(order)]), False], coverage=0.6)
        for order in itertools.permutations((1, 2, 3))
    ]
    for metric in ("aurc", "augrc", "risk_at_coverage"):
        assert tied[metric] == pytest.approx(np.mean([order[metric] for order in orders]), abs=1e-12)
    again = selective_metrics(confidence[[3, 0, 4, 2, 1]], correct[[3, 0, 4, 2, 1]], coverage=0.6)
    assert again == pytest.approx(tied, abs=1e-15)


def test_a_model_that_is_always_wrong_answers_nothing_at_a_risk() -> None:
    found = selective_metrics([0.9, 0.8, 0.7], [False, False, False])
    assert found == pytest.approx(
        {"aurc": 1.0, "augrc": 2 / 3, "coverage_at_risk": 0.0, "risk_at_coverage": 1.0, "adaptive_ece": 0.8}
    )


def test_replicates_are_the_metrics_of_the_drawn_images() -> None:
    draw = np.random.default_rng(0)
    confidence = draw.choice([0.2, 0.5, 0.6, 0.9, 1.0], (40, 2))
    correct = draw.random((40, 2)) < confidence
    samples = selective_samples(confidence, correct, CELLS, range(40), replicates=6, seed=3)
    (counts,) = image_counts(40, 6, 3, 6)
    for metric in METRICS:
        assert samples[metric].cells == CELLS
        for cell in range(2):
            whole = selective_metrics(confidence[:, cell], correct[:, cell])
            assert samples[metric].point[cell] == pytest.approx(whole[metric], abs=1e-12)
            for replicate, count in enumerate(counts):
                images = np.repeat(np.arange(40), count)
                drawn = selective_metrics(confidence[images, cell], correct[images, cell])
                assert samples[metric].values[replicate, cell] == pytest.approx(drawn[metric], abs=1e-12)


def test_faulty_input_is_refused() -> None:
    with pytest.raises(InputError, match="expected the confidences of at least two images"):
        selective_metrics([0.5], [True])
    with pytest.raises(InputError, match="expected a risk from 0 to 1 and a coverage above 0"):
        selective_metrics([0.5, 0.6], [True, True], coverage=0.0)
    with pytest.raises(InputError, match="expected at least one bin"):
        selective_metrics([0.5, 0.6], [True, True], bins=0)
    with pytest.raises(InputError, match=r"expected an array of 3 images \(at least two\) x 2 cells"):
        selective_samples(np.ones((3, 1)), np.ones((3, 1)), CELLS, range(3))
    with pytest.raises(InputError, match="expected each image once"):
        selective_samples(np.ones((2, 2)), np.ones((2, 2)), CELLS, [1, 1])
