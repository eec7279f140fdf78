"""The figure of the paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dtn_det.errors import NothingToDrawError
from dtn_det.reports.contents import Report, Section
from dtn_det.reports.figures.differences import Change, Line, lines_of
from dtn_det.reports.figures.layout import Entry, grid, handle, labels, page, pair_titles, plain_ticks
from dtn_det.reports.figures.notes import caption
from dtn_det.reports.figures.subject import Subject
from dtn_det.reports.figures.text import MINUS, width
from dtn_det.system.drawing import COLOURS, COLUMN, GREY, PAGE, drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_PANELS = 5
"""Pairs with a panel each; more have a line each, and panels for the groups alone."""
_ROW = 0.132
"""Inches of height of a line."""
_BETTER, _WORSE = COLOURS[0], COLOURS[1]
_NAME = 130


@drawing()
def draw_forest(report: Report, section: Section) -> Figure:
    """Second minus first of each pair with its interval: all corruptions, groups, and each corruption.

    Filled marks are significant, groups and corruptions after Holm's adjustment for their number, as in the tables;
    blue ones better, red ones worse.

    Raises:
        NothingToDrawError: No pair was compared.
    """
    subject = Subject.of(report, section)
    blocks = lines_of(subject)
    pairs = [pair for pair in section.pairs if any(pair in line.changes for block in blocks for line in block)]
    if not pairs:
        raise NothingToDrawError("no two models were compared image by image")
    if len(pairs) <= MOST_PANELS:
        return _panel_each(subject, pairs, blocks)
    return _line_each(subject, pairs, blocks)


def _panel_each(subject: Subject, pairs: Sequence[tuple[str, str]], blocks: Sequence[Sequence[Line]]) -> Figure:
    rows: list[tuple[float, Line]] = []
    place = 0.0
    for block in blocks:
        for line in block:
            rows.append((place, line))
            place += 1
        place += 0.5
    wide = COLUMN if len(pairs) <= 2 else PAGE
    figure = page(0.45 + _ROW * place, _caption(subject, pairs), _legend(), wide, _label(subject))
    panels = figure.subplots(1, len(pairs), sharey=True, squeeze=False)[0]
    titles = pair_titles(subject, 72 * (wide - 1) / len(pairs) - 8)
    for axis, pair in zip(panels, pairs, strict=True):
        for at, line in rows:
            if pair in line.changes:
                _draw_change(axis, subject, line.changes[pair], at, line.summary)
        _zero(axis, titles[pair])
        plain_ticks(axis.xaxis, 6 if len(pairs) == 1 else 4)
    ticks = panels[0].set_yticks([at for at, _ in rows], [line.title for _, line in rows])
    for tick, (_, line) in zip(ticks, rows, strict=True):
        tick.label1.set_fontweight("bold" if line.summary else "normal")
    panels[0].set_ylim(rows[-1][0] + 0.6, -0.6)
    return figure


def _line_each(subject: Subject, pairs: Sequence[tuple[str, str]], blocks: Sequence[Sequence[Line]]) -> Figure:
    lines = [line for block in blocks for line in block if line.summary]
    names = labels(subject, (_NAME - width(f" {MINUS} ")) / 2)
    firsts = {first for first, _ in pairs}
    if len(firsts) == 1:
        texts = [names[second] for _, second in pairs]
        label = _label(subject, f" from {names[firsts.pop()]}")
    else:
        texts = [f"{names[second]} {MINUS} {names[first]}" for first, second in pairs]
        label = _label(subject)
    figure = page(0.5 + 0.145 * len(pairs), _caption(subject, pairs), _legend(), PAGE, label)
    panels = figure.subplots(1, len(lines), sharey=True, squeeze=False)[0]
    for axis, line in zip(panels, lines, strict=True):
        for place, pair in enumerate(pairs):
            if pair in line.changes:
                _draw_change(axis, subject, line.changes[pair], place, False)
        _zero(axis, line.title.removesuffix(" corrupted"))
        plain_ticks(axis.xaxis, 3)
    panels[0].set_yticks(range(len(pairs)), texts)
    panels[0].set_ylim(len(pairs) - 0.4, -0.6)
    return figure


def _draw_change(axis: Any, subject: Subject, change: Change, place: float, summary: bool) -> None:
    significant = change.adjusted < 1 - subject.report.provenance.level
    better = (change.value < 0) == (subject.measure.better == "lower")
    colour = (_BETTER if better else _WORSE) if significant else GREY
    axis.errorbar(
        [change.value],
        [place],
        xerr=[[max(0.0, change.value - change.low)], [max(0.0, change.high - change.value)]],
        color=colour,
        marker="D" if summary else "o",
        markersize=3.2,
        markerfacecolor=colour if significant else "white",
        markeredgecolor=colour,
        linestyle="none",
        elinewidth=0.9,
    )


def _zero(axis: Any, text: str) -> None:
    axis.axvline(0, color="black", linewidth=0.5, zorder=1)
    axis.set_title(text)
    axis.tick_params(axis="y", length=0)
    grid(axis, "x")


def _label(subject: Subject, of: str = "") -> str:
    better = "← better" if subject.measure.better == "lower" else "better →"
    return f"difference{of} in {subject.measure.title} (points, {better})"


def _caption(subject: Subject, pairs: Sequence[tuple[str, str]]) -> str:
    told = f"filled: p < {1 - subject.report.provenance.level:.2g} (Holm)"
    return caption(subject, "bars", told, models=[name for pair in pairs for name in pair])


def _legend() -> list[Entry]:
    def mark(colour: str, face: str) -> Any:
        return handle(color=colour, marker="o", markerfacecolor=face, markersize=3.2)

    return [
        (mark(_BETTER, _BETTER), "better"),
        (mark(_WORSE, _WORSE), "worse"),
        (mark(GREY, "white"), "not significant"),
    ]
