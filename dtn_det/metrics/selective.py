"""Selective classification: how the error falls when the model may leave its least confident images unanswered.

The images are sorted by confidence, the most confident first. At the coverage ``k / images`` the first ``k`` are
answered, and the risk is the share of wrong answers among them. The metrics are

- AURC: Geifman and El-Yaniv, arXiv:1705.08500, the area under the risk over coverages from ``1 / images`` to 1, divided
  by the length of that range;
- AUGRC: Traub et al., arXiv:2407.01032, likewise with the risk times the coverage;
- coverage at 5 % risk: the largest coverage with a risk of at most 5 %, or 0 if there is none;
- risk at 80 % coverage;
- adaptive ECE: Nixon et al., arXiv:1904.01685, with bins of equal numbers of images.

Images of equal confidence have no order, and a softmax in float32 gives the confidence 1 to many images. Their risk is
the mean over all orders of these images, so that no number depends on the order of the files.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtn_det.corruptions.cells import Cell
from dtn_det.errors import InputError
from dtn_det.metrics.calibration import BINS, check_bins, confidences
from dtn_det.metrics.resampling import REPLICATES, Samples, check_cells, digest, weights
from dtn_det.system.compiled import compiled

METRICS = ("aurc", "augrc", "coverage_at_risk", "risk_at_coverage", "adaptive_ece")
"""Names of the metrics, in the order of the columns of the compiled function."""

RISK = 0.05
"""The risk at which the coverage is given."""

COVERAGE = 0.8
"""The coverage at which the risk is given."""

_THREADS = 4


def selective_metrics(
    confidence: ArrayLike, correct: ArrayLike, *, risk: float = RISK, coverage: float = COVERAGE, bins: int = BINS
) -> dict[str, float]:
    """Compute the metrics of selective classification and the adaptive ECE.

    Args:
        confidence: Largest probability of each image, (images,), of at least two images.
        correct: Whether the prediction is right, (images,).
        risk: Risk in [0, 1] at which the coverage is computed.
        coverage: Coverage in (0, 1] at which the risk is computed.
        bins: Number of bins of the adaptive ECE.

    Returns:
        A value in [0, 1] for each of :data:`METRICS`. Lower is better, except for ``coverage_at_risk``.

    Raises:
        InputError: Lengths differ or are below 2, a confidence is not in [0, 1], a value of `correct` is not 0 or 1, or
            `risk`, `coverage` or `bins` is out of range.
    """
    scores, hits = confidences(confidence, correct)
    if scores.ndim != 1 or len(scores) < 2:
        raise InputError(f"expected the confidences of at least two images, got an array of shape {scores.shape}")
    _check_options(risk, coverage, bins)
    order = np.argsort(-scores, kind="stable")
    drawn = np.ones((1, len(scores)), np.int64)
    found = _measure(scores[order], 1.0 - hits[order], drawn, risk, coverage, bins)[0]
    return dict(zip(METRICS, found.tolist(), strict=True))


def selective_samples(
    confidence: ArrayLike,
    correct: ArrayLike,
    cells: Sequence[Cell],
    images: Sequence[object],
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    risk: float = RISK,
    coverage: float = COVERAGE,
    bins: int = BINS,
) -> dict[str, Samples]:
    """Compute the metrics on every cell, for all images and for each bootstrap replicate.

    Args:
        confidence: Largest probability of each image, (images, cells), of at least two images.
        correct: Whether the prediction is right, (images, cells).
        cells: The cell of each column.
        images: The name of the image of each row.
        replicates: Number of bootstrap replicates; 0 for none.
        seed: Seed of the draws. Models to compare need the same images, replicates and seed.
        risk: Risk in [0, 1] at which the coverage is computed.
        coverage: Coverage in (0, 1] at which the risk is computed.
        bins: Number of bins of the adaptive ECE.

    Returns:
        The samples of each of :data:`METRICS`.

    Raises:
        InputError: An array has another shape, a value or an option is out of range, a cell is unknown or repeated, or
            an image is repeated.
    """
    _check_options(risk, coverage, bins)
    scores, hits = confidences(confidence, correct)
    found, size = check_cells(cells), len(images)
    if scores.shape != (size, len(found)) or size < 2:
        raise InputError(f"expected an array of {size} images (at least two) x {len(found)} cells, got {scores.shape}")
    if len(set(images)) != size:
        raise InputError("expected each image once, got one twice: drop the copies, which would narrow the intervals")
    names = digest(images)
    sorted_cells = []
    for cell in range(len(found)):
        order = np.argsort(-scores[:, cell], kind="stable")
        sorted_cells.append((order, scores[order, cell], 1.0 - hits[order, cell]))

    def measure(drawn: NDArray[np.number]) -> NDArray[np.float64]:
        counts = drawn.astype(np.int32)
        results = pool.map(lambda one: _measure(one[1], one[2], counts[:, one[0]], risk, coverage, bins), sorted_cells)
        return np.stack(list(results), axis=1)

    with ThreadPoolExecutor(_THREADS) as pool:
        point = measure(np.ones((1, size), np.int32))
        drawn = weights(size, replicates, seed) if replicates else ()
        values = np.concatenate([point, *map(measure, drawn)])
    return {
        metric: Samples(metric, found, values[0, :, place], values[1:, :, place], size, names, seed)
        for place, metric in enumerate(METRICS)
    }


def _check_options(risk: float, coverage: float, bins: int) -> None:
    check_bins(bins)
    if not 0 <= risk <= 1 or not 0 < coverage <= 1:
        raise InputError(f"expected a risk from 0 to 1 and a coverage above 0 and up to 1, got {risk} and {coverage}")


@compiled
def _measure(
    scores: NDArray[np.float64],
    errors: NDArray[np.float64],
    drawn: NDArray[np.integer],
    risk: float,
    coverage: float,
    bins: int,
) -> NDArray[np.float64]:
    """Compute the metrics of each replicate, (replicates, metrics), from images sorted by descending confidence.

    ``drawn``, (replicates, images), is the number of times that each replicate has drawn each image.
    """
    size = len(scores)
    # Harmonic numbers 1 + 1/2 + ... + 1/k, with which the risks of a group of equal confidences are summed in one step.
    harmonic = np.zeros(size + 1)
    for place in range(1, size + 1):
        harmonic[place] = harmonic[place - 1] + 1.0 / place
    found = np.zeros((len(drawn), 5))
    wanted = np.ceil(coverage * size - 1e-9)
    for replicate in range(len(drawn)):
        row = drawn[replicate]
        answered, wrong = 0.0, 0.0
        first_risk, risks, joint, at_coverage, covered = -1.0, 0.0, 0.0, 0.0, 0.0
        start = 0
        while start < size:
            end, many, faults = start, 0.0, 0.0
            while end < size and scores[end] == scores[start]:
                many += row[end]
                faults += row[end] * errors[end]
                end += 1
            start = end
            if many == 0.0:
                continue
            mean = faults / many
            if first_risk < 0.0:
                first_risk = mean
            # Among the first answered + j images, the expected number of errors is wrong + j * mean. `risks` sums the
            # risks of all ranks in the group, and `joint` the expected numbers of errors.
            steps = harmonic[int(answered + many)] - harmonic[int(answered)]
            risks += many * mean + (wrong - answered * mean) * steps
            joint += many * wrong + mean * many * (many + 1.0) / 2.0
            if answered < wanted <= answered + many:
                at_coverage = (wrong + (wanted - answered) * mean) / wanted
            # Within a group, the risk approaches `mean` monotonically: find the last rank at which it is within the
            # bound.
            if wrong + faults <= risk * (answered + many) + 1e-9:
                covered = answered + many
            elif mean > risk and wrong <= risk * answered + 1e-9:
                room = np.floor((risk * answered - wrong) / (mean - risk) + 1e-9)
                if answered + room > 0.0:
                    covered = answered + room
            answered += many
            wrong += faults
        last_risk = wrong / answered
        found[replicate, 0] = (risks - 0.5 * (first_risk + last_risk)) / (size - 1.0)
        found[replicate, 1] = (joint - 0.5 * (first_risk + wrong)) / (size * (size - 1.0))
        found[replicate, 2] = covered / size
        found[replicate, 3] = at_coverage
        found[replicate, 4] = _adaptive_error(scores, errors, row, bins)
    return found


@compiled
def _adaptive_error(
    scores: NDArray[np.float64], errors: NDArray[np.float64], row: NDArray[np.integer], bins: int
) -> float:
    """Compute the adaptive ECE of one replicate from images sorted by descending confidence.

    The bins are filled from the least confident image on. If the number of images is not a multiple of the number of
    bins, the first bins have one image more. If images of equal confidence span several bins, each of these bins counts
    them with their mean accuracy.
    """
    size = len(scores)
    total, gap, left = 0.0, 0.0, 0.0
    number = 0
    most, more = size // bins, size % bins
    left = most + (1 if more > 0 else 0)
    end = size
    while end > 0:
        start, many, faults = end, 0.0, 0.0
        while start > 0 and scores[start - 1] == scores[end - 1]:
            start -= 1
            many += row[start]
            faults += row[start] * errors[start]
        share = 0.0 if many == 0.0 else 1.0 - faults / many - scores[end - 1]
        while many > 0.0:
            taken = min(many, left)
            gap += taken * share
            many -= taken
            left -= taken
            if left <= 0.0:
                total += abs(gap)
                gap = 0.0
                number += 1
                left = most + (1 if number < more else 0)
                if left == 0.0:
                    break
        end = start
    return (total + abs(gap)) / size
