"""Stability: the latents of one SAE matched with those of SAEs trained with other seeds, with controls beside each number.

Firing and significance come from the memes; nothing is fitted, so no rows are held out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from pydantic import Field
from typing_extensions import Self

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.base import Evaluator, Unavailable
from sae_lens_meme.evaluators.concepts import Concept, ConceptLabels, concepts_of
from sae_lens_meme.evaluators.context import SHUFFLED, Context
from sae_lens_meme.evaluators.latents import Latents, encode, hook_of
from sae_lens_meme.evaluators.result import Measure, Result, Section
from sae_lens_meme.evaluators.scaled import require_maps_to_itself
from sae_lens_meme.evaluators.stability.compute import (
    Directions,
    directions_of,
    firing_agreement,
    match,
    random_like,
    significant_latents,
)
from sae_lens_meme.evaluators.stability.quantities import (
    ODDS,
    ODDS_WITHIN,
    ByGroup,
    Counterpart,
    MatchedDictionaries,
    counts,
    heading,
    of_seeds,
    of_significance,
    random,
    share_above,
    table_of,
)
from sae_lens_meme.metrics.association import Counter
from sae_lens_meme.metrics.fisher import greater_one_a_group
from sae_lens_meme.metrics.multiple_testing import benjamini_hochberg
from sae_lens_meme.metrics.resampling import permutation_within
from sae_lens_meme.options import Count, Options, Share
from sae_lens_meme.standardize import train_moments

Scale = Float[np.ndarray, " d_in"] | float
Cosine = Annotated[float, Field(gt=0, le=1)]
GROUPS = ("mean", "least", "most", "significance")
"""First parts of keys that are not names of SAEs."""


class Stability(Evaluator):
    """Which latents SAEs of other seeds have too; a latent is stable if the mean of its cosines is at least `threshold`.

    Args:
        others: SAEs of other seeds on the same hook, by name. They may have other widths: of the wider SAE some latents
            have no partner.
        concepts: of which latents are significant, where there is no `alignment`; default `concepts.default_concepts`.
        controls: names in `others` that are not other seeds, such as an SAE trained on shuffled data; left out of every mean.
        alignment: result or table of `ConceptAlignment` (corrected protocol) of the SAE that is measured; default:
            measured here, if there are labels.

    Raises:
        ConfigError: there is no other SAE, or one has the name of a group of numbers.
    """

    name = "stability"
    question = "which latents reappear with another seed, and whether the significant ones do"
    control = "random directions, an SAE on shuffled data"

    class Options(Options):
        threshold: Cosine = 0.7
        """Mean cosine with its partners from which on a latent is stable."""
        thresholds: Sequence[Cosine] = (0.5, 0.7, 0.9)
        """Cosines for which to give the share of latents above them."""
        zscored: bool = True
        """Divide each dimension by its standard deviation over the train rows first: a few hold most of the variance, and cosines of raw directions compare these alone."""
        alpha: Share = 0.05
        """A latent is significant if some concept has a q over all latents and concepts below this."""
        n_bootstrap: Count = 200
        """Resamples of the latents for the interval of the difference; 0 for none."""
        seed: Count = 0
        """Seed of random directions, permutations and resamples."""

    options: Stability.Options

    def __init__(
        self,
        embeddings: Embeddings,
        others: Mapping[str, Any],
        concepts: Iterable[str | Concept] | None = None,
        *,
        controls: Collection[str] = (),
        alignment: Result | pd.DataFrame | None = None,
        hook: str | None = None,
        **options: Any,
    ):
        super().__init__(embeddings, hook=hook, **options)
        if not isinstance(others, Mapping):
            raise ConfigError(f"stability: others is a {type(others).__name__}; give others={{name: SAE}}")
        for name, other in others.items():
            require_maps_to_itself(other, f"stability: {name}")
        if unknown := set(controls) - set(others):
            raise ConfigError(f"stability: control {min(unknown)!r} is not one of {', '.join(others) or 'no SAEs'}")
        if taken := set(GROUPS) & set(others):
            raise ConfigError(f"stability: an SAE cannot be called {min(taken)!r}, which names a group of numbers")
        if not set(others) - set(controls):
            raise ConfigError("stability: there is no SAE of another seed; give others={name: SAE}")
        self.concepts = None if concepts is None else concepts_of(embeddings, concepts)
        self.others, self.controls, self.alignment = dict(others), tuple(controls), alignment

    @classmethod
    def from_context(cls, context: Context) -> Self:
        """With the SAEs that are given, those of other seeds that are requested, and those of shuffled data as controls."""
        others = dict(context.other_saes)
        for i in range(1, context.options.stability_seeds + 1):
            if context.train_seed is None:
                raise Unavailable("SAEs of other seeds cannot be trained here; pass --other-sae FOLDER")
            if (name := f"seed_{i}") in others:
                raise Unavailable(
                    f"the folder of an --other-sae is called {name}, as an SAE that is trained; rename it"
                )
            others[name] = context.train_seed(i)
        if not others:
            raise Unavailable("there is no SAE with another seed; pass --other-sae FOLDER or --stability-seeds 1")
        corrected = context.options.protocol != "published"
        return cls(
            *(context.embeddings, others | context.controls, context.options.concepts),
            controls=list(context.controls),
            alignment=context.results.get("concept_alignment") if corrected else None,
            **context.options_of(cls),
        )

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        for name, other in self.others.items():
            _require_comparable(sae, name, other)
        o, scale = self.options, self._scale(sae, embeddings)
        these = directions_of(sae, latents, scale)
        found = {
            name: self._counterpart(other, these, latents, embeddings, scale) for name, other in self.others.items()
        }
        matched = MatchedDictionaries(
            these.alive,
            np.diff(latents.csc().indptr) / max(latents.n_samples, 1),
            {name: one for name, one in found.items() if name not in self.controls},
            {name: found[name] for name in self.controls},
            self._significant(embeddings, latents, these.alive),
            o.threshold,
        )
        space = (
            "each dimension divided by its std over the train rows" if o.zscored else "in the space of the embeddings"
        )
        rows = f"decoder rows {space}; latents that fire on none of all {latents.n_samples} memes take no part"
        seeds = of_seeds(matched, sorted({*o.thresholds, o.threshold}), rows)
        significance = of_significance(
            *(matched.significant, matched.stable, matched.cosine, matched.rate, o.n_bootstrap, o.seed)
        )
        table, columns = table_of(matched, o.alpha)
        measures = (*counts(matched), *seeds.values(), *significance.values())
        verdict = _verdict(matched, seeds, significance)
        return Result(self.name, self._section(measures), measures, table, columns, verdict)

    def _counterpart(
        self, other: Any, these: Directions, latents: Latents, embeddings: Embeddings, scale: Scale
    ) -> Counterpart:
        """Match, and look at the memes that matched latents fire on."""
        active = encode(other, embeddings, self.hook)
        others = directions_of(other, active, scale)
        rng = np.random.default_rng([self.options.seed, 1])  # not the stream that somebody has drawn weights from
        matching, random = match(these, others), match(these, random_like(others, rng))
        handed = active.rows(permutation_within(embeddings.strata, rng, embeddings.by_id, embeddings.groups))
        firing, permuted = (firing_agreement(latents, part, matching.partner) for part in (active, handed))
        return Counterpart(int(others.alive.sum()), matching, random, firing, permuted)

    def _significant(self, embeddings: Embeddings, latents: Latents, alive: np.ndarray) -> np.ndarray | str:
        """1 for alive latents with a significant concept, 0 for those without, NaN where none was tested; or why not."""
        found = self.alignment.table if isinstance(self.alignment, Result) else self.alignment
        if self.alignment is None:
            try:
                found = _tested(embeddings, latents, self.concepts)
            except (ConfigError, DataError) as error:
                return f"no table of concept alignment is given, and {error}"
        return np.where(alive, significant_latents(found, latents.d_sae, self.options.alpha), np.nan)

    def _scale(self, sae: Any, embeddings: Embeddings) -> Scale:
        """Infinite in a dimension that does not vary: what a decoder row has there says nothing."""
        if not self.options.zscored:
            return 1.0
        moments = train_moments(embeddings, hook_of(sae, embeddings, self.hook))
        return np.where(moments.dead, np.inf, moments.std)

    def _section(self, measures: Collection[Measure]) -> Section:
        columns = {
            "random": "directions with the mean and covariance of the other SAE's",
            "permuted": "the other SAE's activations given to other memes of the same source",
            **{heading(name): f"the SAE {name}, a control" for name in self.controls},
            heading(SHUFFLED): "an SAE trained on data shuffled per dimension",
            "others": f"latents tested without a significant concept (q < {self.options.alpha:g} over all latents and "
            "concepts, corrected protocol)",
        }
        there = {control.name for measure in measures for control in measure.controls}
        scaled = ", dimensions divided by their standard deviation" if self.options.zscored else ""
        legend = (f"{name}: {what}" for name, what in columns.items() if name in there)
        return Section(
            "Stability: latents matched with those of SAEs trained with other seeds",
            "; ".join((f"matched one to one by decoder cosine{scaled}", *legend)),
        )


def _tested(embeddings: Embeddings, latents: Latents, concepts: tuple[Concept, ...] | None) -> pd.DataFrame:
    """As concept alignment has it under the corrected protocol, without what is not needed here.

    Raises:
        ConfigError, DataError: there are no labels for it.
    """
    targets = ConceptLabels.of(embeddings, concepts_of(embeddings, concepts))
    count = Counter(latents.csc(), targets.known, targets.sources).count
    q = benjamini_hochberg(greater_one_a_group(count, targets.one_a_group))
    return pd.DataFrame({"latent": np.repeat(np.arange(len(q)), q.shape[1]), "q_global": q.ravel()})


def _require_comparable(sae: Any, name: str, other: Any) -> None:
    """Raises DataError unless both SAEs read the same hook of the same width."""
    if sae.cfg.d_in != other.cfg.d_in:
        raise DataError(f"stability: {name} has d_in {other.cfg.d_in}, the SAE has d_in {sae.cfg.d_in}")
    hook, hook_of_other = sae.cfg.metadata.hook_name, other.cfg.metadata.hook_name
    if hook is not None and hook_of_other is not None and hook != hook_of_other:
        raise DataError(f"stability: {name} was trained on {hook_of_other}, the SAE on {hook}; their directions differ")


def _verdict(matched: MatchedDictionaries, seeds: ByGroup, significance: ByGroup) -> str | None:
    """None where no latent takes part."""
    share, n = seeds["mean", share_above(matched.threshold)], int(matched.alive.sum())
    rival = seeds["mean", random(share_above(matched.threshold))]
    if share.value is None or rival.value is None:
        return None
    seeds_ = "another seed" if len(matched.seeds) == 1 else f"{len(matched.seeds)} other seeds"
    said = f"{share.value:.0%} of {n} latents reappear with {seeds_} (random directions: {rival.value:.0%})"
    return f"{said}{of_significant(significance)}."


def of_significant(significance: ByGroup) -> str:
    """Within firing rate where that is defined: frequent latents are both more stable and more often significant."""
    within, crude = significance.get(("significance/within_rate", ODDS_WITHIN)), significance["significance", ODDS]
    known = [odds for odds in (within, crude) if odds and odds.interval and odds.interval.low is not None]
    if not known:
        return "; whether the significant ones do is not known"
    odds: Any = known[0]
    low, high = odds.interval.low, odds.interval.high
    ratio = f"{low:.2f} or more" if high is None else f"{odds.value:.2f}, {low:.2f} to {high:.2f}"
    among = f"(odds ratio {ratio}, {'among latents of similar firing rate' if odds is within else 'whatever their firing rate'})"
    if low > 1 or (high is not None and high < 1):
        return f", significant latents {'more' if low > 1 else 'less'} often {among}"
    return f"; significant latents are not shown to do so more or less often {among}"
