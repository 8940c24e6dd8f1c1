"""Draws and writes what it is given; computes nothing. `schema` says what that is."""

from fastpop.report import schema
from fastpop.report.audit_page import write_audit_report
from fastpop.report.compare_page import write_compare_report
from fastpop.report.compare_text import comparison_text
from fastpop.report.study import study_pictures, study_text
from fastpop.report.tables import plain, rows_csv, write_json, write_text

__all__ = [
    "comparison_text",
    "plain",
    "rows_csv",
    "schema",
    "study_pictures",
    "study_text",
    "write_audit_report",
    "write_compare_report",
    "write_json",
    "write_text",
]
