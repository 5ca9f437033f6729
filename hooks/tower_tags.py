"""What the positions of open_clip's towers are: see `positions` for the tags and the tokens made of them."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from sae_lens_meme.hooks.positions import IMAGE, SPECIAL, Tags, tags_of_ids


def patch_tags(visual: Any, n_rows: int) -> Tags:
    """CLS, then the patches; alike for all pictures."""
    n, patches = len(visual.positional_embedding), prod(visual.grid_size)
    tags = torch.full((1, n), IMAGE, dtype=torch.uint8)
    tags[:, : n - patches] = SPECIAL
    return tags.expand(n_rows, -1).contiguous()


def word_tags(tokenizer: Any, ids: Int[Tensor, "rows n_ctx"], positions: int) -> Tags:
    """Start, words, end and padding; what the tower appends itself (CoCa's class token) is special.

    Padding is what follows the last id that is not it: a word may have the same id.
    """
    inner = getattr(tokenizer, "tokenizer", tokenizer)
    pad = getattr(inner, "pad_token_id", None) or 0
    after = (ids != pad).flip(1).cumsum(1).flip(1) == 0
    tags = tags_of_ids(ids, ~after, None, set(getattr(inner, "all_special_ids", ())) - {pad})
    return F.pad(tags, (0, positions - ids.shape[1]), value=SPECIAL)
