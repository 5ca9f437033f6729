"""Concept alignment: which latents fire on which labelled concepts, with every control beside the number.

`corrected` tests labelled memes within their source and scores on held-out memes; `published` repeats InterVLM's
procedure fault for fault, for comparison.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from sae_lens_meme.config import check_counts
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.base import Evaluator
from sae_lens_meme.evaluators.concept_alignment.numbers import EXPLAIN, count_intervals, headline_counts, score_numbers
from sae_lens_meme.evaluators.concept_alignment.pairs import PROTOCOLS, measure_pairs
from sae_lens_meme.evaluators.concepts import Concept, ConceptLabels, concepts_of
from sae_lens_meme.evaluators.latents import Latents, encode, require_latents_of
from sae_lens_meme.evaluators.result import Number, Result, defined
from sae_lens_meme.metrics.ranking import Ranked


class ConceptAlignment(Evaluator):
    """Association, threshold and held-out scores of every latent x concept pair.

    Args:
        embeddings: the memes, with labels, sources and splits.
        concepts: such as `["hate=1", "stance=support"]`; default `concepts.default_concepts`.
        protocol: `corrected`, `published` or `both`.
        alpha: a pair is significant where its q is below.
        n_bootstrap: resamples of the memes for the intervals; 0 leaves the intervals out.

    Raises:
        ConfigError: a concept or the protocol is not known; the message lists what there is.
    """

    name = "concept_alignment"

    def __init__(
        self,
        embeddings: Embeddings,
        concepts: Iterable[str | Concept] | None = None,
        *,
        protocol: str = "both",
        alpha: float = 0.05,
        n_bootstrap: int = 200,
        seed: int = 0,
        hook: str | None = None,
    ):
        super().__init__(embeddings, hook=hook)
        self.concepts = concepts_of(embeddings, concepts)
        self.protocols = _protocols(protocol)
        if not 0 < alpha < 1:
            raise ConfigError(f"alpha is {alpha}; give a false-discovery rate between 0 and 1")
        check_counts("concept_alignment", n_bootstrap=n_bootstrap, seed=seed)
        self.alpha, self.n_bootstrap, self.seed = alpha, n_bootstrap, seed

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        return self.measure_latents(embeddings, latents)

    def measure_latents(self, embeddings: Embeddings, latents: Latents) -> Result:
        """The same for any units that come as `Latents` (raw neurons, other dictionaries)."""
        require_latents_of(latents, embeddings)
        targets = ConceptLabels.of(embeddings, concepts_of(embeddings, self.concepts))
        ranked = Ranked.of(latents.csc())
        numbers: dict[str, Number] = {}
        reasons: dict[str, str] = {}
        tables = []
        for protocol in self.protocols:
            pairs = measure_pairs(latents, targets, protocol, ranked)
            counts = headline_counts(pairs.log_p, targets.names, self.alpha)
            scores, why = score_numbers(pairs, latents, targets, self.n_bootstrap, self.seed)
            spread = count_intervals(latents, targets, protocol, self.alpha, self.n_bootstrap, self.seed)
            numbers |= {f"{protocol}/{key}": value for key, value in (counts | spread | scores).items()}
            reasons |= {f"{protocol}/{key}": reason for key, reason in why.items()}
            tables.append(pairs.table())
        return Result(self.name, numbers, reasons, pd.concat(tables, ignore_index=True), dict(EXPLAIN))


@dataclass(frozen=True)
class LatentConcept:
    """One latent under one concept (corrected protocol). None where undefined: `reasons` says why."""

    latent: int
    concept: str
    f1: float | None
    """On test rows, at the threshold chosen on validation rows."""
    f1_always_on: float | None
    """F1 of a latent that fires on every meme: what `f1` has to beat."""
    precision: float | None
    recall: float | None
    p: float | None
    """One-sided exact test of association within source, on all memes with a known label."""
    q: float | None
    """Benjamini-Hochberg over all latents and all concepts."""
    odds_ratio: float | None
    """Mantel-Haenszel, common to the sources."""
    auroc: float | None
    """Of the activation, within source, on test rows."""
    n: int
    """Memes with a known label."""
    top_memes: tuple[tuple[str, float], ...] = ()
    """Ids and activations of the memes with the largest activation, of all splits."""
    reasons: dict[str, str] = field(default_factory=dict, compare=False)


def concept_alignment(
    *,
    latent: int,
    concept: str | Concept,
    sae: Any,
    embeddings: Embeddings,
    top: int = 10,
    latents: Latents | None = None,
) -> LatentConcept:
    """How well one latent stands for one concept.

    q counts every latent under this concept and the default ones, so all of them are measured (well under a
    second). Pass `latents=encode(sae, embeddings)` to ask for many pairs without encoding each time.

    Raises:
        ConfigError: the concept is not in these embeddings; the message lists what there is.
        DataError: the SAE has no such latent, or does not fit the embeddings.
    """
    concept = concept if isinstance(concept, Concept) else Concept.parse(concept)
    (concept,) = concepts_of(embeddings, [concept])
    if not 0 <= latent < sae.cfg.d_sae:
        raise DataError(f"latent {latent} is outside 0..{sae.cfg.d_sae - 1} of this SAE")
    latents = encode(sae, embeddings) if latents is None else latents
    require_latents_of(latents, embeddings)
    family = [c for c in concepts_of(embeddings) if c.name != concept.name]
    pairs = measure_pairs(latents, ConceptLabels.of(embeddings, (concept, *family)), "corrected")
    row = {name: column[latent, 0] for name, column in pairs.columns.items()}
    names = {"f1": "f1_test", "precision": "precision_test", "recall": "recall_test", "q": "q_global"}
    fields = ("f1", "f1_always_on", "precision", "recall", "p", "q", "odds_ratio", "auroc")
    values: dict[str, Any] = {name: defined(row[names.get(name, name)]) for name in fields}
    reasons = {name: _why_undefined(name, row) for name, value in values.items() if value is None}
    top_memes = _top_memes(latents, latent, embeddings, top)
    return LatentConcept(latent, concept.name, n=int(row["n"]), top_memes=top_memes, reasons=reasons, **values)


def _top_memes(latents: Latents, latent: int, embeddings: Embeddings, top: int) -> tuple[tuple[str, float], ...]:
    column = latents.csc()[:, [latent]]
    order = np.argsort(-column.data, kind="stable")[:top]
    return tuple((str(embeddings.ids[column.indices[i]]), float(column.data[i])) for i in order)


def _why_undefined(name: str, row: dict[str, Any]) -> str:
    if row["a"] + row["b"] == 0 and name != "f1_always_on":
        return "the latent fires on no meme with a known label"
    if name in ("p", "q"):
        return "within no source is there a meme of each kind (true and false, firing and silent)"
    if name == "odds_ratio":
        return "no meme contradicts the association, or none supports it (b c = 0)"
    if row["n_test"] == 0:
        return "no test meme has a known label"
    if np.isnan(row["threshold"]):
        return "no threshold: the latent fires on no validation meme with a known label, or none of them is true"
    if name == "precision":
        return "no test meme reaches the threshold"
    return "the test memes with a known label are of one class"


def _protocols(protocol: str) -> tuple[str, ...]:
    if protocol not in (*PROTOCOLS, "both"):
        raise ConfigError(f"protocol {protocol!r} is none of {', '.join(PROTOCOLS)}, both")
    return PROTOCOLS if protocol == "both" else (protocol,)
