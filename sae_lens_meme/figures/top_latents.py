"""The strongest latents of each concept."""

from __future__ import annotations

from typing import Any

from sae_lens_meme.figures.inputs import Inputs, NotDrawn, alignment, by_evidence
from sae_lens_meme.figures.style import BLUE, GREY, listed, titled

TITLE = "The strongest latents of each concept"
MOST_PANELS = 12


def panels(inputs: Inputs) -> list[dict[str, Any]]:
    """A panel per concept that test memes measure, the first dozen."""
    table = alignment(inputs)
    return [{"concept": name} for name in table["concept"][table["auroc"].notna()].drop_duplicates()[:MOST_PANELS]]


def draw(axes: Any, inputs: Inputs, *, concept: str | None = None, n: int = 5) -> None:
    """AUROC on test memes, with its 95 % interval, of the n latents of the strongest evidence: chosen as in `heatmap`."""
    table, flattering = by_evidence(inputs)
    concept = concept if concept is not None else panels(inputs)[0]["concept"]
    mine = table[(table["concept"] == concept) & table["auroc"].notna()]
    if mine.empty:
        raise NotDrawn(f"concept {concept!r} has no scores on test memes")
    best = mine.head(n)
    places = range(len(best))
    axes.axvline(0.5, color=GREY, lw=1)
    axes.hlines(places, best["auroc_low"], best["auroc_high"], color=BLUE, lw=1.6)
    axes.plot(best["auroc"], places, "o", color=BLUE, ls="")
    listed(axes, [inputs.called(int(latent)) for latent in best["latent"]])
    axes.set_xlim(0, 1)
    titled(axes, f"{concept}{flattering}", "AUROC, test memes")
