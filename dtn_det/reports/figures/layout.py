"""The layout that all figures share: a legend above the panels, a caption below them, and names that fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from matplotlib.ticker import MaxNLocator

from dtn_det.reports.figures.data import FigureData
from dtn_det.system.drawing import COLUMN, FONT, GREY, PALE, TEXT, new_figure

Entry = tuple[Any, str]
"""A line or patch of a legend, and the text beside it."""

_INCH = 72.0
_LINE = 1.22 * TEXT / _INCH
"""Height of a line of text in inches."""
_HANDLE_LENGTH = 2.2
_HANDLE, _GAP = (_HANDLE_LENGTH + 0.4) * TEXT, 1.2 * TEXT
"""Widths in points: a line's sample in the legend with the space after it, and the space between two columns."""
_MARGIN = 6.0


def page(
    body: float, caption: str, legend: Sequence[Entry] = (), width_inches: float = COLUMN, label: str = ""
) -> Figure:
    """Make a figure with its legend and caption; the caller adds the panels.

    Args:
        body: Height of the space for the panels, in inches.
        caption: Text below the panels, of characters that the font has.
    """
    points = width_inches * _INCH - _MARGIN
    columns = _columns([width(label) for _, label in legend], points)
    text = wrapped(caption, points)
    under_label = _LINE * (text.count("\n") + 1) + 3 / _INCH if text else 0.0
    below = under_label + (_LINE if label else 0.0)
    height = body + 1.15 * _LINE * -(-len(legend) // columns) + below
    figure = new_figure(height, width_inches)
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0, below / height, 1, 1 - below / height))
    left = _MARGIN / 2 / _INCH / width_inches
    figure.text(left, 2 / _INCH / height, text, color=GREY, linespacing=1.1, in_layout=False)
    figure.text(0.5, (under_label + 2 / _INCH) / height, label, ha="center", in_layout=False)
    if legend:
        _add_legend(figure, legend, columns)
    return figure


def labels(data: FigureData, points: float) -> dict[str, str]:
    """Return the name of each model, shortened to fit, with a sign if its results are partial or imported.

    Args:
        points: Largest width of a name with its signs, in points.
    """
    behind = signs(data)
    names = fitted(data.models, points - max(width(sign) for sign in behind.values()))
    return {name: names[name] + behind[name] for name in data.models}


def model_legend(data: FigureData, style: str, width_inches: float = COLUMN) -> list[Entry]:
    """Make the legend's entries of the models.

    Args:
        style: ``curve`` for lines, with one entry for all grey lines, or ``point`` for markers.
    """
    names = labels(data, width_inches * _INCH - _MARGIN - _HANDLE)
    shown = [name for name in data.models if style == "point" or data.marks[name].highlighted]
    found = [(Line2D([], [], **getattr(data.marks[name], style)), names[name]) for name in shown]
    others = len(data.models) - len(shown)
    if others:
        found.append((Line2D([], [], color=PALE, linewidth=0.7), f"{others} other models"))
    return found


def plain_ticks(axis: Any, most: int) -> None:
    """Put about `most` ticks along an axis, at round numbers."""
    axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 5, 10]))


def handle(**style: Any) -> Any:
    """Make a line without data, to be shown in a legend."""
    return Line2D([], [], **style)


def pair_titles(data: FigureData, points: float) -> Mapping[tuple[str, str], str]:
    """Return the title `second minus first` of each pair, on two lines if it is wider than ``points``."""
    names = labels(data, points - width(f"{MINUS} "))
    found = {}
    for first, second in data.section.pairs:
        whole = f"{names[second]} {MINUS} {names[first]}"
        found[first, second] = whole if width(whole) <= points else f"{names[second]}\n{MINUS} {names[first]}"
    return found


def _add_legend(figure: Figure, entries: Sequence[Entry], columns: int) -> None:
    handles = [handle for handle, _ in entries]
    lines = any(handle.get_linestyle() != "None" for handle in handles)
    # matplotlib leaves labels that begin with an underscore out of a legend, so set the texts afterwards.
    legend = figure.legend(
        handles,
        ["x"] * len(entries),
        loc="outside upper left",
        ncols=columns,
        handlelength=_HANDLE_LENGTH if lines else 1,
    )
    for text, (_, label) in zip(legend.get_texts(), entries, strict=True):
        text.set_text(label)


def _columns(widths: Sequence[float], points: float) -> int:
    """Return how many columns of the legend fit into a width; entries run down each column."""
    for rows in range(1, len(widths)):
        columns = -(-len(widths) // rows)
        parts = [max(part) for part in np.array_split(widths, columns)]
        if sum(parts) + columns * _HANDLE + (columns - 1) * _GAP <= points:
            return columns
    return 1


MINUS = "\N{MINUS SIGN}"
_ELLIPSIS = "…"

PARTIAL, IMPORTED = "†", "‡"
_MOST_NAMED = 2
_NO_BREAK = "\N{NO-BREAK SPACE}"


def printable(text: str) -> str:
    """Return a text on one line, with Python's escapes of code points for characters that the font lacks."""
    known = _code_points()
    return "".join(
        sign if sign.isprintable() and ord(sign) in known else sign.encode("unicode_escape").decode()
        for sign in " ".join(text.split())
    )


def width(text: str) -> float:
    """Return the width, in points, of a text that :func:`printable` returned."""
    return float(text_to_path.get_text_width_height_descent(text, _font(), ismath=False)[0])


def shorten(text: str, points: float) -> str:
    """Leave out the middle of a text so that it fits into a width in points. The text comes from :func:`printable`."""
    if width(text) <= points:
        return text
    for kept in range(len(text) - 1, 1, -1):
        end = kept // 2
        shorter = f"{text[: kept - end].rstrip()}{_ELLIPSIS}{text[len(text) - end :].lstrip()}"
        if width(shorter) <= points:
            return shorter
    return _ELLIPSIS


def fitted(names: Iterable[str], points: float) -> dict[str, str]:
    """Make names printable and shorten them to a width; names that would look alike then get a number.

    Args:
        points: Largest width of a name, in points.

    Returns:
        The text to show for each whole name.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        whole = printable(name)
        label, number = shorten(whole, points), 1
        while label in taken:
            number += 1
            label = f"{shorten(whole, points - width(f' ({number})'))} ({number})"
        taken.add(label)
        found[name] = label
    return found


def wrapped(text: str, points: float) -> str:
    """Break a text that :func:`printable` returned into lines of a width in points; only wider words are broken."""
    lines = [""]
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if width(joined) <= points:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for sign in word:
            if lines[-1] and width(lines[-1] + sign) > points:
                lines.append("")
            lines[-1] += sign
    return "\n".join(lines)


@lru_cache(maxsize=1)
def _font() -> Any:
    return FontProperties(family=FONT, size=TEXT)


@lru_cache(maxsize=1)
def _code_points() -> frozenset[int]:
    return frozenset(get_font(findfont(_font())).get_charmap())


def signs(data: FigureData) -> dict[str, str]:
    """Return the signs to put behind each model's name if its results are partial or imported."""
    partial, imported = _partial(data), _imported(data)
    return {name: (PARTIAL if name in partial else "") + (IMPORTED if name in imported else "") for name in data.models}


def caption(data: FigureData, intervals: str = "", *more: str, models: Sequence[str] | None = None) -> str:
    """Return the caption of a figure, of characters that the font has.

    Args:
        intervals: What shows the intervals in the figure, such as ``bands``; empty if nothing does.
        models: Names of the models that the figure shows; None for all.
    """
    models = data.models if models is None else models
    about = data.report.provenance
    said = []
    if about.num_images:
        said.append(f"{about.num_images:,}{_NO_BREAK}images ({printable(about.data)})")
    if intervals and any(data.with_intervals()):
        level, replicates = f"{100 * about.level:g}{_NO_BREAK}%", f"{about.replicates:,}{_NO_BREAK}replicates"
        said.append(f"{intervals}: {level} bootstrap intervals, {replicates}")
    said += more
    partial = {name: reason for name, reason in _partial(data).items() if name in models}
    if partial:
        said.append(f"{PARTIAL}{_NO_BREAK}partial: {printable(_reasons(partial))}")
    if any(name in models for name in _imported(data)):
        said.append(f"{IMPORTED}{_NO_BREAK}imported from other tools")
    return "; ".join(said)


def about_files(data: FigureData) -> str:
    """Return the description for the metadata of a figure's files. It has no date, so that runs write equal files."""
    report = data.report
    about = report.provenance
    lines = [
        f"Models: {'; '.join(data.models)}",
        f"Data: {about.data}, {about.num_images} images, selection {about.selection}",
        *([f"Corruptions: {about.corruption}"] if report.is_corrupted else []),
        f"Intervals: level {about.level:g}, {about.replicates} replicates, seed {about.seed}",
        f"Baseline: {report.baseline or 'none'}",
        *(f"{name}: partial ({reason})" for name, reason in _partial(data).items()),
        *(f"{name}: imported ({report.model(name).source})" for name in _imported(data)),
        f"Versions: {', '.join(f'{library} {version}' for library, version in about.versions.items())}",
    ]
    # XML, and so SVG, does not allow control characters.
    return "\n".join("".join(sign for sign in line if sign.isprintable()) for line in lines)


def _partial(data: FigureData) -> dict[str, str]:
    """Map each model whose numbers cover only a part of the images or cells to the reason for this."""
    found = {}
    for name in data.models:
        mean = data.mean(name)
        missing = mean is not None and mean.cells < mean.expected_cells
        conditions = f"{mean.cells} of {mean.expected_cells} conditions" if mean is not None and missing else ""
        reasons = [reason for reason in (data.report.model(name).partial, conditions) if reason]
        if reasons:
            found[name] = ", ".join(reasons)
    return found


def _imported(data: FigureData) -> list[str]:
    return [name for name in data.models if data.report.model(name).origin == "imported"]


def _reasons(partial: dict[str, str]) -> str:
    by_reason: dict[str, list[str]] = {}
    for name, reason in partial.items():
        by_reason.setdefault(reason, []).append(name)
    if len(by_reason) == 1:
        return next(iter(by_reason))
    told = [f"{_some(names)} ({reason})" for reason, names in by_reason.items()]
    return "; ".join(told[:_MOST_NAMED]) + (" and others" if len(told) > _MOST_NAMED else "")


def _some(names: Sequence[str]) -> str:
    kept = ", ".join(names[:_MOST_NAMED])
    return kept if len(names) <= _MOST_NAMED else f"{kept} and {len(names) - _MOST_NAMED} more"
