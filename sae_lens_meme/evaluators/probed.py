"""What evaluators with shared probes have in common."""

from __future__ import annotations

from typing import Any

from typing_extensions import Self

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.classifiers import SharedProbes
from sae_lens_meme.evaluators.context import Context


class ReadsProbes:
    """Takes probes that are fitted already; stands before `Evaluator` among the bases.

    Args:
        fitted: the probes; give other evaluators the same ones and they are fitted once.
    """

    options: Any

    def __init__(self, embeddings: Embeddings, *, fitted: SharedProbes | None = None, **options: Any):
        super().__init__(embeddings, **options)  # pyright: ignore[reportCallIssue]  the evaluator's
        self.fitted = fitted or SharedProbes(seed=self.options.seed)

    @classmethod
    def from_context(cls, context: Context) -> Self:
        known: Any = cls
        return cls(context.embeddings, fitted=context.embedding_probes, **context.options_of(known))
