"""Comparison reports: from stores of results to the paper's tables, figures, and a page."""
