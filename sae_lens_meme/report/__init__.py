"""An evaluation in a terminal, as a page, as text and as a figure. Nothing here knows what any number means."""

from sae_lens_meme.report.figure import draw_figure, figure_of
from sae_lens_meme.report.page import Column, latents_html, report_fragment, report_html
from sae_lens_meme.report.terminal import print_report, print_summary, report_text

__all__ = [
    "Column",
    "draw_figure",
    "figure_of",
    "latents_html",
    "print_report",
    "print_summary",
    "report_fragment",
    "report_html",
    "report_text",
]
