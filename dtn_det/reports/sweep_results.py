"""Prints the results of a sweep that has just ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dtn_det.corruptions.cells import CLEAN
from dtn_det.metrics import BASELINES
from dtn_det.reports.collect import ReportOptions, collect_sources
from dtn_det.reports.formats.terminal import print_tables
from dtn_det.reports.numbers import Numbers
from dtn_det.reports.sources import Sources, known_task
from dtn_det.reports.tables import sweep_tables
from dtn_det.robustness.classification.data import TWIN
from dtn_det.robustness.detection.records import rule_note
from dtn_det.robustness.detection.truth import RULE
from dtn_det.system.progress import say

if TYPE_CHECKING:
    from rich.console import Console

    from dtn_det.reports.contents import Evaluator, Report
    from dtn_det.robustness.store import Store
    from dtn_det.robustness.sweep import Swept

_BAD_SHOWN = 10


def sweep_report(
    store: Store,
    names: Sequence[str],
    *,
    baseline: str | None = None,
    replicates: int = 0,
    processes: int = 1,
    on_cells: Callable[[int], None] = lambda count: None,
    evaluator: Evaluator = "hotcoco",
) -> Report:
    """Compute the numbers of some models of a store, which ``dtn-det mce`` and ``dtn-det mpc`` show when they end.

    The numbers are computed by the code that makes reports. Without replicates there are no intervals, and each cell is
    evaluated once; this takes about as long as reading the records for classifiers, and as COCO's matching for
    detectors.

    Args:
        store: The store with the records. Images of unfinished units are left out; numbers are then marked `partial`.
        baseline: The model whose errors are the denominators of CE and mCE: ``alexnet``, or a model of the store, which
            need not be among `names`. With None, AlexNet is taken for the data of ImageNet-C, and other data get no CE
            and mCE.
        replicates: Number of bootstrap replicates; 0 for no intervals.
        on_cells: Called with the number of cells on which a detector was just evaluated.
        evaluator: What evaluates detectors; see :class:`~dtn_det.reports.collect.ReportOptions`.

    Returns:
        The report. Its ``bad_images`` are the images that could not be read and were left out.

    Raises:
        ReportError: The baseline is neither a model of the store nor AlexNet with data that its published errors fit.
        StoreError: A model is not in the store, has no records, or has damaged records.
    """
    wanted = list(names)
    if baseline is not None and baseline not in (*BASELINES, *names):
        wanted.append(baseline)
    stored = store.models()
    # If the baseline is not in the store, collect_sources raises an error that lists the possible baselines.
    sources = Sources(
        known_task(store.manifest.task), {name: store.model(name) for name in wanted if name in names or name in stored}
    )
    options = ReportOptions(
        models=wanted, baseline=baseline, pairs=(), replicates=replicates, processes=processes, evaluator=evaluator
    )
    found = collect_sources(sources, options, on_cells=on_cells)
    return replace(found, models=tuple(model for model in found.models if model.name in names))


def print_sweep_report(console: Console, store: Store, report: Report) -> None:
    """Print the tables and remarks of a report of :func:`sweep_report`, and the images that were left out."""
    names = [model.name for model in report.models]
    tables = sweep_tables(report)
    if tables:
        print_tables(console, tables)
    for text in (*report.remarks, *_advice(store, report), *_rules(store, names)):
        say(console, text)
    for name in names:
        _print_bad_images(console, name, report)


def _advice(store: Store, report: Report) -> list[str]:
    """Return sentences on how to get numbers that the report of classifiers lacks: CE, mCE, and the clean error."""
    if report.task != "classification":
        return []
    models, said = list(store.models()), []
    if set(store.manifest.cells) == {CLEAN}:
        return []
    if report.baseline is None:
        one_of = f"name one of {', '.join(models)} with --baseline for CE and mCE"
        other = "CE and mCE need another model in this store, named with --baseline"
        said.append(f"no baseline: {one_of if len(models) > 1 else other}")
    if CLEAN not in store.manifest.cells:
        said.append("no clean images: name them with --clean for the clean error and relative mCE")
    return said


class SweepPrinter:
    """Prints the results of classifiers on each data set as soon as the set is evaluated.

    Args:
        baseline: See :func:`sweep_report`.

    Attributes:
        swept: The sets that were printed. Only the first process prints.
        left_out: Whether an image could not be read and was left out of some numbers.
    """

    def __init__(self, console: Console, baseline: str | None) -> None:
        self.console, self.baseline = console, baseline
        self.swept: list[Swept] = []
        self.left_out = False
        self._last: tuple[Report, str] | None = None

    def __call__(self, swept: Swept) -> None:
        """Print the tables of a set. After the clean images of its classes, also print how much the errors differ."""
        recognised = swept.store.manifest.recognised
        is_twin = swept.store.folder.name == TWIN and self._last is not None
        report = sweep_report(swept.store, swept.names, baseline=None if is_twin else self.baseline)
        print_sweep_report(self.console, swept.store, report)
        if is_twin and self._last is not None:
            _print_drop(self.console, self._last[0], report, self._last[1])
        self.left_out = self.left_out or any(report.bad_images.values())
        self.swept.append(swept)
        self._last = report, recognised["dataset"]


def _print_drop(console: Console, report: Report, twin: Report, dataset: str) -> None:
    """Print the error of each model on a data set and on the clean images of the same classes."""
    on_set, on_twin = (Numbers.of(each, each.sections[0]) for each in (report, twin))
    for model in report.models:
        shifted, clean = (numbers.get(model.name, "benchmark", "error", CLEAN[0]) for numbers in (on_set, on_twin))
        if shifted is not None and clean is not None:
            drop = shifted.value - clean.value
            say(
                console,
                f"{model.name}: top-1 error {shifted.value:.2f} % on {dataset}, {clean.value:.2f} % on the clean "
                f"images of the same classes, {drop:+.2f} points",
            )


def _rules(store: Store, names: Sequence[str]) -> list[str]:
    # The notes are about COCO's rule, which is not the rule of a store that names another.
    if store.manifest.task != "detection" or RULE in store.manifest.protocol:
        return []
    notes = {name: rule_note(store.model(name)) for name in names}
    return [f"{name}: {note}" for name, note in notes.items() if note]


def _print_bad_images(console: Console, name: str, report: Report) -> None:
    bad = report.bad_images.get(name, {})
    lines = [f"left out of {name}: image {number}, {reason}" for number, reason in sorted(bad.items())]
    if len(lines) > _BAD_SHOWN:
        lines[_BAD_SHOWN:] = [f"and {len(lines) - _BAD_SHOWN:,} more"]
    for line in lines:
        say(console, line)
