"""What a model, a set, a source and a release are called on Neuronpedia."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from sae_lens_meme.export.options import ExportOptions
from sae_lens_meme.hooks.names import FUSED, IMAGE_EMBED, TEXT_EMBED

_HOOKS = {FUSED: "fused", IMAGE_EMBED: "image", TEXT_EMBED: "text"}


class ExportNames(NamedTuple):
    """The keys by which rows of Neuronpedia's tables name one another."""

    model: str
    source_set: str
    layer: int
    release: str
    creator: str

    @classmethod
    def of(cls, sae: Any, hook: str, options: ExportOptions) -> ExportNames:
        model = options.model or _model(sae.cfg.metadata.model_name)
        made = options.source_set or source_set(hook, sae.cfg.architecture(), int(sae.cfg.d_sae))
        return cls(model, made, options.layer, options.release or f"{model}-{made}", options.creator)

    @property
    def source(self) -> str:
        return f"{self.layer}-{self.source_set}"

    @property
    def neuronpedia_id(self) -> str:
        """What SAELens calls it."""
        return f"{self.model}/{self.source}"

    def of_row(self, latent: int) -> dict[str, str]:
        """The keys of a row that belongs to a latent."""
        return {"modelId": self.model, "layer": self.source, "index": str(latent)}


def source_set(hook: str, architecture: str, d_sae: int) -> str:
    """Such as `meme-fused-topk-4k`."""
    size = f"{d_sae // 1024}k" if d_sae % 1024 == 0 else str(d_sae)
    parts = ("meme", _HOOKS.get(hook, hook), architecture, size)
    return re.sub(r"[^a-z0-9.]+", "-", "-".join(parts).lower()).strip("-.")


def _model(name: Any) -> str:
    """An address has no place for the slash of `ViT-L-14/openai`."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", str(name or "")).strip("-._") or "meme-model"
