"""What figures have around their panels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from dtn_det._optional import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOVE: Final[Mapping[str, Any]] = {
    "loc": "lower right",
    "bbox_to_anchor": (1, 0.98),
    "borderpad": 0,
    "columnspacing": 1,
    "ncols": 4,
}
"""Where a legend goes: above its axes, in a line."""


def thin_bar(figure: Figure, image: Any, axes: Any, label: str, extend: str = "neither") -> Any:
    """Add a colour bar below all panels.

    Args:
        figure: Of the panels.
        image: What is coloured.
        axes: The panels.
        label: What the colours mean.
        extend: Which ends have values beyond them: ``neither``, ``max`` or ``both``.

    Returns:
        Matplotlib's colour bar.
    """
    few = require("matplotlib.ticker", "report").MaxNLocator(6)
    where: dict[str, Any] = {"location": "bottom", "aspect": 45, "fraction": 0.05, "pad": 0.02}
    bar = figure.colorbar(image, ax=axes, extend=extend, ticks=few, **where)
    bar.outline.set_linewidth(0.3)
    bar.ax.tick_params(width=0.3)
    bar.set_label(label)
    return bar
