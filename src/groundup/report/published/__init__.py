"""Published numbers to lay beside one's own: the tables of arXiv:2603.05369, and which of their
numbers belongs to a run."""

from __future__ import annotations

from groundup.report.published.comparison import Published, beside
from groundup.report.published.table import Table, tables

__all__ = ["Published", "Table", "beside", "tables"]
