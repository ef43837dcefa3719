"""Run folders -> one page that opens from disk."""

from saelab.report.page import write_report

__all__ = ["write_report"]
