"""The bootstrap of classifiers: right centre, right width, right errors."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dtn_det.corruptions.catalog import SEVERITIES
from dtn_det.metrics import (
    CLEAN,
    CellError,
    all_cells,
    calibration_error_samples,
    classification_differences,
    classification_intervals,
    error_samples,
    expected_calibration_error,
    mean_corruption_error,
    mean_error,
    mean_samples,
    record_samples,
    relative_mean_corruption_error,
    resampling,
)
from dtn_det.metrics.resampling import image_counts, interval

CELLS = (CLEAN, *all_cells("benchmark"))


def records(images=200, seed=0, accuracy=0.6, cells=CELLS):
    """Correctness with images of different difficulty, so that the cells of an image depend on each other."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(size=(images, 1))
    harm = np.array([0.3 * severity for _, severity in cells])
    return rng.normal(size=(images, len(cells))) + ease - harm + stats.norm.ppf(accuracy) > 0


def samples(hits, cells=CELLS, **kwargs):
    return error_samples(hits, cells, range(len(hits)), **{"replicates": 200, **kwargs})


def table(hits, cells=CELLS):
    frame = pd.DataFrame(cells, columns=["corruption", "severity"])
    return frame.assign(error=1 - hits.mean(0))


def test_points_are_those_of_the_tables():
    model, base = records(seed=1), records(seed=2, accuracy=0.4)
    found = classification_intervals(samples(model), samples(base))
    for name, mean in (
        ("mCE", mean_corruption_error(table(model), table(base))),
        ("relative mCE", relative_mean_corruption_error(table(model), table(base))),
        ("mean error", mean_error(table(model))),
    ):
        assert found.get(name).value == pytest.approx(mean.value, rel=1e-12)
        for group, value in mean.by_group.items():
            assert found.get(name, group).value == pytest.approx(value, rel=1e-12)
        for severity, value in mean.by_severity.items():
            assert found.get(name, severity=severity).value == pytest.approx(value, rel=1e-12)
    ces = mean_corruption_error(table(model), table(base)).by_corruption
    assert {key.scope: value.value for key, value in found.entries.items() if key.name == "CE"} == pytest.approx(ces)
    assert found.get("error", "fog", 3).value == pytest.approx(1 - model[:, CELLS.index(("fog", 3))].mean())
    assert found.get("error", "clean").value == pytest.approx(1 - model[:, 0].mean())
    against_alexnet = classification_intervals(samples(model))
    assert against_alexnet.get("mCE").value == pytest.approx(mean_corruption_error(table(model)).value, rel=1e-12)
    assert all(entry.low <= entry.value <= entry.high for entry in found.entries.values())
    assert (found.cells, found.expected_cells, found.num_images, found.partial, found.label) == (75, 75, 200, False, "")


def test_replicates_are_those_of_resampled_images():
    model, base = records(60, seed=1), records(60, seed=2)
    ours, theirs = samples(model, replicates=7, seed=3), samples(base, replicates=7, seed=3)
    (counts,) = image_counts(60, 7, 3, 7)
    assert (counts.sum(1) == 60).all()
    values = []
    for row in counts:
        drawn = np.repeat(np.arange(60), row)
        values.append(mean_corruption_error(table(model[drawn]), table(base[drawn])).value)
    found = classification_intervals(ours, theirs, relative=False, level=0.5)
    expected = interval(0, np.array(values), 0.5)
    assert found.get("mCE").low == pytest.approx(expected.low)
    assert found.get("mCE").high == pytest.approx(expected.high)


def test_seed_and_chunks():
    chunks = [np.concatenate(list(image_counts(50, 20, 1, chunk))) for chunk in (1, 7, 20)]
    assert all(np.array_equal(chunk, chunks[0]) for chunk in chunks)
    assert np.array_equal(chunks[0][:5], np.concatenate(list(image_counts(50, 5, 1, 5))))
    one = samples(records())
    assert np.array_equal(one.values, samples(records()).values)
    assert not np.array_equal(one.values, samples(records(), seed=1).values)


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    cells, truth, trials = (("fog", 1), ("fog", 2)), 0.3, 400
    covered = 0
    for trial in range(trials):
        drawn = samples(rng.random((150, 2)) > truth, cells, seed=trial, replicates=400)
        found = classification_intervals(drawn, None, allow_partial=True)
        covered += sum(entry.low <= truth <= entry.high for key, entry in found.entries.items() if key.name == "error")
    low, high = stats.binom.interval(0.999, 2 * trials, 0.95)
    assert low <= covered <= high


def test_the_paired_test_has_its_size_and_power():
    rng = np.random.default_rng(0)
    cells = tuple(("fog", severity) for severity in SEVERITIES)
    trials, rejected, found_shift, unpaired_wider = 300, 0, 0, 0
    for trial in range(trials):
        ease = rng.normal(size=(200, 1))
        first, second, better = (ease + rng.normal(size=(200, 5)) + shift > 0 for shift in (0, 0, 0.3))
        kwargs = {"seed": trial, "replicates": 300}
        one, other, third = (samples(hits, cells, **kwargs) for hits in (first, second, better))
        same = classification_differences(one, other, None, allow_partial=True).get("mean error")
        shifted = classification_differences(one, third, None, allow_partial=True).get("mean error")
        rejected += same.p_value < 0.05
        found_shift += shifted.p_value < 0.05 and shifted.value < 0
        alone = classification_intervals(one, None, allow_partial=True).get("mean error")
        unpaired_wider += (alone.high - alone.low) * np.sqrt(2) > same.high - same.low
        assert (same.p_value < 0.04) <= (same.low > 0 or same.high < 0)
    low, high = stats.binom.interval(0.999, trials, 0.05)
    assert low <= rejected <= high
    assert found_shift > 0.9 * trials
    assert unpaired_wider > 0.95 * trials


def test_a_model_does_not_differ_from_itself():
    model = samples(records())
    for entry in classification_differences(model, model).entries.values():
        assert (entry.value, entry.low, entry.high, entry.p_value) == (0, 0, 0, 1)


def test_the_sign_is_second_minus_first():
    worse, better = records(accuracy=0.3), records(accuracy=0.8)
    found = classification_differences(samples(worse), samples(better))
    assert found.get("mCE").high < 0
    assert found.get("mCE").p_value == pytest.approx(2 / 201)
    expected = mean_corruption_error(table(better)).value - mean_corruption_error(table(worse)).value
    assert found.get("mCE").value == pytest.approx(expected)


def test_a_model_is_its_own_baseline_on_every_replicate():
    model = samples(records(1000))
    found = classification_intervals(model, model)
    for name in ("mCE", "relative mCE"):
        assert found.get(name).low == pytest.approx(100, abs=1e-9)
        assert found.get(name).high == pytest.approx(100, abs=1e-9)


def test_partial_is_labelled():
    cells = (CLEAN, *(("fog", severity) for severity in SEVERITIES))
    model = samples(records(cells=cells), cells)
    with pytest.raises(CellError, match=r"missing \(70\): gaussian_noise"):
        classification_intervals(model)
    found = classification_intervals(model, allow_partial=True)
    assert (found.partial, found.label) == (True, "partial (5/75)")
    frame = found.to_frame()
    assert list(frame.columns) == ["name", "scope", "severity", "value", "low", "high", "replicates"]
    assert frame.iloc[0].to_dict()["scope"] == "fog"
    with pytest.raises(CellError, match=r"missing \(20\)"):
        classification_intervals(model, corruptions="extra", allow_partial=True)


def test_numbers_of_images_other_than_errors():
    rng = np.random.default_rng(0)
    losses = rng.exponential(size=(50, len(CELLS)))
    drawn = mean_samples({"nll": losses}, CELLS, range(50), replicates=9)["nll"]
    (counts,) = image_counts(50, 9, 0, 9)
    assert drawn.values == pytest.approx(np.stack([losses[np.repeat(np.arange(50), row)].mean(0) for row in counts]))
    found = classification_intervals(drawn, None)
    assert found.get("mean nll").value == pytest.approx(losses[:, 1:].mean())
    together = mean_samples({"brier": losses + 1e4, "nll": losses}, CELLS, range(50), replicates=9)
    assert together["nll"].values == pytest.approx(drawn.values)
    assert together["brier"].values - 1e4 == pytest.approx(drawn.values, rel=1e-6)

    confidence, hits = rng.random((50, len(CELLS))), rng.random((50, len(CELLS))) > 0.5
    drawn = calibration_error_samples(confidence, hits, CELLS, range(50), replicates=9)
    assert drawn.point[3] == pytest.approx(expected_calibration_error(confidence[:, 3], hits[:, 3]))
    rows = np.repeat(np.arange(50), counts[4])
    assert drawn.values[4, 7] == pytest.approx(expected_calibration_error(confidence[rows, 7], hits[rows, 7]))


def test_memory_at_the_size_of_imagenet():
    hits = np.random.default_rng(0).random((50_000, 95), dtype=np.float32) > 0.5
    tracemalloc.start()
    try:
        error_samples(hits, all_cells("all"), range(50_000), replicates=128)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 150e6


def test_errors_of_records():
    hits = records(10)
    with pytest.raises(ValueError, match="expected an array of booleans, got int64: compare predictions with labels"):
        samples(hits.astype(int))
    with pytest.raises(ValueError, match=r"expected an array of 10 images x 75 cells .* got \(10, 76\)"):
        samples(hits, CELLS[1:])
    with pytest.raises(ValueError, match=r"0 images x 76 cells \(at least one each\), got \(0, 76\)"):
        samples(hits[:0])
    with pytest.raises(ValueError, match="expected each image once, got one twice: drop the copies"):
        error_samples(hits, CELLS, [0] * 10)
    with pytest.raises(ValueError, match=r"\('clean', 0\), each once, got unknown: haze 1; twice: fog 1"):
        samples(hits[:, :3], (("fog", 1), ("fog", 1), ("haze", 1)))
    with pytest.raises(ValueError, match="each once, got none"):
        samples(hits[:, :0], ())
    with pytest.raises(ValueError, match="expected finite values of `nll`, got NaN or infinity"):
        mean_samples({"nll": np.full((10, len(CELLS)), np.nan)}, CELLS, range(10))
    with pytest.raises(ValueError, match=r"expected `confidence` in \[0, 1\], got 2.0"):
        calibration_error_samples(np.full((10, len(CELLS)), 2.0), hits, CELLS, range(10))
    with pytest.raises(ValueError, match="expected `correct` to be 0 or 1, got nan"):
        calibration_error_samples(hits * 0.5, hits * np.nan, CELLS, range(10))
    with pytest.raises(ValueError, match="expected at least one bin, got -1"):
        calibration_error_samples(hits * 0.5, hits, CELLS, range(10), bins=-1)


def test_a_confidence_that_rounding_took_past_1_is_one_everywhere():
    hits = records(10)
    confidence = np.full(hits.shape, 1 + 1e-7)
    found = calibration_error_samples(confidence, hits, CELLS, range(10), replicates=2)
    assert found.point == pytest.approx(1 - hits.mean(0), abs=1e-6)


@pytest.mark.parametrize("cell", [("fog",), ("fog", 1, 1), "fog", ("fog", True), ("fog", "1"), ("fog", None), 3])
def test_what_is_no_cell(cell):
    with pytest.raises(ValueError, match=r"severities 1 to 5, and .* got unknown: "):
        samples(records(10)[:, :2], [("snow", 1), cell])


def test_cells_of_other_types_are_the_same_cells():
    found = samples(records(10)[:, :2], [["fog", np.int8(2)], ("snow", 1.0)])
    assert found.cells == (("fog", 2), ("snow", 1))
    assert [type(severity) for _, severity in found.cells] == [int, int]


def test_the_order_of_the_cells_does_not_matter():
    hits = records(10)
    backwards = classification_intervals(samples(hits[:, ::-1], CELLS[::-1]))
    assert backwards.entries == classification_intervals(samples(hits)).entries


@pytest.mark.parametrize("change", [{"replicates": 0}, {"seed": -1}])
def test_errors_of_draws(change):
    with pytest.raises(ValueError, match="at least one image, one replicate and a seed of at least 0, got 10, "):
        samples(records(10), **change)
    with pytest.raises(ValueError, match=r"expected a level between 0 and 1, such as 0\.95, got 95"):
        classification_intervals(samples(records(10)), level=95)
    with pytest.raises(ValueError, match="expected a replicate on which the number is defined, got none"):
        interval(1.0, np.full(4, np.nan))


def test_models_that_cannot_be_paired():
    model = samples(records(10))
    for other, message in (
        (samples(records(12)), "the same num_images to pair them, got 10 and 12: evaluate both on the same images"),
        (samples(records(10), seed=1), "the same seed to pair them, got 0 and 1: draw both alike"),
        (samples(records(10), metric="top5_error"), "the same metric to pair them, got error and top5_error"),
        (samples(records(10), replicates=100), "as many replicates of both models, got 200 and 100"),
        (error_samples(records(10), CELLS, range(1, 11), replicates=200), "the same images to pair them, got .*order"),
    ):
        with pytest.raises(ValueError, match=message):
            classification_differences(model, other)
        with pytest.raises(ValueError, match=message):
            classification_intervals(model, other)
    fewer = dataclasses.replace(model, cells=CELLS[:-1], point=model.point[:-1], values=model.values[:, :-1])
    with pytest.raises(CellError, match=r"the second model, got missing \(1\): jpeg_compression 5"):
        classification_differences(model, fewer)
    with pytest.raises(CellError, match=r"the first model, got missing \(1\): jpeg_compression 5"):
        classification_differences(fewer, model)
    with pytest.raises(CellError, match=r"the baseline, got missing \(1\): jpeg_compression 5"):
        classification_intervals(model, fewer)


def test_baselines_that_do_not_work():
    model = samples(records(10))
    with pytest.raises(ValueError, match="expected samples or a baseline out of alexnet, got 'resnet'"):
        classification_intervals(model, "resnet")
    table = pd.DataFrame({"corruption": [], "severity": [], "error": []})
    with pytest.raises(ValueError, match="expected samples or a baseline out of alexnet, got DataFrame"):
        classification_intervals(model, table)
    for call in (lambda: classification_intervals(table), lambda: classification_differences(model, table)):
        with pytest.raises(ValueError, match=r"expected samples as error_samples .* got DataFrame: an interval needs"):
            call()
    with pytest.raises(
        ValueError, match="expected top-1 errors to divide by a baseline, got `ece`: pass baseline=None"
    ):
        classification_intervals(dataclasses.replace(model, metric="ece"))
    perfect = samples(np.ones((10, len(CELLS)), dtype=bool))
    with pytest.raises(CellError, match=r"the baseline makes no error there \(75\)"):
        classification_intervals(model, perfect)
    hopeless = samples(np.zeros((10, len(CELLS)), dtype=bool))
    with pytest.raises(CellError, match=r"no harm to the baseline \(relative=False leaves this out\) \(75\)"):
        classification_intervals(model, hopeless)
    assert classification_intervals(model, hopeless, relative=False).get("mCE").value < 100


def test_the_relative_numbers_need_the_clean_cell():
    model = samples(records(10)[:, 1:], CELLS[1:])
    message = r"missing \(or leave the relative mCE out with relative=False\) \(1\): clean"
    with pytest.raises(CellError, match=message):
        classification_intervals(model)
    found = classification_intervals(model, relative=False)
    with pytest.raises(KeyError, match="expected a number out of error, mean error, CE, mCE with a scope it has, got "):
        found.get("relative mCE")
    with pytest.raises(CellError, match=r"the baseline, got missing \(1\): clean"):
        classification_intervals(samples(records(10)), model)


@pytest.mark.parametrize("most", [0, 2**28])
def test_weights_are_the_counts_whether_kept_or_not(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(resampling, "_KEPT_NUMBERS", most)
    monkeypatch.setattr(resampling, "_CHUNK", 4)
    resampling._kept_counts.cache_clear()
    (wanted,) = image_counts(30, 11, 5, 11)
    assert np.array_equal(np.concatenate([chunk.copy() for chunk in resampling.weights(30, 11, 5)]), wanted)
    # One image that is drawn more often than a byte holds.
    monkeypatch.setattr(resampling, "image_counts", lambda *_: iter([np.array([[300, 0]]), np.array([[1, 299]])]))
    resampling._kept_counts.cache_clear()
    assert np.concatenate([chunk.copy() for chunk in resampling.weights(2, 2, 0)]).tolist() == [[300, 0], [1, 299]]
    resampling._kept_counts.cache_clear()


def test_many_images_have_the_intervals_that_float64_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    confidence = rng.random((3000, len(CELLS)))
    hits = rng.random(confidence.shape) < confidence
    found = []
    for many in (10**9, 0):
        monkeypatch.setattr(record_samples, "_MANY", many)
        found.append(
            (
                calibration_error_samples(confidence, hits, CELLS, range(3000), replicates=40).values,
                mean_samples({"nll": -np.log(confidence)}, CELLS, range(3000), replicates=40)["nll"].values,
            )
        )
    for precise, quick in zip(*found, strict=True):
        np.testing.assert_allclose(quick, precise, rtol=1e-5)
        assert not np.array_equal(quick, precise)
