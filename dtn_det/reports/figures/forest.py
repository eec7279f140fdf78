"""The figure of the paired differences of two models, a forest plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from dtn_det.corruptions.catalog import EVERY
from dtn_det.errors import NothingToDrawError
from dtn_det.metrics import CLEAN
from dtn_det.reports.changes import Change, families
from dtn_det.reports.contents import Report, Section
from dtn_det.reports.figures.data import FigureData
from dtn_det.reports.figures.layout import (
    MINUS,
    Entry,
    caption,
    handle,
    labels,
    page,
    pair_titles,
    plain_ticks,
    width,
)
from dtn_det.reports.labels import groups_of, title
from dtn_det.reports.measures import Measure, corruption_measure
from dtn_det.reports.numbers import SETS, set_of
from dtn_det.system.drawing import COLOURS, COLUMN, GREY, PAGE, drawing

MOST_PANELS = 5
"""Largest number of pairs that get a panel each.

With more pairs, each mean has a panel with a line for each pair, and single corruptions are left out.
"""
_ROW = 0.132
"""Height of a line, in inches."""
_BETTER, _WORSE = COLOURS[0], COLOURS[1]
_NAME = 130


class ForestLine(NamedTuple):
    """A line of a forest plot, which shows one number.

    Attributes:
        summary: Whether the line is bold: a mean over corruptions, or the clean images.
        changes: For each pair that was tested, the difference in this number.
    """

    title: str
    summary: bool
    changes: Mapping[tuple[str, str], Change]


def lines_of(data: FigureData) -> list[list[ForestLine]]:
    """Return the lines in blocks: means over all corruptions and clean images, then each group with its corruptions.

    Differences and tests are the same as in the tables of differences. With a baseline, the numbers are CE and mCE,
    else error or AP.
    """
    changes: dict[tuple[str, str, str], dict[tuple[str, str], Change]] = {}
    for which in SETS:
        for pair in data.section.pairs:
            for family in families(data.numbers, pair, which):
                for change in family.changes:
                    if change.adjusted is not None:
                        changes.setdefault((which, change.name, change.scope), {})[pair] = change

    def line(label: str, summary: bool, name: str, scope: str = "", which: str = data.main_set) -> list[ForestLine]:
        found = changes.get((which, name, scope))
        return [ForestLine(label, summary, found)] if found else []

    mean = data.measure.mean
    if data.section.kind != "top1":
        overall = line("rPC (%)", True, mean.replace("mPC", "rPC")) + line("Mean corrupted", True, mean)
        overall += line("Clean", True, mean.replace("mPC", "P"))
    elif _measure(data) == data.measure:
        overall = line("Mean corrupted", True, mean) + line("Clean", True, data.measure.cell, CLEAN[0])
    else:
        overall = line("mCE", True, "mCE") + line("Mean error", True, mean)
        overall += line("Clean error", True, data.measure.cell, CLEAN[0])
    blocks = [overall]
    present = {scope for _, _, scope in changes if scope in EVERY}
    for group, names in groups_of(present).items():
        which = set_of(group)
        measure = corruption_measure(data.numbers, which)
        # The mean of the group `extra` has an empty scope, because the group is the whole set of extra corruptions.
        block = line(title(group), True, measure.mean, group if which == SETS[0] else "", which)
        for name in names:
            block += line(title(name), False, measure.corruption, name, which)
        blocks.append(block)
    return [block for block in blocks if block]


@drawing()
def draw_forest(report: Report, section: Section) -> Figure:
    """Draw the differences of each pair, second minus first, with their intervals.

    There is a line for the mean over all corruptions, for the clean images and for each group; with few pairs, also for
    each corruption.

    Filled marks are significant differences, which have a star in the tables. P-values of groups and of corruptions are
    adjusted by Holm's method. Blue means better, red worse.

    Raises:
        NothingToDrawError: No pair was compared.
    """
    data = FigureData.of(report, section)
    blocks = lines_of(data)
    pairs = [pair for pair in section.pairs if any(pair in line.changes for block in blocks for line in block)]
    if not pairs:
        raise NothingToDrawError("no two models were compared image by image")
    if len(pairs) <= MOST_PANELS:
        return _panel_each(data, pairs, blocks)
    return _line_each(data, pairs, blocks)


def _panel_each(data: FigureData, pairs: Sequence[tuple[str, str]], blocks: Sequence[Sequence[ForestLine]]) -> Figure:
    rows: list[tuple[float, ForestLine]] = []
    place = 0.0
    for block in blocks:
        for line in block:
            rows.append((place, line))
            place += 1
        place += 0.5
    wide = COLUMN if len(pairs) <= 2 else PAGE
    figure = page(0.45 + _ROW * place, _caption(data, pairs), _legend(), wide, _label(data))
    panels = figure.subplots(1, len(pairs), sharey=True, squeeze=False)[0]
    titles = pair_titles(data, 72 * (wide - 1) / len(pairs) - 8)
    for axis, pair in zip(panels, pairs, strict=True):
        for at, line in rows:
            if pair in line.changes:
                _draw_change(axis, data, line.changes[pair], at, line.summary)
        _zero(axis, titles[pair])
        plain_ticks(axis.xaxis, 6 if len(pairs) == 1 else 4)
    ticks = panels[0].set_yticks([at for at, _ in rows], [line.title for _, line in rows])
    for tick, (_, line) in zip(ticks, rows, strict=True):
        tick.label1.set_fontweight("bold" if line.summary else "normal")
    panels[0].set_ylim(rows[-1][0] + 0.6, -0.6)
    return figure


def _line_each(data: FigureData, pairs: Sequence[tuple[str, str]], blocks: Sequence[Sequence[ForestLine]]) -> Figure:
    lines = [line for block in blocks for line in block if line.summary]
    names = labels(data, (_NAME - width(f" {MINUS} ")) / 2)
    firsts = {first for first, _ in pairs}
    if len(firsts) == 1:
        texts = [names[second] for _, second in pairs]
        label = _label(data, f" from {names[firsts.pop()]}")
    else:
        texts = [f"{names[second]} {MINUS} {names[first]}" for first, second in pairs]
        label = _label(data)
    figure = page(0.5 + 0.145 * len(pairs), _caption(data, pairs), _legend(), PAGE, label)
    panels = figure.subplots(1, len(lines), sharey=True, squeeze=False)[0]
    for axis, line in zip(panels, lines, strict=True):
        for place, pair in enumerate(pairs):
            if pair in line.changes:
                _draw_change(axis, data, line.changes[pair], place, False)
        _zero(axis, line.title.removesuffix(" corrupted"))
        plain_ticks(axis.xaxis, 3)
    panels[0].set_yticks(range(len(pairs)), texts)
    panels[0].set_ylim(len(pairs) - 0.4, -0.6)
    return figure


def _draw_change(axis: Any, data: FigureData, change: Change, place: float, summary: bool) -> None:
    significant = change.significant(data.report.provenance.level)
    colour = (_BETTER if change.better(data.measure.direction) else _WORSE) if significant else GREY
    low, high = change.interval or (change.value, change.value)
    axis.errorbar(
        [change.value],
        [place],
        xerr=[[max(0.0, change.value - low)], [max(0.0, high - change.value)]],
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
    axis.grid(visible=True, axis="x")


def _measure(data: FigureData) -> Measure:
    """Return the measure whose differences are drawn."""
    return corruption_measure(data.numbers, data.main_set)


def _label(data: FigureData, of: str = "") -> str:
    better = "← better" if data.measure.is_lower_better else "better →"
    measure = _measure(data)
    return f"difference{of} in {measure.short if measure.short == 'CE' else measure.name} (points, {better})"


def _caption(data: FigureData, pairs: Sequence[tuple[str, str]]) -> str:
    told = f"filled: p < {1 - data.report.provenance.level:.2g} (Holm)"
    return caption(data, "bars", told, models=[name for pair in pairs for name in pair])


def _legend() -> list[Entry]:
    def mark(colour: str, face: str) -> Any:
        return handle(color=colour, marker="o", markerfacecolor=face, markersize=3.2)

    return [
        (mark(_BETTER, _BETTER), "better"),
        (mark(_WORSE, _WORSE), "worse"),
        (mark(GREY, "white"), "not significant"),
    ]
