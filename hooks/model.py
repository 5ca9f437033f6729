"""HookedMemeCLIP: CLIP or MemeCLIP with a hook at every step from a picture and its caption to the fused vector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from sae_lens_meme.errors import ModelError, NonFiniteError
from sae_lens_meme.hooks import names, register
from sae_lens_meme.hooks.base import Hook, HookedModel
from sae_lens_meme.hooks.checkpoint import MemeCLIPCheckpoint, read_memeclip_checkpoint
from sae_lens_meme.hooks.declared import SIDES, cached_hooks, fusion_hooks, tower_hooks
from sae_lens_meme.hooks.fit import first_task, labelled_rows, linear_head, logistic_regression
from sae_lens_meme.hooks.memeclip import MemeCLIPHeads, new_heads, unit_product
from sae_lens_meme.hooks.positions import Tags, patch_tags, word_tags
from sae_lens_meme.hooks.sources import PIXELS, TOKENS, CachedEmbeddings, EmbeddingSource, MemeSource
from sae_lens_meme.hooks.towers import Fusion, Towers, image_transformer, load_towers, tapped, text_transformer
from sae_lens_meme.hooks.towers import unprojected_text as before_projection

TEXT_SIDE = (names.TEXT_RESID, names.TEXT_EMBED)


@register
class HookedMemeCLIP(HookedModel):
    """CLIP or MemeCLIP with the hooks of `hooks/names.py`.

    Make it with `from_pretrained`, `from_memeclip_checkpoint` or `from_embeddings`; SAEs attach to it
    as to SAELens' `HookedSAETransformer`, hooks as to any TransformerLens model.

    Args:
        fusion: `clip` (unit(image) * unit(projected text)) or `memeclip` (arXiv 2409.14703).
        towers: the CLIP; without it the input is cached embeddings.
        heads: MemeCLIP's trained part (fusion memeclip).
        widths: width of the cached embeddings at each hook, where there are no towers.
        as_stored: nothing is made of the two sides, and fused vectors are those of the embeddings.
    """

    def __init__(
        self,
        fusion: Fusion,
        towers: Towers | None = None,
        heads: MemeCLIPHeads | None = None,
        widths: dict[str, int] | None = None,
        as_stored: bool = False,
    ):
        super().__init__()
        if fusion not in ("clip", "memeclip"):
            raise ModelError(f"fusion {fusion!r} is not one of clip, memeclip")
        if heads is None and towers is not None and fusion == "memeclip":
            raise ModelError("fusion memeclip over towers needs heads; use from_memeclip_checkpoint or from_pretrained")
        self.fusion: Fusion = fusion
        self.as_stored = as_stored or (fusion == "memeclip" and heads is None)
        self._towers = towers
        self.clip = towers.model if towers else None
        self.heads = heads
        self.linear_head: nn.Linear | None = None
        self.classes = list(range(heads.n_classes)) if heads else []
        self.model_name = towers.name if towers else "embeddings"
        before = tower_hooks(towers, fusion) if towers else cached_hooks(widths or {})
        after = {} if as_stored else fusion_hooks(fusion, heads, before)
        self.declare({hook: shape for hook, shape in before.items() if hook not in after} | after)

    @classmethod
    def from_pretrained(
        cls,
        name: str = "ViT-L-14/openai",
        fusion: Fusion = "clip",
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        n_classes: int = 2,
        class_names: Sequence[str] | None = None,
        d_map: int = 1024,
        seed: int = 0,
        heads: str | Path | None = None,
    ) -> HookedMemeCLIP:
        """A CLIP by its open_clip name (see `load_towers`).

        With `fusion="memeclip"` its heads are those of the file `heads`, or new (drawn from `seed`, the classifier
        from class prompts where `class_names` are given) and need training.

        Raises:
            ModelError: no such model, its weights cannot be obtained, or fusion clip with heads.
        """
        if heads is not None and fusion == "memeclip":
            return cls.from_memeclip_checkpoint(heads, name, device=device, dtype=dtype)
        if heads is not None:
            raise ModelError(f"heads {str(heads)!r} belong to fusion memeclip; pass fusion='memeclip' as well")
        towers = load_towers(name, fusion, seed)
        drawn = new_heads(towers, n_classes, d_map, class_names, seed) if fusion == "memeclip" else None
        return cls(fusion, towers, drawn).to(device, dtype)

    @classmethod
    def from_memeclip_checkpoint(
        cls,
        path: str | Path,
        name: str = "ViT-L-14/openai",
        *,
        task: str | None = None,
        classes: Sequence[Any] | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> HookedMemeCLIP:
        """MemeCLIP with trained heads (a Lightning `.ckpt` or `.safetensors`) over the CLIP `name`.

        Args:
            task: the label that the heads were trained on, for the loss; default what the file says.
            classes: the label value of each logit; default what the file says, then 0, 1, ...

        Raises:
            ModelError: the checkpoint is not MemeCLIP's, or is for another CLIP.
        """
        checkpoint = read_memeclip_checkpoint(path)
        model = cls("memeclip", load_towers(name, "memeclip"), checkpoint.heads)
        model._set_task(checkpoint, task, classes)
        return model.to(device, dtype)

    @classmethod
    def from_embeddings(
        cls,
        embeddings: CachedEmbeddings,
        task: str | None = None,
        *,
        heads: MemeCLIPCheckpoint | str | Path | None = None,
        fit_head: bool = True,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> HookedMemeCLIP:
        """A model over cached embeddings, without towers; its input is row numbers.

        Args:
            embeddings: `sae_lens_meme.embeddings.Embeddings`. With image and text embeddings the model
                computes what follows; with fused vectors or one side alone, fused vectors that are no product of the two,
                or MemeCLIP's without `heads`, it takes what is stored.
            task: the label that a linear head is fitted to (default: the first with two classes in train).
            heads: MemeCLIP's heads, for embeddings made with fusion memeclip.
            fit_head: without a head there are no logits and no loss, and no time spent on them.

        Raises:
            DataError: the embeddings lack the hooks, or `task` has fewer than two classes in train.
        """
        source = EmbeddingSource(embeddings)
        fusion = getattr(embeddings, "facts", {}).get("fusion", "clip")
        checkpoint = read_memeclip_checkpoint(heads) if isinstance(heads, (str, Path)) else heads
        model = cls(
            "memeclip" if checkpoint else fusion,
            heads=checkpoint.heads if checkpoint else None,
            widths={hook: embeddings.d_in(hook) for hook in source.hooks},
            as_stored=checkpoint is None and fusion == "clip" and not source.is_product(),
        ).to(device, dtype)
        model.attach(source)
        if checkpoint:
            model._set_task(checkpoint, task, None)
        elif fit_head and (task or model._can_have_a_head) and (task := task or first_task(embeddings)):
            model.fit_head(embeddings, task)
        return model

    @property
    def towers(self) -> Towers:
        """The CLIP with its preprocessing and tokeniser."""
        if self._towers is None:
            raise ModelError(
                "this model has cached embeddings and no towers; load one with HookedMemeCLIP.from_pretrained"
            )
        return self._towers

    def preprocess(self, image: Any) -> Float[Tensor, "3 h w"]:
        return self.towers.preprocess(image)

    def tokenize(self, texts: Sequence[str | None]) -> Int[Tensor, "batch n_ctx"]:
        return self.towers.tokenize(texts)

    def position_tags(self, hook: str) -> Tags:
        """What each position inside a tower is, in every row.

        Raises:
            ModelError: the hook is not inside a tower, or nothing says which captions the rows have.
        """
        if self.positions(hook) == 1:
            return super().position_tags(hook)
        source = self._require_source()
        if hook.startswith(names.IMAGE_RESID):
            return patch_tags(self.towers.model.visual, len(source))
        if not isinstance(source, MemeSource):
            raise ModelError(
                f"{hook}: a {type(source).__name__} has no captions; call model.attach_memes(images, texts)"
            )
        return word_tags(self.towers.tokenize.tokenizer, source.tokens(np.arange(len(source))), self.positions(hook))

    def encode(
        self, pixels: Float[Tensor, "batch 3 h w"], tokens: Int[Tensor, "batch n_ctx"]
    ) -> dict[str, Float[Tensor, "batch d"]]:
        """`hook_image_embed` and `hook_text_embed` of a batch, at least float32."""
        return {names.IMAGE_EMBED: self.encode_image(pixels), names.TEXT_EMBED: self.encode_text(tokens)}

    # What follows the towers is cheap, and half precision would make the fused vector disagree with its factors.

    def encode_image(self, pixels: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch d_image"]:
        """`hook_image_embed` of a batch, at least float32."""
        clip = self.towers.model
        with tapped(image_transformer(clip), lambda layer, x: self.tap(f"{names.IMAGE_RESID}.{layer}", x)):
            return _at_least_float32(clip.encode_image(pixels))

    def encode_text(self, tokens: Int[Tensor, "batch n_ctx"]) -> Float[Tensor, "batch d_text"]:
        """`hook_text_embed` of a batch, at least float32."""
        clip = self.towers.model
        with tapped(text_transformer(clip), lambda layer, x: self.tap(f"{names.TEXT_RESID}.{layer}", x)):
            text = before_projection(clip, tokens) if self.fusion == "memeclip" else clip.encode_text(tokens)
        return _at_least_float32(text)

    def compute(self, inputs: dict[str, Tensor]) -> Float[Tensor, "batch 1 n_classes"] | None:
        read = self._fused(inputs)
        if self.heads is not None:
            return self.heads.classify(read, self.tap)
        if self.linear_head is None or read is None:
            return None
        return self.tap(names.LOGITS, self.linear_head(read.to(self.linear_head.weight.dtype)))

    def _fused(self, inputs: dict[str, Tensor]) -> Any:
        """`hook_fused`, which a head reads; of embeddings with one side alone, that side."""
        sides = self._sides(inputs)
        if len(sides) == 2 and self.heads is not None:
            return self.heads.fuse(sides[0], sides[1], self.tap)
        if len(sides) == 2 and not self.as_stored:
            return unit_product(sides[0], sides[1], self.tap)
        if names.FUSED in inputs:
            return self.tap(names.FUSED, inputs[names.FUSED])
        if names.FUSED not in self.shapes and sides:
            return sides[0] if len(sides) == 1 else None
        raise ModelError(
            f"input has {', '.join(inputs) or 'nothing'}; give {PIXELS} with {TOKENS}, "
            f"{names.IMAGE_EMBED} with {names.TEXT_EMBED}, or {names.FUSED}"
        )

    def _sides(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        """Image and text, each through its hook as soon as it is there; a pass that ends in one side does not run the other."""
        if not (PIXELS in inputs and TOKENS in inputs):
            return [self.tap(hook, inputs[hook]) for hook in SIDES if hook in inputs and hook in self.shapes]
        makers = {
            names.IMAGE_EMBED: lambda: self.encode_image(inputs[PIXELS]),
            names.TEXT_EMBED: lambda: self.encode_text(inputs[TOKENS]),
        }
        text_alone = bool(self._wanted) and all(hook.startswith(TEXT_SIDE) for hook in self._wanted)
        made = {hook: self.tap(hook, makers[hook]()[:, None]) for hook in (SIDES[::-1] if text_alone else SIDES)}
        return [made[hook] for hook in SIDES]

    @torch.no_grad()
    def fit_head(self, embeddings: CachedEmbeddings, task: str, batch_size: int = 4096) -> HookedMemeCLIP:
        """Fit a linear head (logistic regression) to a label on the fused vectors of its train rows.

        Of embeddings with one side alone it reads that side.

        Raises:
            DataError: fewer than two classes among the labelled train rows.
            NonFiniteError: a fused vector is not finite.
            ModelError: the model has MemeCLIP's own classifier, or both sides and nothing that fuses them.
        """
        if self.heads is not None:
            raise ModelError("fusion memeclip has its own classifier; train it with train_memeclip_head")
        if not self._can_have_a_head:
            raise ModelError("there is nothing to fuse: un-projected text needs MemeCLIP's heads; pass heads=")
        source = EmbeddingSource(embeddings)
        rows, values = labelled_rows(embeddings, task, "train")
        fused = [
            self._fused(self._inputs(source.take(rows[start : start + batch_size])))
            for start in range(0, len(rows), batch_size)
        ]
        x = rearrange(torch.cat(fused), "n 1 d -> n d").float().cpu().numpy()
        if len(bad := rows[~np.isfinite(x).all(axis=1)]):
            raise NonFiniteError(
                f"row {bad[0]}: its fused vector holds NaN or infinity (is one of its factors 0?); leave the meme out"
            )
        return self.set_head(*logistic_regression(x, values), task, np.unique(values).tolist())

    def set_head(
        self,
        weight: Float[np.ndarray, "outputs d"],
        bias: Float[np.ndarray, " outputs"],
        task: str,
        classes: Sequence[Any],
    ) -> HookedMemeCLIP:
        """Take a linear head on the fused vectors that was fitted elsewhere.

        Args:
            weight: one output per class, or one for the second of two classes.
            bias: one number per output.
            task: the label.
            classes: the value of the label for each logit.

        Raises:
            ModelError: the weight is not of these classes, or of another width.
        """
        width = self.d(names.FUSED if names.FUSED in self.shapes else next(iter(self.shapes)))
        outputs = {len(classes)} | ({1} if len(classes) == 2 else set())
        if weight.ndim != 2 or weight.shape[1] != width or not len(weight) == len(bias) or len(bias) not in outputs:
            raise ModelError(
                f"a head of {len(classes)} classes on {width} dimensions has weight ({len(classes)}, {width}) and a bias a "
                f"class, here they are {tuple(weight.shape)} and {tuple(bias.shape)}"
            )
        self.classes, self.task = list(classes), task
        self.linear_head = linear_head(weight, bias).to(self.device, self.cfg.dtype)
        self.shapes[names.LOGITS] = Hook(len(self.classes))
        return self

    def _set_task(self, checkpoint: MemeCLIPCheckpoint, task: str | None, classes: Sequence[Any] | None) -> None:
        self.task = task or checkpoint.task
        self.classes = list(classes or checkpoint.classes or self.classes)
        if len(self.classes) != checkpoint.heads.n_classes:
            raise ModelError(f"{len(self.classes)} classes for heads with {checkpoint.heads.n_classes} logits")

    @property
    def _can_have_a_head(self) -> bool:
        return names.FUSED in self.shapes or not all(side in self.shapes for side in SIDES)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
