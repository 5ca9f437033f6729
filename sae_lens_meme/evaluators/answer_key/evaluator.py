"""Planted memes have known factors: how well the best single latent represents each of them.

Of each factor it is also known whether picture, caption or both together show it, which is what `QuestionSet` finds out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from typing_extensions import Self

from sae_lens_meme import options
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.answer_key.classes import score_classes, with_conjunctions
from sae_lens_meme.evaluators.answer_key.factors import score_answer_key
from sae_lens_meme.evaluators.base import Evaluator, Unavailable
from sae_lens_meme.evaluators.contest.quantities import HEADINGS
from sae_lens_meme.evaluators.context import SHUFFLED, Context
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.result import Result

RIVALS = ("neurons", "pca", "ica", "neurons_k", "random_k", SHUFFLED)
"""Units of the contest that are shown beside a factor."""


class AnswerKeyScores(Evaluator):
    """AUROC and F1 on test memes of the best latent for every planted factor.

    Args:
        factors: `id` and one column per factor; for the comparison of classes also `source`.
        kinds: for each factor `visual`, `textual` or `cross-modal`.
        classes: the table of `QuestionSet`, to compare with the kinds.
        contest: the table of `Contest`, whose rivals are compared with the latents.
    """

    name = "answer_key"
    question = "planted memes only: how well the best latent stands for each factor"
    control = "the factor permuted within source, always on; the rivals of the contest"

    class Options(options.Options):
        seed: options.Count = 0
        """Seed of the permutation."""

    def __init__(
        self,
        embeddings: Embeddings,
        factors: pd.DataFrame,
        kinds: Mapping[str, str],
        *,
        classes: pd.DataFrame | None = None,
        contest: pd.DataFrame | None = None,
        **given: Any,
    ):
        super().__init__(embeddings, **given)
        self.factors, self.kinds, self.classes, self.contest = factors, dict(kinds), classes, contest

    @classmethod
    def from_context(cls, context: Context) -> Self:
        if (key := context.answer_key) is None:
            raise Unavailable("there is no answer key; pass --answer-key FOLDER")
        found = {name: context.results.get(of) for name, of in (("classes", "question_set"), ("contest", "contest"))}
        tables = {name: None if result is None else result.table for name, result in found.items()}
        return cls(context.embeddings, key.factors, key.kinds, **tables, **context.options_of(cls))

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        found = score_answer_key(
            latents, embeddings, self.factors, self.kinds, self.options.seed, _of_rivals(self.contest)
        )
        if self.classes is None or found.table is None:
            return found
        # latents of a fused space often stand for a picture's factor together with a caption's
        factors, kinds = with_conjunctions(self.factors, self.kinds)
        pairs = score_answer_key(latents, embeddings, factors, kinds, self.options.seed).table
        assert pairs is not None
        alone = score_classes(self.classes, found.table, of="factors alone").measures
        both = score_classes(self.classes, pairs, of="factors and conjunctions").measures
        return found.joined("question_set_factors", alone).joined("question_set", both)


def _of_rivals(contest: pd.DataFrame | None) -> dict[str, dict[str, float]]:
    """By heading and factor the mean over its values, of the rivals that were in the contest."""
    if contest is None:
        return {}
    rows: Any = contest[
        (contest["estimator"] == "auroc") & (contest["target"] != "all") & (contest["targets"] != "labels")
    ]
    rows = rows.assign(factor=rows["target"].str.partition("=")[0]).dropna(subset="value")
    means = rows.groupby(["units", "factor"])["value"].mean()
    there = [units for units in RIVALS if units in means.index.get_level_values("units")]
    return {HEADINGS[units]: means[units].astype(float).to_dict() for units in there}
