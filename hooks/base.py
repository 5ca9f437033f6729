"""The base of every hooked model: hooks with a declared shape, and a meme's row number in place of a token.

So SAELens' activation store, runners and evaluations run on it as they are. A new model is one file:
a subclass of `HookedModel` that declares its hooks and writes `compute`, under `@register`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn
from typing_extensions import Self

from sae_lens_meme.errors import DataError, ModelError
from sae_lens_meme.hooks.lens import HookPoint, SAEAttachable, listed
from sae_lens_meme.hooks.names import LOGITS
from sae_lens_meme.hooks.positions import Tags, position_dataset, row_numbers, rows_of_tokens
from sae_lens_meme.hooks.sources import MemeSource, RowSource, class_indices, require_rows

Input = Tensor | dict[str, Tensor]
ALL_KINDS = ("text", "image", "special")


class Stop(Exception):
    """The last wanted hook was reached."""


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
        self._wanted: set[str] = set()
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
        """The value that flows on from a hook; behind the last one that is wanted nothing is computed."""
        new = self.get_submodule(name)(x)
        if name in self._wanted:
            self._wanted.discard(name)
            if not self._wanted:
                raise Stop
        return new

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
            input: row numbers, a LongTensor `(batch, 1)`; position tokens of a tower `(batch, positions)`, see
                `hooks.positions`; or what a source gives for rows, such as
                `{"pixels": (batch, 3, h, w), "tokens": (batch, n_ctx)}` or `{hook: (batch, 1, d)}`.
            return_type: None, `logits` (batch, 1, n_classes), `loss`, `both`; `auto` is logits where
                the model has a head and None otherwise. For position tokens a meme's logits and loss are repeated at
                each of its positions, as SAELens compares them position by position.
            labels: index of each row's class, one a row; default the label of the rows.
            loss_per_token: losses `(batch, 1)` instead of their mean.
            stop_at_layer: SAELens passes it for language models; it has no effect here.
            prepend_bos: likewise.

        Raises:
            ModelError: no head for logits, no source for row numbers, no towers for pixels.
            DataError: a row that is not there, an input of another shape, or a loss for a row without a label.
        """
        if return_type not in (None, "auto", "logits", "loss", "both"):
            raise ModelError(f"return_type {return_type!r} is not one of None, logits, loss, both, auto")
        if return_type in ("logits", "loss", "both") and LOGITS not in self.shapes:
            raise ModelError("this model has no head, so no logits and no loss; call model.fit_head(embeddings, task)")
        inputs = self._inputs(input)
        target = None
        if return_type in ("loss", "both"):
            target = self._targets(input, labels, batch=len(next(iter(inputs.values()))))
        n = input.shape[1] if isinstance(input, Tensor) else 1
        self._require_same_positions(input, n)
        try:
            with self._token_masks(input, {}):
                logits = self.compute(inputs)
        except Stop:
            return None
        if logits is None or return_type is None:
            return None
        if target is None:
            return logits.expand(-1, n, -1)
        loss = F.cross_entropy(rearrange(logits, "b p c -> (b p) c").float(), target, reduction="none")
        loss = repeat(loss, "b -> b p", p=n) if loss_per_token else loss.mean()
        return loss if return_type == "loss" else (logits.expand(-1, n, -1), loss)

    def run_with_cache(self, *args: Any, stop_at_layer: int | None = None, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """One forward pass and the activations of the hooks that `names_filter` names (default: all).

        With a `stop_at_layer`, whatever it is, nothing behind the last wanted hook is computed: SAELens derives the number
        from the hook's name, and a captioner's blocks come after the tower's.
        """
        if kwargs.get("incl_bwd") and kwargs.get("return_type") != "loss":
            raise ModelError(
                "gradients are those of a loss; call run_with_cache(..., return_type='loss', incl_bwd=True)"
            )
        named = listed(kwargs.get("names_filter")) if stop_at_layer is not None else []
        self._wanted = {self._point_of(name) for name in named}
        try:
            output, cache = super().run_with_cache(*args, **kwargs)
        finally:
            self._wanted = set()
        if isinstance(tokens := next(iter(args), None), Tensor):
            self._require_positions(cache, named, tokens)
        return output, cache

    def to_tokens(self, *_: Any, **__: Any) -> Tensor:
        raise ModelError(
            "a meme's token is its row number; give row numbers, or model.token_dataset() where a dataset is needed"
        )

    @property
    def writes(self) -> bool:
        """Whether it has a decoder, and so tokens, a loss and answers."""
        return False

    def position_tags(self, hook: str) -> Tags:
        """What each position of a hook is, in every row of the source."""
        if self.positions(hook) == 1:
            raise ModelError(f"{hook} has one position, the meme; leave hook= out")
        raise ModelError(f"{hook}: a {type(self).__name__} does not say what its positions are (position_tags)")

    def token_dataset(
        self,
        split: str | None = "test",
        *,
        labelled: bool = True,
        hook: str | None = None,
        keep: str | Collection[str] = ALL_KINDS,
    ) -> datasets.Dataset:
        """The rows of a split (None: all) as SAELens' tokenised dataset, `input_ids = [[row], ...]`.

        Args:
            labelled: only rows whose label is a class of the head: the others have no loss.
            hook: of a tower; then the tokens are those of its positions, see `hooks.positions`.
            keep: the kinds of its positions that take part.
        """
        source = self._require_source()
        if hook is None and keep != ALL_KINDS:
            raise ModelError(f"keep={keep!r} is of the positions of a hook inside a tower; give hook= too")
        rows = np.arange(len(source)) if split is None else source.rows(split)
        if labelled and self.task is not None:
            known, values = source.label(self.task)
            rows = rows[known[rows] & np.isin(values[rows], np.array(self.classes, dtype=values.dtype))]
        if not len(rows):
            raise DataError(
                f"split {split!r} has no {'labelled ' if labelled else ''}rows; name another split or pass labelled=False"
            )
        if hook is not None:
            return position_dataset(self.position_tags(hook), keep, rows, f"split {split!r}")
        return datasets.Dataset.from_dict({"input_ids": [[int(row)] for row in rows]})

    def _inputs(self, input: Input) -> dict[str, Tensor]:
        if isinstance(input, Tensor):
            rows = self._rows(input)
            source = self._require_source()
            require_rows(source, rows)
            input = source.take(rows)
        self._require_shapes(input)
        return {name: self._placed(x) for name, x in input.items()}

    def _require_shapes(self, inputs: Any) -> None:
        """Tensors of one batch, those at a hook with its positions and width: others would be broadcast."""
        given = inputs if isinstance(inputs, Mapping) else {"the input": inputs}
        for name, x in given.items():
            if given is not inputs or not isinstance(x, Tensor):
                raise DataError(
                    f"{name} is of type {type(x).__name__}; give row numbers, a tensor (batch, 1), or a dict of tensors, such as "
                    "{hook: (batch, 1, d)}: torch.as_tensor makes one"
                )
        sizes = {name: tuple(x.shape[:1]) for name, x in given.items()}
        if len(set(sizes.values())) != 1:
            raise DataError(
                f"the tensors of a batch have a row a meme each, here there are {sizes}; give as many of each"
            )
        for name, x in given.items():
            shape = self.shapes.get(name)
            if shape and (x.ndim != 3 or x.shape[2] != shape.width or shape.positions not in (0, x.shape[1])):
                raise DataError(
                    f"{name} has shape {tuple(x.shape)}; give (batch, {shape.positions or 'positions'}, {shape.width})"
                )

    def _placed(self, x: Tensor) -> Tensor:
        """On the model's device; real numbers carry gradients, so that every hook behind them has one."""
        if not x.is_floating_point():
            return x.to(self.device)
        x = x.to(self.device, self.cfg.dtype)
        if not torch.is_grad_enabled() or x.requires_grad:
            return x
        return x.detach().requires_grad_().clone()  # a hook may write into it, which a leaf does not allow

    def _targets(self, input: Input, labels: Tensor | None, batch: int) -> Int[Tensor, " batch"]:
        if labels is not None:
            labels, n_classes = torch.as_tensor(labels).flatten(), self.shapes[LOGITS].width
            if labels.is_floating_point() or len(labels) != batch or not ((labels >= 0) & (labels < n_classes)).all():
                raise DataError(
                    f"labels= takes a whole number of 0 to {n_classes - 1}, the index of its class, for each of the {batch} "
                    "rows; leave out rows without a label"
                )
            return labels.long().to(self.device)
        if not isinstance(input, Tensor):
            raise DataError("a loss on pixels or vectors needs labels=, the index of each row's class")
        if self.task is None:
            raise ModelError("the head's label is not known; pass task= when loading the checkpoint, or labels= here")
        rows = self._rows(input)
        require_rows(source := self._require_source(), rows)
        return class_indices(source, self.task, self.classes, rows).to(self.device)

    def _rows(self, tokens: Tensor) -> Int[np.ndarray, " batch"]:
        """The rows of their numbers, or of the position tokens of a hook with as many positions."""
        several = {shape.positions for shape in self.shapes.values()} - {1}
        return rows_of_tokens(tokens) if tokens.ndim == 2 and tokens.shape[1] in several else row_numbers(tokens)

    def _point_of(self, name: str) -> str:
        """The hook that a name is of, where SAEs have hooks inside it."""
        return next((hook for hook in self.shapes if name == hook or name.startswith(f"{hook}.")), name)

    def _require_positions(self, cache: dict[str, Any], named: Sequence[str], tokens: Tensor) -> None:
        """SAELens takes the positions of a hook for those of the tokens."""
        for name in named:
            if cache[name].shape[:2] != tokens.shape[:2]:
                raise ModelError(
                    f"{name} gives {tuple(cache[name].shape[:-1])} positions for tokens {tuple(tokens.shape)}: "
                    f"{self._instead_of(name)}"
                )

    def _instead_of(self, hook: str) -> str:
        return f"train on its position tokens, model.token_dataset(hook={hook!r})"

    def _require_same_positions(self, input: Input, n: int) -> None:
        """A mask of the tokens' positions would be spread over a hook that has others."""
        for hook, sae in self._acts_to_saes.items():
            if sae.exclude_special_tokens is not False and isinstance(input, Tensor) and self.positions(hook) != n:
                raise ModelError(
                    f"{hook} has {self.positions(hook)} positions and the tokens {n}; attach its SAE without exclusions"
                )

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
