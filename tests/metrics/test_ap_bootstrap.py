"""The AP of resampled images against the evaluation of data sets in which images are copied."""

from __future__ import annotations

import dataclasses
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from coco_sets import LIBRARIES, evaluated, random_set, stats, with_copies
from hypothesis import given
from hypothesis import strategies as st

from dtn_det.metrics import (
    CLEAN,
    METRICS,
    CellError,
    all_cells,
    ap_samples,
    average_precision,
    detection_differences,
    detection_intervals,
    matches_from_evaluator,
)
from dtn_det.metrics.ap_samples import category_average_precision
from dtn_det.metrics.resampling import image_counts

CELLS = (CLEAN, *all_cells("benchmark"))
SEEDS = st.integers(0, 2**32 - 1)


def same(found, expected):
    return np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("library", LIBRARIES)
@given(seed=SEEDS, tied=st.booleans(), images=st.integers(1, 12))
def test_all_images_give_the_ap_of_the_library(library, seed, tied, images):
    truth, found = random_set(seed, images, tied=tied)
    if truth["annotations"] and found:
        evaluator = evaluated(truth, found, library)
        same(average_precision(matches_from_evaluator(evaluator)), stats(evaluator))


def test_few_replicates_at_once_give_the_same(monkeypatch):
    matches = matches_from_evaluator(evaluated(*random_set(4)))
    counts = np.concatenate(list(image_counts(12, 10, 0, 10)))
    expected = average_precision(matches, counts)
    # The package has a function of the same name as the module.
    module = sys.modules[category_average_precision.__module__]
    monkeypatch.setattr(module, "_MOST_NUMBERS", 3 * int(np.diff(matches.match_starts).max()))
    np.testing.assert_array_equal(average_precision(matches, counts), expected)


def test_the_ap_of_each_category():
    evaluator = evaluated(*random_set(3))
    precision = evaluator.eval["precision"][:, :, :, 0, -1]
    expected = np.where((precision < 0).all((0, 1)), np.nan, precision.mean((0, 1)))
    matches = matches_from_evaluator(evaluator)
    same(category_average_precision(matches), expected)
    assert np.isnan(expected[2])
    weights = np.stack([np.ones(12, int), np.arange(12)])
    found = category_average_precision(matches, weights)
    same(found[0], expected)
    same(np.nanmean(found, axis=1), average_precision(matches, weights, ["AP"])[:, 0])


@given(seed=SEEDS, tied=st.booleans(), data=st.data())
def test_weights_are_copies(seed, tied, data):
    truth, found = random_set(seed, 8, tied=tied)
    weights = data.draw(st.lists(st.integers(0, 4), min_size=8, max_size=8))
    copied_truth, copied = with_copies(truth, found, weights)
    if copied_truth["annotations"] and copied:
        matches = matches_from_evaluator(evaluated(truth, found))
        same(average_precision(matches, np.array(weights)), stats(evaluated(copied_truth, copied)))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(("kind", "name"), [("bbox", "fakebbox100"), ("segm", "fakesegm100")])
def test_cocos_own_example(shared_dir, library, kind, name):
    folder = shared_dir / "data/published_results/coco_eval_fakebbox100"
    found = json.loads((folder / f"instances_val2014_{name}_results.json").read_text())
    images = sorted({one["image_id"] for one in found})
    evaluator = evaluated(folder / "instances_val2014_100.json", found, library, kind, images)
    matches = matches_from_evaluator(evaluator)
    same(average_precision(matches), stats(evaluator))
    if library == "pycocotools" and kind == "bbox":
        # Its scores have three digits; equal ones within an image would come in another order in a copied set.
        for place, one in enumerate(found):
            one["score"] -= 1e-9 * place
        matches = matches_from_evaluator(evaluated(folder / "instances_val2014_100.json", found, library, kind, images))
        weights = next(image_counts(len(images), 1, 0, 1))[0]
        truth = json.loads((folder / "instances_val2014_100.json").read_text())
        truth["images"] = sorted((one for one in truth["images"] if one["id"] in images), key=lambda one: one["id"])
        truth["annotations"] = [one for one in truth["annotations"] if one["image_id"] in images]
        same(average_precision(matches, weights), stats(evaluated(*with_copies(truth, found, weights))))


def test_no_more_than_a_hundred_detections_of_a_category():
    truth, found = random_set(0, 3)
    rng = np.random.default_rng(0)
    found += [
        {"image_id": 1, "category_id": 1, "bbox": [*rng.uniform(5, 150, 4).tolist()], "score": float(rng.random())}
        for _ in range(150)
    ]
    evaluator = evaluated(truth, found)
    matches = matches_from_evaluator(evaluator)
    assert (matches.image[: matches.starts[1]] == 0).sum() == 100
    same(average_precision(matches), stats(evaluator))


def test_metrics_one_by_one():
    matches = matches_from_evaluator(evaluated(*random_set(1)))
    weights = np.stack([np.ones(12, dtype=int), np.arange(12)])
    together = average_precision(matches, weights)
    assert together.shape == (2, 6)
    for index, metric in enumerate(METRICS):
        same(average_precision(matches, weights, [metric])[:, 0], together[:, index])


def cells_of(quality, images=12, seed=5):
    """Matches of every cell; a model of higher quality loses fewer of its detections under corruption."""
    truth, found = random_set(seed, images, per_image=10)
    rng = np.random.default_rng(0)
    luck = rng.random(len(found))
    by_severity = []
    for severity in range(6):
        kept = [one for one, chance in zip(found, luck, strict=True) if chance < quality - 0.1 * severity]
        by_severity.append(matches_from_evaluator(evaluated(truth, kept, "faster-coco-eval")))
    return [(cell, by_severity[cell[1]]) for cell in CELLS]


@pytest.fixture(scope="module")
def two_models():
    return [ap_samples(iter(cells_of(quality)), ["AP", "AP50"], replicates=100) for quality in (0.7, 0.95)]


def test_samples_are_weighted_evaluations(two_models):
    cells = cells_of(0.7)
    counts = np.concatenate(list(image_counts(12, 100, 0, 100)))
    same(two_models[0]["AP50"].values[:, 4], average_precision(cells[4][1], counts, ["AP50"])[:, 0])
    same(two_models[0]["AP"].point[0], average_precision(cells[0][1], None, ["AP"])[0])
    again = ap_samples(cells, ["AP", "AP50"], replicates=100)
    assert np.array_equal(again["AP"].values, two_models[0]["AP"].values)
    assert not np.array_equal(ap_samples(cells, ["AP"], replicates=100, seed=1)["AP"].values, again["AP"].values)


def test_intervals_of_a_detector(two_models):
    model = two_models[0]["AP50"]
    found = detection_intervals(model)
    mean = model.point[1:].reshape(15, 5).mean()
    assert found.get("mPC AP50").value == pytest.approx(mean)
    assert found.get("P AP50").value == model.point[0]
    assert found.get("rPC AP50").value == pytest.approx(100 * mean / model.point[0])
    assert found.get("mPC AP50", "weather").value == pytest.approx(mean)
    assert found.get("rPC AP50", "fog").value == pytest.approx(100 * mean / model.point[0])
    assert found.get("AP50", "fog", 2).value == model.point[CELLS.index(("fog", 2))]
    ratios = 100 * model.values[:, 1:].mean(1) / model.values[:, 0]
    assert found.get("rPC AP50").low == pytest.approx(np.quantile(ratios, 0.025))
    assert found.get("rPC AP50").high == pytest.approx(np.quantile(ratios, 0.975))
    assert found.get("AP50", "clean").low < found.get("AP50", "clean").value < found.get("AP50", "clean").high


def test_differences_of_two_detectors(two_models):
    worse, better = (model["AP"] for model in two_models)
    found = detection_differences(worse, better)
    assert found.get("mPC AP").value == pytest.approx(better.point[1:].mean() - worse.point[1:].mean())
    assert found.get("mPC AP").low > 0
    assert found.get("mPC AP").p_value == pytest.approx(2 / 101)
    nothing = detection_differences(worse, worse)
    assert all((one.value, one.p_value) == (0, 1) for one in nothing.entries.values())
    assert {key.name for key in nothing.entries} == {"AP", "P AP", "mPC AP", "rPC AP"}
    with pytest.raises(ValueError, match="same metric to pair them, got AP and AP50"):
        detection_differences(worse, two_models[0]["AP50"])


def test_partial_results(two_models):
    cells = [one for one in cells_of(0.7) if one[0][1] in (1, 2)]
    model = ap_samples(cells, ["AP"], replicates=10)["AP"]
    with pytest.raises(CellError, match=r"missing \(45\): gaussian_noise 3 4 5"):
        detection_intervals(model)
    found = detection_intervals(model, allow_partial=True)
    assert found.label == "partial (30/75)"
    # No clean cell, no rPC.
    assert {key.name for key in found.entries} == {"AP", "mPC AP"}


def test_a_size_of_which_there_is_nothing():
    truth, found = random_set(0, sizes=(40, 90))
    matches = matches_from_evaluator(evaluated(truth, found))
    assert np.isnan(average_precision(matches, None, ["APs"])[0])
    model = ap_samples([(cell, matches) for cell in CELLS], ["APs"], replicates=5)["APs"]
    with pytest.raises(CellError, match=r"`APs` without ground truth \(leave this metric out\) \(76\): clean"):
        detection_intervals(model)


def test_replicates_without_ground_truth_are_left_out_and_counted():
    truth, found = random_set(3)
    first = truth["annotations"][0]["image_id"]
    truth["annotations"] = [one for one in truth["annotations"] if one["image_id"] == first and not one["iscrowd"]]
    matches = matches_from_evaluator(evaluated(truth, found))
    model = ap_samples([(cell, matches) for cell in CELLS], ["AP"], replicates=200)["AP"]
    counts = np.concatenate(list(image_counts(12, 200, 0, 200)))
    drawn = int((counts[:, matches.images.index(first)] > 0).sum())
    assert 0 < drawn < 200
    assert detection_intervals(model).get("mPC AP").replicates == drawn


def test_a_detector_that_finds_nothing():
    truth, found = random_set(0)
    for one in found:
        one["bbox"] = [390.0, 390.0, 1.0, 1.0]
    matches = matches_from_evaluator(evaluated(truth, found))
    model = ap_samples([(cell, matches) for cell in CELLS], ["AP"], replicates=5)["AP"]
    assert model.point.max() == 0
    with pytest.raises(CellError, match=r"clean `AP` 0 \(1\): clean: the rPC is undefined"):
        detection_intervals(model)


def test_errors_of_weights_and_metrics():
    matches = matches_from_evaluator(evaluated(*random_set(0)))
    for weights in (np.ones(11, dtype=int), np.ones(12), -np.ones(12, dtype=int), np.ones((1, 1, 12), dtype=int)):
        with pytest.raises(ValueError, match="expected weights of 12 images, whole numbers from 0 on, got "):
            average_precision(matches, weights)
    with pytest.raises(ValueError, match=r"expected a metric out of AP, AP50, .*, got 'AR'"):
        average_precision(matches, None, ["AR"])
    for change, metric, need in (
        ({"areas": ("all", "tiny", "medium", "large")}, "APs", r"\(area range 'small'\), got areas all, tiny"),
        ({"iou_thresholds": matches.iou_thresholds + 0.01}, "AP75", r"'all', IoU 0.75\), got .* IoUs 0.51, 0.56"),
    ):
        with pytest.raises(ValueError, match=f"with what {metric} needs .*{need}.*: leave it out"):
            average_precision(dataclasses.replace(matches, **change), None, [metric])


def test_errors_of_cells():
    matches = matches_from_evaluator(evaluated(*random_set(0)))
    other = dataclasses.replace(matches, images=tuple(range(50, 62)))
    with pytest.raises(
        ValueError, match=r"expected the images of \('fog', 1\) in every cell, got others in \('fog', 2\)"
    ):
        ap_samples([(("fog", 1), matches), (("fog", 2), other)], replicates=2)
    with pytest.raises(ValueError, match="each once, got twice: fog 1"):
        ap_samples([(("fog", 1), matches)] * 2, replicates=2)
    with pytest.raises(ValueError, match="each once, got none"):
        ap_samples([], replicates=2)


def test_errors_of_evaluators():
    with pytest.raises(ValueError, match=r"expected an evaluator whose evaluate\(\) was called, got one without IoUs"):
        matches_from_evaluator(SimpleNamespace(ious={}))
    for change in ({"iouType": "keypoints"}, {"useCats": 0}, {"lvis_style": True}):
        params = SimpleNamespace(**{"iouType": "bbox", "useCats": 1, **change})
        evaluator = SimpleNamespace(ious={(1, 1): []}, params=params, lvis_style="lvis_style" in change)
        with pytest.raises(ValueError, match="expected a COCO evaluation of boxes or masks by category, got iouType="):
            matches_from_evaluator(evaluator)
