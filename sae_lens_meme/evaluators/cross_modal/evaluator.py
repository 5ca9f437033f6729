"""SAE-V on memes: cross-modal weights, item scores, and whether keeping the best-scored memes trains a better probe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.evaluators.base import Evaluator
from sae_lens_meme.evaluators.classifiers import Task, tasks_of
from sae_lens_meme.evaluators.cross_modal.comparison import Settings, compare
from sae_lens_meme.evaluators.cross_modal.explain import explain
from sae_lens_meme.evaluators.cross_modal.filter_numbers import comparison_keys, comparison_numbers
from sae_lens_meme.evaluators.cross_modal.numbers import (
    OF_SCORES,
    OF_WEIGHTS,
    Numbers,
    Reasons,
    score_numbers,
    stability_keys,
    stability_numbers,
    weight_numbers,
)
from sae_lens_meme.evaluators.cross_modal.pairs import MemePairs, Sides
from sae_lens_meme.evaluators.cross_modal.scores import ItemScores, item_scores
from sae_lens_meme.evaluators.cross_modal.selection import require_share
from sae_lens_meme.evaluators.cross_modal.stability import kept_again, random_overlap
from sae_lens_meme.evaluators.cross_modal.weights import Weights, cross_modal_weights
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.result import Result
from sae_lens_meme.metrics.threads import in_threads


class CrossModal(Evaluator):
    """Cross-modal weight of each latent (Lou et al. 2025, SAE-V), and the data filter made of it beside plain ones.

    The two sides of a fused embedding are the text and the image embedding of the memes that fire; see
    `cross_modal_weights`. Embeddings without both sides give numbers that are all null, with the reason.

    Args:
        tasks: labels to compare the filters on, default every label with 2 to 20 classes.
        shares: of the train memes to keep.
        within_source: keep these shares of each source.
        top: memes whose text and image are compared, for each latent.
        min_support: train memes on which a latent has to fire, default `top`.
        delta: a latent fires where its activation is larger.
        n_random: random selections beside the filters.
        max_rows: train memes of a task that the compared probes choose from, drawn by seed where there are more.
        n_bootstrap: resamples of the memes for intervals and stability; 0 leaves both out.
        sides: the hooks to compare, default the image and the text embedding.
    """

    name = "cross_modal"

    def __init__(
        self,
        embeddings: Embeddings,
        *,
        hook: str | None = None,
        tasks: Sequence[str] | None = None,
        shares: Sequence[float] = (0.5,),
        within_source: bool = False,
        top: int = 5,
        min_support: int | None = None,
        delta: float = 0.0,
        n_random: int = 3,
        max_rows: int = 5_000,
        n_bootstrap: int = 200,
        sides: Sides | None = None,
        seed: int = 0,
    ):
        super().__init__(embeddings, hook=hook)
        for share in shares:
            require_share(share)
        if n_random < 0 or max_rows < 2:
            raise ConfigError(f"cross_modal: n_random {n_random} must be 0 or more, max_rows {max_rows} 2 or more")
        self.tasks, self.sides, self.seed = tasks, sides or Sides(), seed
        self.weighing: dict[str, Any] = {
            "top": top,
            "min_support": min_support,
            "delta": delta,
            "n_bootstrap": n_bootstrap,
            "seed": seed,
        }
        self.settings = Settings(tuple(shares), within_source, n_random, max_rows, n_bootstrap, seed)

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        tasks, skipped = tasks_of(embeddings, self.tasks)
        if why := self.sides.incomparable(embeddings):
            return self._undefined(why, tasks, skipped)
        pairs = MemePairs.of(embeddings, self.sides)
        weights = cross_modal_weights(embeddings, latents, pairs=pairs, **self.weighing)
        permuted = cross_modal_weights(embeddings, latents, pairs=pairs, shuffled=True, **self.weighing)
        scores = item_scores(embeddings, latents, weights, pairs=pairs)
        numbers, reasons = weight_numbers(weights, permuted, pairs, len(scores.train))
        parts = [score_numbers(scores), *self._stability(latents, scores, weights)]
        parts += self._compared(tasks, latents, scores)
        for found, why in parts:
            numbers |= found
            reasons |= why
        numbers, reasons = _with_skipped(numbers, reasons, skipped)
        lines = explain(tasks, self.settings, weights.top, weights.min_support, weights.delta, len(pairs.train))
        return Result(self.name, numbers, reasons, weights.table(), lines)

    def _stability(self, latents: Latents, scores: ItemScores, weights: Weights) -> list[tuple[Numbers, Reasons]]:
        within = self.settings.within_source
        return [
            stability_numbers(
                share, kept_again(latents, scores, weights, share, within), random_overlap(scores, share, within)
            )
            for share in self.settings.shares
        ]

    def _compared(self, tasks: list[Task], latents: Latents, scores: ItemScores) -> list[tuple[Numbers, Reasons]]:
        def compared(task: Task) -> tuple[Numbers, Reasons]:
            return comparison_numbers(task.name, len(task.held_out), compare(task, latents, scores, self.settings))

        return in_threads(compared, tasks)

    def _undefined(self, why: str, tasks: list[Task], skipped: dict[str, str]) -> Result:
        keys = [*OF_WEIGHTS, *OF_SCORES]
        for share in self.settings.shares:
            keys += stability_keys(share)
        for task in tasks:
            keys += comparison_keys(task.name, self.settings.shares)
        numbers, reasons = _with_skipped(dict.fromkeys(keys), dict.fromkeys(keys, why), skipped)
        top, minimum, delta = (self.weighing[key] for key in ("top", "min_support", "delta"))
        return Result(self.name, numbers, reasons, explain=explain(tasks, self.settings, top, minimum or top, delta, 0))


def _with_skipped(numbers: Numbers, reasons: Reasons, skipped: dict[str, str]) -> tuple[Numbers, Reasons]:
    lost = {f"{task}/all/auroc": why for task, why in skipped.items()}
    return numbers | dict.fromkeys(lost), reasons | lost
