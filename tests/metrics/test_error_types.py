"""Error types and their costs: by hand, against TIDE by hotcoco, and on copied sets."""

from __future__ import annotations

import json

import numpy as np
import pytest
from coco_sets import as_arrays, confused_set, hotcoco_errors, with_copies

from dtn_det.errors import InputError
from dtn_det.metrics import CLEAN, all_cells, average_precision
from dtn_det.metrics.error_costs import ERROR_METRICS, error_cost_samples, error_costs
from dtn_det.metrics.error_types import OUTCOMES, REPAIRS, detection_errors
from dtn_det.metrics.resampling import image_counts


def errors_of(truth, found, kind="bbox"):
    objects, detections = as_arrays(truth, found, kind)
    return detection_errors(objects, *detections)


def image_set(objects, detections, images=(1,)):
    """A set of boxes: objects as (image, category, box, crowd), detections as (image, category, box, score)."""
    annotations = [
        {"id": number, "image_id": i, "category_id": c, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
        for number, (i, c, box, crowd) in enumerate(objects, 1)
    ]
    found = [{"image_id": i, "category_id": c, "bbox": box, "score": score} for i, c, box, score in detections]
    return {
        "images": [{"id": one, "width": 400, "height": 400} for one in images],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": annotations,
    }, found


def outcomes(found):
    return [OUTCOMES[one] for one in found.outcomes]


def test_each_type_by_hand():
    objects = [
        (1, 1, [0, 0, 10, 10], 0),
        (1, 2, [100, 100, 10, 10], 0),
        (1, 1, [200, 200, 10, 10], 0),
        (1, 1, [300, 300, 10, 10], 0),
        (1, 1, [50, 300, 40, 40], 1),
    ]
    detections = [
        (1, 1, [0, 0, 10, 10], 0.9),  # correct
        (1, 1, [0, 0, 10, 9], 0.8),  # the same object again
        (1, 1, [100, 100, 10, 9], 0.7),  # an object of the other class
        (1, 1, [200, 200, 10, 3], 0.6),  # IoU 0.3 with its object
        (1, 2, [200, 200, 10, 4], 0.5),  # IoU 0.4 with an object of the other class
        (1, 1, [350, 20, 10, 10], 0.4),  # nothing there
        (1, 1, [55, 305, 10, 10], 0.3),  # in the crowd
        (1, 1, [45, 305, 10, 10], 0.2),  # on the edge of the crowd, half of it inside: at IoU 0.5 still ignored
        (1, 1, [42, 305, 10, 10], 0.1),  # a fifth of it inside: no crowd and no object
    ]
    found = errors_of(*image_set(objects, detections))
    expected = ["correct", "Dupe", "Cls", "Loc", "Both", "Bkg", "ignored", "ignored", "Bkg"]
    assert outcomes(found) == expected
    assert found.counts == {"Cls": 1, "Loc": 1, "Both": 1, "Dupe": 1, "Bkg": 2, "Miss": 1}
    costs = dict(zip(REPAIRS, error_costs(found.repairs), strict=True))
    # Class 1 has three objects: one is found first, so that a third of the recalls, 34 of 101, have precision 1.
    assert average_precision(found.repairs, None, ["AP50"])[0] == pytest.approx(34 / 101 / 2)
    # Class 2 has one object: moved there, the detection is right, with nothing before it.
    assert costs["Cls"] == pytest.approx(1 / 2)
    # The repaired detection is the fourth of class 1, and the second correct one: recalls up to 67 of 101.
    assert costs["Loc"] == pytest.approx(33 * 0.5 / 101 / 2)
    # Without the object that nobody found, half of the recalls (51) have precision 1.
    assert costs["Miss"] == pytest.approx((51 - 34) / 101 / 2)
    # Without the objects that are not found, class 1 is perfect, and class 2 has nothing to find: it stays at 0.
    assert costs["FalseNeg"] == pytest.approx((101 - 34) / 101 / 2)
    assert [costs[name] for name in ("Both", "Dupe", "Bkg", "FalsePos")] == [0, 0, 0, 0]


def test_one_repair_for_an_object():
    # Two badly placed detections and one of the wrong class at one object: the best-scored alone is repaired.
    objects = [(1, 1, [0, 0, 10, 10], 0)]
    detections = [(1, 1, [0, 0, 10, 4], 0.5), (1, 1, [0, 0, 10, 3], 0.4), (1, 2, [0, 0, 10, 9], 0.9)]
    found = errors_of(*image_set(objects, detections))
    assert outcomes(found) == ["Loc", "Loc", "Cls"]
    costs = dict(zip(REPAIRS, error_costs(found.repairs), strict=True))
    assert (costs["Cls"], costs["Loc"], costs["Miss"]) == pytest.approx((1, 0, 0))


def test_no_more_than_a_hundred_of_a_category():
    detections = [(1, 1, [200, 200, 10, 10], 1 - number / 1000) for number in range(101)]
    found = errors_of(*image_set([(1, 1, [0, 0, 10, 10], 0)], detections))
    assert outcomes(found) == ["Bkg"] * 100 + ["ignored"]


@pytest.mark.parametrize("seed", range(8))
def test_like_hotcoco(seed):
    truth, found = confused_set(seed)
    errors = errors_of(truth, found)
    counts, costs = hotcoco_errors(truth, found)
    assert errors.counts == counts
    np.testing.assert_allclose(error_costs(errors.repairs), costs, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("kind", "name"), [("bbox", "fakebbox100"), ("segm", "fakesegm100")])
def test_real_objects_like_hotcoco(shared_dir, kind, name):
    folder = shared_dir / "data/published_results/coco_eval_fakebbox100"
    found = json.loads((folder / f"instances_val2014_{name}_results.json").read_text())
    truth = json.loads((folder / "instances_val2014_100.json").read_text())
    truth["annotations"] = [one for one in truth["annotations"] if not one["iscrowd"]]
    errors = errors_of(truth, found, kind)
    counts, costs = hotcoco_errors(truth, found, kind)
    assert errors.counts == counts
    np.testing.assert_allclose(error_costs(errors.repairs), costs, rtol=0, atol=1e-9)


def test_real_images_like_hotcoco(shared_dir):
    truth = json.loads((shared_dir / "data/coco_mini/annotations/instances_val2017.json").read_text())
    truth["annotations"] = [one for one in truth["annotations"] if not one["iscrowd"]]
    rng = np.random.default_rng(0)
    categories = [one["id"] for one in truth["categories"]]
    found = [
        {
            "image_id": one["image_id"],
            "category_id": one["category_id"] if rng.random() < 0.8 else int(rng.choice(categories)),
            "bbox": (np.array(one["bbox"]) * rng.normal(1, 0.12, 4)).clip(1).tolist(),
            "score": float(rng.random()),
        }
        for one in 2 * truth["annotations"]
    ]
    errors = errors_of(truth, found)
    counts, costs = hotcoco_errors(truth, found)
    assert errors.counts == counts
    assert min(counts.values()) > 0
    np.testing.assert_allclose(error_costs(errors.repairs), costs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_weights_are_copies(seed):
    truth, found = confused_set(seed, crowds=True)
    weights = next(image_counts(15, 1, seed, 1))[0]
    copied = errors_of(*with_copies(truth, found, weights))
    costs = error_costs(errors_of(truth, found).repairs, weights)
    np.testing.assert_allclose(costs, error_costs(copied.repairs), rtol=0, atol=1e-12)


def test_samples_of_cells():
    truth, found = confused_set(0)
    repairs = errors_of(truth, found).repairs
    nothing = errors_of(truth, []).repairs
    cells = (CLEAN, all_cells("benchmark")[0])
    samples = error_cost_samples(zip(cells, (repairs, nothing), strict=True), replicates=20)
    assert tuple(samples) == ERROR_METRICS
    draws = np.concatenate(list(image_counts(15, 20, 0, 20)))
    for place, name in enumerate(ERROR_METRICS):
        assert samples[name].cells == cells
        assert samples[name].point.tolist() == [error_costs(repairs)[place], 0]
        assert samples[name].values[:, 0].tolist() == error_costs(repairs, draws)[:, place].tolist()


def test_no_objects():
    truth, found = image_set([], [(1, 1, [0, 0, 10, 10], 0.5)])
    errors = errors_of(truth, found)
    assert outcomes(errors) == ["Bkg"]
    assert np.isnan(error_costs(errors.repairs)).all()


def test_what_cannot_be_used():
    objects, (category, image, _, scores) = as_arrays(*confused_set(0))
    with pytest.raises(InputError, match="expected a mask of each object to find errors of masks, got objects without"):
        detection_errors(objects, category, image, [{}] * len(scores), scores)
    with pytest.raises(InputError, match="expected a number as score of each detection, got NaN"):
        detection_errors(objects, category, image, np.ones((len(scores), 4)), scores * np.nan)
