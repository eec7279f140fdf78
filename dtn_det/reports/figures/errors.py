"""The figure of what each type of error of detectors costs, against the severity."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from dtn_det.corruptions.catalog import SEVERITIES
from dtn_det.errors import NothingToDrawError
from dtn_det.metrics import CLEAN
from dtn_det.metrics.error_types import ERROR_TYPES
from dtn_det.reports.contents import Report, Section
from dtn_det.reports.figures.data import ERROR_COLOURS, FigureData
from dtn_det.reports.figures.layout import caption, labels, page, plain_ticks
from dtn_det.system.drawing import COLUMN, PAGE, drawing

_MOST_SHOWN = 8
_SIDE_BY_SIDE = 4
_NAME = 110
_PANEL = 1.25


@drawing()
def draw_errors(report: Report, section: Section) -> Figure:
    """Draw a panel for each model: at each severity, the costs of the six types as stacked bars.

    Up to eight models are drawn, the first of the report.

    Raises:
        NothingToDrawError: The costs of the error types were not computed, or the section is of classifiers.
    """
    data = FigureData.of(report, section)
    bars = {model: found for model in data.models if (found := _bars(data, model))}
    if not bars:
        raise NothingToDrawError("there are no costs of error types: --errors computes them")
    shown = list(bars)[:_MOST_SHOWN]
    columns = min(len(shown), _SIDE_BY_SIDE)
    rows = -(-len(shown) // columns)
    left_out = f"the first {len(shown)} of {len(bars)} models" if len(bars) > len(shown) else ""
    legend = [(Patch(color=colour), error) for error, colour in ERROR_COLOURS.items()]
    said = ["costs are computed one by one and do not add up to the lost AP50", *filter(None, [left_out])]
    wide = COLUMN if columns < 3 else PAGE
    below = caption(data, "", *said, models=shown)
    figure = page(0.1 + _PANEL * rows, below, legend, width_inches=wide, label="severity of the corruption")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    ticks = sorted({severity for model in shown for severity in bars[model]})
    names = labels(data, _NAME)
    for axis in panels.flat[len(shown) :]:
        axis.remove()
    for axis, model in zip(panels.flat, shown, strict=False):
        for severity, costs in bars[model].items():
            bottom = 0.0
            for colour, cost in zip(ERROR_COLOURS.values(), costs, strict=True):
                axis.bar(severity, cost, 0.8, bottom, color=colour, linewidth=0)
                bottom += cost
        axis.set_title(names[model])
        axis.set_xticks(ticks, ["clean" if tick == 0 else str(tick) for tick in ticks])
        plain_ticks(axis.yaxis, 5)
        axis.grid(visible=True, axis="y")
    figure.supylabel("cost in points of AP50")
    return figure


def _bars(data: FigureData, model: str) -> dict[int, list[float]]:
    """Return the costs of the six types by severity; severity 0 is the clean images."""
    found = {}
    for severity in (0, *SEVERITIES):
        prefix, scope = ("", CLEAN[0]) if severity == 0 else ("mean ", "")
        numbers = [data.get(model, f"{prefix}dAP50 {error}", scope, severity) for error in ERROR_TYPES]
        if all(number is not None for number in numbers):
            found[severity] = [number.value for number in numbers if number is not None]
    return found
