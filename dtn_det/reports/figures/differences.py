"""The paired differences of a section, as the figures of them take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dtn_det.corruptions.catalog import ALL, EXTRA, GROUPS
from dtn_det.metrics import CLEAN
from dtn_det.metrics.cells import SETS as CORRUPTIONS
from dtn_det.metrics.comparisons import holm_by_key
from dtn_det.reports.figures.scopes import groups_of, title
from dtn_det.reports.figures.subject import Subject
from dtn_det.reports.rows import SETS


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
