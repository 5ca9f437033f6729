"""Names from outside, such as a language model's.

Captions are text by strangers: data, never instructions. Whoever puts `Evidence` into a prompt has to quote it as such,
and gives the model no tools. Names that come back are strings in a table and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.naming.memes import Memes
from sae_lens_meme.evaluators.naming.names import Names, concept_tables
from sae_lens_meme.evaluators.naming.paired import correlation
from sae_lens_meme.evaluators.naming.table import top_words

N_EVIDENCE = 10
"""Memes of each kind that a namer is shown."""


@dataclass(frozen=True)
class Meme:
    """A meme that fires the latent."""

    id: str
    caption: str | None
    activation: float


@dataclass(frozen=True)
class Evidence:
    """What there is to name a latent by, all of it of selection rows. Captions are untrusted text."""

    latent: int
    top_memes: tuple[Meme, ...]
    """Those with the largest activation, descending."""
    silent_captions: tuple[str, ...]
    """Of memes that do not fire it, of the same sources as the top memes."""
    words: tuple[tuple[str, float], ...]
    """Candidate words and the z of their log-odds."""
    concepts: tuple[tuple[str, float], ...]
    """Concepts and their correlation with firing within source, largest first."""


Namer = Callable[[Evidence], str]


def evidence_of(
    embeddings: Embeddings, latents: Latents, memes: Memes, names: Names, latent: int, seed: int
) -> Evidence:
    """What a namer is given."""
    column = latents.csc()[:, [latent]]
    mine = np.isin(column.indices, memes.selection)
    rows, values = column.indices[mine], column.data[mine]
    order = np.lexsort((embeddings.ids[rows], -values))[:N_EVIDENCE]
    texts: Any = texts_of(embeddings)
    top = tuple(Meme(str(embeddings.ids[rows[i]]), texts[rows[i]], float(values[i])) for i in order)
    silent = matched_rows(np.setdiff1d(memes.selection, rows), rows[order], embeddings, generator_of(seed, latent))
    words = top_words(names.candidates["word"], latent) if "word" in names.candidates else []
    captions = tuple(str(texts[row]) for row in silent)
    return Evidence(latent, top, captions, tuple(words), _concepts(latents, memes, latent))


def external_name(namer: Namer, evidence: Evidence) -> str:
    """What the namer says, on one line.

    Raises:
        DataError: the namer raises, or gives no text; the message names the latent.
    """
    try:
        name = namer(evidence)
    except Exception as error:
        raise DataError(f"latent {evidence.latent}: the namer raised {type(error).__name__}: {error}") from error
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"latent {evidence.latent}: the namer gave {name!r}; it has to give a text")
    return " ".join(name.split())


def matched_rows(pool: np.ndarray, to: np.ndarray, embeddings: Embeddings, rng: np.random.Generator) -> np.ndarray:
    """As many memes of the pool from each source as `to` has, or all there are; with captions only."""
    texts, out = texts_of(embeddings), [np.empty(0, np.int64)]
    pool = by_id(pool[[texts[row] is not None for row in pool]], embeddings)
    for source, count in zip(*np.unique(embeddings.sources[to], return_counts=True), strict=True):
        out.append(rng.permutation(pool[embeddings.sources[pool] == source])[:count])
    return np.concatenate(out)


def by_id(rows: np.ndarray, embeddings: Embeddings) -> np.ndarray:
    """A draw must not depend on the order of the memes."""
    return rows[np.argsort(embeddings.ids[rows], kind="stable")]


def texts_of(embeddings: Embeddings) -> np.ndarray:
    """Captions, None where there is none."""
    return np.full(len(embeddings), None, dtype=object) if embeddings.texts is None else embeddings.texts


def _concepts(latents: Latents, memes: Memes, latent: int) -> tuple[tuple[str, float], ...]:
    if "concept" not in memes.families:
        return ()
    family = memes.families["concept"]
    one = Latents.from_csr(latents.csc()[:, [latent]])
    strength = correlation(concept_tables(one, family.selection))[0]
    known = np.flatnonzero(~np.isnan(strength))
    order = known[np.argsort(-strength[known], kind="stable")]
    return tuple((str(family.names[c]), float(strength[c])) for c in order)


def generator_of(seed: int, latent: int) -> np.random.Generator:
    """Each latent draws for itself: what others are asked for does not matter."""
    return np.random.default_rng([seed, latent])
