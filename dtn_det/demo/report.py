"""The comparison of the two models: one table, in Markdown and CSV."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dtn_det._optional import require
from dtn_det.demo.plan import LABELS, Cell, Layout, Plan
from dtn_det.files import write_text

if TYPE_CHECKING:
    import pandas as pd

Results = dict[str, dict[str, float]]
"""Metrics, as fractions, by the name of the cell."""

HEADER = ("metric", LABELS["dtn"], LABELS["ln"], "difference")
PERCENT = 100


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        name: What is measured.
        dtn: Value of the DTN detector in percent.
        ln: Value of its LayerNorm twin in percent.
    """

    name: str
    dtn: float
    ln: float

    @property
    def difference(self) -> float:
        """DTN minus LayerNorm."""
        return self.dtn - self.ln

    def texts(self) -> tuple[str, ...]:
        """The cells of the line as :data:`HEADER` names them; a dash for what does not exist."""
        dtn, ln = f"{self.dtn:.1f}", f"{self.ln:.1f}"
        # Of the rounded values, so that it is what a reader subtracts.
        values = (dtn, ln, f"{float(dtn) - float(ln):+.1f}")
        return self.name, *("-" if "nan" in value else value for value in values)


def read_results(plan: Plan, layout: Layout, model: str) -> Results:
    """Read the metrics of every cell of a model; those that do not exist are not a number."""
    stored = {cell.name: json.loads(layout.metrics(model, cell).read_text()) for cell in plan.cells()}
    return {
        cell: {name: math.nan if value is None else float(value) for name, value in metrics.items()}
        for cell, metrics in stored.items()
    }


def mean_ap(results: Results, corruption: str, severities: tuple[int, ...]) -> float:
    """AP under a corruption, averaged over the severities."""
    return float(np.mean([results[Cell(corruption, severity).name]["AP"] for severity in severities]))


def mean_performance_under_corruption(results: Results, plan: Plan) -> float:
    """The mPC of Michaelis et al. (arXiv:1907.07484): the mean over corruptions of the mean AP over severities."""
    return float(np.mean([mean_ap(results, name, plan.severities) for name in plan.corruptions]))


def relative_performance(results: Results, plan: Plan) -> float:
    """The rPC of the same authors: mPC divided by the clean AP; not a number when that is 0."""
    clean = results[Cell().name]["AP"]
    return mean_performance_under_corruption(results, plan) / clean if clean else math.nan


def compare(dtn: Results, ln: Results, plan: Plan) -> tuple[Row, ...]:
    """The lines of the table: clean metrics, AP under each corruption, mPC and rPC.

    Args:
        dtn: Results of the DTN detector.
        ln: Results of the LayerNorm twin.
        plan: The demonstration.
    """

    def row(name: str, values: list[float]) -> Row:
        return Row(name, *(PERCENT * value for value in values))

    both = (dtn, ln)
    rows = [row(metric, [results["clean"][metric] for results in both]) for metric in dtn["clean"]]
    for name in plan.corruptions:
        rows.append(row(f"AP, {name}", [mean_ap(results, name, plan.severities) for results in both]))
    rows.append(row("mPC", [mean_performance_under_corruption(results, plan) for results in both]))
    rows.append(row("rPC", [relative_performance(results, plan) for results in both]))
    return tuple(rows)


def to_frame(rows: tuple[Row, ...]) -> pd.DataFrame:
    """The rows as a data frame."""
    values = [(row.name, row.dtn, row.ln, row.difference) for row in rows]
    frame: pd.DataFrame = require("pandas", "cli").DataFrame(values, columns=list(HEADER))
    return frame


def to_markdown(rows: tuple[Row, ...], plan: Plan) -> str:
    """The table in Markdown, with what is needed to read it."""
    tabulate = require("tabulate", "cli").tabulate
    align = ("left", "right", "right", "right")
    table = tabulate([row.texts() for row in rows], HEADER, tablefmt="pipe", disable_numparse=True, colalign=align)
    severities = ", ".join(map(str, plan.severities))
    names = ", ".join(plan.corruptions)
    return f"""# DTN and LayerNorm on the demonstration set

{table}

All values in percent, box metrics of COCO; difference: DTN minus LayerNorm.
AP under a corruption is the mean over severities {severities}; mPC is the mean over {names}; rPC is mPC divided by the
clean AP. Published values take 15 corruptions and 5 severities and do not compare.

Two tiny detectors, trained from scratch for minutes with one seed ({plan.data.seed}): this shows that everything works,
and says nothing about which norm is better. {plan.data.num_train} training and {plan.data.num_val} validation images.
"""


def write_report(plan: Plan, layout: Layout) -> tuple[Row, ...]:
    """Write the table and return its rows."""
    dtn, ln = (read_results(plan, layout, model) for model in ("dtn", "ln"))
    rows = compare(dtn, ln, plan)
    write_text(layout.csv, to_frame(rows).to_csv(index=False, float_format="%.2f"))
    write_text(layout.table, to_markdown(rows, plan))
    return rows
