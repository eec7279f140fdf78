"""The contents of an overview, which tables, files and the page show without computing anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dtn_det.reports.contents import Direction, Report, ReportModel
from dtn_det.reports.numbers import Number, PairedDifference

Key = str
"""The name of a number: that of its set and that of its measure, such as ``imagenet-c/mce``."""


EFFECTIVE = "effective robustness"
"""The accuracy on a set beyond that of models of the same clean accuracy: see :mod:`dtn_det.metrics.shifts`, and for
detectors :mod:`dtn_det.reports.overview.coco_o`."""

MEAN_AP = "mean AP"
"""The mean AP of boxes over the domains of COCO-O."""


@dataclass(frozen=True)
class OverviewColumn:
    """A number that each model may have on a set.

    Attributes:
        key: Name of the number in files, such as ``imagenet-r/top-1``.
        name: Name of the set in files.
        title: Name of the set for readers, such as ``ImageNet-R``.
        measure: Name of the measure as papers write it: ``top-1``, ``mCE``, ``mCE_3d``, ``mean error``, ``drop``,
            ``AP``, ``mPC``, :data:`MEAN_AP` or :data:`EFFECTIVE`.
        known: Name of the number by which others publish it; empty if the set is not known.
        unit: Unit of the number; empty for mCE.
        direction: Which numbers are better.
    """

    key: Key
    name: str
    title: str
    measure: str
    known: Key
    unit: str
    direction: Direction


@dataclass(frozen=True)
class Overview:
    """Models on several sets.

    Attributes:
        models: The models in the order of the table.
        columns: The numbers in the order of the table.
        numbers: Each number by model and key, with its interval. Top-1 is an accuracy in percent, and the drop and the
            effective robustness are in percentage points.
        differences: Each difference, second minus first, by the two models and the key, with its paired interval. The
            p-values of a pair are adjusted together, over all columns, by Holm's method.
        pairs: The first and the second model of each pair that was compared.
        reports: The report of each set by the name of the set, in the order of the columns.
        titles: The name of each set for readers.
        known: The title of each set that its files tell; empty if they tell none.
        notes: A remark that must be read with a number, such as ``partial (30/75)``, by model and key.
        remarks: Sentences that readers need.
    """

    models: tuple[ReportModel, ...]
    columns: tuple[OverviewColumn, ...]
    numbers: Mapping[tuple[str, Key], Number]
    differences: Mapping[tuple[str, str, Key], PairedDifference]
    pairs: tuple[tuple[str, str], ...]
    reports: Mapping[str, Report]
    titles: Mapping[str, str]
    known: Mapping[str, str]
    notes: Mapping[tuple[str, Key], str]
    remarks: tuple[str, ...] = field(default=())

    @property
    def some_report(self) -> Report:
        """The report of the first set, whose level, replicates, seed, versions and date all reports have."""
        return next(iter(self.reports.values()))
