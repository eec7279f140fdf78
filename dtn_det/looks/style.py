"""How the figures look, and how they are saved: print quality at a paper's column width, no global state."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from dtn_det._optional import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMN: Final = 3.3
"""Width of a paper's column in inches."""
DPI: Final = 300
FORMATS: Final = ("pdf", "svg", "png")
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Of Okabe and Ito, told apart by people of any colour vision; their yellow and black are left out."""
MARKERS: Final = ("o", "s", "^", "D", "v", "P")
GREY: Final = "#6e6e6e"
ABOVE: Final[Mapping[str, Any]] = {
    "loc": "lower right",
    "bbox_to_anchor": (1, 0.98),
    "borderpad": 0,
    "columnspacing": 1,
    "ncols": 4,
}
"""Where a legend goes: above its axes, in a line."""
_STYLE: Final[Mapping[str, Any]] = {
    "axes.grid": False,
    "axes.labelpad": 2,
    "axes.labelsize": 7,
    "axes.linewidth": 0.5,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlepad": 3,
    "axes.titlesize": 7,
    "figure.constrained_layout.h_pad": 0.02,
    "figure.constrained_layout.hspace": 0.02,
    "figure.constrained_layout.w_pad": 0.02,
    "figure.constrained_layout.wspace": 0.02,
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "image.interpolation": "nearest",
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "lines.linewidth": 1,
    "lines.markersize": 3,
    # Type 42 is what journals ask for, and text stays text.
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "dtn-det",
    "xtick.labelsize": 6.5,
    "xtick.major.size": 2,
    "xtick.major.width": 0.5,
    "ytick.labelsize": 6.5,
    "ytick.major.size": 2,
    "ytick.major.width": 0.5,
}
# None leaves out what would make two runs differ.
_METADATA: Final[Mapping[str, dict[str, Any]]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
}


@contextmanager
def drawing() -> Iterator[None]:
    """Within this, figures take the style of the project, whatever the user's settings; those are back afterwards."""
    matplotlib = require("matplotlib", "det")
    settings = {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith("backend")}
    with matplotlib.rc_context({**settings, **_STYLE}):
        yield


def new_figure(height: float, width: float = COLUMN) -> Figure:
    """An empty figure of a size in inches, drawn by Agg and known to no window."""
    figure: Figure = require("matplotlib.figure", "det").Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    require("matplotlib.backends.backend_agg", "det").FigureCanvasAgg(figure)
    return figure


def rendered(figure: Figure) -> dict[str, bytes]:
    """The figure in each of :data:`FORMATS`."""
    # Laid out here and not for each format, for that takes longer than drawing; twice, because panels of a fixed aspect
    # find their place only then.
    for _ in range(2):
        figure.draw_without_rendering()
    figure.set_layout_engine("none")
    files = {}
    for name in FORMATS:
        buffer = io.BytesIO()
        figure.savefig(buffer, format=name, dpi=DPI, metadata=_METADATA[name])
        files[name] = buffer.getvalue()
    return files


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
    few = require("matplotlib.ticker", "det").MaxNLocator(6)
    where: dict[str, Any] = {"location": "bottom", "aspect": 45, "fraction": 0.05, "pad": 0.02}
    bar = figure.colorbar(image, ax=axes, extend=extend, ticks=few, **where)
    bar.outline.set_linewidth(0.3)
    bar.ax.tick_params(width=0.3)
    bar.set_label(label)
    return bar
