"""The figure of the paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dtn_det.corruptions.catalog import ALL, EXTRA, GROUPS
from dtn_det.errors import NothingToDrawError
from dtn_det.metrics import CLEAN
from dtn_det.metrics.cells import SETS as CORRUPTIONS
from dtn_det.metrics.resampling import holm_by_key
from dtn_det.reports.contents import Report, Section
from dtn_det.reports.figures.data import Subject
from dtn_det.reports.figures.layout import Entry, grid, handle, labels, page, pair_titles, plain_ticks
from dtn_det.reports.figures.text import MINUS, caption, width
from dtn_det.reports.labels import groups_of, title
from dtn_det.reports.numbers import SETS
from dtn_det.system.drawing import COLOURS, COLUMN, GREY, PAGE, drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Change(NamedTuple):
    """Second minus first of a pair; its p-value is adjusted together with the other groups or corruptions."""

    value: float
    low: float
    high: float
    adjusted: float


class Line(NamedTuple):
    """A line of a forest plot.

    Attributes:
        title: For readers.
        summary: Whether it is a mean over several corruptions.
        changes: Of each pair that has one.
    """

    title: str
    summary: bool
    changes: Mapping[tuple[str, str], Change]


def lines_of(subject: Subject) -> list[list[Line]]:
    """The differences in blocks: over everything, then each group with its corruptions."""
    changes: dict[tuple[str, str, str, int], dict[tuple[str, str], Change]] = {}
    for row in subject.section.differences.itertuples(index=False):
        first, second, which, name, scope, severity, *numbers = row
        changes.setdefault((which, name, scope, int(severity)), {})[first, second] = Change(*map(float, numbers))
    measure, main = subject.measure, subject.main_set
    for which in SETS:
        for scopes in (GROUPS, CORRUPTIONS[which]):
            _adjust([changes.get((which, measure.mean, scope, 0), {}) for scope in scopes])

    def line(label: str, summary: bool, name: str, scope: str = "", which: str = main) -> list[Line]:
        found = changes.get((which, name, scope, 0))
        return [Line(label, summary, found)] if found else []

    relative = measure.mean.replace("mPC", "rPC")
    overall = line("mCE (%)", True, "mCE") if measure.better == "lower" else line("rPC (%)", True, relative)
    overall += line("Mean corrupted", True, measure.mean)
    for which in SETS:
        overall += line("Clean", True, measure.cell, CLEAN[0], which)
    blocks = [overall]
    present = {scope for _, name, scope, _ in changes if name == measure.mean and scope in ALL}
    for group, names in groups_of(present).items():
        which = SETS[1] if group == "extra" else SETS[0]
        block = line(title(group), True, measure.mean, group, which)
        for name in names:
            block += line(title(name), False, measure.mean, name, SETS[1] if name in EXTRA else SETS[0])
        blocks.append(block)
    return [block for block in blocks if block]


def _adjust(family: Sequence[dict[tuple[str, str], Change]]) -> None:
    """Adjust the p-values of each pair for their number, in place."""
    for pair in {pair for one in family for pair in one}:
        having = [one for one in family if pair in one]
        p_values = holm_by_key({place: one[pair].adjusted for place, one in enumerate(having)})
        for place, adjusted in p_values.items():
            having[place][pair] = having[place][pair]._replace(adjusted=adjusted)


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
