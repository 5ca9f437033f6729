"""What every evaluator of one evaluation reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sae_lens_meme.embed.options import HEADS
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluate.options import Options
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.probes.probe import SharedProbes
from sae_lens_meme.evaluators.result import Result
from sae_lens_meme.hooks.names import FUSED
from sae_lens_meme.planted import AnswerKey


@dataclass
class Context:
    """An SAE, its memes and latents, and the results so far."""

    sae: Any
    sae_path: Path
    embeddings: Embeddings
    latents: Latents
    options: Options
    folder: Path
    """Where SAEs that are trained for comparison are kept."""
    reference: Embeddings | None = None
    """The same memes by another encoder."""
    other_saes: dict[str, Any] = field(default_factory=dict)
    """SAEs of the same recipe with other seeds, by name."""
    controls: dict[str, Any] = field(default_factory=dict)
    """SAEs that learned from nothing, by name."""
    answer_key: AnswerKey | None = None
    results: dict[str, Result] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    """Evaluators and controls that could not run -> why."""

    @cached_property
    def embedding_probes(self) -> SharedProbes:
        """Fitted once for all evaluators."""
        return SharedProbes(seed=self.options.seed)

    @cached_property
    def heads(self) -> Path | None:
        """MemeCLIP's own heads, where the embeddings were made with them."""
        path = self.embeddings.path / HEADS if self.embeddings.path else None
        return path if path is not None and path.is_file() else None

    @cached_property
    def model_heads(self) -> list[Any]:
        """MemeCLIP's own classifier, where the SAE reads what the classifier reads."""
        from sae_lens_meme.evaluators.influence.steering import head_of
        from sae_lens_meme.hooks import HookedMemeCLIP

        if self.heads is None or self.sae.cfg.metadata.hook_name != FUSED:
            return []
        return [head_of(HookedMemeCLIP.from_embeddings(self.embeddings, heads=self.heads))]
