"""What scripts read: tables as CSV with all digits, and a whole report as JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dtn_det.errors import InputError
from dtn_det.reports.contents import Provenance, Report, ReportModel, Section
from dtn_det.reports.labels import one_line
from dtn_det.reports.numbers import differences_frame, numbers_frame, reliability_frame
from dtn_det.reports.tables.table import Cell, Column, Row, Table

if TYPE_CHECKING:
    import pandas as pd


FORMAT = "dtn-det report"
VERSION = 1

_FRAMES: Mapping[str, Callable[[Sequence[tuple[Any, ...]]], pd.DataFrame]] = {
    "numbers": numbers_frame,
    "differences": differences_frame,
    "reliability": reliability_frame,
}


def to_json(report: Report) -> str:
    """Everything a report says; what is not a number is null.

    A table is an object of ``columns`` and ``rows``, as in :class:`dtn_det.reports.contents.Section`.
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "task": report.task,
        "baseline": report.baseline,
        "remarks": list(report.remarks),
        "provenance": asdict(report.provenance),
        "models": [asdict(model) for model in report.models],
        "sections": [
            {
                "kind": section.kind,
                "pairs": [list(pair) for pair in section.pairs],
                **{name: _told(getattr(section, name)) for name in _FRAMES},
            }
            for section in report.sections
        ],
    }
    return json.dumps(content, allow_nan=False) + "\n"


def from_json(text: str) -> Report:
    """The report that :func:`to_json` wrote.

    Raises:
        ValueError: Another format or version, or a damaged file.
    """
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"expected a report in JSON, got other text ({error}): write the report again") from error
    found = (content.get("format"), content.get("version")) if isinstance(content, dict) else ("no object", None)
    if found != (FORMAT, VERSION):
        raise InputError(
            f"expected the format {FORMAT!r}, version {VERSION}, got {found[0]!r}, version {found[1]}: read it with "
            "the version of dtn-det that wrote it"
        )
    try:
        return Report(
            task=content["task"],
            provenance=Provenance(**content["provenance"]),
            models=tuple(ReportModel(**model) for model in content["models"]),
            sections=tuple(_section(section) for section in content["sections"]),
            baseline=content["baseline"],
            remarks=tuple(content["remarks"]),
        )
    except (KeyError, TypeError) as error:
        raise InputError(f"expected a whole report, got one with a fault ({error}): write the report again") from error


def _section(content: Mapping[str, Any]) -> Section:
    frames = {name: make(_rows(content[name])) for name, make in _FRAMES.items()}
    return Section(kind=content["kind"], pairs=tuple((first, second) for first, second in content["pairs"]), **frames)


def _told(frame: pd.DataFrame) -> dict[str, Any]:
    rows = [[_or_none(value) for value in row] for row in frame.itertuples(index=False, name=None)]
    return {"columns": list(frame.columns), "rows": rows}


def _or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _rows(told: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    return [tuple(math.nan if value is None else value for value in row) for row in told["rows"]]


_PROVENANCE = ("data", "images", "selection", "corruptions", "date")


def csv_table(table: Table, report: Report) -> str:
    """One table: a line of headings, a line a row, numbers with ten digits.

    Each line also says what its numbers lack (``note``) and where they come from (``published``: by whom, or else the
    data), so that it can be moved into any other file. Ends of intervals have columns of their own.

    Args:
        table: Any table.
        report: That it shows.
    """
    about = report.provenance
    facts = [about.data, str(about.num_images), about.selection, about.corruption, about.date]
    intervals = [_has_intervals(table, place) for place in range(len(table.columns))]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    headings = [heading for one in zip(table.columns, intervals, strict=True) for heading in _headings(*one)]
    first = ("group", table.label or "number", *headings, "note", "published", *_PROVENANCE)
    writer.writerow(map(one_line, first))
    for group in table.groups:
        for row in group.rows:
            values = [value for one in zip(row.cells, intervals, strict=True) for value in _values(*one)]
            cells = (group.title, row.label, *values, _note(row, table), row.source)
            writer.writerow([*map(one_line, cells), *([""] * len(facts) if row.source else map(one_line, facts))])
    return text.getvalue()


def _note(row: Row, table: Table) -> str:
    if row.source:
        return ""
    notes = (row.note, *(cell.note for cell in row.cells), table.note)
    return ", ".join(dict.fromkeys(note for note in notes if note))


def _has_intervals(table: Table, place: int) -> bool:
    return any(row.cells[place].interval is not None for row in table.rows)


def _headings(column: Column, with_interval: bool) -> Iterator[str]:
    name = " ".join(filter(None, (column.span, column.heading)))
    name += f" ({column.unit})" if column.unit else ""
    yield name
    if with_interval:
        yield f"{name} low"
        yield f"{name} high"


def _values(cell: Cell, with_interval: bool) -> list[str]:
    numbers = [cell.value, *((cell.interval or (None, None)) if with_interval else ())]
    return [f"{one:.10g}" if isinstance(one, float) else one or "" for one in numbers]
