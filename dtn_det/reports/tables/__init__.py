"""Make the tables of a report, in the order in which a report shows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dtn_det.reports.contents import Report, Section
from dtn_det.reports.measures import corruption_measure, performance_measure
from dtn_det.reports.numbers import Numbers
from dtn_det.reports.tables.classes import class_table
from dtn_det.reports.tables.corruptions import corruption_table, grid_table, severity_table
from dtn_det.reports.tables.errors import error_table, model_error_table
from dtn_det.reports.tables.pairs import pair_table
from dtn_det.reports.tables.published import PublishedRow
from dtn_det.reports.tables.summary import calibration_table, metrics_table, model_table, summary_table
from dtn_det.reports.tables.table import Table, explained


def report_tables(report: Report, published: Sequence[PublishedRow] = ()) -> tuple[Table, ...]:
    """Make all tables of a report.

    Args:
        published: Rows of published numbers. Each row is added below the summary of its kind of results.
    """
    found = [explained(table) for section in report.sections for table in _of_section(report, section, published)]
    return (*found, model_table(report))


def sweep_tables(report: Report) -> tuple[Table, ...]:
    """Make the tables that a sweep prints at its end. They are fewer than in a report, and have one more decimal.

    For classifiers, they show the summary, and under each corruption the error and, with a baseline, the CE. For
    detectors, they show every average precision, and the AP under each corruption at each severity.
    """
    found: list[Table] = []
    for section in report.sections:
        numbers = Numbers.of(report, section, more_decimals=1)
        performance = performance_measure(section.kind)
        for which in numbers.sets:
            if section.kind == "top1":
                measures = dict.fromkeys((performance, corruption_measure(numbers, which)))
                found.append(summary_table(numbers, which))
                if numbers.has(performance.mean, which):
                    found += [corruption_table(numbers, which, measure) for measure in measures]
            else:
                found.append(metrics_table(numbers, which) or summary_table(numbers, which))
        if section.kind != "top1":
            grids = (grid_table(numbers, model, "cells") for model in numbers.models)
            found += [grid for grid in grids if grid is not None]
    return tuple(map(explained, found))


def _of_section(report: Report, section: Section, published: Sequence[PublishedRow]) -> Iterator[Table]:
    numbers = Numbers.of(report, section)
    rows = [row for row in published if row.kind == section.kind]
    # Each set of corruptions has tables of its own, because no mean includes both sets.
    for which in numbers.sets:
        yield summary_table(numbers, which, rows if which == numbers.sets[0] else ())
        if numbers.has(performance_measure(section.kind).mean, which):
            yield corruption_table(numbers, which)
        severities = severity_table(numbers, which)
        if severities is not None:
            yield severities
        calibration = calibration_table(numbers, which)
        if calibration is not None and (which == numbers.sets[0] or len(calibration.groups) > 1):
            yield calibration
        metrics = metrics_table(numbers, which) if section.kind != "top1" else None
        if metrics is not None:
            yield metrics
        errors = error_table(numbers, which)
        if errors is not None:
            yield errors
        for number, pair in enumerate(section.pairs, 1):
            yield pair_table(numbers, pair, which, f"pair-{number}")
    for number, model in enumerate(numbers.models, 1):
        grid = grid_table(numbers, model, f"cells-{number}")
        if grid is not None:
            yield grid
        errors = model_error_table(numbers, model, f"errors-{number}")
        if errors is not None:
            yield errors
        classes = class_table(numbers, model, f"classes-{number}")
        if classes is not None:
            yield classes
