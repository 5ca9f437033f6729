"""The one shape of every evaluator: offline `evaluate` and SAELens' evaluator callable."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.latents import Latents, encode, eval_mode, require_latents_of
from sae_lens_meme.evaluators.result import Result


class Evaluator(ABC):
    """An evaluator of one SAE on memes it holds.

    An instance is what `SAETrainer(evaluator=...)`, `runner.evaluator` and
    `MultiSAETrainingRunnerConfig(evaluator=...)` take.

    Args:
        embeddings: the memes; `evaluate` may be given others.
        hook: the hook to read, default the one the SAE names.
    """

    name: str

    def __init__(self, embeddings: Embeddings, *, hook: str | None = None):
        self.embeddings = embeddings
        self.hook = hook

    @abstractmethod
    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        """The evaluator itself. It changes none of its arguments and gives the same result each time."""

    def evaluate(self, sae: Any, embeddings: Embeddings | None = None, latents: Latents | None = None) -> Result:
        """Measure the SAE.

        Args:
            sae: any SAELens SAE.
            embeddings: default the ones of the constructor.
            latents: one row a meme, if they have been encoded before.

        Raises:
            DataError: the embeddings, labels or latents do not allow it; the message says why.
        """
        embeddings = self.embeddings if embeddings is None else embeddings
        with eval_mode(sae):
            latents = encode(sae, embeddings, self.hook) if latents is None else latents
            require_latents_of(latents, embeddings)
            return self.measure(sae, embeddings, latents)

    def __call__(self, sae: Any, data_provider: Any, activation_scaler: Any) -> dict[str, float]:
        """SAELens' evaluator protocol: a fresh flat dict, keys `meme/<name>/...`.

        The data provider is left untouched: it yields training batches without ids and labels.
        """
        latents = encode(sae, self.embeddings, self.hook, activation_scaler=activation_scaler)
        return self.evaluate(sae, latents=latents).to_log_dict(f"meme/{self.name}/")
