"""Numbers as one flat dictionary for each model, as Weights & Biases and MLflow take them."""

from __future__ import annotations

import math

from dtn_det.corruptions.cells import CLEAN
from dtn_det.reports.contents import Report


def flat_numbers(report: Report, model: str) -> dict[str, float]:
    """Return the means and the numbers on clean images of a model by their names.

    Returns:
        Numbers such as ``mce``, ``mean-error``, ``clean-error`` and ``clean-ece`` of classifiers, and ``mpc-ap`` of
        detectors, those of masks as ``segm-mpc-ap``, in the units of
        :attr:`dtn_det.reports.contents.Section.numbers`. Numbers over the extra corruptions begin with ``extra-``.
    """
    found = {}
    for section in report.sections:
        own = section.numbers[section.numbers["model"] == model]
        rows = zip(own["set"], own["name"], own["scope"], own["severity"], own["value"], strict=True)
        for which, name, scope, severity, value in rows:
            if severity or scope not in ("", CLEAN[0]) or not math.isfinite(value):
                continue
            starts = ["segm"] if section.kind == "segm" else []
            starts += ["clean"] if scope else ["extra"] if which == "extra" else []
            found["-".join([*starts, *name.lower().replace("%", "").split()])] = float(value)
    return found
