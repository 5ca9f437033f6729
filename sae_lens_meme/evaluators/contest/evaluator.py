"""What an SAE recovers, against everything else that could stand in its place, on equal terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import Self

from sae_lens_meme import options
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.base import Evaluator
from sae_lens_meme.evaluators.concepts import Concepts, require_concepts
from sae_lens_meme.evaluators.contest.compute import Arena, Scores, ablate, permuted, play, whole_embedding
from sae_lens_meme.evaluators.contest.quantities import COLUMNS, PERMUTED, PROBE, RANDOM_LATENTS, SAE
from sae_lens_meme.evaluators.contest.report import ContestReport
from sae_lens_meme.evaluators.contest.standings import Standings
from sae_lens_meme.evaluators.contest.targets import Key
from sae_lens_meme.evaluators.contest.units import KINDS, of_dictionary, of_directions
from sae_lens_meme.evaluators.context import SHUFFLED, Context
from sae_lens_meme.evaluators.controls import SharedDirections
from sae_lens_meme.evaluators.latents import Latents, encode, hook_of
from sae_lens_meme.evaluators.result import Result, Section
from sae_lens_meme.options import Count, Positive
from sae_lens_meme.standardize import train_moments

Numbers = Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)]
FIRST = Section("Contest", "the SAE beside everything that could stand in its place")


class Contest(Evaluator):
    """Best unit, one-to-one recovery, k-sparse probes, TPP, SCR and absorption: the SAE beside its rivals.

    Args:
        key: factors of planted memes, an object with `factors` (`id` and one column per factor) and `kinds`.
        shuffled: an SAE that was trained on embeddings shuffled per dimension.
        seeds: SAEs of the same recipe with other seeds, by name.
        fitted: directions; give `Baselines` the same ones and they are fitted once.
    """

    name = "contest"
    question = "what the SAE recovers of labels and planted values, against neurons, PCA, ICA and random directions"
    control = "each dense and at equal sparsity, an SAE of shuffled data, a linear probe, permuted labels"

    class Options(options.Options):
        """Of the contest."""

        concepts: Concepts = None
        """Concepts on the labels; default as for concept alignment."""
        controls: Annotated[tuple[Literal["neurons", "pca", "ica", "random"], ...], Field(strict=False)] = KINDS
        """Directions that compete, each dense and at equal sparsity."""
        ks: Numbers = (1, 2, 5, 10, 20)
        """Units of k-sparse probes."""
        ns: Numbers = (1, 2, 5, 10)
        """Units that are set to zero in TPP and SCR."""
        probe_rows: Positive = 20_000
        """Probes on the whole embedding are fitted on at most this many train memes."""
        n_permutations: Positive = 3
        """Draws of permuted labels; each takes as long as a rival."""
        n_bootstrap: Count = 200
        """Resamples of the test memes; 0 leaves the intervals out."""
        seed: Count = 0
        """Seed of permutations, resamples, random directions and biased training sets."""

    def __init__(
        self,
        embeddings: Embeddings,
        *,
        key: Any = None,
        shuffled: Any = None,
        seeds: Mapping[str, Any] | None = None,
        fitted: SharedDirections | None = None,
        hook: str | None = None,
        **options: Any,
    ):
        super().__init__(embeddings, hook=hook, **options)
        self.key = None if key is None else Key(key.factors, key.kinds)
        self.shuffled, self.seeds, self.fitted = shuffled, dict(seeds or {}), fitted or SharedDirections()

    @classmethod
    def from_context(cls, context: Context) -> Self:
        if context.answer_key is None:
            require_concepts(context.embeddings, context.options_of(cls)["concepts"])
        return cls(
            context.embeddings,
            key=context.answer_key,
            shuffled=context.shuffled_sae(cls.name),
            seeds=context.other_seeds(cls.name),
            fitted=context.directions,
            **context.options_of(cls),
        )

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        asked, hook = self.options, hook_of(sae, embeddings, self.hook)
        moments = train_moments(embeddings, hook)
        arena = Arena.of(
            *(embeddings, hook, moments),
            concepts=asked.concepts,
            key=self.key,
            ks=sorted(set(asked.ks)),
            ns=sorted(set(asked.ns)),
            probe_rows=asked.probe_rows,
            replicates=asked.n_bootstrap,
            seed=asked.seed,
        )
        ours = of_dictionary(SAE, sae, latents, moments)
        scores: dict[str, Scores] = {SAE: play(ours, arena)}
        unfit: dict[str, str] = {}
        doubts: dict[str, None] = {}
        for kind in asked.controls:
            try:
                for units in of_directions(kind, embeddings, hook, latents, moments, asked.seed, self.fitted):
                    scores[units.name] = play(units, arena)
                    doubts |= {units.doubt: None} if units.doubt else {}
            except DataError as error:
                unfit[kind] = str(error)
        if self.shuffled is not None:
            acts = encode(self.shuffled, embeddings, hook)
            scores[SHUFFLED] = play(of_dictionary(SHUFFLED, self.shuffled, acts, moments), arena)
        scores[PROBE] = whole_embedding(arena)
        scores[PERMUTED] = permuted(ours, arena, embeddings, asked.n_permutations, asked.seed)
        scores[RANDOM_LATENTS] = ablate(ours, arena.without_draws(arena.targets), seed=asked.seed)
        others = [
            play(
                of_dictionary(name, other, encode(other, embeddings, hook), moments), arena.without_draws(arena.targets)
            )
            for name, other in self.seeds.items()
        ]
        standings = Standings(arena, scores, others, unfit, tuple(doubts))
        report = ContestReport(standings)
        return Result(self.name, FIRST, report.measures(), standings.table(), COLUMNS, report.verdict())
