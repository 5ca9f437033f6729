"""What a report is asked for: declared here once, read from Python, recipes and the command line."""

from __future__ import annotations

from typing import ClassVar

from sae_lens_meme.options import Count, Options, Positive


class DashboardOptions(Options):
    """The section `dashboard` of a recipe, the options of the command, the keywords of `write_dashboard`."""

    section: ClassVar[str] = "dashboard"

    pixels: Positive = 192
    """Longest side of a picture in the report."""
    top: Positive = 20
    """Memes a latent that fire it most. The attribution, where there is one, has chosen its own."""
    intervals: Positive = 5
    """Equal-count intervals of the activations of a latent, from which further memes are shown."""
    per_interval: Count = 5
    """Memes an interval."""
    nearest: Count = 8
    """Nearest memes on the page of a meme."""
    single_file_mb: Count = 50
    """Above this size the pictures and details go into a folder beside the page; 0 always does that."""
    seed: Count = 0
    """Seed of the map of decoders."""
