"""`report.html`: the run, every latent, every meme and every concept as one page that needs no network."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sae_lens_meme.dashboard.inputs import ReportInputs, read_inputs
    from sae_lens_meme.dashboard.options import DashboardOptions
    from sae_lens_meme.dashboard.step import write_dashboard, write_report

_HOME = {
    "DashboardOptions": "options",
    "ReportInputs": "inputs",
    "read_inputs": "inputs",
    "write_dashboard": "step",
    "write_report": "step",
}
__all__ = ["DashboardOptions", "ReportInputs", "read_inputs", "write_dashboard", "write_report"]


def __getattr__(name: str) -> Any:
    """The options import no torch: the command line is made of them."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
