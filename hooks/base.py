"""The base of every hooked model: hooks with a declared shape, and a meme's row number in place of a token.

So SAELens' activation store, runners and evaluations run on it as they are. A new model is one file:
a subclass of `HookedModel` that declares its hooks and writes `compute`, under `@register`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from typing_extensions import Self

from sae_lens_meme.errors import DataError, ModelError
from sae_lens_meme.hooks.lens import HookPoint, SAEAttachable
from sae_lens_meme.hooks.names import LOGITS
from sae_lens_meme.hooks.sources import MemeSource, RowSource, class_indices, require_rows

Input = Tensor | dict[str, Tensor]


class Hook(NamedTuple):
    """The activations at a hook are `(batch, positions, width)`; most have one position, the meme. 0: the input decides."""

    width: int
    positions: int = 1


@dataclass(frozen=True)
class HookedModelConfig:
    """What other libraries ask of a hooked model."""

    model_name: str
    device: torch.device
    dtype: torch.dtype
    n_ctx: int = 1


class HookedModel(SAEAttachable):
    """A model over memes. Its `__init__` ends with `declare(hooks)`; `compute` passes them with `tap`."""

    tokenizer = None  # a meme is a row number, not text: SAELens then finds no special tokens
    model_name = "embeddings"

    _anchor: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.source: RowSource | None = None
        self.task: str | None = None
        self.classes: list[Any] = []
        self.register_buffer("_anchor", torch.zeros(()), persistent=False)  # device and dtype without parameters

    def compute(self, inputs: dict[str, Tensor]) -> Float[Tensor, "batch 1 n_classes"] | None:
        """Pass every hook that these inputs reach; returns the logits, or None without a head."""
        raise NotImplementedError

    def declare(self, hooks: Mapping[str, Hook]) -> None:
        """Make the hook points; `stem.0`, `stem.1`, ... become a list."""
        self.shapes = dict(hooks)
        stems = {name.rpartition(".")[0] for name in hooks if "." in name}
        for name in {**hooks, LOGITS: None}:
            if "." not in name:
                setattr(self, name, HookPoint())
        for stem in sorted(stems):
            setattr(self, stem, nn.ModuleList(HookPoint() for name in hooks if name.rpartition(".")[0] == stem))
        self.setup()
        self.eval()

    def tap(self, name: str, x: Tensor) -> Tensor:
        """The value that flows on from a hook."""
        return self.get_submodule(name)(x)

    @property
    def cfg(self) -> HookedModelConfig:
        return HookedModelConfig(self.model_name, self._anchor.device, self._anchor.dtype)

    @property
    def device(self) -> torch.device:
        return self._anchor.device

    @property
    def fingerprint(self) -> str:
        """What everything that the model computes depends on: its class and its weights."""
        return f"{type(self).__name__} {self.model_name} {state_sha256(self)}"

    @classmethod
    def from_pretrained(cls, name: str) -> Self:
        """A model with weights, by name; `train --corpus` loads it so."""
        raise ModelError(f"a {cls.__name__} cannot be loaded by name ({name!r}); train on embeddings")

    def preprocess(self, image: Any) -> Tensor:
        """Pixels `(3, h, w)` of a PIL image."""
        raise ModelError(f"a {type(self).__name__} has no image tower; give row numbers of embeddings")

    def tokenize(self, texts: Sequence[str | None]) -> Int[Tensor, "batch n_ctx"]:
        """Tokens of captions, None where one is missing."""
        raise ModelError(f"a {type(self).__name__} has no text tower; give row numbers of embeddings")

    def attach_memes(
        self,
        images: Sequence[Any],
        texts: Sequence[str | None],
        labels: dict[str, Sequence[Any]] | None = None,
        splits: Sequence[str] | None = None,
    ) -> Self:
        """Row i is `images[i]` (a PIL image) with the caption `texts[i]`, encoded live."""
        return self.attach(MemeSource(images, texts, self.preprocess, self.tokenize, labels, splits))

    def attach(self, source: RowSource) -> Self:
        """Set what row numbers stand for: an `EmbeddingSource` or a `MemeSource`."""
        self.source = source
        return self

    def forward(
        self,
        input: Input,
        return_type: str | None = "auto",
        *,
        labels: Int[Tensor, " batch"] | None = None,
        loss_per_token: bool = False,
        stop_at_layer: int | None = None,
        prepend_bos: bool | None = None,
    ) -> Any:
        """One pass over a batch of memes.

        Args:
            input: row numbers, a LongTensor `(batch, 1)`; or what a source gives for them, such as
                `{"pixels": (batch, 3, h, w), "tokens": (batch, n_ctx)}` or `{hook: (batch, 1, d)}`.
            return_type: None, `logits` (batch, 1, n_classes), `loss`, `both`; `auto` is logits where
                the model has a head and None otherwise.
            labels: index of each row's class; default the label of the rows.
            loss_per_token: losses `(batch, 1)` instead of their mean.
            stop_at_layer: SAELens passes it for language models; it has no effect here.
            prepend_bos: likewise.

        Raises:
            ModelError: no head for logits, no source for row numbers, no towers for pixels.
            DataError: a row that is not there, or a loss for a row without a label.
        """
        if return_type not in (None, "auto", "logits", "loss", "both"):
            raise ModelError(f"return_type {return_type!r} is not one of None, logits, loss, both, auto")
        if return_type in ("logits", "loss", "both") and LOGITS not in self.shapes:
            raise ModelError("this model has no head, so no logits and no loss; call model.fit_head(embeddings, task)")
        target = self._targets(input, labels) if return_type in ("loss", "both") else None
        with self._token_masks(input, {}):
            logits = self.compute(self._inputs(input))
        if logits is None or target is None:
            return None if return_type is None else logits
        loss = F.cross_entropy(rearrange(logits, "b p c -> (b p) c").float(), target, reduction="none")
        loss = rearrange(loss, "b -> b 1") if loss_per_token else loss.mean()
        return loss if return_type == "loss" else (logits, loss)

    def run_with_cache(self, *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        if kwargs.get("incl_bwd") and kwargs.get("return_type") != "loss":
            raise ModelError(
                "gradients are those of a loss; call run_with_cache(..., return_type='loss', incl_bwd=True)"
            )
        return super().run_with_cache(*args, **kwargs)

    def to_tokens(self, *_: Any, **__: Any) -> Tensor:
        raise ModelError(
            "a meme's token is its row number; give row numbers, or model.token_dataset() where a dataset is needed"
        )

    def token_dataset(self, split: str | None = "test", *, labelled: bool = True) -> datasets.Dataset:
        """The rows of a split (None: all) as SAELens' tokenised dataset, `input_ids = [[row], ...]`.

        With `labelled` only rows whose label is a class of the head: the others have no loss.
        """
        source = self._require_source()
        rows = np.arange(len(source)) if split is None else source.rows(split)
        if labelled and self.task is not None:
            known, values = source.label(self.task)
            rows = rows[known[rows] & np.isin(values[rows], np.array(self.classes, dtype=values.dtype))]
        if not len(rows):
            raise DataError(
                f"split {split!r} has no {'labelled ' if labelled else ''}rows; name another split or pass labelled=False"
            )
        return datasets.Dataset.from_dict({"input_ids": [[int(row)] for row in rows]})

    def _inputs(self, input: Input) -> dict[str, Tensor]:
        if isinstance(input, Tensor):
            rows = _row_numbers(input)
            source = self._require_source()
            require_rows(source, rows)
            input = source.take(rows)
        return {name: self._placed(x) for name, x in input.items()}

    def _placed(self, x: Tensor) -> Tensor:
        """On the model's device; real numbers carry gradients, so that every hook behind them has one."""
        if not x.is_floating_point():
            return x.to(self.device)
        x = x.to(self.device, self.cfg.dtype)
        if not torch.is_grad_enabled() or x.requires_grad:
            return x
        return x.detach().requires_grad_().clone()  # a hook may write into it, which a leaf does not allow

    def _targets(self, input: Input, labels: Tensor | None) -> Int[Tensor, " batch"]:
        if labels is not None:
            return labels.flatten().to(self.device)
        if not isinstance(input, Tensor):
            raise DataError("a loss on pixels or vectors needs labels=, the index of each row's class")
        if self.task is None:
            raise ModelError(
                "the head's label is not known; pass task= where the checkpoint is loaded, or labels= here"
            )
        rows = _row_numbers(input)
        require_rows(source := self._require_source(), rows)
        return class_indices(source, self.task, self.classes, rows).to(self.device)

    def _require_source(self) -> RowSource:
        if self.source is None:
            raise ModelError(
                "row numbers have no source yet; call model.attach_memes(images, texts) or model.attach(source)"
            )
        return self.source


def state_sha256(module: nn.Module) -> str:
    """Hash of the names, types, shapes and bytes of a module's state."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        value = value.detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _row_numbers(input: Tensor) -> Int[np.ndarray, " batch"]:
    if input.is_floating_point() or input.ndim != 2 or input.shape[1] != 1:
        raise DataError(
            f"row numbers have shape (batch, 1) and an integer type, not {tuple(input.shape)} {input.dtype}; use context_size=1"
        )
    return input[:, 0].cpu().numpy()
