"""Comparison reports: from stores of results to the paper's tables, figures, and a page."""

from dtn_det._optional import require

for _module in ("pandas", "pyarrow", "rich"):
    require(_module, "eval")
