"""Records of a classifier's predictions: one row for each image and cell (corruption and severity)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dtn_det._optional import require
from dtn_det.errors import InputError

if TYPE_CHECKING:
    import pyarrow

TOP = 5


def records_schema() -> pyarrow.Schema:
    """Return the columns of the records.

    ``image`` and ``cell`` are indices into the store's lists of images and cells. ECE, NLL and Brier score are computed
    from ``confidence`` (the largest probability), ``true_probability`` (the probability of the true class) and
    ``squared_norm`` (the sum of the squares of all probabilities).
    """
    arrow = require("pyarrow", "eval")
    schema: pyarrow.Schema = arrow.schema(
        [
            ("image", arrow.uint32()),
            ("cell", arrow.uint8()),
            ("prediction", arrow.int16()),
            ("confidence", arrow.float32()),
            ("correct", arrow.bool_()),
            ("correct_top5", arrow.bool_()),
            ("true_probability", arrow.float32()),
            ("squared_norm", arrow.float32()),
        ]
    )
    return schema


def score(
    logits: Tensor, labels: Tensor, name: str, accepted: Sequence[Sequence[int]] | None = None
) -> dict[str, Tensor]:
    """Compute the columns of the records that depend on a model's output.

    Args:
        logits: Output of the model, ``(N, classes)``.
        labels: Numbers of the true classes, ``(N,)``.
        accepted: All correct classes of each image, if images can have several. The probability of the true class is
            then NaN.

    Returns:
        Tensors ``(N,)`` on the CPU, by column.

    Raises:
        ValueError: A logit is not finite.
    """
    logits = logits.float()
    if not bool(torch.isfinite(logits).all()):
        raise InputError(
            f"expected finite logits from the model {name!r}, got NaN or infinity: evaluate without --amp, or check "
            "its weights"
        )
    probabilities = logits.softmax(1)
    top = logits.topk(min(TOP, logits.shape[1]), dim=1).indices
    prediction = logits.argmax(1)
    true = probabilities.gather(1, labels[:, None])[:, 0]
    correct, correct_top5 = prediction == labels, (top == labels[:, None]).any(1)
    if accepted is not None:
        right = torch.zeros(logits.shape, dtype=torch.bool)
        for row, classes in enumerate(accepted):
            right[row, list(classes)] = True
        right = right.to(logits.device)
        correct, correct_top5 = right.gather(1, prediction[:, None])[:, 0], right.gather(1, top).any(1)
        true = torch.full_like(true, torch.nan)
    columns = {
        "prediction": prediction.to(torch.int16),
        "confidence": probabilities.gather(1, prediction[:, None])[:, 0],
        "correct": correct,
        "correct_top5": correct_top5 | correct,
        "true_probability": true,
        "squared_norm": probabilities.square().sum(1),
    }
    return {name: values.cpu() for name, values in columns.items()}
