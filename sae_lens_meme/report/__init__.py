"""The table at the end of an evaluation: one row a number, its controls beside it."""

from sae_lens_meme.report.console import print_report, report_html
from sae_lens_meme.report.sections import report_rows

__all__ = ["print_report", "report_html", "report_rows"]
