"""What concept alignment finds where there is nothing to find, and in units that are not an SAE's.

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
from sae_lens_meme.evaluators.base import Evaluator
from sae_lens_meme.evaluators.concept_alignment.compute import PROTOCOLS
from sae_lens_meme.evaluators.concept_alignment.counts import FAMILIES, N_ABOVE, PairCounts
from sae_lens_meme.evaluators.concept_alignment.quantities import COUNTS, NO_QUALITY, TESTED
from sae_lens_meme.evaluators.concepts import Concept, ConceptLabels, Concepts, concepts_of, require_concepts
from sae_lens_meme.evaluators.context import SHUFFLED, Context
from sae_lens_meme.evaluators.controls import FITS, Fitted, SharedDirections, activations
from sae_lens_meme.evaluators.latents import Latents, encode, hook_of, require_latents_of
from sae_lens_meme.evaluators.result import Control, Measure, Number, Quantity, Result, Section
from sae_lens_meme.evaluators.strata import Strata, strata_of
from sae_lens_meme.metrics.ranking import Ranked

_PERMUTED = (
    "all labels of a meme given to another meme of its source, groups whole, so that labels and latents are unrelated;"
)
UNITS = {
    "sae": ("SAE", "the SAE on the true labels"),
    "permuted_labels": ("permuted", f"{_PERMUTED} mean over the draws"),
    "permuted_labels_q95": ("permuted, 95 %", f"{_PERMUTED} 95 % quantile of the draws"),
    "permuted_labels_max": ("permuted, largest", f"{_PERMUTED} largest over the draws"),
    SHUFFLED: ("shuffled", "an SAE of the same recipe trained on embeddings shuffled per dimension"),
    "neurons": ("neurons", "raw dimensions of the embedding"),
    "pca": ("PCA", "principal components of the embedding"),
    "ica": ("ICA", "independent components of the embedding"),
    "random_topk": ("random TopK", "random directions of the z-scored embedding"),
}
"""Heading in the printed table, and what it is."""
EQUAL_L0 = (
    "dimensions and components have unit variance and are split into two units each (positive and negative part); of units "
    "that were not trained, the largest on each meme are active, as many as latents of the SAE"
)
OF_DRAWS: dict[str, Callable[[list[float]], Any]] = {
    "permuted_labels": np.mean,
    "permuted_labels_q95": lambda draws: np.quantile(draws, 0.95),
    "permuted_labels_max": np.max,
}
"""What the rows of permuted labels are of the draws."""
PAIRS = {
    ("corrected", "n_significant_global"): "corrected protocol",
    ("corrected", N_ABOVE): "pairs above always-on, corrected",
    ("published", "n_significant_concept"): "published protocol",
    ("published", N_ABOVE): "pairs above always-on, published",
}
"""Labels of the counts that are printed."""
SHARES = {
    ("corrected", "share_of_latents_global"): "corrected protocol",
    ("published", "share_of_latents_concept"): "published protocol",
}
N_DRAWS = Quantity("n_draws", "draws of permuted labels")
DRAWS_WITH_PAIRS = {
    family: Quantity(
        f"n_draws_with_pairs_{family}",
        f"draws of permuted labels in which any pair is significant, q {what}; about alpha of the draws where the test holds",
    )
    for family, what in zip(FAMILIES, ("over all pairs", "within each concept"), strict=True)
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
Counts = dict[str, dict[str, Number]]
Draws = dict[str, list[dict[str, Number]]]
"""By protocol."""


class Baselines(Evaluator):
    """Counts of significant pairs under both protocols for the SAE and for each baseline.

    The result has a table of one row per baseline x protocol, and `{protocol}/{baseline}/{count}` as numbers.

    Args:
        concepts: as for `ConceptAlignment`.
        others: more dictionaries by name, each an SAE or `Latents` of the same memes, such as an SAE trained on
            embeddings shuffled per dimension.
        fitted: directions; give `Contest` the same ones and they are fitted once.
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
        n_permutations: options.Positive = 100
        """Draws of permuted labels."""
        alpha: options.Share = 0.05
        """A pair is significant where its q is below."""
        strata: Strata = "source"
        """As for concept_alignment; labels are permuted within these."""
        seed: options.Count = 0
        """Seed of permutations and of random directions."""

    def __init__(
        self,
        embeddings: Embeddings,
        concepts: Iterable[str | Concept] | None = None,
        *,
        others: Mapping[str, Any] | None = None,
        fitted: SharedDirections | None = None,
        **given: Any,
    ):
        super().__init__(embeddings, concepts=concepts, **given)
        self.concepts, self.others = concepts_of(embeddings, self.options.concepts), dict(others or {})
        self.fitted = fitted or SharedDirections()
        if taken := sorted(self.others.keys() & (UNITS.keys() - {SHUFFLED})):
            raise ConfigError(f"baselines: {taken[0]!r} in others is the name of a baseline; rename it")

    @classmethod
    def from_context(cls, context: Context) -> Self:
        require_concepts(context.embeddings, context.options.concepts)
        context.shuffled_sae(cls.name)
        return cls(context.embeddings, others=context.controls, fitted=context.directions, **context.options_of(cls))

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        settings = self.options
        hook = hook_of(sae, embeddings, self.hook)
        labels = ConceptLabels.of(embeddings, concepts_of(embeddings, self.concepts))
        labels = labels.within(strata_of(embeddings, settings.strata))
        of_units, drawn = self._counted(latents, labels, permute=True)
        counted, unfit, fits = {"sae": of_units}, dict[str, str](), dict[str, Fitted]()
        for name in (*settings.raw, *self.others):  # each set of units is let go before the next is made
            try:
                active = self._units(name, embeddings, hook, latents, fits)
            except DataError as error:
                if name in self.others:
                    raise
                unfit[name] = str(error)
            else:
                counted[name], _ = self._counted(active, labels)
                del active
        rows: list[dict[str, Any]] = []
        for protocol in PROTOCOLS:
            rows += [{"baseline": name, "protocol": protocol, **found[protocol]} for name, found in counted.items()]
            rows += permuted_rows(drawn[protocol], protocol)
            rows += [{"baseline": name, "protocol": protocol, **dict.fromkeys(COUNTS)} for name in unfit]
        rows = [{key: row[key] for key in COLUMNS} for row in rows]
        counts = {(row["protocol"], row["baseline"]): _measures(row, unfit, settings.alpha) for row in rows}
        of_draws = [measure for protocol, draws in drawn.items() for measure in _of_draws(draws, protocol)]
        unmixed = "; ".join(said for name, fit in fits.items() if (said := fit.doubt(UNITS[name][0])))
        sections = _show(counts, settings.alpha, settings.n_permutations, unmixed)
        measures = [measure for found in counts.values() for measure in found.values()] + of_draws
        for name, fit in fits.items():
            if fit.steps is not None:
                measures += [STEPS(fit.steps, name), CONVERGED(int(bool(fit.converged)), name)]
        table = pd.DataFrame(rows).astype(dict.fromkeys(COUNTS, "Float64"))
        return Result(self.name, sections[0], tuple(measures), table, COLUMNS, _verdict(counts, drawn["corrected"]))

    def _units(
        self, name: str, embeddings: Embeddings, hook: str, latents: Latents, fits: dict[str, Fitted]
    ) -> Latents:
        """Another dictionary's, or those of directions, whose fit is added to `fits`.

        Raises:
            DataError: they cannot be fitted.
        """
        if name in self.others:
            other = self.others[name]
            found = other if isinstance(other, Latents) else encode(other, embeddings, hook)
            require_latents_of(found, embeddings)
            return found
        fits[name] = self.fitted.fit(embeddings, hook, name, self.options.seed, latents.d_sae)
        return activations(fits[name], embeddings, hook, latents.l0)

    def _counted(self, active: Latents, labels: ConceptLabels, permute: bool = False) -> tuple[Counts, Draws]:
        """Under each protocol, of the true labels and of permuted ones."""
        settings, ranked = self.options, Ranked.of(active.csr())
        counted, drawn = Counts(), Draws()
        for protocol in PROTOCOLS:
            found = PairCounts(active, labels, protocol, settings.alpha, ranked)
            counted[protocol] = found.of(labels)
            if permute:
                drawn[protocol] = found.permuted(labels, settings.n_permutations, settings.seed)
        return counted, drawn


def permuted_rows(draws: list[dict[str, Number]], protocol: str) -> list[dict[str, Any]]:
    """Rows of the table: mean, 95 % quantile and largest over the draws; null where a draw does not define it."""

    def combined(key: str, combine: Callable[[Any], Any]) -> Number:
        values = [draw[key] for draw in draws]
        return None if None in values else float(combine(values))

    return [
        {"baseline": name, "protocol": protocol, **{key: combined(key, combine) for key in COUNTS}}
        for name, combine in OF_DRAWS.items()
    ]


def _of_draws(draws: list[dict[str, Number]], protocol: str) -> list[Measure]:
    group = f"{protocol}/permuted_labels"
    found = [N_DRAWS(len(draws), group)]
    for family, quantity in DRAWS_WITH_PAIRS.items():
        found.append(quantity(_with_pairs(draws, family), group, rows=TESTED[protocol]))
    return found


def _with_pairs(draws: list[dict[str, Number]], family: str = "global") -> int:
    return sum(bool(draw[f"n_significant_{family}"]) for draw in draws)


def _measures(row: dict[str, Any], unfit: Mapping[str, str], alpha: float) -> dict[str, Measure]:
    """The counts of one baseline under one protocol."""
    protocol, name = row["protocol"], row["baseline"]
    what = "; ".join([UNITS.get(name, (name, f"the dictionary {name!r}"))[1], *([EQUAL_L0] if name in FITS else [])])
    rows = f"{what}; {TESTED[protocol]}; alpha = {alpha:g}"
    group, reason = f"{protocol}/{name}", unfit.get(name)
    return {key: quantity(row[key], group, rows=rows, reason=reason) for key, quantity in COUNTS.items()}


def _show(counts: ByBaseline, alpha: float, n_draws: int, unmixed: str) -> list[Section]:
    """Make rows of the SAE's shown counts, with the same count of every control beside them.

    Args:
        unmixed: says about an iterative fit that it did not converge.
    """
    there = {name: found["n_latents"].value for (protocol, name), found in counts.items() if protocol == "corrected"}
    shown = sorted(there.keys() - {"sae", "permuted_labels_max"}, key=[*UNITS, *there].index)
    units = {name: UNITS.get(name, (name, "another dictionary")) for name in shown}
    note = "; ".join(_heading(*units[name], there[name], n_draws) for name in shown if name != "permuted_labels_q95")
    note = f"{note}; {EQUAL_L0}.{f' {unmixed}.' if unmixed else ''} {NO_QUALITY}"
    below = f"q < {alpha:g}"
    sections = [
        Section(f"Baselines: latent x concept pairs with {below}", note, "latent x concept pairs"),
        Section(f"Baselines: share of units with a pair of {below}", "columns as above"),
    ]
    of = (("n_pairs_tested", "pairs"), ("n_latents", "latents"))
    for section, rows, (n, unit) in zip(sections, (PAIRS, SHARES), of, strict=True):
        for (protocol, key), label in rows.items():
            sae = counts[protocol, "sae"]
            beside: list[Control] = []
            for name, (heading, _) in units.items():
                if section is sections[0] or name != "permuted_labels_q95":
                    beside.append(counts[protocol, name][key].control(heading))
            sae[key] = sae[key].row(f"{label} (SAE: of {sae[n].value:,} {unit})", *beside, section=section)
    return sections


def _heading(heading: str, what: str, n_units: Number, n_draws: int) -> str:
    """What a column is."""
    if heading == UNITS["permuted_labels"][0]:
        return f"{heading}: {_PERMUTED} mean of {n_draws} draws, beside it their 95 % quantile"
    return f"{heading}: {what} ({n_units or 0:,.0f} units)"


def _verdict(counts: ByBaseline, draws: list[dict[str, Number]]) -> str | None:
    """Per test, as the controls have other numbers of units."""
    share = {
        name: c["share_of_tests_global"].value for (protocol, name), c in counts.items() if protocol == "corrected"
    }
    if (sae := share.pop("sae")) is None:
        return None
    share = {name: value for name, value in share.items() if name not in OF_DRAWS}
    rivals = {UNITS.get(name, (name,))[0]: value for name, value in share.items() if value is not None}
    permuted = f"{_with_pairs(draws)} of {len(draws)} draws of permuted labels have any"
    first = f"{sae:.1%} of the SAE's pairs are significant; {permuted}"
    if not rivals:
        return f"{first}."
    most = max(rivals, key=rivals.__getitem__)
    end = "such counts are no measure of quality" if rivals[most] > sae else "no control has a larger share"
    return f"{first}, {most} has {rivals[most]:.1%}: {end}."
