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
    drawn = np.ones((len(scores), 1), np.uint8)
    found = _measure(*_sorted(scores, hits), drawn, risk, _marks(len(scores), coverage, bins))[0]
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
    sorted_cells = [_sorted(scores[:, cell], hits[:, cell]) for cell in range(len(found))]
    marks = _marks(size, coverage, bins)

    def measure(drawn: NDArray[np.number]) -> NDArray[np.float64]:
        # No image is drawn 256 times: the probability is below 1 / 256!.
        counts = np.ascontiguousarray(drawn.T.astype(np.uint8))
        return np.stack(
            list(pool.map(lambda one: _measure(one[0], one[1], one[2], counts, risk, marks), sorted_cells)), axis=1
        )

    with ThreadPoolExecutor(_THREADS) as pool:
        point = measure(np.ones((1, size), np.uint8))
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


def _sorted(
    scores: NDArray[np.float64], hits: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.bool_]]:
    """Return numbers, confidences and errors of the images, the most confident first."""
    order = np.argsort(-scores, kind="stable")
    return order, scores[order], hits[order] == 0


def _marks(size: int, coverage: float, bins: int) -> NDArray[np.int64]:
    """Return the ranks at which sums are needed: the first, that of the coverage, and the ends of the bins.

    The first bins, those of the least confident images, have one image more if the images cannot be divided evenly.
    """
    most, more = divmod(size, bins)
    ends = np.cumsum([most] * (bins - more) + [most + 1] * more)
    return np.array([1, np.ceil(coverage * size - 1e-9), *ends], np.int64)


_TOGETHER = 64
"""Number of images whose sums are made before marks are looked for."""


def _measure(
    order: NDArray[np.intp],
    scores: NDArray[np.float64],
    errors: NDArray[np.bool_],
    drawn: NDArray[np.uint8],
    risk: float,
    marks: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Compute the metrics of each replicate, (replicates, metrics), from images sorted by descending confidence.

    ``drawn`` counts how often each replicate has drawn each image, (images, replicates).
    """
    size = len(scores)
    risks, joint, covered, wrong, at = _sums(order, scores, errors, drawn, risk, marks)
    first = at[:, 0, 0]
    ends = np.concatenate([np.zeros_like(at[:, :1]), at[:, 2:]], axis=1)
    faulty, confident = np.diff(ends, axis=1).transpose(2, 0, 1)
    gaps = np.diff(marks[2:], prepend=0) - faulty - confident
    columns = (
        (risks - 0.5 * (first + wrong / size)) / (size - 1.0),
        (joint - 0.5 * (first + wrong)) / (size * (size - 1.0)),
        covered / size,
        at[:, 1, 0] / marks[1],
        np.abs(gaps).sum(1) / size,
    )
    return np.stack(columns, axis=1)


_Sums = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


@compiled
def _sums(
    order: NDArray[np.intp],
    scores: NDArray[np.float64],
    errors: NDArray[np.bool_],
    drawn: NDArray[np.uint8],
    risk: float,
    marks: NDArray[np.int64],
) -> _Sums:
    """Sum over the ranks of each replicate.

    The inner loops run over the replicates, so that they use the processor's vector instructions. The risk at rank k is
    the number of errors up to k, divided by k. So an error at rank j adds ``1/j + ... + 1/size`` to the sum of the
    risks, and ``size - j + 1`` to the sum of the numbers of errors.

    Returns:
        Sum of the risks, sum of the numbers of errors, and last rank with a risk within bounds, each (replicates,);
        errors in all, (replicates,); and errors and sum of confidences up to each mark, (replicates, marks, 2).
    """
    size, count = len(scores), drawn.shape[1]
    tails = np.zeros(size + 1)
    tail = 0.0
    for rank in range(size, 0, -1):
        tail += 1.0 / rank
        tails[rank] = tail
    for rank in range(1, size + 1):
        tails[rank] += tails[rank - 1]
    answered, wrong = np.zeros(count, np.int32), np.zeros(count, np.int32)
    risks, joint, sure, covered = np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(count)
    many, faults = np.zeros(count, np.int32), np.zeros(count, np.int32)
    # Errors and sums of confidences at each mark, found so far.
    places = np.argsort(marks)
    done = np.zeros(count, np.int64)
    at = np.zeros((count, len(marks), 2))
    start = 0
    while start < size:
        end = start + 1
        tied = end < size and scores[end] == scores[start]
        if tied:
            while end < size and scores[end] == scores[start]:
                end += 1
        else:
            while end < size and end - start < _TOGETHER and not (end + 1 < size and scores[end + 1] == scores[end]):
                end += 1
        old_answered, old_wrong, old_sure = answered.copy(), wrong.copy(), sure.copy()
        if tied:
            many[:], faults[:] = 0, 0
            for place in range(start, end):
                row = drawn[order[place]]
                for one in range(count):
                    many[one] += row[one]
                if errors[place]:
                    for one in range(count):
                        faults[one] += row[one]
            for one in range(count):
                if many[one]:
                    mean, first, last = faults[one] / many[one], answered[one], answered[one] + many[one]
                    risks[one] += mean * (tails[last] - tails[first])
                    joint[one] += mean * many[one] * (size - first - 0.5 * (many[one] - 1))
                    answered[one] = last
                    wrong[one] += faults[one]
                    sure[one] += many[one] * scores[start]
        else:
            for place in range(start, end):
                row, score = drawn[order[place]], scores[place]
                if errors[place]:
                    for one in range(count):
                        times, first = np.int32(row[one]), answered[one]
                        last = first + times
                        risks[one] += tails[last] - tails[first]
                        joint[one] += times * (np.float64(size - first) - 0.5 * (times - 1))
                        wrong[one] += times
                        answered[one] = last
                        sure[one] += times * score
                else:
                    for one in range(count):
                        answered[one] += row[one]
                        sure[one] += row[one] * score
        for one in range(count):
            last = answered[one]
            if last == old_answered[one]:
                continue
            inside = wrong[one] <= risk * last + 1e-9
            if inside:
                covered[one] = last
            # Without further errors, the risk might have come within bounds among these images.
            look = not inside and old_wrong[one] <= risk * last + 1e-9
            seek = done[one] < len(marks) and marks[places[done[one]]] <= last
            if not (look or seek):
                continue
            reached, faulty, confident = float(old_answered[one]), float(old_wrong[one]), old_sure[one]
            begin = start
            while begin < end:
                draws = float(many[one] if tied else drawn[order[begin], one])
                bad = float(faults[one]) if tied else draws * errors[begin]
                if draws > 0.0:
                    mean = bad / draws
                    while done[one] < len(marks) and marks[places[done[one]]] <= reached + draws:
                        mark = places[done[one]]
                        at[one, mark, 0] = faulty + (marks[mark] - reached) * mean
                        at[one, mark, 1] = confident + (marks[mark] - reached) * scores[begin]
                        done[one] += 1
                    if look:
                        # Among equal confidences the risk moves one way, towards its mean: find the last rank within.
                        if faulty + bad <= risk * (reached + draws) + 1e-9:
                            covered[one] = reached + draws
                        elif mean > risk and faulty <= risk * reached + 1e-9:
                            covered[one] = reached + np.floor((risk * reached - faulty) / (mean - risk) + 1e-9)
                    reached += draws
                    faulty += bad
                    confident += draws * scores[begin]
                begin = end if tied else begin + 1
        start = end
    return risks, joint, covered, wrong.astype(np.float64), at
