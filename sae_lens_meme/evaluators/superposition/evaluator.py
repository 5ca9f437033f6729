"""Superposition: whether latents respond to fewer things than neurons that fire as often, and how their directions interfere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from typing_extensions import Self

from sae_lens_meme import options
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.base import Evaluator
from sae_lens_meme.evaluators.concepts import Concepts
from sae_lens_meme.evaluators.contest import Rows, Targets, targets_of
from sae_lens_meme.evaluators.contest.targets import Key
from sae_lens_meme.evaluators.context import SHUFFLED, Context
from sae_lens_meme.evaluators.latents import Latents, decoder_rows_or_none, encode, hook_of
from sae_lens_meme.evaluators.result import Result
from sae_lens_meme.evaluators.superposition.compute import (
    Answers,
    Geometry,
    Neurons,
    Projections,
    answers,
    firing,
    geometry,
    matched_rates,
    thresholds,
)
from sae_lens_meme.evaluators.superposition.quantities import COLUMNS, NEURONS, RANDOM, SAE
from sae_lens_meme.evaluators.superposition.report import FIRST, MeasuredUnits, SuperpositionReport
from sae_lens_meme.metrics.by_column import count_by_column
from sae_lens_meme.metrics.directions import random_directions
from sae_lens_meme.metrics.resampling import permutation_within
from sae_lens_meme.standardize import Moments, train_moments

MOST_ROWS = 50_000
"""Thresholds of units that should fire as often as latents are set on at most this many memes, taken evenly by id."""
MOST_RANDOM = 1_024
"""How many random directions are tested for targets; with more the mean is the same."""


class Superposition(Evaluator):
    """Targets a unit responds to at equal firing rate, feature dimensionality and interference.

    Args:
        key: factors of planted memes, an object with `factors` (`id` and one column per factor) and `kinds`.
        shuffled: an SAE that was trained on embeddings shuffled per dimension.
    """

    name = "superposition"
    question = (
        "to how many things a latent answers, against neurons that fire as often; how decoder directions interfere"
    )
    control = "random directions, an SAE of shuffled data, permuted targets"

    class Options(options.Options):
        concepts: Concepts = None
        """Concepts on the labels; default as for concept alignment."""
        alpha: options.Share = 0.05
        """q on train and validation memes, and p on test memes, of a target that a unit responds to."""
        n_permutations: options.Count = 3
        """Draws of permuted targets; 0 for none."""
        n_bootstrap: options.Count = 200
        """Resamples of the units for the 95 % intervals; 0 for none."""
        seed: options.Count = 0
        """Seed of rates, random directions, permutations and resamples."""

    def __init__(
        self, embeddings: Embeddings, *, key: Any = None, shuffled: Any = None, hook: str | None = None, **options: Any
    ):
        super().__init__(embeddings, hook=hook, **options)
        self.key, self.shuffled = None if key is None else Key(key.factors, key.kinds), shuffled

    @classmethod
    def from_context(cls, context: Context) -> Self:
        shuffled = context.controls.get(SHUFFLED)
        return cls(context.embeddings, key=context.answer_key, shuffled=shuffled, **context.options_of(cls))

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        given, hook = self.options, hook_of(sae, embeddings, self.hook)
        moments = train_moments(embeddings, hook)
        held_out = embeddings.held_out()[1]
        select = np.setdiff1d(np.arange(len(embeddings)), held_out)
        others = encode(self.shuffled, embeddings, hook) if self.shuffled is not None else None
        measured = {SAE: _of_latents(latents, select)}
        if others is not None:
            measured[SHUFFLED] = _of_latents(others, select)
        n_permuted: list[Answers] = []
        targets, reason = None, None
        try:
            rows = Rows.of(embeddings)
            targets, _ = targets_of(embeddings, rows, given.concepts, self.key)
        except DataError as error:
            reason = str(error)
        else:
            self._answer(measured, targets, rows, embeddings, hook, moments, latents, others)
            n_permuted = self._permuted(targets, rows, embeddings, latents)
        self._directions(measured, sae, moments)
        report = SuperpositionReport(measured, targets, n_permuted, int((~moments.dead).sum()), reason, given)
        return Result(self.name, FIRST, tuple(report.measures()), report.table(), COLUMNS, report.verdict())

    def _answer(
        self, measured: dict[str, MeasuredUnits], targets: Targets, rows: Rows, embeddings: Embeddings, hook: str,
        moments: Moments, latents: Latents, others: Latents | None,
    ) -> None:  # fmt: skip
        """Add what each set of units responds to."""
        rng, groups = np.random.default_rng(self.options.seed), embeddings.groups
        live = np.flatnonzero(~moments.dead)
        fires = count_by_column(latents.csr(), rows.selection)
        drawn = random_directions(int((fires > 0).sum()), len(live), self.options.seed)[:MOST_RANDOM]
        sets: dict[str, tuple[Neurons | Projections, np.ndarray]] = {
            NEURONS: (Neurons(len(live)), np.concatenate([live, len(moments.mean) + live])),
            RANDOM: (Projections(drawn), np.arange(len(drawn))),
        }

        def zscored(which: np.ndarray) -> Iterator[np.ndarray]:
            for _, batch in embeddings.batches(hook, which):
                yield ((batch - moments.mean) / moments.std)[:, live].astype(np.float32)

        sample = embeddings.by_id[np.isin(embeddings.by_id, rows.selection)]
        sample = sample[:: -(-len(sample) // MOST_ROWS)]
        z = np.concatenate([*zscored(sample)])
        actives: dict[str, Any] = {SAE: latents.csr(), **({} if others is None else {SHUFFLED: others.csr()})}
        for name, (units, index) in sets.items():
            asked = matched_rates(fires, len(index), rng) * (len(sample) / len(rows.selection))
            cut = thresholds(units, z, np.ceil(asked).astype(np.int64))
            actives[name] = firing(units, zscored(np.arange(len(embeddings))), cut)
            rate = count_by_column(actives[name], rows.selection) / len(rows.selection)
            measured[name] = MeasuredUnits(rate, rate > 0, index)
        for name, active in actives.items():
            found = answers(active, targets, rows, self.options.alpha, groups)
            measured[name] = measured[name]._replace(answers=found)

    def _permuted(self, targets: Targets, rows: Rows, embeddings: Embeddings, latents: Latents) -> list[Answers]:
        rng, found = np.random.default_rng(self.options.seed), []
        for _ in range(self.options.n_permutations):
            to = permutation_within(embeddings.strata, rng, embeddings.by_id, embeddings.groups)
            drawn = replace(targets, codes=targets.codes[to])
            found.append(answers(latents.csr(), drawn, rows, self.options.alpha, embeddings.groups))
        return found

    def _directions(self, measured: dict[str, MeasuredUnits], sae: Any, moments: Moments) -> None:
        """Add the geometry of decoder rows, and of as many random directions."""
        live = ~moments.dead
        for name, of in ((SAE, sae), (SHUFFLED, self.shuffled)):
            if name in measured and (decoder := decoder_rows_or_none(of)) is not None:
                fires = measured[name].fires
                rows = decoder[np.ix_(fires, live)]
                rows /= moments.std[live]
                found = geometry(rows)
                measured[name] = measured[name]._replace(geometry=_spread(found, fires))
        n, d = int(measured[SAE].fires.sum()), int(live.sum())
        if measured[SAE].geometry is not None:
            found = geometry(random_directions(n, d, self.options.seed))
            known = measured.get(RANDOM, MeasuredUnits(np.empty(0), np.empty(0, dtype=bool), np.empty(0, np.int64)))
            fires = np.concatenate([known.fires, np.ones(n - len(known.fires), dtype=bool)])
            measured[RANDOM] = known._replace(geometry=found, fires=fires, index=np.arange(n))


def _of_latents(latents: Latents, rows: np.ndarray) -> MeasuredUnits:
    fired = count_by_column(latents.csr(), rows)
    return MeasuredUnits(fired / max(len(rows), 1), fired > 0, np.arange(latents.d_sae))


def _spread(found: Geometry, fires: np.ndarray) -> Geometry:
    """NaN for units that do not fire."""
    full = np.full((3, len(fires)), np.nan)
    full[:, fires] = found
    return Geometry(*full)
