"""What an SAE recovers, against everything else that could stand in its place, on equal terms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from sae_lens_meme import options
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.evaluators.base import Evaluator, Unavailable
from sae_lens_meme.evaluators.concepts import concepts_of
from sae_lens_meme.evaluators.contest.compute import Arena, Scores, ablate, permuted, play, whole_embedding
from sae_lens_meme.evaluators.contest.quantities import COLUMNS, PERMUTED, PROBE, RANDOM_LATENTS, SAE, SHUFFLED
from sae_lens_meme.evaluators.contest.report import Report
from sae_lens_meme.evaluators.contest.standings import Standings
from sae_lens_meme.evaluators.contest.targets import Key
from sae_lens_meme.evaluators.contest.units import Units, of_dictionary, of_directions
from sae_lens_meme.evaluators.context import Context
from sae_lens_meme.evaluators.latents import Latents, encode, hook_of
from sae_lens_meme.evaluators.result import Result, Section
from sae_lens_meme.options import Count, Positive
from sae_lens_meme.standardize import Moments, train_moments


FIRST = Section("Contest", "the SAE beside everything that could stand in its place")


class Contest(Evaluator):
    """Best unit, one-to-one recovery, k-sparse probes, TPP, SCR and absorption: the SAE beside its rivals.

    Args:
        key: factors of planted memes, an object with `factors` (`id` and one column a factor) and `kinds`.
        shuffled: an SAE that was trained on embeddings shuffled per dimension.
        seeds: SAEs of the same recipe with other seeds, by name.
    """

    name = "contest"
    question = "what the SAE recovers of labels and planted values, against neurons, PCA, ICA and random directions"
    control = "each dense and at equal sparsity, an SAE of shuffled data, a linear probe, permuted labels"

    class Options(options.Options):
        """Of the contest."""

        concepts: list[str] | None = None
        """Concepts on the labels; default as for concept alignment."""
        controls: list[Literal["neurons", "pca", "ica", "random"]] = ["neurons", "pca", "ica", "random"]
        """Directions that compete, each dense and at equal sparsity."""
        ks: list[Positive] = [1, 2, 5, 10, 20]
        """Units of k-sparse probes."""
        ns: list[Positive] = [1, 2, 5, 10]
        """Units that are set to zero in TPP and SCR."""
        probe_rows: Positive = 20_000
        """Probes on the whole embedding are fitted on at most so many train memes."""
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
        hook: str | None = None,
        **options: Any,
    ):
        super().__init__(embeddings, hook=hook, **options)
        self.key = None if key is None else Key(key.factors, key.kinds)
        self.shuffled, self.seeds = shuffled, dict(seeds or {})
        for name in ("ks", "ns"):
            if not getattr(self.options, name):
                raise ConfigError(f"contest.{name} is empty; give one number or more")

    @classmethod
    def from_context(cls, context: Context) -> Contest:
        if context.answer_key is None and not _has_concepts(context):
            raise Unavailable("no label has two classes and there is no answer key; add label columns to the memes")
        if SHUFFLED not in context.controls and context.train_shuffled is not None:
            try:
                context.controls[SHUFFLED] = context.train_shuffled()
            except Unavailable as error:
                context.skipped[f"{cls.name}/{SHUFFLED}"] = str(error)
        return cls(
            context.embeddings,
            key=context.answer_key,
            shuffled=context.controls.get(SHUFFLED),
            seeds=_other_seeds(context),
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
        for rival in self._rivals(embeddings, hook, latents, moments):
            scores[rival.name] = play(rival, arena)
        scores[PROBE] = whole_embedding(arena)
        scores[PERMUTED] = permuted(ours, arena, embeddings, asked.n_permutations, asked.seed)
        scores[RANDOM_LATENTS] = ablate(ours, arena.without_draws(arena.targets), seed=asked.seed)
        others = [
            play(
                of_dictionary(name, other, encode(other, embeddings, hook), moments), arena.without_draws(arena.targets)
            )
            for name, other in self.seeds.items()
        ]
        standings = Standings(arena, scores, others)
        report = Report(standings)
        return Result(self.name, FIRST, report.measures(), standings.table(), COLUMNS, report.verdict())

    def _rivals(self, embeddings: Embeddings, hook: str, latents: Latents, moments: Moments) -> Iterator[Units]:
        yield from of_directions(self.options.controls, embeddings, hook, latents, moments, self.options.seed)
        if self.shuffled is not None:
            yield of_dictionary(SHUFFLED, self.shuffled, encode(self.shuffled, embeddings, hook), moments)


def _has_concepts(context: Context) -> bool:
    try:
        return bool(concepts_of(context.embeddings, context.options_of(Contest).get("concepts")))
    except ConfigError:
        if context.options.concepts is not None:
            raise
        return False


def _other_seeds(context: Context) -> dict[str, Any]:
    """Those that were given, and those that stability trains."""
    found = {name: sae for name, sae in context.other_saes.items() if sae.cfg.d_in == context.sae.cfg.d_in}
    for i in range(1, context.options.stability_seeds + 1 if context.train_seed is not None else 1):
        try:
            found[f"seed_{i}"] = context.train_seed(i)  # type: ignore[misc]
        except Unavailable as error:
            context.skipped[f"{Contest.name}/seeds"] = str(error)
            break
    return found
