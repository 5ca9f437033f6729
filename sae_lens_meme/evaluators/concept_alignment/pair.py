"""How one latent relates to one concept: the answer to a single question."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators import hook_of, memes_of, sae_of
from sae_lens_meme.evaluators.concept_alignment.compute import measure_pairs
from sae_lens_meme.evaluators.concepts import Concept, ConceptLabels, concepts_of, default_concepts
from sae_lens_meme.evaluators.latents import Latents, encode, require_latents_of
from sae_lens_meme.evaluators.result import defined
from sae_lens_meme.options import Count, check_value


@dataclass(frozen=True)
class LatentConcept:
    """How one latent relates to one concept (corrected protocol). None where undefined: `reasons` says why."""

    latent: int
    concept: str
    f1: float | None
    """On test rows, at the threshold chosen on the rows of `threshold_split`."""
    f1_always_on: float | None
    """F1 of a latent that fires on every meme: what `f1` has to beat."""
    precision: float | None
    recall: float | None
    p: float | None
    """One-sided exact test of association within source, on all memes with a known label (one per group)."""
    q: float | None
    """Benjamini-Hochberg over all latents and all concepts."""
    odds_ratio: float | None
    """Mantel-Haenszel, common to the sources."""
    auroc: float | None
    """Of the activation, within source, on test rows."""
    n: int
    """Memes with a known label."""
    threshold_split: str | None = None
    """The split that chose the threshold: validation, or train where no validation meme is true."""
    top_memes: tuple[tuple[str, float], ...] = ()
    """Ids and activations of the memes with the largest activation, of all splits."""
    reasons: dict[str, str] = field(default_factory=dict, compare=False)


def concept_alignment(
    *,
    latent: int,
    concept: str | Concept,
    sae: Any,
    embeddings: Embeddings | str | Path,
    hook: str | None = None,
    top: int = 10,
    latents: Latents | None = None,
) -> LatentConcept:
    """How well one latent stands for one concept.

    q counts every latent under this concept and the default ones, so all of them are measured (well under a
    second). Pass `latents=encode(sae, embeddings)` to ask for many pairs without encoding each time.

    Args:
        sae: any SAELens SAE, or its folder.
        embeddings: or the folder that `embed` wrote.
        hook: the hook to read, if the SAE names none.
        top: how many memes are named.

    Raises:
        ConfigError: the concept is not in these embeddings; the message lists what there is. Or no hook is named, or
            latent or top is no whole number.
        DataError: the SAE has no such latent, or does not fit the embeddings.
    """
    memes: Embeddings = memes_of(embeddings)
    sae = sae_of(sae, hook)
    check_value("latent", latent := _whole(latent), int)
    check_value("top", top := _whole(top), Count)
    concept = concept if isinstance(concept, Concept) else Concept.parse(concept)
    (concept,) = concepts_of(memes, [concept])
    if not 0 <= latent < sae.cfg.d_sae:
        raise DataError(f"latent {latent} is outside 0..{sae.cfg.d_sae - 1} of this SAE")
    latents = encode(sae, memes, hook_of(sae, memes, hook)) if latents is None else latents
    require_latents_of(latents, memes)
    pairs = measure_pairs(latents, ConceptLabels.of(memes, _family(memes, concept)), "corrected")
    row = {name: column[latent, 0] for name, column in pairs.columns.items()}
    names = {"f1": "f1_test", "precision": "precision_test", "recall": "recall_test", "q": "q_global"}
    fields = ("f1", "f1_always_on", "precision", "recall", "p", "q", "odds_ratio", "auroc")
    values: dict[str, Any] = {name: defined(row[names.get(name, name)]) for name in fields}
    reasons = {name: _why_undefined(name, row) for name, value in values.items() if value is None}
    top_memes = _top_memes(latents, latent, memes, top)
    facts = {"n": int(row["n"]), "threshold_split": pairs.threshold_splits[0], "top_memes": top_memes}
    return LatentConcept(latent, concept.name, reasons=reasons, **facts, **values)


def _whole(number: Any) -> Any:
    """A whole number of numpy or torch as one of Python; anything else as it is, to be refused."""
    try:
        return number if isinstance(number, bool) else operator.index(number)
    except TypeError:
        return number


def _family(embeddings: Embeddings, concept: Concept) -> tuple[Concept, ...]:
    """It, then the default ones, if there are any."""
    try:
        return concept, *(c for c in default_concepts(embeddings) if c.name != concept.name)
    except ConfigError:
        return (concept,)


def _top_memes(latents: Latents, latent: int, embeddings: Embeddings, top: int) -> tuple[tuple[str, float], ...]:
    column = latents.csc()[:, [latent]]
    order = np.argsort(-column.data, kind="stable")[:top]
    return tuple((str(embeddings.ids[column.indices[i]]), float(column.data[i])) for i in order)


def _why_undefined(name: str, row: dict[str, Any]) -> str:
    if row["a"] + row["b"] == 0 and name != "f1_always_on":
        return "the latent fires on no meme with a known label"
    if name in ("p", "q"):
        return "no source has memes of each kind (true and false, firing and silent)"
    if name == "odds_ratio":
        return "no meme contradicts the association, or none supports it (b c = 0)"
    if row["n_test"] == 0:
        return "no test meme has a known label"
    if np.isnan(row["threshold"]):
        return "no threshold: none of the memes that choose it fires the latent, or none is true"
    if name == "precision":
        return "no test meme reaches the threshold"
    return "the test memes with a known label are of one class"
