"""The captions of a latent's top memes, each word coloured by what leaving it out does."""

from __future__ import annotations

from typing import Any

import numpy as np

from sae_lens_meme.figures.inputs import Inputs, NotDrawn
from sae_lens_meme.figures.style import DIVERGING, titled, wrapped

TITLE = "Words that drive a latent"
MOST_PANELS, WIDTH, LINE = 4, 1.0, 0.045


def panels(inputs: Inputs) -> list[dict[str, Any]]:
    """The latents that are driven most by single words."""
    rows = inputs.attributions
    strongest = rows.assign(
        most=[np.max(np.abs(scores), initial=0) if scores is not None else 0 for scores in rows["word_scores"]]
    )
    means = strongest.groupby("latent")["most"].mean().sort_values(ascending=False)
    return [{"latent": int(latent)} for latent in means[means > 0].index[:MOST_PANELS]]


def draw(axes: Any, inputs: Inputs, *, latent: int, n: int = 8) -> None:
    """The n strongest memes; red: the latent fires less without the word, blue: more."""
    import matplotlib as mpl

    rows = inputs.attributions
    rows = rows[(rows["latent"] == latent) & (rows["kind"] == "top")].sort_values("rank").head(n)
    rows = rows[[words is not None and len(words) > 0 for words in rows["words"]]]
    if rows.empty:
        raise NotDrawn(f"latent {latent} has no attributed captions")
    largest = max(float(np.max(np.abs(scores), initial=0)) for scores in rows["word_scores"]) or 1.0
    colours = mpl.colormaps[DIVERGING]
    axes.set(xlim=(0, WIDTH), ylim=(len(rows), -0.5), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    renderer = axes.figure.canvas.get_renderer()
    for place, row in enumerate(rows.itertuples()):
        x = 0.0
        for word, score in zip(row.words, row.word_scores, strict=True):
            shade = colours(0.5 + 0.4 * float(score) / largest)
            text = axes.text(
                x, place, wrapped(word, 60), fontsize=8, bbox={"facecolor": shade, "edgecolor": "none", "pad": 1.2}
            )
            box = text.get_window_extent(renderer).transformed(axes.transData.inverted())
            x = box.x1 + 0.02
            if x > WIDTH:
                text.set_text("...")
                break
    titled(axes, f"{inputs.called(latent)}: top memes")
