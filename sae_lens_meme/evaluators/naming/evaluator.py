"""Naming: automatic labels for latents from caption words and from concepts, each with a score on held-out memes.

An honest "no name" is part of the answer, and the same procedure on permuted latents stands beside every number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import pandas as pd

from sae_lens_meme.config import check_counts
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.base import Evaluator
from sae_lens_meme.evaluators.concepts import Concept, concepts_of
from sae_lens_meme.evaluators.latents import Latents, require_latents_of
from sae_lens_meme.evaluators.naming.explain import explain
from sae_lens_meme.evaluators.naming.external import Evidence, Namer, evidence_of, external_name
from sae_lens_meme.evaluators.naming.judge import Judge, judge_columns
from sae_lens_meme.evaluators.naming.memes import Memes, permuted_within_source
from sae_lens_meme.evaluators.naming.names import Names, Settings, find_names
from sae_lens_meme.evaluators.naming.numbers import all_numbers, external_numbers, hold_interval
from sae_lens_meme.evaluators.naming.table import named_externally, names_table
from sae_lens_meme.evaluators.result import Result


class Naming(Evaluator):
    """A name for every latent that deserves one.

    Rows that are not held out choose: the word with the largest z (log-odds with informative Dirichlet prior, within
    source), the concept with the smallest exact p (within source), each usable if its p, times the number of words or
    of concepts it was chosen from and times the two kinds, has q < alpha over the latents; of two usable ones the name is the one whose truth correlates more
    with firing within source. Held-out rows measure. A latent with no usable one has no name, and a reason.

    Args:
        embeddings: the memes; captions, labels or both.
        concepts: such as `["hate=1"]`; default `concepts.default_concepts`.
        alpha: false-discovery rate of choosing and of holding.
        alpha_0: size of the prior of the log-odds, in words.
        min_df: a word must be in as many captions of the selection rows.
        min_support: a latent must fire on as many selection rows.
        stop_words: left out of the vocabulary, default none, since a latent may stand for "when": "english", or words.
        n_words: how many candidate words a latent keeps.
        n_bootstrap: random halves of the memes for the interval of the names that hold; 0 for none.
        namer: an external namer, such as a language model; called for `external` latents only. Captions are
            untrusted text: see `Evidence`.
        judge: scores how well captions fit a name; gives the names of the `external` latents a held-out score.
        external: the latents that the namer names and the judge scores.

    Raises:
        ConfigError: a concept is not known, or a number is out of range.
    """

    name = "naming"

    def __init__(
        self,
        embeddings: Embeddings,
        concepts: Iterable[str | Concept] | None = None,
        *,
        alpha: float = 0.05,
        alpha_0: float = 500.0,
        min_df: int = 5,
        min_support: int = 5,
        stop_words: str | Collection[str] | None = None,
        n_words: int = 5,
        n_bootstrap: int = 100,
        namer: Namer | None = None,
        judge: Judge | None = None,
        external: Sequence[int] = (),
        seed: int = 0,
        hook: str | None = None,
    ):
        super().__init__(embeddings, hook=hook)
        self.concepts = None if concepts is None else concepts_of(embeddings, concepts)
        _require(alpha, alpha_0, min_df, n_words, stop_words)
        check_counts("naming", min_support=min_support, n_bootstrap=n_bootstrap, seed=seed)
        if (namer is not None or judge is not None) and not len(external):
            raise ConfigError("naming: give external=[latents], those that the namer names or the judge scores")
        self.settings = Settings(alpha, alpha_0, min_support, n_words)
        self.min_df, self.stop_words, self.n_bootstrap, self.seed = min_df, stop_words, n_bootstrap, seed
        self.namer, self.judge, self.external = namer, judge, tuple(dict.fromkeys(map(int, external)))

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        return self.measure_latents(embeddings, latents)

    def measure_latents(self, embeddings: Embeddings, latents: Latents) -> Result:
        """The same for any units that come as `Latents`."""
        require_latents_of(latents, embeddings)
        for latent in self.external:
            _require_latent(latent, latents)
        memes = self._memes(embeddings)
        names = find_names(latents, memes, self.settings)
        permuted = find_names(permuted_within_source(latents, embeddings, self.seed), memes, self.settings)
        alpha = self.settings.alpha
        numbers, reasons = all_numbers(names, permuted, memes, alpha)
        numbers |= hold_interval(names, latents, memes, alpha, self.n_bootstrap, self.seed)
        table = names_table(names, memes, self.settings)
        if self.external:
            table = self._with_external(table, embeddings, latents, memes, names)
            found, why = external_numbers(table)
            numbers, reasons = numbers | found, reasons | why
        return Result(self.name, numbers, reasons, table, explain(memes, self.settings))

    def evidence(self, latents: Latents, which: Sequence[int], embeddings: Embeddings | None = None) -> list[Evidence]:
        """What a namer is given for each of these latents, to name them elsewhere.

        Raises:
            DataError: there is no such latent.
        """
        embeddings = self.embeddings if embeddings is None else embeddings
        require_latents_of(latents, embeddings)
        memes = self._memes(embeddings)
        names = find_names(latents, memes, self.settings)
        return [self._evidence(embeddings, latents, memes, names, latent) for latent in which]

    def _memes(self, embeddings: Embeddings) -> Memes:
        return Memes.of(embeddings, self.concepts, self.min_df, self.stop_words)

    def _evidence(self, embeddings: Embeddings, latents: Latents, memes: Memes, names: Names, latent: int) -> Evidence:
        _require_latent(latent, latents)
        return evidence_of(embeddings, latents, memes, names, latent, self.seed)

    def _with_external(
        self, table: pd.DataFrame, embeddings: Embeddings, latents: Latents, memes: Memes, names: Names
    ) -> pd.DataFrame:
        """The names of the chosen latents by the namer, and the scores of the judge."""
        if self.namer is not None:
            evidence = [self._evidence(embeddings, latents, memes, names, latent) for latent in self.external]
            given = {e.latent: external_name(self.namer, e) for e in evidence if e.top_memes}
            table = named_externally(table, given)
        if self.judge is not None:
            chosen = table["name"].iloc[list(self.external)].dropna()
            named = dict(zip(chosen.index.tolist(), chosen.tolist(), strict=True))
            table = table.assign(**judge_columns(self.judge, named, embeddings, latents, memes, self.seed))
        return table


def _require(alpha: float, alpha_0: float, min_df: int, n_words: int, stop_words: Any) -> None:
    if not 0 < alpha < 1:
        raise ConfigError(f"naming: alpha is {alpha}; give a false-discovery rate between 0 and 1")
    if not alpha_0 > 0:
        raise ConfigError(f"naming: alpha_0 is {alpha_0}; give a prior of more than 0 words")
    if min_df < 1 or n_words < 1:
        raise ConfigError(f"naming: min_df is {min_df} and n_words is {n_words}; give 1 or more")
    if isinstance(stop_words, str) and stop_words != "english":
        raise ConfigError(f"naming: stop_words is {stop_words!r}; give 'english' or a list of words")


def _require_latent(latent: int, latents: Latents) -> None:
    if not 0 <= latent < latents.d_sae:
        raise DataError(f"naming: latent {latent} is outside 0..{latents.d_sae - 1}")
