"""What the tables of a report are called."""

from __future__ import annotations

from types import MappingProxyType

from dtn_det.metrics.cells import CorruptionSet
from dtn_det.reports.contents import KIND_TITLES, Report, Section
from dtn_det.reports.rows import SETS

_SUFFIXES = MappingProxyType(dict(zip(SETS, ("", ", the 4 extra corruptions"), strict=True)))


def table_title(section: Section, text: str, which: CorruptionSet = SETS[0]) -> str:
    """Title of a table, with the kind of its numbers and the set of corruptions unless it is the benchmark's."""
    return f"{KIND_TITLES[section.kind]}: {text}{_SUFFIXES[which]}"


def table_name(report: Report, section: Section, name: str, which: CorruptionSet = SETS[0]) -> str:
    """Name of a table's files: that of its section comes first where there are several."""
    kind = KIND_TITLES[section.kind].lower() if len(report.sections) > 1 else ""
    return "-".join(filter(None, (kind, name, "" if which == SETS[0] else which)))
