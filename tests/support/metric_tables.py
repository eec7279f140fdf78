"""Tables that the tests of the metrics share."""

from __future__ import annotations

import pandas as pd

from dtn_det.metrics import CLEAN, all_cells


def grid(value=0.2, clean=0.4, *, column="AP", corruptions="benchmark", **more):
    """A complete table; `value` is a number or a function of the cell."""
    rows = [] if clean is None else [(*CLEAN, clean)]
    rows += [(*cell, value(cell) if callable(value) else value) for cell in all_cells(corruptions)]
    return pd.DataFrame(rows, columns=["corruption", "severity", column]).assign(**more)
