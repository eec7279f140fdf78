"""A report as one HTML file: tables to sort and filter, figures to explore, sample images."""

from dtn_det.reports.page.render import render_page, write_page

__all__ = ["render_page", "write_page"]
