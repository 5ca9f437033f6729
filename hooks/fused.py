"""The computation of HookedMemeCLIP: both fusions of a picture and its caption, with a hook at every step.

A meme is a sequence of one token, and its token is its row number; so SAELens' activation store,
runners and evaluations run on it as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from sae_lens_meme.errors import DataError, ModelError
from sae_lens_meme.hooks import names
from sae_lens_meme.hooks.encode import image_transformer, tapped, text_transformer, unprojected_text
from sae_lens_meme.hooks.lens import HookPoint, SAEAttachable
from sae_lens_meme.hooks.memeclip import MemeCLIPHeads, unit_product
from sae_lens_meme.hooks.sources import PIXELS, TOKENS, RowSource, class_indices, require_rows
from sae_lens_meme.hooks.towers import Fusion, Towers, state_sha256
from sae_lens_meme.hooks.widths import hook_widths

Input = Tensor | dict[str, Tensor]


@dataclass(frozen=True)
class HookedMemeCLIPConfig:
    """What other libraries ask of a hooked model."""

    model_name: str
    fusion: str
    device: torch.device
    dtype: torch.dtype
    n_ctx: int = 1


class HookedFusion(SAEAttachable):
    """CLIP or MemeCLIP with the hooks of `hooks/names.py`, activations `(batch, 1, d)`.

    Args:
        fusion: `clip` (unit(image) * unit(projected text)) or `memeclip` (arXiv 2409.14703).
        towers: the CLIP; without it the input is cached embeddings.
        heads: MemeCLIP's trained part (fusion memeclip).
        widths: width of the cached embeddings at each hook, where there are no towers.
    """

    tokenizer = None  # a meme is a row number, not text: SAELens then finds no special tokens

    _anchor: Tensor

    def __init__(
        self,
        fusion: Fusion,
        towers: Towers | None = None,
        heads: MemeCLIPHeads | None = None,
        widths: dict[str, int] | None = None,
    ):
        super().__init__()
        if fusion not in ("clip", "memeclip"):
            raise ModelError(f"fusion {fusion!r} is none of clip, memeclip")
        if heads is None and towers is not None and fusion == "memeclip":
            raise ModelError("fusion memeclip over towers needs heads; use from_memeclip_checkpoint or from_pretrained")
        self.fusion: Fusion = fusion
        self.source: RowSource | None = None
        self._towers = towers
        self.clip = towers.model if towers else None
        self.heads = heads
        self.linear_head: nn.Linear | None = None
        self.task: str | None = None
        self.classes: list[Any] = list(range(heads.n_classes)) if heads else []
        self.register_buffer("_anchor", torch.zeros(()), persistent=False)  # device and dtype without parameters
        self._add_hook_points(hook_widths(fusion, towers, heads, widths or {}))
        self.eval()

    @property
    def cfg(self) -> HookedMemeCLIPConfig:
        name = self._towers.name if self._towers else "embeddings"
        return HookedMemeCLIPConfig(name, self.fusion, self._anchor.device, self._anchor.dtype)

    @property
    def device(self) -> torch.device:
        return self._anchor.device

    @property
    def towers(self) -> Towers:
        """The CLIP with its preprocessing and tokeniser."""
        if self._towers is None:
            raise ModelError(
                "this model has cached embeddings and no towers; load one with HookedMemeCLIP.from_pretrained"
            )
        return self._towers

    @property
    def weights_sha256(self) -> str:
        """Hash of all weights that embeddings depend on: the towers' and, for fusion memeclip, the heads'."""
        return self.towers.weights_sha256 + (f"+{state_sha256(self.heads)}" if self.heads else "")

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
            input: row numbers, a LongTensor `(batch, 1)`; or `{"pixels": (batch, 3, h, w), "tokens":
                (batch, n_ctx)}`; or `{hook: (batch, 1, d)}` of cached embeddings.
            return_type: None, `logits` (batch, 1, n_classes), `loss`, `both`; `auto` is logits where
                the model has a head and None otherwise.
            labels: index of each row's class; default the label of the rows.
            loss_per_token: losses `(batch, 1)` instead of their mean.
            stop_at_layer, prepend_bos: SAELens', for language models; without effect.

        Raises:
            ModelError: no head for logits, no source for row numbers, no towers for pixels.
            DataError: a row that is not there, or a loss for a row without a label.
        """
        if return_type not in (None, "auto", "logits", "loss", "both"):
            raise ModelError(f"return_type {return_type!r} is none of None, logits, loss, both, auto")
        if return_type in ("logits", "loss", "both"):
            self._require_head()
        target = self._targets(input, labels) if return_type in ("loss", "both") else None
        with self._token_masks(input, {}):
            logits = self._logits(self._fused(self._inputs(input)))
        if logits is None or target is None:
            return None if return_type is None else logits
        loss = F.cross_entropy(rearrange(logits, "b p c -> (b p) c").float(), target, reduction="none")
        loss = rearrange(loss, "b -> b 1") if loss_per_token else loss.mean()
        return loss if return_type == "loss" else (logits, loss)

    def to_tokens(self, *_: Any, **__: Any) -> Tensor:
        raise ModelError(
            "a meme's token is its row number; give row numbers, or model.token_dataset() where a dataset is asked for"
        )

    def _add_hook_points(self, widths: dict[str, int]) -> None:
        self.widths = widths
        for name in {**widths, names.LOGITS: 0}:
            if "." not in name:
                setattr(self, name, HookPoint())
        for stem in (names.IMAGE_RESID, names.TEXT_RESID):
            setattr(self, stem, nn.ModuleList(HookPoint() for name in widths if name.startswith(f"{stem}.")))
        self.setup()

    def _tap(self, name: str, x: Tensor) -> Tensor:
        return getattr(self, name)(x)

    def _inputs(self, input: Input) -> dict[str, Tensor]:
        if isinstance(input, Tensor):
            rows = _row_numbers(input)
            source = self._require_source()
            require_rows(source, rows)
            input = source.take(rows)
        return {k: v.to(self.device, self.cfg.dtype if v.is_floating_point() else None) for k, v in input.items()}

    def _fused(self, inputs: dict[str, Tensor]) -> Float[Tensor, "batch 1 d"]:
        if (pair := self._pair(inputs)) is not None:
            image, text = self._tap(names.IMAGE_EMBED, pair[0]), self._tap(names.TEXT_EMBED, pair[1])
            if self.heads is not None:
                return self.heads.fuse(image, text, self._tap)
            if self.fusion == "clip":
                return unit_product(image, text, self._tap)
        if names.FUSED not in inputs:
            raise ModelError(
                f"input has {', '.join(inputs) or 'nothing'}; give {PIXELS} with {TOKENS}, "
                f"{names.IMAGE_EMBED} with {names.TEXT_EMBED}, or {names.FUSED}"
            )
        return self._tap(names.FUSED, inputs[names.FUSED])

    def _pair(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor] | None:
        """The image and the text embedding, where the input has them or what they are made of."""
        if PIXELS in inputs and TOKENS in inputs:
            return self._encode(inputs)
        if names.IMAGE_EMBED in inputs and names.TEXT_EMBED in inputs and names.IMAGE_EMBED in self.widths:
            return inputs[names.IMAGE_EMBED], inputs[names.TEXT_EMBED]
        return None

    def _encode(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        clip = self.towers.model
        with tapped(image_transformer(clip), lambda i, x: getattr(self, names.IMAGE_RESID)[i](x)):
            image = clip.encode_image(inputs[PIXELS])
        with tapped(text_transformer(clip), lambda i, x: getattr(self, names.TEXT_RESID)[i](x)):
            encode = unprojected_text if self.fusion == "memeclip" else type(clip).encode_text
            text = encode(clip, inputs[TOKENS])
        # What follows is cheap, and half precision would make the fused vector disagree with its factors.
        return _at_least_float32(image)[:, None], _at_least_float32(text)[:, None]

    def _logits(self, fused: Float[Tensor, "batch 1 d"]) -> Float[Tensor, "batch 1 n_classes"] | None:
        if self.heads is not None:
            return self.heads.classify(fused, self._tap)
        if self.linear_head is None:
            return None
        return self._tap(names.LOGITS, self.linear_head(fused.to(self.linear_head.weight.dtype)))

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

    def _require_head(self) -> None:
        if self.heads is None and self.linear_head is None:
            raise ModelError("this model has no head, so no logits and no loss; call model.fit_head(embeddings, task)")

    def _require_source(self) -> RowSource:
        if self.source is None:
            raise ModelError(
                "row numbers stand for nothing yet; call model.attach_memes(images, texts) or model.attach(source)"
            )
        return self.source


def _row_numbers(input: Tensor) -> Int[np.ndarray, " batch"]:
    if input.is_floating_point() or input.ndim != 2 or input.shape[1] != 1:
        raise DataError(
            f"row numbers have shape (batch, 1) and an integer type, not {tuple(input.shape)} {input.dtype}; use context_size=1"
        )
    return input[:, 0].cpu().numpy()


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
