"""Figures of a report for print."""

from dtn_det.reports.figures.write import FIGURES, Drawn, draw_figures, write_figures

__all__ = ["FIGURES", "Drawn", "draw_figures", "write_figures"]
