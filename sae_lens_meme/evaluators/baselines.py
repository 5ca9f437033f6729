"""What concept alignment finds where there is nothing to find, and in units that no SAE trained.

The same code, the same concepts, the same memes: labels permuted within source, raw neurons, other dictionaries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field
from typing_extensions import Self

from sae_lens_meme import options
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.base import Evaluator, Unavailable
from sae_lens_meme.evaluators.concept_alignment.compute import (
    INTERVLM_F1,
    PROTOCOLS,
    association,
    measured_f1,
    pair_counts,
)
from sae_lens_meme.evaluators.concept_alignment.quantities import COUNTS, N_F1, NO_QUALITY, TESTED
from sae_lens_meme.evaluators.concepts import Concept, ConceptLabels, Concepts, concepts_of, require_concepts
from sae_lens_meme.evaluators.context import Context
from sae_lens_meme.evaluators.controls import FITS, Fitted, activations, fit_directions
from sae_lens_meme.evaluators.latents import Latents, encode, hook_of, require_latents_of
from sae_lens_meme.evaluators.result import Measure, Number, Quantity, Result, Section
from sae_lens_meme.metrics.contingency import Counter

SHUFFLED = "shuffled_data"
_PERMUTED = "all labels of a meme given to another meme of its source, groups whole, so that no latent knows any;"
UNITS = {
    "sae": ("SAE", "the SAE on the true labels"),
    "permuted_labels": ("permuted", f"{_PERMUTED} mean over the draws"),
    "permuted_labels_max": ("permuted, largest", f"{_PERMUTED} largest over the draws"),
    SHUFFLED: ("shuffled", "an SAE of the same recipe trained on embeddings shuffled per dimension"),
    "neurons": ("neurons", "raw dimensions of the embedding"),
    "pca": ("PCA", "principal components of the embedding"),
    "ica": ("ICA", "independent components of the embedding"),
    "random_topk": ("random TopK", "random directions of the z-scored embedding"),
}
"""Heading in the printed table, and what it is."""
EQUAL_L0 = (
    "dimensions and components have unit variance and are two units each (positive and negative part); of untrained units as "
    "many fire on a meme as latents of the SAE, the largest"
)
PAIRS = {
    ("corrected", "n_significant_global"): "corrected protocol",
    ("corrected", "n_significant_concept"): "corrected protocol, q within each concept",
    ("published", "n_significant_concept"): "published protocol",
    ("corrected", N_F1): "pairs with F1 above .35, corrected",
    ("published", N_F1): "pairs with F1 above .35, published",
}
"""Labels of the counts that are printed."""
SHARES = {
    ("corrected", "share_of_latents_global"): "corrected protocol",
    ("published", "share_of_latents_concept"): "published protocol",
}
STEPS = Quantity(
    "steps", "steps of FastICA, which unmixes the 256 leading principal components on some 8,000 train rows"
)
CONVERGED = Quantity(
    "converged", "1: FastICA converged; 0: it met its limit of steps (the directions have unit variance)"
)
COLUMNS = {"baseline": "sae, or the name of a control", "protocol": "corrected or published"} | {
    key: quantity.what for key, quantity in COUNTS.items()
}


ByBaseline = dict[tuple[str, str], dict[str, Measure]]
"""By protocol and baseline, then by key of COUNTS."""


class Baselines(Evaluator):
    """Counts of significant pairs under both protocols for the SAE and for each baseline.

    The result has a table of one row a baseline x protocol, and `{protocol}/{baseline}/{count}` as numbers.

    Args:
        concepts: as for `ConceptAlignment`.
        others: more dictionaries by name, each an SAE or `Latents` of the same memes, such as an SAE trained on
            embeddings shuffled per dimension.
    """

    name = "baselines"
    question = "the same counts where nothing was learned"
    control = "permuted labels, raw neurons, PCA, ICA, random TopK, an SAE on shuffled data"
    needs_labels = True

    class Options(options.Options):
        concepts: Concepts = None
        """Concepts such as hate=1; default InterVLM's 13, and every class of any other label."""
        raw: Annotated[tuple[Literal["neurons", "pca", "ica", "random_topk"], ...], Field(strict=False)] = (
            *("neurons", "pca", "ica", "random_topk"),
        )
        """Untrained units to compare with."""
        n_permutations: options.Positive = 3
        """Draws of permuted labels."""
        alpha: options.Share = 0.05
        """A pair is significant where its q is below."""
        seed: options.Count = 0
        """Seed of permutations and of random directions."""

    def __init__(
        self,
        embeddings: Embeddings,
        concepts: Iterable[str | Concept] | None = None,
        *,
        others: Mapping[str, Any] | None = None,
        **given: Any,
    ):
        super().__init__(embeddings, concepts=concepts, **given)
        self.concepts, self.others = concepts_of(embeddings, self.options.concepts), dict(others or {})
        if taken := sorted(self.others.keys() & (UNITS.keys() - {SHUFFLED})):
            raise ConfigError(f"baselines: {taken[0]!r} in others is the name of a baseline; give it another name")

    @classmethod
    def from_context(cls, context: Context) -> Self:
        require_concepts(context.embeddings, context.options.concepts)
        if context.train_shuffled is not None:
            try:
                context.controls[SHUFFLED] = context.train_shuffled()
            except Unavailable as error:
                context.skipped[f"baselines/{SHUFFLED}"] = str(error)
        return cls(context.embeddings, others=context.controls, **context.options_of(cls))

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        settings = self.options
        units, fits, unfit = self._units(sae, embeddings, latents)
        labels = ConceptLabels.of(embeddings, concepts_of(embeddings, self.concepts))
        rows = [
            {"baseline": name, "protocol": protocol, **_counts(active, labels, protocol, settings.alpha)}
            for name, active in units.items()
            for protocol in PROTOCOLS
        ]
        for protocol in PROTOCOLS:
            rows += permuted_labels(latents, labels, protocol, settings.n_permutations, settings.alpha, settings.seed)
        rows += [
            {"baseline": name, "protocol": protocol, **dict.fromkeys(COUNTS)}
            for name in unfit
            for protocol in PROTOCOLS
        ]
        counts = {(row["protocol"], row["baseline"]): _measures(row, unfit, settings.alpha) for row in rows}
        sections = _show(counts, settings.alpha)
        measures = [measure for found in counts.values() for measure in found.values()]
        for name, fit in fits.items():
            if fit.steps is not None:
                measures += [STEPS(fit.steps, name), CONVERGED(int(bool(fit.converged)), name)]
        table = pd.DataFrame(rows).astype(dict.fromkeys(COUNTS, "Float64"))
        return Result(self.name, sections[0], tuple(measures), table, COLUMNS, _verdict(counts))

    def _units(
        self, sae: Any, embeddings: Embeddings, latents: Latents
    ) -> tuple[dict[str, Latents], dict[str, Fitted], dict[str, str]]:
        """The SAE's and the other units, how the directions were fitted, and why one cannot be."""
        hook, units = hook_of(sae, embeddings, self.hook), {"sae": latents}
        fits: dict[str, Fitted] = {}
        unfit: dict[str, str] = {}
        for name in self.options.raw:
            try:
                fits[name] = fit_directions(embeddings, hook, name, self.options.seed, latents.d_sae)
                units[name] = activations(fits[name], embeddings, hook, latents.l0)
            except DataError as error:
                unfit[name] = str(error)
        for name, other in self.others.items():
            units[name] = other if isinstance(other, Latents) else encode(other, embeddings, hook)
            require_latents_of(units[name], embeddings)
        return units, fits, unfit


def permuted_labels(
    latents: Latents, labels: ConceptLabels, protocol: str, n_permutations: int, alpha: float, seed: int
) -> list[dict[str, Any]]:
    """Counts on labels permuted within source: two rows, the mean and the largest over the draws."""
    generator = np.random.default_rng(seed)
    draws = [_counts(latents, labels.permuted(generator), protocol, alpha) for _ in range(n_permutations)]

    def combined(key: str, combine: Callable[[Any], Any]) -> Number:
        values = [draw[key] for draw in draws]
        return None if None in values else float(combine(values))

    return [
        {
            "baseline": f"permuted_labels{suffix}",
            "protocol": protocol,
            **{key: combined(key, combine) for key in COUNTS},
        }
        for suffix, combine in (("", np.mean), ("_max", np.max))
    ]


def _counts(latents: Latents, labels: ConceptLabels, protocol: str, alpha: float) -> dict[str, Number]:
    """In the order of COUNTS."""
    counter = Counter(latents.csr(), labels.codes(protocol), labels.strata(protocol))
    numbers = pair_counts(association(counter.count, labels, protocol, alpha), alpha)
    numbers[N_F1] = int((measured_f1(latents, labels, protocol) > INTERVLM_F1).sum())
    return {key: numbers[key] for key in COUNTS}


def _measures(row: dict[str, Any], unfit: Mapping[str, str], alpha: float) -> dict[str, Measure]:
    """The counts of one baseline under one protocol."""
    protocol, name = row["protocol"], row["baseline"]
    what = "; ".join([UNITS.get(name, (name, f"the dictionary {name!r}"))[1], *([EQUAL_L0] if name in FITS else [])])
    rows = f"{what}; {TESTED[protocol]}; alpha = {alpha:g}"
    group, reason = f"{protocol}/{name}", unfit.get(name)
    return {key: quantity(row[key], group, rows=rows, reason=reason) for key, quantity in COUNTS.items()}


def _show(counts: ByBaseline, alpha: float) -> list[Section]:
    """Make rows of the SAE's shown counts, with the same count of every control beside them."""
    there = {name: found["n_latents"].value for (protocol, name), found in counts.items() if protocol == "corrected"}
    shown = sorted(there.keys() - {"sae", "permuted_labels_max"}, key=[*UNITS, *there].index)
    units = {name: UNITS.get(name, (name, "another dictionary")) for name in shown}
    note = "; ".join(f"{heading}: {what} ({there[name] or 0:,.0f} units)" for name, (heading, what) in units.items())
    note = f"{note}; {EQUAL_L0}. {NO_QUALITY}"
    below = f"q < {alpha:g}"
    sections = [
        Section(f"Baselines: latent x concept pairs with {below}", note, "latent x concept pairs"),
        Section(f"Baselines: share of units with a pair of {below}", "columns as above"),
    ]
    of = (("n_pairs_tested", "pairs"), ("n_latents", "latents"))
    for section, rows, (n, unit) in zip(sections, (PAIRS, SHARES), of, strict=True):
        for (protocol, key), label in rows.items():
            sae = counts[protocol, "sae"]
            beside = [counts[protocol, name][key].control(heading) for name, (heading, _) in units.items()]
            sae[key] = sae[key].row(f"{label} (SAE: of {sae[n].value:,} {unit})", *beside, section=section)
    return sections


def _verdict(counts: ByBaseline) -> str | None:
    """Per test, as the controls have other numbers of units."""
    share = {
        name: c["share_of_tests_global"].value for (protocol, name), c in counts.items() if protocol == "corrected"
    }
    if (sae := share.pop("sae")) is None:
        return None
    permuted, _ = share.pop("permuted_labels") or 0, share.pop("permuted_labels_max")
    rivals = {UNITS.get(name, (name,))[0]: value for name, value in share.items() if value is not None}
    first = f"Significant are {sae:.1%} of the SAE's pairs, with permuted labels {permuted:.1%}"
    if not rivals:
        return f"{first}."
    most = max(rivals, key=rivals.__getitem__)
    end = "such counts are no measure of quality" if rivals[most] > sae else "no control has a larger share"
    return f"{first}, of {most} {rivals[most]:.1%}: {end}."
