"""One call of a model: what each position that passes a hook is at this moment."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from sae_lens_meme.hooks.names import IMAGE_RESID, PROJECTED
from sae_lens_meme.hooks.positions import GENERATED, IMAGE, SPECIAL, TEXT, Tags


@dataclass
class ModelPass:
    """A forward pass, or a generation: its hooks see the prompt first and one position a step after."""

    tags: Tags | None = None
    """Of the text side's positions, as far as they are known when it starts."""
    patches: int | None = None
    """Patches of a picture, where pictures have one size."""
    cached: bool = True
    """Whether a step of a generation is one position; without transformers' cache it is all of them."""
    seen: Counter[str] = field(default_factory=Counter)
    """Positions that have passed each hook before."""

    def tags_at(self, hook: str, x: Float[Tensor, "*positions d"]) -> UInt8[Tensor, "*positions"]:
        if hook.startswith((IMAGE_RESID, PROJECTED)):
            return self._of_pictures(x)
        if self.tags is None:
            return torch.full(x.shape[:-1], TEXT, dtype=torch.uint8, device=x.device)
        start, (rows, n) = (self.seen[hook] if self.cached else 0), x.shape[:-1]
        tags = self.tags.to(x.device).repeat_interleave(rows // len(self.tags), dim=0)[:, start : start + n]  # beams
        return F.pad(tags, (0, n - tags.shape[1]), value=GENERATED)

    def _of_pictures(self, x: Tensor) -> Tensor:
        """What a tower has beside its patches comes first: CLS, registers."""
        tags = torch.full(x.shape[:-1], IMAGE, dtype=torch.uint8, device=x.device)
        if tags.ndim == 2 and self.patches is not None and tags.shape[1] > self.patches:
            tags[:, : tags.shape[1] - self.patches] = SPECIAL
        return tags
