"""Draws and writes what it is given; computes nothing. `schema` says what that is."""

from fastpop.report import schema
from fastpop.report.audit_page import write_audit_report
from fastpop.report.compare_page import write_compare_report
from fastpop.report.compare_text import comparison_text
from fastpop.report.tables import rows_csv, write_json, write_text

__all__ = [
    "comparison_text",
    "rows_csv",
    "schema",
    "write_audit_report",
    "write_compare_report",
    "write_json",
    "write_text",
]
