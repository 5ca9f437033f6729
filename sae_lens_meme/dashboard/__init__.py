"""`report.html`: the run, every latent, every meme and every concept as one page that needs no network."""

from sae_lens_meme.dashboard.options import DashboardOptions
from sae_lens_meme.dashboard.step import write_dashboard

__all__ = ["DashboardOptions", "write_dashboard"]
