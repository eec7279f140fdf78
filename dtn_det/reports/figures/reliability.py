"""Reliability diagrams, which show whether the confidences of classifiers equal their accuracies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dtn_det.errors import NothingToDrawError
from dtn_det.reports.contents import Report, Section
from dtn_det.reports.figures.data import FigureData
from dtn_det.reports.figures.layout import caption, handle, labels, page
from dtn_det.system.drawing import COLOURS, COLUMN, GREY, PAGE, TEXT, drawing

_KINDS: Mapping[str, Mapping[str, Any]] = {
    "clean": {"color": COLOURS[0], "marker": "o", "linestyle": "-", "markerfacecolor": "white"},
    "corrupted": {"color": COLOURS[1], "marker": "s", "linestyle": "-"},
}
_LARGEST, _SMALLEST = 16.0, 2.5
"""Areas of the markers of the fullest bin and of an almost empty bin, in square points."""
_PER_ROW = 5


@drawing()
def draw_reliability(report: Report, section: Section) -> Figure:
    """Draw the accuracy of each bin against its confidence, with clean and corrupted images in a panel for each model.

    The gaps between accuracy and confidence are shaded. The area of a marker grows with the number of images in the
    bin. A panel also shows the ECE of each curve; the ECE of the corrupted images is over all of these images together,
    not a mean over cells.

    Raises:
        NothingToDrawError: No model has a diagram.
    """
    data = FigureData.of(report, section)
    diagrams = section.reliability[section.reliability["count"] > 0]
    models = [model for model in data.models if model in set(diagrams["model"])]
    if not models:
        raise NothingToDrawError("there are no confidences")
    columns = min(len(models), _PER_ROW if len(models) != 6 else 3)
    wide = COLUMN if columns <= 2 else PAGE
    rows = -(-len(models) // columns)
    kinds = [kind for kind in _KINDS if kind in set(diagrams["images"])]
    legend = [(handle(**_KINDS[kind], markersize=3.5), f"{kind} images") for kind in kinds]
    side = (wide - 0.4) / columns if columns > 1 else 2.2
    figure = page(
        rows * (side + 0.14) + 0.25,
        caption(data, "", "ECE: over all images of a curve", "area of a mark: share of them"),
        [*legend, (handle(color=GREY, linestyle=":"), "perfect")],
        width_inches=wide,
    )
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    names = labels(data, 72 * side - 6)
    for axis, model in zip(axes, models, strict=False):
        axis.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=0.7, zorder=1)
        errors = []
        for kind in kinds:
            bins = diagrams[(diagrams["model"] == model) & (diagrams["images"] == kind)].sort_values("low")
            if len(bins):
                found = bins[["confidence", "accuracy", "count"]].to_numpy(np.float64).T
                errors.append((kind, _draw_diagram(axis, kind, *found)))
        for line, (kind, error) in enumerate(errors):
            # Write the ECE above the diagonal, where few curves are.
            axis.annotate(
                f"ECE {100 * error:.1f} %",
                (0, 1),
                (2, -1 - 1.25 * TEXT * line),
                xycoords="axes fraction",
                textcoords="offset points",
                va="top",
                color=_KINDS[kind]["color"],
            )
        axis.set_title(names[model])
        axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
        axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axis.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    for number, axis in enumerate(axes):
        if number >= len(models):
            axis.remove()
        elif number + columns >= len(models):
            axis.tick_params(labelbottom=True)
            axis.set_xlabel("confidence")
        if number % columns == 0 and number < len(models):
            axis.set_ylabel("accuracy")
    return figure


def _draw_diagram(
    axis: Any, kind: str, confidence: NDArray[np.float64], accuracy: NDArray[np.float64], count: NDArray[np.float64]
) -> float:
    """Draw the curve of one kind of images and return its expected calibration error."""
    style = _KINDS[kind]
    share = count / count.sum()
    axis.fill_between(confidence, confidence, accuracy, color=style["color"], alpha=0.15, linewidth=0, zorder=1.2)
    axis.plot(confidence, accuracy, color=style["color"], linewidth=0.8, zorder=2)
    axis.scatter(
        confidence,
        accuracy,
        s=_SMALLEST + (_LARGEST - _SMALLEST) * share / share.max(),
        marker=style["marker"],
        facecolor=style.get("markerfacecolor", style["color"]),
        edgecolor=style["color"],
        linewidth=0.6,
        zorder=3,
    )
    return float((share * np.abs(accuracy - confidence)).sum())
