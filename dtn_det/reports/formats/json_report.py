"""A whole report as JSON, and back."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dtn_det.errors import InputError
from dtn_det.reports.contents import Provenance, Report, ReportModel, Section
from dtn_det.reports.rows import differences_frame, numbers_frame, reliability_frame

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
