"""Calibration of confidences: expected calibration error, negative log-likelihood, Brier score.

Records are tidy, with one row for each image of a cell. Their columns are `corruption`, `severity`, `confidence`
(largest probability), `correct` (whether the top-1 prediction is right), `true_probability` (probability of the true
class), `squared_norm` (sum of the squares of all probabilities). The NLL needs `true_probability`, the Brier score
needs `true_probability` and `squared_norm`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from dtn_det.errors import InputError
from dtn_det.metrics.cells import check_columns, describe

BINS = 15
"""Number of bins of equal width, as in Guo et al., arXiv:1706.04599."""

SMALLEST_PROBABILITY = float(np.finfo(np.float32).tiny)
"""In the NLL, smaller probabilities of the true class count as this value, because a float32 softmax can give 0."""

RECORD_COLUMNS = ("confidence", "correct", "true_probability", "squared_norm")

# The sum of a thousand float32 probabilities may exceed 1 by this much, because of rounding.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Reliability:
    """The data of a reliability diagram.

    Attributes:
        edges: Edges of the bins, (bins + 1,); a bin includes its upper edge, and the first bin also includes 0.
        counts: Number of images in each bin.
        accuracy: Mean of `correct` in each bin; NaN for an empty bin.
        confidence: Mean of `confidence` in each bin; NaN for an empty bin.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    accuracy: NDArray[np.float64]
    confidence: NDArray[np.float64]

    @property
    def expected_calibration_error(self) -> float:
        """The mean over the bins of ``|accuracy - confidence|``, weighted by the number of images in each bin."""
        full = self.counts > 0
        gaps = np.abs(self.accuracy[full] - self.confidence[full])
        return float((gaps * self.counts[full]).sum() / self.counts.sum())


def reliability(confidence: ArrayLike, correct: ArrayLike, bins: int = BINS) -> Reliability:
    """Sort images into bins of equal width by confidence.

    Args:
        confidence: Largest probability of each image, (images,).
        correct: Whether the prediction is right, (images,).

    Raises:
        InputError: Lengths differ or are 0, a confidence is not in [0, 1], a value of `correct` is not 0 or 1, or
            `bins` is less than 1.
    """
    scores, hits = confidences(confidence, correct)
    if scores.ndim != 1 or not len(scores):
        raise InputError(
            f"expected one confidence and one `correct` for each of at least one image, got arrays of shapes "
            f"{scores.shape} and {hits.shape}"
        )
    edges = _edges(bins)
    which = bin_of(scores, bins)
    counts = np.bincount(which, minlength=bins)
    with np.errstate(invalid="ignore"):
        accuracy = np.bincount(which, weights=hits, minlength=bins) / counts
        mean = np.bincount(which, weights=scores, minlength=bins) / counts
    return Reliability(edges, counts, accuracy, mean)


def confidences(confidence: ArrayLike, correct: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Check both arguments, and return them as float64 arrays of the same shape.

    Raises:
        InputError: Shapes differ, a confidence is not in [0, 1], or a value of `correct` is not 0 or 1.
    """
    scores, hits = numbers("confidence", confidence), numbers("correct", correct)
    if scores.shape != hits.shape:
        raise InputError(
            f"expected one confidence and one `correct` for each of at least one image, got arrays of shapes "
            f"{scores.shape} and {hits.shape}"
        )
    _check_range("confidence", scores, 1.0)
    if not np.isin(hits, (0, 1)).all():
        raise InputError(f"expected `correct` to be 0 or 1, got {hits[~np.isin(hits, (0, 1))][0]}")
    return scores, hits


def numbers(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Convert numbers of any type to float64.

    Args:
        values: Anything that NumPy can convert to an array.

    Raises:
        InputError: The values are not real numbers, or they are a ragged list.
    """
    try:
        kind = np.asarray(values).dtype.kind
        if kind in "cSUmM":
            raise TypeError(f"an array of {np.asarray(values).dtype}")
        found: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"expected `{name}` to be an array of numbers, got {error}: convert it") from error
    return found


def bin_of(confidence: NDArray[np.float64], bins: int = BINS) -> NDArray[np.intp]:
    """Find the bin of each confidence; a bin includes its upper edge, and the first bin also includes 0."""
    found: NDArray[np.intp] = np.searchsorted(_edges(bins), confidence, side="left") - 1
    return found.clip(0, bins - 1)


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = BINS) -> float:
    """Compute the ECE over bins of equal width; arguments and errors are those of :func:`reliability`."""
    return reliability(confidence, correct, bins).expected_calibration_error


def log_losses(true_probability: ArrayLike) -> NDArray[np.float64]:
    """Compute the negative log-likelihood of each image in nats, at most 87.3 (see :data:`SMALLEST_PROBABILITY`).

    Raises:
        InputError: A probability is not in [0, 1].
    """
    values = numbers("true_probability", true_probability)
    _check_range("true_probability", values, 1.0)
    losses: NDArray[np.float64] = -np.log(values.clip(SMALLEST_PROBABILITY, 1.0))
    return losses


def brier_scores(true_probability: ArrayLike, squared_norm: ArrayLike) -> NDArray[np.float64]:
    """Compute each image's Brier score over all classes, ``squared_norm - 2 * true_probability + 1``, from 0 to 2.

    Raises:
        InputError: A value is not in [0, 1], or lengths differ.
    """
    true, norm = numbers("true_probability", true_probability), numbers("squared_norm", squared_norm)
    if true.shape != norm.shape:
        raise InputError(f"expected as many `squared_norm` as `true_probability`, got {norm.shape} and {true.shape}")
    _check_range("true_probability", true, 1.0)
    _check_range("squared_norm", norm, 1.0)
    # Where the true class has probability 1, rounding can make the score slightly negative.
    scores: NDArray[np.float64] = np.maximum(norm - 2 * true + 1, 0.0)
    return scores


def calibration(records: pd.DataFrame, bins: int = BINS) -> pd.DataFrame:
    """Compute the ECE and the mean NLL and Brier score of each cell.

    Args:
        records: One row for each image of a cell, with the columns that the module's docstring describes.

    Returns:
        One row for each cell, with the columns `corruption`, `severity`, `error`, `ece`, `nll`, `brier`, `num_images`.
        :func:`~dtn_det.metrics.classification.mean_error` takes this table and checks that no cell is missing.

    Raises:
        InputError: A column is missing, a row has no corruption or severity, or a value is out of range; in the last
            case, the message names the cell.
    """
    check_columns(records, ("corruption", "severity", *RECORD_COLUMNS), "the records")
    nowhere = int(records[["corruption", "severity"]].isna().any(axis=1).sum())
    if nowhere:
        raise InputError(f"expected a corruption and a severity in every record, got none in {nowhere}: add them")
    rows = []
    for (corruption, severity), cell in records.groupby(["corruption", "severity"], sort=False, observed=True):
        confidence, correct, true, norm = (cell[name] for name in RECORD_COLUMNS)
        try:
            bent = reliability(confidence, correct, bins)
            losses, scores = log_losses(true), brier_scores(true, norm)
        except ValueError as error:
            raise InputError(f"{describe([(corruption, severity)])}: {error}") from error
        error_rate = 1.0 - float(np.mean(numbers("correct", correct)))
        means = (error_rate, bent.expected_calibration_error, float(losses.mean()), float(scores.mean()))
        rows.append((corruption, severity, *means, len(cell)))
    columns = ["corruption", "severity", "error", "ece", "nll", "brier", "num_images"]
    return pd.DataFrame(rows, columns=columns)


def _edges(bins: int) -> NDArray[np.float64]:
    check_bins(bins)
    edges: NDArray[np.float64] = np.linspace(0.0, 1.0, bins + 1, dtype=np.float64)
    return edges


def check_bins(bins: int) -> None:
    """Raise an InputError if the number of bins is less than 1."""
    if bins < 1:
        raise InputError(f"expected at least one bin, got {bins}")


def _check_range(name: str, values: NDArray[np.float64], most: float) -> None:
    faulty = ~((values >= 0) & (values <= most + _ROUNDING))
    if faulty.any():
        raise InputError(
            f"expected `{name}` in [0, {most:g}], got {values[faulty][0]}: store probabilities after softmax"
        )
