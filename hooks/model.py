"""HookedMemeCLIP: how it is made, what its row numbers stand for, and its linear head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from sae_lens_meme.errors import DataError, ModelError
from sae_lens_meme.hooks import names
from sae_lens_meme.hooks.checkpoint import MemeCLIPCheckpoint, read_memeclip_checkpoint
from sae_lens_meme.hooks.fused import HookedFusion
from sae_lens_meme.hooks.linear_head import first_task, fit_linear_head, labelled_rows, linear_head
from sae_lens_meme.hooks.memeclip import MemeCLIPHeads, prompt_classifier
from sae_lens_meme.hooks.sources import PIXELS, TOKENS, CachedEmbeddings, EmbeddingSource, MemeSource, RowSource
from sae_lens_meme.hooks.towers import Fusion, Towers, load_towers


class HookedMemeCLIP(HookedFusion):
    """CLIP or MemeCLIP with the hooks of `hooks/names.py`, activations `(batch, 1, d)`.

    Make it with `from_pretrained`, `from_memeclip_checkpoint` or `from_embeddings`; SAEs attach to it
    as to SAELens' `HookedSAETransformer`, hooks as to any TransformerLens model.
    """

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
    ) -> HookedMemeCLIP:
        """A CLIP by its open_clip name (see `load_towers`).

        With `fusion="memeclip"` its heads are new (drawn from `seed`, the classifier from class
        prompts where `class_names` are given) and want training.

        Raises:
            ModelError: no such model, or its weights cannot be had.
        """
        towers = load_towers(name, fusion, seed)
        heads = _new_heads(towers, n_classes, d_map, class_names, seed) if fusion == "memeclip" else None
        return cls(fusion, towers, heads).to(device, dtype)

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
                computes what follows; with fused vectors alone, or MemeCLIP's without `heads`, it starts there.
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
        ).to(device, dtype)
        model.attach(source)
        if checkpoint:
            model._set_task(checkpoint, task, None)
        elif fit_head and (task := task or first_task(embeddings)):
            model.fit_head(embeddings, task)
        return model

    def attach(self, source: RowSource) -> HookedMemeCLIP:
        """Say what row numbers stand for: an `EmbeddingSource` or a `MemeSource`."""
        self.source = source
        return self

    def attach_memes(
        self,
        images: Sequence[Any],
        texts: Sequence[str | None],
        labels: dict[str, Sequence[Any]] | None = None,
        splits: Sequence[str] | None = None,
    ) -> HookedMemeCLIP:
        """Row i is `images[i]` (a PIL image) with the caption `texts[i]`, encoded live."""
        return self.attach(MemeSource(images, texts, self.towers.preprocess, self.towers.tokenize, labels, splits))

    @torch.no_grad()
    def embed_batch(
        self, pixels: Float[Tensor, "batch 3 h w"], tokens: Int[Tensor, "batch n_ctx"]
    ) -> dict[str, Float[Tensor, "batch d"]]:
        """`hook_image_embed`, `hook_text_embed` and `hook_fused` of a batch, float32."""
        _, cache = self.run_with_cache(
            {PIXELS: pixels, TOKENS: tokens}, return_type=None, names_filter=list(names.EMBEDDING_HOOKS)
        )
        return {hook: rearrange(cache[hook], "b 1 d -> b d").float() for hook in names.EMBEDDING_HOOKS}

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

    @torch.no_grad()
    def fit_head(self, embeddings: CachedEmbeddings, task: str, batch_size: int = 4096) -> HookedMemeCLIP:
        """Fit a linear head (logistic regression) to a label on the fused vectors of its train rows.

        Raises:
            DataError: fewer than two classes among the labelled train rows.
            ModelError: the model has MemeCLIP's own classifier.
        """
        if self.heads is not None:
            raise ModelError("fusion memeclip has its own classifier; train it with train_memeclip_head")
        source = EmbeddingSource(embeddings)
        rows, values = labelled_rows(embeddings, task, "train")
        fused = [
            self._fused(self._inputs(source.take(rows[start : start + batch_size])))
            for start in range(0, len(rows), batch_size)
        ]
        x = rearrange(torch.cat(fused), "n 1 d -> n d").float().cpu().numpy()
        return self._set_head(fit_linear_head(x, values), task, np.unique(values).tolist())

    def set_head(
        self,
        weight: Float[np.ndarray, "outputs d"],
        bias: Float[np.ndarray, " outputs"],
        task: str,
        classes: Sequence[Any],
    ) -> HookedMemeCLIP:
        """Take a linear head on the fused vectors that was fitted elsewhere.

        Args:
            weight, bias: one output a class, or one for the second of two classes.
            task, classes: the label, and its value for each logit.
        """
        return self._set_head(linear_head(weight, bias), task, list(classes))

    def _set_head(self, head: nn.Linear, task: str, classes: list[Any]) -> HookedMemeCLIP:
        self.classes, self.task = classes, task
        self.linear_head = head.to(self.device, self.cfg.dtype)
        self.widths[names.LOGITS] = len(classes)
        return self

    def _set_task(self, checkpoint: MemeCLIPCheckpoint, task: str | None, classes: Sequence[Any] | None) -> None:
        self.task = task or checkpoint.task
        self.classes = list(classes or checkpoint.classes or self.classes)
        if len(self.classes) != checkpoint.heads.n_classes:
            raise ModelError(f"{len(self.classes)} classes for heads with {checkpoint.heads.n_classes} logits")


def _new_heads(
    towers: Towers, n_classes: int, d_map: int, class_names: Sequence[str] | None, seed: int
) -> MemeCLIPHeads:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        heads = MemeCLIPHeads(
            towers.d_embed, towers.model.transformer.width, len(class_names) if class_names else n_classes, d_map
        )
    if class_names:
        prompt_classifier(heads, towers.model, towers.tokenize, class_names)
    return heads
