"""Which side decides a latent, as `read` says it of single memes, beside the answer key of planted memes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from datasets import Image

from sae_lens_meme.corpus import caption_of, load_rows
from sae_lens_meme.evaluators.answer_key import MIN_AUROC, score_answer_key, with_conjunctions
from sae_lens_meme.planted import read_answer_key
from sae_lens_meme.read import MemeReader

SIDES = {"visual": "picture", "textual": "caption", "cross-modal": "both"}


class Agreement(NamedTuple):
    n: int
    """Verdicts: of the strongest latents of each meme those that stand for a planted value."""
    agrees: float
    agrees_where_true: float
    """Of the memes that have the value: what a latent that fires without it shows, the key does not say."""
    chance: float
    """The same verdicts dealt out to the same latents at random."""


def agreement(demo: Path, sae: Path, n_memes: int, *, strongest: int = 3, seed: int = 0) -> Agreement:
    """Over held-out memes of a demo's folder."""
    reader = MemeReader(sae, demo / "embeddings", n_latents=strongest, n_attributed=0, n_neighbours=0, n_random=1)
    said = pd.DataFrame(_verdicts(reader, demo, n_memes, seed), columns=["said", "key", "true"])
    agrees = said["said"] == said["key"]
    chance = sum(float((said["said"] == side).mean() * (said["key"] == side).mean()) for side in SIDES.values())
    return Agreement(len(said), float(agrees.mean()), float(agrees[said["true"]].mean()), chance)


def _verdicts(reader: MemeReader, demo: Path, n_memes: int, seed: int) -> Iterator[tuple[str | None, str, bool]]:
    memes, key = reader.embeddings, read_answer_key(demo / "planted" / "answer_key")
    factors, kinds = with_conjunctions(key.factors, key.kinds)
    scores = score_answer_key(reader.latents, memes, factors, kinds).table
    assert scores is not None
    standing = scores[scores["auroc"] >= MIN_AUROC].sort_values("auroc", ascending=False).drop_duplicates("latent")
    stands_for = standing.set_index("latent")[["kind", "factor", "value"]].to_dict("index")
    of_meme, corpus = factors.set_index("id"), load_rows(demo / "corpus").cast_column("image", Image(decode=False))
    place = {name: row for row, name in enumerate(corpus["id"][:])}
    _, held_out = memes.held_out()
    for row in np.random.default_rng(seed).choice(held_out, n_memes, replace=False):
        name = str(memes.ids[row])
        meme = corpus[place[name]]
        for latent in reader.read(meme["image"]["bytes"], caption_of(meme) or "").latents:
            if value := stands_for.get(latent.latent):
                true = str(of_meme.at[name, value["factor"]]) == value["value"]
                yield latent.sides.decided_by, SIDES[str(value["kind"])], true
