"""Write numbers and figures of a report to the backends of MMEngine's visualizer, such as TensorBoard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dtn_det._optional import require
from dtn_det.corruptions.catalog import EVERY_GROUP
from dtn_det.metrics import CLEAN
from dtn_det.reports.contents import Report, Section
from dtn_det.reports.figures import draw_figures
from dtn_det.reports.numbers import SETS
from dtn_det.system.drawing import pixels

if TYPE_CHECKING:
    from mmengine.visualization import Visualizer

PREFIX = "robustness"
_BACKENDS = ("TensorboardVisBackend", "LocalVisBackend")


class Scalar(NamedTuple):
    """A number in the form that the backends of a visualizer take.

    Attributes:
        tag: ``robustness/<model>/<number>``, or ``robustness/<model>/<group>/<number>``; for masks, ``<number>`` begins
            with ``segm_``.
        value: The number, in the unit of :attr:`dtn_det.reports.contents.Section.numbers`.
        step: The severity for numbers whose tag ends in ``_by_severity``, None for all others.
    """

    tag: str
    value: float
    step: int | None = None


def report_scalars(report: Report) -> Iterator[Scalar]:
    """Yield the means over all corruptions, over each group and at each severity, and the clean performance."""
    for section in report.sections:
        yield from _section_scalars(section)


def log_report(report: Report, target: Visualizer | str | Path, step: int = 0) -> None:
    """Log the numbers and figures of a report with a visualizer.

    Args:
        target: A visualizer of MMEngine, whose backends stay open; or a folder, in whose subfolder ``vis_data``
            TensorBoard's events, ``scalars.json`` and the figures are written.
        step: Step under which numbers and figures are logged, such as the epoch of the model.

    Raises:
        ImportError: MMEngine is not installed, or `target` is a folder and TensorBoard is not installed.
    """
    if not isinstance(target, (str, Path)):
        _log(report, target, step)
        return
    require("tensorboard", "report")
    visualization = require("mmengine.visualization", "det")
    backends = [{"type": name} for name in _BACKENDS]
    visualizer = visualization.Visualizer(vis_backends=backends, save_dir=str(target))
    try:
        _log(report, visualizer, step)
    finally:
        visualizer.close()


def _log(report: Report, visualizer: Visualizer, step: int) -> None:
    for scalar in report_scalars(report):
        visualizer.add_scalar(scalar.tag, scalar.value, step if scalar.step is None else scalar.step)
    # Image names have no slash, because the local backend would take the part before a slash for a folder and not
    # create the folder.
    for name, figure in draw_figures(report).figures.items():
        visualizer.add_image(f"{PREFIX}_{name}", pixels(figure), step)


def _section_scalars(section: Section) -> Iterator[Scalar]:
    kind = "segm_" if section.kind == "segm" else ""
    for row in section.numbers.itertuples(index=False):
        model, which, name, scope, severity, value, *_ = row
        start, tag = f"{PREFIX}/{model}/", kind + name.replace(" ", "_")
        if scope in EVERY_GROUP:
            yield Scalar(f"{start}{scope}/{tag}", value)
        # Means over the extra corruptions are left out, as they are the means of the group `extra`.
        elif not scope and which == SETS[0]:
            yield Scalar(f"{start}{tag}_by_severity", value, int(severity)) if severity else Scalar(start + tag, value)
        # Only for classifiers: detectors log their clean numbers already, under names such as "P AP".
        elif (scope, severity) == CLEAN and section.kind == "top1":
            yield Scalar(f"{start}clean_{tag}", value)
