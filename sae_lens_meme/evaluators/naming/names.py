"""The name of every latent: a word or a concept chosen on the selection rows, measured on the held-out rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.naming.log_odds import WordOdds, word_log_odds
from sae_lens_meme.evaluators.naming.memes import Family, Memes
from sae_lens_meme.evaluators.naming.paired import SCORES, PairCounter, Statements, activation_auroc, scores
from sae_lens_meme.metrics.contingency import Counter, Tables
from sae_lens_meme.metrics.fisher import stratified_greater
from sae_lens_meme.metrics.multiple_testing import benjamini_hochberg

KINDS = ("word", "concept")
ACTIVATION = ("auroc_activation", "auroc_activation_low", "auroc_activation_high")
HELD_OUT = (*SCORES, *ACTIVATION)
Values = Float[np.ndarray, " latents"]


@dataclass(frozen=True)
class Settings:
    """How names are chosen."""

    alpha: float
    alpha_0: float
    min_support: int
    n_words: int


@dataclass(frozen=True, eq=False)
class Candidates:
    """The best word, or the best concept, of every latent."""

    family: Family
    chosen: Int[np.ndarray, " latents"]
    """-1 where there is none."""
    selection: dict[str, Values]
    held_out: dict[str, Values]
    q_selection: Values
    """Benjamini-Hochberg over the latents, of p times the number of statements it was chosen from and of families."""
    q: Values
    """Of the held-out association, Benjamini-Hochberg over the latents."""
    odds: WordOdds | None = None

    def held_out_counter(self, latents: Latents) -> PairCounter:
        """Counts the held-out tables again under other weights."""
        side = self.family.held_out
        return PairCounter(_active(latents, side), side, self.chosen)


@dataclass(frozen=True, eq=False)
class Names:
    """Which candidate is the name of each latent, and how it does on the held-out rows."""

    candidates: dict[str, Candidates]
    kind: Int[np.ndarray, " latents"]
    """Index into KINDS; -1 where the latent has no name."""
    selection: dict[str, Values]
    held_out: dict[str, Values]
    q: Values
    """Of the held-out association, Benjamini-Hochberg over the latents with a name."""
    fires: Int[np.ndarray, " latents"]
    """On how many selection rows."""

    def holds(self, alpha: float) -> Bool[np.ndarray, " latents"]:
        """The name is associated with firing on the held-out rows too."""
        return self.q < alpha


def find_names(latents: Latents, memes: Memes, settings: Settings) -> Names:
    """The best word and the best concept of each latent, and the better of the two.

    A candidate is usable if its q_selection < alpha; of two usable ones the name is the one whose truth correlates
    more with firing, within source. All of this on the selection rows.
    """
    candidates: dict[str, Candidates] = {}
    choose = {"word": _best_words, "concept": _best_concepts}
    for kind, family in memes.families.items():
        candidates[kind] = choose[kind](latents, family, settings, len(memes.families))
    strength = np.full((len(KINDS), latents.d_sae), -np.inf)
    for kind, found in candidates.items():
        usable = found.q_selection < settings.alpha
        strength[KINDS.index(kind)] = np.where(usable, found.selection["correlation"], -np.inf)
    kind = np.where(np.isfinite(strength).any(0), strength.argmax(0), -1)
    selection = _of_names(kind, SCORES, {name: found.selection for name, found in candidates.items()})
    held_out = _of_names(kind, HELD_OUT, {name: found.held_out for name, found in candidates.items()})
    fires = np.diff(_rows(latents, memes.selection).indptr)
    return Names(candidates, kind, selection, held_out, benjamini_hochberg(held_out["log_p"]), fires)


def _best_words(latents: Latents, family: Family, settings: Settings, n_families: int) -> Candidates:
    side = family.selection
    active, occurs = _active(latents, side), side.true.tocsr()
    odds = word_log_odds(active, occurs, side.sources, alpha_0=settings.alpha_0, top=settings.n_words)
    chosen = np.where(np.diff(active.indptr) >= settings.min_support, odds.word[:, 0], -1)
    return _measured(latents, family, chosen, n_families, odds)


def _best_concepts(latents: Latents, family: Family, settings: Settings, n_families: int) -> Candidates:
    """By the exact test within source."""
    tables = concept_tables(latents, family.selection)
    log_p = np.where(tables.fires.sum(-1) >= settings.min_support, stratified_greater(tables), np.nan)
    chosen = np.where(np.isnan(log_p).all(1), -1, np.where(np.isnan(log_p), np.inf, log_p).argmin(1))
    return _measured(latents, family, chosen, n_families)


def concept_tables(latents: Latents, side: Statements) -> Tables:
    """Tables of all latents and all concepts."""
    _, n_statements = side.true.shape  # type: ignore[misc]
    codes = np.hstack([side.codes(c) for c in range(n_statements)])
    return Counter(_active(latents, side), codes, side.sources).count()


def _measured(
    latents: Latents, family: Family, chosen: np.ndarray, n_families: int, odds: WordOdds | None = None
) -> Candidates:
    selection, held_out = (
        scores(PairCounter(_active(latents, side), side, chosen).count())
        for side in (family.selection, family.held_out)
    )
    ranking = activation_auroc(_active(latents, family.held_out), family.held_out, chosen)
    held_out |= dict(zip(ACTIVATION, ranking, strict=True))
    all_statements = np.minimum(selection["log_p"] + math.log(len(family.names) * n_families), 0)
    q_selection, q = benjamini_hochberg(all_statements), benjamini_hochberg(held_out["log_p"])
    return Candidates(family, chosen, selection, held_out, q_selection, q, odds)


def _of_names(
    kind: np.ndarray, names: tuple[str, ...], of_candidates: dict[str, dict[str, Values]]
) -> dict[str, Values]:
    """Of each latent the scores of the candidate that is its name."""
    out = {score: np.full(len(kind), np.nan) for score in names}
    for name, found in of_candidates.items():
        mine = kind == KINDS.index(name)
        for score, values in out.items():
            values[mine] = found[score][mine]
    return out


def _active(latents: Latents, side: Statements) -> Any:
    return _rows(latents, side.rows)


def _rows(latents: Latents, rows: np.ndarray) -> Any:
    return latents.csr()[rows].tocsc()
