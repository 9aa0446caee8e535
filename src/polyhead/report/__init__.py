"""The report: everything a run leaves on disk -> one page that opens anywhere."""

from polyhead.report.html import write_report

__all__ = ["write_report"]
