"""The options of a report: declared here once, read from Python, recipes and the command line."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from sae_lens_meme.options import Count, Options, Positive


class DashboardOptions(Options):
    """The section `dashboard` of a recipe, the options of the command, the keywords of `write_dashboard`."""

    section: ClassVar[str] = "dashboard"

    pixels: Positive = 192
    """Longest side of a picture in the report."""
    top: Count = 20
    """How many memes with the largest activation to show for each latent that `attribute` has not analysed."""
    intervals: Annotated[int, Field(ge=1, le=100)] = 5
    """Equally wide parts of the range of such a latent's activations."""
    per_interval: Count = 5
    """Memes drawn from each of these parts."""
    map: Literal["umap", "tsne"] = "umap"
    """How the decoders are laid out. UMAP spends about 40 s on compiling in each run, t-SNE none."""
    nearest: Count = 8
    """How many nearest memes to show on the page of a meme."""
    readings: Count = 300
    """How many memes get a page with what `read` says, the strongest of each latent first; each takes about 30 ms."""
    single_file_mb: Count = 50
    """Above this size the pictures and details go into a folder beside the page; 0 always does that."""
    seed: Count = 0
    """Seed of the draws of memes and of the map."""
