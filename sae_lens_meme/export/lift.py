"""Words, or classes, with which a latent fires more often or less often than without them: for `pos_str` and `neg_str`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import sparse

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.naming.statements import Statements, words_of
from sae_lens_meme.export.text import number, token

SHOWN = 10
PRIOR = 500.0
"""Size of the prior in words, that of the evaluator naming."""
TOGETHER = 32
"""Latents whose counts of all words are in memory at once."""
NONE = "(none)"
"""A page without any text here shows no statistics at all."""


class Lifts(NamedTuple):
    """Texts and log-odds, the largest first; those below 0, the smallest first."""

    positive: list[tuple[str, float]]
    negative: list[tuple[str, float]]

    def as_row(self) -> dict[str, Any]:
        positive, negative = self.positive or [(NONE, 0.0)], self.negative or [(NONE, 0.0)]
        return {
            **{"pos_str": [text for text, _ in positive], "pos_values": [value for _, value in positive]},
            **{"neg_str": [text for text, _ in negative], "neg_values": [value for _, value in negative]},
        }


class LiftTable(Protocol):
    note: str

    def of(self, latents: range) -> Iterator[Lifts]:
        """Of each of these latents in turn."""
        ...


def lift_table(memes: Embeddings, latents: Latents, alignment: Any) -> LiftTable:
    """Words where there are captions, else classes where an evaluation measured them, else nothing."""
    _, held_out = memes.held_out()
    selection = np.setdiff1d(np.arange(len(memes)), held_out)
    try:
        family = words_of(memes.texts, selection, selection[:0], memes.strata, memes.groups)
    except DataError:
        return _Classes(alignment)
    return _Words([token(name) for name in family.names], family.selection, latents)


@dataclass
class _Words:
    """Log-odds with an informative Dirichlet prior within source, as the evaluator naming chooses words."""

    names: list[str]
    side: Statements
    latents: Latents
    note: str = (
        "'Positive and negative logits' are caption words: log-odds of the word where the latent fires against where it "
        "does not, within source (Dirichlet prior), on memes that are not held out; the ten with the largest |z|."
    )

    def __post_init__(self) -> None:
        self._fires = sparse.csc_matrix(self.latents.rows(self.side.rows).csr() > 0)
        occurs = self.side.true.tocsr()
        self._strata = [(rows, occurs[rows].astype(np.float32)) for rows in _rows_by(self.side.sources)]

    def of(self, latents: range) -> Iterator[Lifts]:
        for start in range(latents.start, latents.stop, TOGETHER):
            part = range(start, min(start + TOGETHER, latents.stop))
            delta, z = self._log_odds(part)
            for i in range(len(part)):
                yield self._best(delta[i], z[i])

    def _log_odds(self, part: range) -> tuple[Float[np.ndarray, "part words"], Float[np.ndarray, "part words"]]:
        """See `naming.kernels.word_log_odds`; here of all words, for those with z below 0 as well."""
        weighted = np.zeros((len(part), len(self.names)))
        weights = np.zeros_like(weighted)
        fires = self._fires[:, part.start : part.stop].tocsr()
        for rows, occurs in self._strata:
            mine = fires[rows].astype(np.float32)
            total = np.asarray(occurs.sum(axis=0), dtype=np.float64).ravel()
            size, inside = total.sum(), (mine.T @ occurs.sum(axis=1)).A1[:, None].astype(np.float64)
            count = (mine.T @ occurs).toarray().astype(np.float64)
            prior = PRIOR * total / max(size, 1.0)
            y_i, y_j = count + prior, total - count + prior
            other_i, other_j = inside + PRIOR - y_i, size - inside + PRIOR - y_j
            says = (total > 0) & (total < size) & (inside > 0) & (inside < size)
            with np.errstate(divide="ignore", invalid="ignore"):
                weight = y_i * y_j / (y_i + y_j)
                odds = weight * np.log(y_i * other_j / (other_i * y_j))
            weighted += np.where(says, odds, 0.0)
            weights += np.where(says, weight, 0.0)
        known = np.maximum(weights, np.finfo(float).tiny)
        return weighted / known, weighted / np.sqrt(known)

    def _best(self, delta: np.ndarray, z: np.ndarray) -> Lifts:
        found = []
        for sign in (1, -1):
            words = np.argsort(-sign * z, kind="stable")[:SHOWN]
            words = words[sign * z[words] > 0]
            words = words[np.argsort(-sign * delta[words], kind="stable")]
            found.append([(self.names[word], number(delta[word])) for word in words])
        return Lifts(*found)


class _Classes:
    """Log odds ratios of the evaluator concept_alignment, where there are no captions."""

    def __init__(self, alignment: Any):
        self.note = "There are no captions: 'positive and negative logits' are empty."
        self._found: dict[int, list[_Class]] = {}
        if alignment is not None:
            self.note = (
                "There are no captions: 'positive and negative logits' are classes by the log odds ratio of firing, "
                "those with q < .05 over all pairs; a class whose odds ratio is infinite comes first, with the log odds ratio of the "
                "pooled counts, half a meme added to each."
            )
            kept = alignment[(alignment["q_global"] < 0.05).fillna(False) & (alignment["odds_ratio"] != 0).fillna(True)]
            for row in kept.to_dict("records"):
                self._found.setdefault(int(row["latent"]), []).append(_Class.of(row))

    def of(self, latents: range) -> Iterator[Lifts]:
        for latent in latents:
            found = sorted(self._found.get(latent, []), key=lambda one: (not one.infinite, -one.log_odds))
            positive = [(one.name, one.log_odds) for one in found if one.infinite or one.log_odds > 0]
            negative = [(one.name, one.log_odds) for one in found[::-1] if not one.infinite and one.log_odds < 0]
            yield Lifts(positive[:SHOWN], negative[:SHOWN])


class _Class(NamedTuple):
    name: str
    log_odds: float
    infinite: bool
    """The odds ratio is: b c = 0, and so q is small because nothing speaks against the class."""

    @classmethod
    def of(cls, row: dict[str, Any]) -> _Class:
        odds, infinite = row["odds_ratio"], bool(pd.isna(row["odds_ratio"]))
        if infinite:
            a, b, c, d = (float(row[cell]) + 0.5 for cell in "abcd")
            odds = a * d / (b * c)
        return cls(token(row["concept"]), number(np.log(float(odds))), infinite)


def _rows_by(sources: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(sources == source) for source in np.unique(sources)]
