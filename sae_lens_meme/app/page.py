"""What the application shows, as HTML in which every foreign text is escaped. Nothing here measures anything."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from sae_lens_meme.app.steering import Outcome, SteeredMeme
from sae_lens_meme.report.blocks import visible
from sae_lens_meme.report.page import rendered

STYLE = """
iframe.reading { width: 100%; height: 60vh; min-height: 24rem; border: 0; resize: vertical; }
.scroll { overflow-x: auto; }
table.steered { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
table.steered th, table.steered td { text-align: left; padding: .25rem .9rem .25rem 0; vertical-align: top; }
table.steered meter { display: block; width: 6rem; }
p.dim { opacity: .75; font-size: .9rem; }
p.trouble { font-weight: 600; }
"""
NOTHING_ACTIVE = "No latent is active on this meme: there is none to make weaker or stronger."


def framed(page: str) -> str:
    """A whole page inside a frame that can neither run a script nor reach what is around it."""
    return f'<iframe class="reading" title="What the model sees" sandbox srcdoc="{escape(page)}"></iframe>'


def trouble(message: str) -> str:
    """One line that says what is wrong."""
    return f'<p class="trouble" role="alert">{escape(visible(message))}</p>'


def steered_html(meme: SteeredMeme, latent: int, multiplier: float, no_head: str | None) -> str:
    """Each classifier before and after, beside the control, and what to conclude."""
    outcomes = meme.outcomes(latent, multiplier)
    return rendered(
        "app",
        "steered",
        outcomes=outcomes,
        latent=latent,
        times=f"{multiplier:g}",
        n_others=max((len(outcome.others) for outcome in outcomes), default=0),
        verdict=verdict(outcomes, multiplier),
        no_head=no_head,
    )


def verdict(outcomes: Sequence[Outcome], multiplier: float) -> str:
    """What to conclude from the table."""
    if not outcomes:
        return "These embeddings have no label that a probe could read, so there is no classifier to watch."
    if multiplier == 1:
        return "At strength 1 the latent is unchanged: move the slider."
    n_others = len(outcomes[0].others)
    if not n_others:
        return "No other latent is active on this meme, so the change has no control: conclude nothing from it."
    more = sum(outcome.beats_others for outcome in outcomes)
    turned = sum(outcome.now != outcome.decided for outcome in outcomes)
    return (
        f"{more} of {len(outcomes)} change more than with any of the {n_others} other active latents of most similar "
        f"activation; of latents that do not differ 1 in {n_others + 1} would. {turned} then decide for another class. "
        "One meme shows what this latent does to it, not what it does in general: that is measured by evaluate --only influence."
    )
