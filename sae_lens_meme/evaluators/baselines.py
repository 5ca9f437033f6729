"""What concept alignment finds where there is nothing to find, and in units that no SAE trained.

The same code, the same concepts, the same memes: labels permuted within source, raw neurons, other dictionaries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.evaluators.base import Evaluator
from sae_lens_meme.evaluators.concept_alignment.numbers import HEADLINES, INTERVLM_F1, headline_counts
from sae_lens_meme.evaluators.concept_alignment.pairs import PROTOCOLS, association, measured_f1
from sae_lens_meme.evaluators.concepts import Concept, ConceptLabels, concepts_of
from sae_lens_meme.evaluators.controls import FITS, activations, fit_directions
from sae_lens_meme.evaluators.latents import Latents, encode, hook_of, require_latents_of
from sae_lens_meme.evaluators.result import Number, Result
from sae_lens_meme.metrics.contingency import Counter

_COUNTS = (
    *(*HEADLINES, "n_latents", "n_pairs_tested", "n_f1_above_0.35"),
    *(f"share_of_{unit}_{family}" for unit in ("latents", "tests") for family in ("global", "concept")),
)

EXPLAIN = {
    "*/sae/*": "the SAE on the true labels, all rows with a known label (corrected) or all rows (published)",
    "*/permuted_labels*": "the SAE, with all labels of a meme handed to another meme of its source; mean and largest over the "
    "draws. What is found here is found where no latent knows any label",
    "*/random_topk/*": "as many random directions of the z-scored embedding as the SAE has latents; of each meme the largest "
    "fire, as many as the SAE has latents that fire on it",
    "ica/*": "steps of FastICA (which unmixes the 256 leading principal components on some 8,000 train rows) and whether "
    "they converged (1) or met their limit (0); the directions have unit variance either way",
    **dict.fromkeys(
        ("*/neurons/*", "*/pca/*", "*/ica/*"),
        "directions of the embedding scaled to unit variance, each as two units (positive and negative part); of each meme "
        "the units with the largest |value| fire, as many as the SAE has latents that fire on it",
    ),
    "*": "pairs with q < alpha: n_significant; latents with at least one: n_latents; q over all pairs: _global, within each "
    "concept: _concept",
    "*/n_f1_above_0.35": "pairs whose F1 is above InterVLM's threshold: on test memes (corrected), the best on all memes (published)",
    "*/share_of_*": "per unit and per test: the rows have different numbers of units",
}


class Baselines(Evaluator):
    """Counts of significant pairs under both protocols for the SAE and for each baseline.

    The result has a table of one row a baseline x protocol, and `{protocol}/{baseline}/{count}` as numbers.

    Args:
        raw: untrained units to compare with, of `directions.FITS`: neurons, pca, ica, random_topk.
        others: more dictionaries by name, each an SAE or `Latents` of the same memes, such as an SAE trained on
            embeddings shuffled per dimension.
        n_permutations: draws of permuted labels, at least 1.
    """

    name = "baselines"

    def __init__(
        self,
        embeddings: Embeddings,
        concepts: Iterable[str | Concept] | None = None,
        *,
        raw: Iterable[str] = tuple(FITS),
        others: Mapping[str, Any] | None = None,
        n_permutations: int = 3,
        alpha: float = 0.05,
        seed: int = 0,
        hook: str | None = None,
    ):
        super().__init__(embeddings, hook=hook)
        if n_permutations < 1:
            raise ConfigError(f"n_permutations is {n_permutations}; give 1 or more")
        self.concepts = concepts_of(embeddings, concepts)
        self.raw, self.others, self.n_permutations = tuple(raw), dict(others or {}), n_permutations
        self.alpha, self.seed = alpha, seed

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        hook = hook_of(sae, embeddings, self.hook)
        fitted = {name: fit_directions(embeddings, hook, name, self.seed, latents.d_sae) for name in self.raw}
        units = {"sae": latents, **{name: activations(f, embeddings, hook, latents.l0) for name, f in fitted.items()}}
        for name, other in self.others.items():
            units[name] = other if isinstance(other, Latents) else encode(other, embeddings, hook)
            require_latents_of(units[name], embeddings)
        targets = ConceptLabels.of(embeddings, concepts_of(embeddings, self.concepts))
        rows = [
            {"baseline": name, "protocol": protocol, **_counts(active, targets, protocol, self.alpha)}
            for name, active in units.items()
            for protocol in PROTOCOLS
        ]
        for protocol in PROTOCOLS:
            rows += permuted_labels(latents, targets, protocol, self.n_permutations, self.alpha, self.seed)
        numbers = {f"{r['protocol']}/{r['baseline']}/{k}": r[k] for r in rows for k in _COUNTS}
        for name, fit in fitted.items():
            if fit.steps is not None:
                numbers |= {f"{name}/steps": fit.steps, f"{name}/converged": int(bool(fit.converged))}
        return Result(self.name, numbers, table=pd.DataFrame(rows), explain=dict(EXPLAIN))


def permuted_labels(
    latents: Latents, targets: ConceptLabels, protocol: str, n_permutations: int, alpha: float, seed: int
) -> list[dict[str, Any]]:
    """Counts on labels permuted within source: two rows, the mean and the largest over the draws."""
    generator = np.random.default_rng(seed)
    draws = [_counts(latents, targets.permuted(generator), protocol, alpha) for _ in range(n_permutations)]
    return [
        {"baseline": f"permuted_labels{suffix}", "protocol": protocol}
        | {key: float(combine(np.array([draw[key] for draw in draws]))) for key in _COUNTS}
        for suffix, combine in (("", np.mean), ("_max", np.max))
    ]


def _counts(latents: Latents, targets: ConceptLabels, protocol: str, alpha: float) -> dict[str, Number]:
    counter = Counter(latents.csr(), targets.codes(protocol), targets.strata(protocol))
    numbers = headline_counts(association(counter.count(), protocol, alpha), targets.names, alpha)
    numbers["n_f1_above_0.35"] = int((measured_f1(latents, targets, protocol) > INTERVLM_F1).sum())
    return {key: numbers[key] for key in _COUNTS}
