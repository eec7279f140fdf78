"""Reports that compare models: tables, figures and an HTML page from stores of results."""

from dtn_det._optional import require

for _module in ("pandas", "pyarrow", "rich"):
    require(_module, "eval")
