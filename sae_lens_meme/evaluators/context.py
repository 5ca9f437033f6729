"""What the evaluators of one evaluation are made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.base import Unavailable
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.options import EvaluateOptions
from sae_lens_meme.evaluators.result import Result

if TYPE_CHECKING:
    from sae_lens_meme.evaluators.base import Evaluator
    from sae_lens_meme.evaluators.classifiers import SharedProbes
    from sae_lens_meme.evaluators.controls import SharedDirections


SHUFFLED = "shuffled_data"
"""The control that is an SAE of the same recipe, trained on embeddings shuffled per dimension."""


@dataclass
class Context:
    """An SAE, its memes and latents, what is compared with it, and the results so far."""

    sae: Any
    embeddings: Embeddings
    latents: Latents
    options: EvaluateOptions
    reference: Embeddings | None = None
    """The same memes by another encoder."""
    other_saes: dict[str, Any] = field(default_factory=dict)
    """SAEs of the same recipe with other seeds, by name."""
    train_shuffled: Callable[[], Any] | None = None
    """Trains the same recipe on embeddings shuffled per dimension. Raises Unavailable."""
    train_seed: Callable[[int], Any] | None = None
    """Trains the same recipe with its seed raised by so much. Raises Unavailable."""
    answer_key: Any = None
    """`planted.AnswerKey` of planted memes."""
    attributions: Any = None
    """`Attributions` of the SAE on these memes."""
    heads: Path | None = None
    """MemeCLIP's own heads, where the embeddings were made with them."""
    controls: dict[str, Any] = field(default_factory=dict)
    """SAEs that were trained on shuffled data, by name."""
    results: dict[str, Result] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    """What to distrust, in sentences."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Evaluators, and controls as `evaluator/control`, that could not run -> why."""

    def options_of(self, evaluator: type[Evaluator]) -> dict[str, Any]:
        """The evaluation's options that this evaluator shares, then its own."""
        shared = {name: getattr(self.options, name) for name in ("protocol", "concepts", "tasks", "seed")}
        shared["n_bootstrap"] = self.options.bootstrap
        known = evaluator.Options.model_fields
        return {k: v for k, v in shared.items() if k in known} | self.options.evaluators.get(evaluator.name, {})

    def shuffled_sae(self, evaluator: str) -> Any:
        """The SAE of shuffled data, trained for the first evaluator that asks; None where it cannot be."""
        if SHUFFLED not in self.controls and self.train_shuffled is not None:
            try:
                self.controls[SHUFFLED] = self.train_shuffled()
            except Unavailable as error:
                self.skipped[f"{evaluator}/{SHUFFLED}"] = str(error)
        return self.controls.get(SHUFFLED)

    def other_seeds(self, evaluator: str) -> dict[str, Any]:
        """SAEs of the same recipe and other seeds: those that were given, and those that are trained on request."""
        found = {name: sae for name, sae in self.other_saes.items() if sae.cfg.d_in == self.sae.cfg.d_in}
        for i in range(1, self.options.stability_seeds + 1 if self.train_seed is not None else 1):
            try:
                found[f"seed_{i}"] = self.train_seed(i)  # type: ignore[misc]
            except Unavailable as error:
                self.skipped[f"{evaluator}/seeds"] = str(error)
                break
        return found

    @cached_property
    def embedding_probes(self) -> SharedProbes:
        """Fitted once for all evaluators."""
        from sae_lens_meme.evaluators.classifiers import SharedProbes
        from sae_lens_meme.evaluators.probes import Probes

        asked = Probes.Options(**self.options_of(Probes))
        spaces = asked.spaces if Probes.name in self.options.names() else ()
        return SharedProbes(
            seed=self.options.seed,
            embedding_C=asked.embedding_C if "embedding" in spaces else (),
            latents_C=asked.latents_C if "latents" in spaces else (),
        )

    @cached_property
    def directions(self) -> SharedDirections:
        """Fitted once for all evaluators."""
        from sae_lens_meme.evaluators.controls import SharedDirections

        return SharedDirections()
