"""Many positions per row: what each is (its tag), which take part (position tokens), and the inputs behind them.

SAELens' token of a position is its row number + 1 where the position takes part, and 0 where it does not: its store,
runners and evaluations then leave out every other position, and the model gets the row back from the largest token.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import prod
from typing import Any, Protocol, runtime_checkable

import datasets
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from sae_lens_meme.errors import ConfigError, DataError

PAD, TEXT, IMAGE, SPECIAL, GENERATED = range(5)
TAGS = {"pad": PAD, "text": TEXT, "image": IMAGE, "special": SPECIAL, "generated": GENERATED}
"""special: BOS, EOS, start, CLS, registers, begin and end of a picture."""

Tags = UInt8[Tensor, "rows positions"]


@runtime_checkable
class PositionSource(Protocol):
    """PositionRows of pictures and texts as inputs of a model; `take` adds `tags` to them."""

    @property
    def tags(self) -> Tags: ...
    def __len__(self) -> int: ...
    def take(self, rows: Int[np.ndarray, " batch"]) -> dict[str, Tensor]: ...
    def rows(self, split: str) -> Int[np.ndarray, " n"]: ...


class PositionRows:
    """A `PositionSource` of tensors in memory, one entry per row.

    Args:
        columns: inputs of the model by name.
        tags: what each position is.
        splits: the split of each row; without it every row is in each split.
    """

    def __init__(self, columns: Mapping[str, Tensor], tags: Tensor, splits: Sequence[str] | None = None):
        for name, column in {**columns, "splits": splits}.items():
            if column is not None and len(column) != len(tags):
                raise DataError(f"{len(tags)} rows of tags and {len(column)} of {name}; give one per row")
        self.columns, self._tags, self.splits = dict(columns), tags.to(torch.uint8), splits

    @property
    def tags(self) -> Tags:
        return self._tags

    def __len__(self) -> int:
        return len(self._tags)

    def take(self, rows: Int[np.ndarray, " batch"]) -> dict[str, Tensor]:
        chosen = torch.as_tensor(np.asarray(rows), dtype=torch.long)
        return {name: column[chosen] for name, column in self.columns.items()} | {"tags": self._tags[chosen]}

    def rows(self, split: str) -> Int[np.ndarray, " n"]:
        return rows_of_split(self.splits, len(self), split)


def rows_of_split(splits: Sequence[str] | None, n: int, split: str) -> Int[np.ndarray, " n"]:
    return np.arange(n) if splits is None else np.flatnonzero(np.asarray(splits) == split)


def pictures(pixel_values: Tensor, n_special: int, n_patches: int) -> PositionRows:
    """Pictures alone, for a vision tower: the special positions (CLS, registers) come first."""
    tags = torch.full((len(pixel_values), n_special + n_patches), IMAGE)
    tags[:, :n_special] = SPECIAL
    return PositionRows({"pixel_values": pixel_values}, tags)


def prompts(
    input_ids: Tensor, attention_mask: Tensor, image_token: int | None, special: Collection[int], **columns: Tensor
) -> PositionRows:
    """Texts in which placeholders stand for pictures, as a processor has expanded them."""
    tags = tags_of_ids(input_ids, attention_mask, image_token, special)
    return PositionRows({"input_ids": input_ids, "attention_mask": attention_mask, **columns}, tags)


def captions(
    pixel_values: Float[Tensor, "rows ..."], ids: Sequence[Sequence[int]], start: int, pad: int
) -> PositionRows:
    """Captions for a decoder: the start token, the words, the end token.

    Masks and tags come from lengths, as start, end and padding may be one id. The start is SPECIAL (an attention sink),
    and so is the last position, whose state predicts nothing: the end, or the word at which a caption was cut.

    Args:
        ids: the words of each caption, with its end where it has one.
    """
    longest = max(len(words) for words in ids) + 1
    tokens = torch.full((len(ids), longest), pad)
    tags = torch.full((len(ids), longest), PAD)
    for row, words in enumerate(ids):
        if not len(words):
            raise DataError(f"row {row}: the caption is empty; leave the picture out")
        length = len(words) + 1
        tokens[row, :length] = torch.tensor([start, *words])
        tags[row, :length] = TEXT
        tags[row, [0, length - 1]] = SPECIAL
    columns = {"decoder_input_ids": tokens, "decoder_attention_mask": (tags != PAD).long()}
    return PositionRows({"pixel_values": pixel_values, **columns}, tags)


def tags_of_ids(
    ids: Int[Tensor, "rows positions"],
    mask: Tensor | None,
    image_token: int | None,
    special: Collection[int],
) -> Tags:
    """The tags of token ids: padding by the mask, never by an id, which the start token may share."""
    tags = torch.full_like(ids, TEXT)
    tags[torch.isin(ids, torch.tensor(sorted(special), dtype=ids.dtype, device=ids.device))] = SPECIAL
    if image_token is not None:
        tags[ids == image_token] = IMAGE
    if mask is not None:
        tags[mask == 0] = PAD
    return tags.to(torch.uint8)


def with_pictures_before(tags: Tags, n_special: int, n_patches: int) -> Tags:
    """For a decoder that puts the patches of a picture before its text (GIT)."""
    return F.pad(F.pad(tags, (n_patches, 0), value=IMAGE), (n_special, 0), value=SPECIAL)


def tag_numbers(names: str | Collection[str]) -> list[int]:
    """The numbers of tags by name.

    Raises:
        ConfigError: there is no tag of that name.
    """
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        if name not in TAGS:
            raise ConfigError(f"{name!r} is not a kind of position; give one of {', '.join(TAGS)}")
    return sorted(TAGS[name] for name in names)


def tagged(tags: Tensor, names: str | Collection[str]) -> Tensor:
    """Where a position is of one of these kinds."""
    return torch.isin(tags, torch.tensor(tag_numbers(names), dtype=tags.dtype, device=tags.device))


def position_tokens(tags: Tags, keep: str | Collection[str]) -> Int[Tensor, "rows positions"]:
    """SAELens' tokens: row number + 1 at positions of these kinds, 0 at all others."""
    return torch.arange(1, len(tags) + 1)[:, None] * tagged(tags, keep).long()


def position_dataset(
    tags: Tags, keep: str | Collection[str], rows: Int[np.ndarray, " n"] | None, what: str
) -> datasets.Dataset:
    """Position tokens of these rows (None: all) as SAELens' tokenised dataset, without rows of which nothing is kept.

    Raises:
        DataError: no position is of these kinds.
    """
    tokens = position_tokens(tags, keep)
    tokens = tokens if rows is None else tokens[torch.from_numpy(rows)]
    tokens = tokens[(tokens > 0).any(dim=1)]
    if not len(tokens):
        raise DataError(f"{what} has no positions of kind {keep}; name another split or other kinds")
    return datasets.Dataset.from_dict({"input_ids": tokens.numpy()})


def rows_of_tokens(tokens: Int[Tensor, "batch positions"]) -> Int[np.ndarray, " batch"]:
    """The row numbers behind position tokens.

    Raises:
        DataError: these are not position tokens, or no position of a row takes part.
    """
    if tokens.is_floating_point() or tokens.ndim != 2:
        raise DataError(
            f"position tokens have shape (batch, positions) and an integer type, not {tuple(tokens.shape)} {tokens.dtype}; "
            "take them from token_dataset()"
        )
    rows = tokens.amax(dim=1).cpu().numpy() - 1
    if (rows < 0).any():
        raise DataError(
            f"row {int(np.flatnonzero(rows < 0)[0])} of the batch: no position takes part, so its row is not known; "
            "take rows of token_dataset()"
        )
    return rows


def row_numbers(input: Int[Tensor, "batch 1"]) -> Int[np.ndarray, " batch"]:
    """Row numbers that stand in place of tokens.

    Raises:
        DataError: they are no row numbers.
    """
    if input.is_floating_point() or input.ndim != 2 or input.shape[1] != 1:
        raise DataError(
            f"row numbers have shape (batch, 1) and an integer type, not {tuple(input.shape)} {input.dtype}; use context_size=1"
        )
    return input[:, 0].cpu().numpy()


def next_word_loss(
    logits: Float[Tensor, "batch positions vocabulary"], ids: Int[Tensor, "batch words"], tags: Tags
) -> tuple[Float[Tensor, "batch positions-1"], Bool[Tensor, "batch positions-1"]]:
    """Cross-entropy of what comes next, 0 where that is a picture's position or padding; and where it is neither."""
    counted = (tags[:, 1:] != IMAGE) & (tags[:, 1:] != PAD)
    ids = F.pad(ids, (tags.shape[1] - ids.shape[1], 0))  # GIT's pictures are no ids
    losses = F.cross_entropy(logits[:, :-1].float().transpose(1, 2), ids[:, 1:].to(logits.device), reduction="none")
    counted = counted.to(logits.device)
    return torch.where(counted, losses, 0.0), counted  # not *: the logits of placeholders may be -3e38


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
