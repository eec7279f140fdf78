"""The tables of a detector's sweep on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dtn_det._optional import require
from dtn_det.corruptions.catalog import ALL, EXTRA, SEVERITIES
from dtn_det.corruptions.cells import CLEAN
from dtn_det.datasets.remarks import counted
from dtn_det.metrics import (
    METRICS,
    Summary,
    mean_performance_under_corruption,
    relative_performance_under_corruption,
)
from dtn_det.metrics.cells import CorruptionSet
from dtn_det.robustness.detection.records import rule_note

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.table import Table

    from dtn_det.robustness.store.store import ModelStore

_KINDS = {"bbox": "boxes", "segm": "masks"}
_NOTHING = "-"


def print_tables(
    model: ModelStore, frames: Mapping[str, pd.DataFrame], bad: Mapping[int, str], console: Console
) -> None:
    """Print P, mPC and rPC, and the AP of every cell.

    Args:
        model: Whose results they are.
        frames: Of :func:`dtn_det.robustness.detection.evaluation.evaluate_cells`.
        bad: Images that were left out, and why.
        console: Where to.
    """
    manifest = model.store.manifest
    for kind, frame in frames.items():
        title = f"{model.manifest.name}, {_KINDS[kind]}"
        console.print(summary_table(frame, title, selected=partial_images(model, len(bad))))
        console.print(cell_table(frame, f"AP of {_KINDS[kind]} in % at severity 1 to 5"))
    console.print(
        f"{counted(manifest.num_images - len(bad), 'image')} of {manifest.data} ({manifest.selection}), "
        f"{manifest.corruption}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    note = rule_note(model)
    if note:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    for number, reason in sorted(bad.items()):
        console.print(f"left out: image {number}, {reason}", highlight=False, markup=False, soft_wrap=True)


def partial_images(model: ModelStore, bad: int) -> str:
    """What tells a result over a part of the images from a whole one; empty for one over all."""
    manifest = model.store.manifest
    marks = [] if manifest.selection == "all" else [manifest.selection]
    if bad:
        marks.append(f"without {counted(bad, 'bad image')}")
    return ", ".join(marks)


def summary_table(frame: pd.DataFrame, title: str, selected: str = "") -> Table:
    """P, mPC and rPC of each metric, of the benchmark's corruptions and the extra ones each for themselves.

    Args:
        frame: One table of results.
        title: Of the table.
        selected: What tells a result over a part of the images.
    """
    table: Table = require("rich.table", "eval").Table(title=title)
    table.add_column("metric")
    sets: list[tuple[CorruptionSet, str]] = []
    present = set(frame["corruption"])
    if present - {CLEAN.corruption, *EXTRA}:
        sets.append(("benchmark", ""))
    if present & set(EXTRA):
        sets.append(("extra", " (4 extra)"))
    table.add_column("P", justify="right")
    for _, suffix in sets:
        table.add_column(f"mPC{suffix}", justify="right")
        table.add_column(f"rPC{suffix} %", justify="right")
    table.add_column("", no_wrap=True)
    for metric in METRICS:
        clean = float(frame.loc[frame["corruption"] == CLEAN.corruption, metric].iloc[0])
        cells, missing = [_percent(clean)], []
        for corruptions, _ in sets:
            if (frame[metric] == -1).any():
                cells += [_NOTHING, _NOTHING]
                continue
            mean = mean_performance_under_corruption(frame, metric, corruptions=corruptions, allow_partial=True)
            cells += [_percent(mean.value), _relative(frame, metric, corruptions, clean)]
            missing += [f"{mean.cells}/{mean.expected_cells}"] if mean.partial else []
        marks = ", ".join(filter(None, (*missing, selected)))
        table.add_row(metric, *cells, f"partial ({marks})" if marks else "")
    return table


def cell_table(frame: pd.DataFrame, title: str) -> Table:
    """The AP of each corruption at each severity, and its mean."""
    table: Table = require("rich.table", "eval").Table(title=title)
    table.add_column("corruption")
    for heading in (*map(str, SEVERITIES), "mean"):
        table.add_column(heading, justify="right")
    keys = zip(frame["corruption"].tolist(), frame["severity"].tolist(), strict=True)
    values = dict(zip(keys, frame["AP"].tolist(), strict=True))
    for name in ALL:
        found = [values[name, severity] for severity in SEVERITIES if (name, severity) in values]
        if not found:
            continue
        texts = [_percent(values[name, one]) if (name, one) in values else "" for one in SEVERITIES]
        mean = _percent(sum(found) / len(found)) if min(found) >= 0 else _NOTHING
        label = "" if len(found) == len(SEVERITIES) else f" partial ({len(found)}/{len(SEVERITIES)})"
        table.add_row(name, *texts, mean + label)
    return table


def _relative(frame: pd.DataFrame, metric: str, corruptions: CorruptionSet, clean: float) -> str:
    # The rPC of a detector that finds nothing on clean images is undefined.
    if clean == 0:
        return _NOTHING
    found: Summary = relative_performance_under_corruption(frame, metric, corruptions=corruptions, allow_partial=True)
    return f"{found.value:.1f}"


def _percent(value: float) -> str:
    return _NOTHING if value < 0 else f"{100 * value:.2f}"
