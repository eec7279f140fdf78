"""Tables of a report: the paper's, and those that a reviewer asks for."""

from dtn_det.reports.tables.report_tables import report_tables
from dtn_det.reports.tables.table import Cell, Column, Group, Row, Table

__all__ = ["Cell", "Column", "Group", "Row", "Table", "report_tables"]
