"""Draws and writes what it is given; computes nothing. `schema` says what that is."""

from fastpop.report import schema
from fastpop.report.audit_page import write_audit_report
from fastpop.report.html import write_compare_report
from fastpop.report.tables import comparison_text, rows_csv, write_json, write_text

__all__ = [
    "comparison_text", "rows_csv", "schema", "write_audit_report", "write_compare_report", "write_json",
    "write_text",
]
