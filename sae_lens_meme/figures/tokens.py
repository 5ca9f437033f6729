"""The captions of a latent's top memes, each word coloured by what leaving it out does."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np

from sae_lens_meme.figures.inputs import Inputs, NotDrawn
from sae_lens_meme.figures.style import DIVERGING, titled
from sae_lens_meme.report.blocks import visible

TITLE = "Words that drive a latent"
MOST_PANELS, CHARACTERS, MEMES = 4, 74, 8


def panels(inputs: Inputs) -> list[dict[str, Any]]:
    """The latents that are driven most by single words, of those whose strongest memes have captions."""
    rows = inputs.attributions
    strongest = rows.assign(
        most=[np.max(np.abs(scores), initial=0) if scores is not None else 0 for scores in rows["word_scores"]]
    )
    means = strongest.groupby("latent")["most"].mean().sort_values(ascending=False)
    drawn = (int(latent) for latent in means[means > 0].index if len(_shown(inputs, int(latent))))
    return [{"latent": latent} for latent in islice(drawn, MOST_PANELS)]


def draw(axes: Any, inputs: Inputs, *, latent: int, n: int = MEMES) -> None:
    """The n strongest memes; red: the latent fires less without the word, blue: more."""
    import matplotlib as mpl

    rows = _shown(inputs, latent, n)
    if rows.empty:
        raise NotDrawn(f"latent {latent} has no attributed captions")
    largest = max(float(np.max(np.abs(scores), initial=0)) for scores in rows["word_scores"]) or 1.0
    colours, line = mpl.colormaps[DIVERGING], 0.0
    for row in rows.itertuples():
        x = 0
        for word, score in zip(map(visible, row.words), row.word_scores, strict=True):
            if x and x + len(word) > CHARACTERS:
                x, line = 2, line + 1
            shade = colours(0.5 + 0.4 * float(score) / largest)
            box = {"facecolor": shade, "edgecolor": "none", "pad": 1.0}
            axes.text(
                x / CHARACTERS, line, word.replace("$", r"\$"), fontsize=7, family="monospace", bbox=box, va="center"
            )
            x += len(word) + 1
        line += 1.6
    axes.set(xlim=(0, 1), ylim=(max(line, 12), -1), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    titled(axes, f"{inputs.called(latent)}: top memes")


def _shown(inputs: Inputs, latent: int, n: int = MEMES) -> Any:
    """Of the n strongest memes those with a caption."""
    rows = inputs.attributions
    rows = rows[(rows["latent"] == latent) & (rows["kind"] == "top")].sort_values("rank").head(n)
    return rows[[words is not None and len(words) > 0 for words in rows["words"]]]
