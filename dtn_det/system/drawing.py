"""The style of the project's figures, and how they are saved.

Figures have print quality and the column widths of a paper. Drawing opens no window and does not change the global
state of matplotlib.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from dtn_det._optional import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMN: Final = 3.3
"""Width of a paper's column in inches."""
PAGE: Final = 6.9
"""Width of both columns in inches."""
TEXT: Final = 7.0
"""Size of all text in points."""
DPI: Final = 300
FORMATS: Final = ("pdf", "svg", "png")
FONT: Final = "DejaVu Sans"
"""Font of all text. It comes with matplotlib, so that figures are the same everywhere."""
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""The colours of Okabe and Ito, which people with any colour vision can distinguish, without their yellow, which is too
pale on white."""
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
GREY: Final = "#6e6e6e"
PALE: Final = "#c8c8c8"
_STYLE: Final[Mapping[str, Any]] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#404040",
    "axes.labelpad": 2,
    "axes.labelsize": TEXT,
    "axes.linewidth": 0.5,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlepad": 3,
    "axes.titlesize": TEXT,
    "figure.constrained_layout.h_pad": 0.02,
    "figure.constrained_layout.hspace": 0.02,
    "figure.constrained_layout.w_pad": 0.02,
    "figure.constrained_layout.wspace": 0.02,
    "figure.labelsize": TEXT,
    "font.family": FONT,
    "font.size": TEXT,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.4,
    "hatch.linewidth": 0.4,
    "image.interpolation": "nearest",
    "legend.borderaxespad": 0.2,
    "legend.columnspacing": 1.2,
    "legend.fontsize": TEXT,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "legend.handletextpad": 0.4,
    "legend.labelspacing": 0.25,
    "lines.linewidth": 1,
    "lines.markeredgewidth": 0.7,
    "lines.markersize": 3.5,
    # Type 42 is TrueType, as journals require. Both settings store text as text, not as outlines.
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "dtn-det",
    # A dollar sign in the name of a model does not begin a formula.
    "text.parse_math": False,
    "xtick.labelsize": TEXT,
    "xtick.major.pad": 2,
    "xtick.major.size": 2,
    "xtick.major.width": 0.5,
    "ytick.labelsize": TEXT,
    "ytick.major.pad": 2,
    "ytick.major.size": 2,
    "ytick.major.width": 0.5,
}
# None removes an entry. These entries would differ between two runs.
_METADATA: Final[Mapping[str, dict[str, Any]]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
}
_ABOUT: Final = {"pdf": "Subject", "svg": "Description", "png": "Description"}


@contextmanager
def drawing() -> Iterator[None]:
    """Within the block, use the project's style for figures, whatever the user's settings are."""
    with require("matplotlib.style", "report").context(["default", dict(_STYLE)]):
        yield


def new_figure(height: float, width: float = COLUMN) -> Figure:
    """Return an empty figure of a size in inches. Call this within :func:`drawing`; no window is opened."""
    figure: Figure = require("matplotlib.figure", "report").Figure(
        figsize=(width, height), dpi=DPI, layout="constrained"
    )
    require("matplotlib.backends.backend_agg", "report").FigureCanvasAgg(figure)
    return figure


def rendered(figure: Figure, title: str = "", about: str = "") -> dict[str, bytes]:
    """Render a figure in each of :data:`FORMATS`, with the same bytes in every run, and fix its layout.

    Args:
        figure: A figure of :func:`new_figure`.
        title: Title for the metadata of the files.
        about: Description of the figure for the metadata.

    Returns:
        The content of the files by format.
    """
    files = {}
    with drawing():
        _lay_out(figure)
        for kind in FORMATS:
            told = {key: text for key, text in (("Title", title), (_ABOUT[kind], about)) if text}
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, metadata={**_METADATA[kind], **told})
            files[kind] = buffer.getvalue()
    return files


def pixels(figure: Figure) -> NDArray[np.uint8]:
    """Render a figure as an RGB image ``(height, width, 3)`` uint8, and fix its layout."""
    with drawing():
        _lay_out(figure)
        canvas = require("matplotlib.backends.backend_agg", "report").FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _lay_out(figure: Figure) -> None:
    """Compute and fix the layout of a figure, because computing it for each format takes longer than drawing."""
    # Panels with a fixed aspect ratio get their final position only in the second pass.
    for _ in range(2):
        figure.draw_without_rendering()
    figure.set_layout_engine("none")
