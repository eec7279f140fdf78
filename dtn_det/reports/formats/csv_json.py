"""Results for spreadsheets and scripts: tables as CSV with ten digits, and a whole report as JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from dtn_det.reports.contents import CLASS_COLUMNS, DIFFERENCE_COLUMNS, NUMBER_COLUMNS, RELIABILITY_COLUMNS, Report
from dtn_det.reports.labels import one_line
from dtn_det.reports.tables.table import Column, Table, TableCell, TableRow

FORMAT = "dtn-det report"
VERSION = 1

# DIFFERENCE_COLUMNS ends with the adjusted p-values, which are left out: they can be computed from the plain p-values.
_TABLES = {
    "numbers": NUMBER_COLUMNS,
    "differences": DIFFERENCE_COLUMNS[:-1],
    "reliability": RELIABILITY_COLUMNS,
    "classes": CLASS_COLUMNS,
}
_PROVENANCE = ("data", "images", "selection", "corruptions", "date")


def to_json(report: Report) -> str:
    """Return the contents of a report as JSON; undefined numbers are null.

    A table is an object with its ``columns``, named as in :class:`dtn_det.reports.contents.Section`, and its ``rows``.
    """
    return json.dumps(report_content(report), allow_nan=False) + "\n"


def report_content(report: Report) -> dict[str, Any]:
    """Return the contents of a report as objects that JSON can hold: see :func:`to_json`."""
    return {
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
                **{name: _told(getattr(section, name), columns) for name, columns in _TABLES.items()},
            }
            for section in report.sections
        ],
    }


def _told(frame: pd.DataFrame, columns: Sequence[str]) -> dict[str, Any]:
    rows = frame[list(columns)].itertuples(index=False, name=None)
    return {"columns": list(columns), "rows": [[_or_none(value) for value in row] for row in rows]}


def _or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def csv_table(table: Table, report: Report) -> str:
    """Return one table as CSV: a line of headings and a line for each row, numbers with ten digits.

    Each line can be copied into another file, because the line also says whether its numbers are partial (column
    ``note``) and where they come from. Published numbers have the column ``published``, measured numbers have columns
    on data and corruptions. Each end of an interval has a column of its own.
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


def _note(row: TableRow, table: Table) -> str:
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


def _values(cell: TableCell, with_interval: bool) -> list[str]:
    numbers = [cell.value, *((cell.interval or (None, None)) if with_interval else ())]
    return [f"{one:.10g}" if isinstance(one, float) else one or "" for one in numbers]
