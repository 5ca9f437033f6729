"""HookedVLM: any transformers model that reads pictures, with a hook after every block; its forward pass stays its own.

Captioners, chat models and vision towers: `hook_image_resid.{l}`, `hook_projected`, `hook_decoder_resid.{l}`,
`hook_decoder_cross.{l}`, `hook_logits`. The input of block l is what the hook of block l - 1 gives.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import datasets
import torch
from jaxtyping import Float, Int
from sae_lens.saes.sae import SAE
from torch import Tensor
from typing_extensions import Self

from sae_lens_meme.errors import DataError, ModelError
from sae_lens_meme.hooks import names, register
from sae_lens_meme.hooks.base import ALL_KINDS, Hook, HookedModel, HookedModelConfig, Input, Stop
from sae_lens_meme.hooks.blocks import (
    feature_blocks,
    hooked_modules,
    image_encoder,
    require_read,
    text_side,
    width_of,
)
from sae_lens_meme.hooks.one_pass import ModelPass
from sae_lens_meme.hooks.positions import (
    PositionSource,
    Tags,
    next_word_loss,
    position_dataset,
    rows_of_tokens,
)
from sae_lens_meme.hooks.sources import require_rows
from sae_lens_meme.hooks.vocabulary import Vocabulary, ids_of, patches_of, text_tags, without_text

_NOT_INPUTS = ("tags", "labels")


@register
class HookedVLM(HookedModel):
    """A transformers model with hooks; SAEs attach to it as to SAELens' `HookedSAETransformer`.

    Args:
        model: a chat model, a captioner, or a vision tower.
        source: what position tokens stand for; see `sae_lens_meme.hooks.positions`.
        processor: the model's own, for `attach_memes`.
        name: what metadata call it, default what transformers does.

    Raises:
        ModelError: the model has no blocks to hook.
    """

    def __init__(
        self, model: Any, source: PositionSource | None = None, processor: Any = None, name: str | None = None
    ):
        super().__init__()
        self.hf = model  # not `model`: SAELens would ask it for embeddings, which CLIP does not have
        self.processor = processor
        self.model_name = name or getattr(model, "name_or_path", "") or model.config.model_type
        self.points = hooked_modules(model)
        """By hook the module whose output passes it."""
        self.declare({hook: Hook(width_of(hook, module), positions=0) for hook, module in self.points.items()})
        self.feature_blocks = feature_blocks(model)
        """Blocks of the tower that the text reads, where only some are (LLaVA)."""
        self._pass = ModelPass()
        # before transformers' own hooks, which capture what LLaVA reads: a later one would change nothing
        self._handles = [
            m.register_forward_hook(partial(self._passed, hook), prepend=True) for hook, m in self.points.items()
        ]
        if source is not None:
            self.attach(source)  # type: ignore[arg-type]

    @classmethod
    def from_pretrained(cls, name: str, dtype: torch.dtype | str | None = None, device_map: Any = None) -> Self:
        """A model of the Hugging Face Hub, or a folder of one, with its processor; code of a model is not run.

        Raises:
            ModelError: it cannot be obtained, or is of a class that transformers does not have.
        """
        from sae_lens_meme.hooks.pretrained import load_pretrained, load_processor

        return cls(load_pretrained(name, dtype, device_map), processor=load_processor(name), name=name)

    def tower(self) -> HookedVLM:
        """The vision tower alone, with the same weights: a picture is a row, so its positions can be trained on.

        The modules are the same as well: an SAE that is attached to one acts in the other. `close` takes the tower's hooks off.

        Raises:
            ModelError: this model has none; its pictures are tokens.
        """
        if (encoder := image_encoder(self.hf)) is None:
            raise ModelError(f"a {type(self.hf).__name__} has no vision tower; its pictures are tokens")
        return HookedVLM(encoder, processor=self.processor, name=self.model_name)

    def close(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()

    @property
    def cfg(self) -> HookedModelConfig:
        first = next(p for p in self.hf.parameters() if p.is_floating_point())
        return HookedModelConfig(self.model_name, first.device, first.dtype, n_ctx=0)

    @property
    def device(self) -> torch.device:
        return self.cfg.device

    @property
    def writes(self) -> bool:
        """Whether it has a decoder, and so tokens, a loss and answers."""
        return names.LOGITS in self.shapes

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Ids that are not words: placeholders of pictures, beginnings and ends, padding."""
        return Vocabulary.of(self.hf, getattr(self.processor, "tokenizer", None))

    def forward(
        self,
        input: Input,
        return_type: str | None = "auto",
        *,
        labels: Any = None,
        loss_per_token: bool = False,
        stop_at_layer: int | None = None,
        prepend_bos: bool | None = None,
    ) -> Any:
        """One pass over a batch.

        Args:
            input: position tokens `(batch, positions)`, see `hooks.positions`; or inputs of the model by name.
            return_type: None, `logits` (batch, positions, vocabulary), `loss`, `both`; `auto` is logits where the model
                writes and None otherwise. The loss is that of the next token; it is 0 where the next position is padding
                or a picture's.
            loss_per_token: losses `(batch, positions - 1)` instead of their mean.
            stop_at_layer, prepend_bos, labels: SAELens passes them for language models; they have no effect here.

        Raises:
            ModelError: no source for position tokens, or a loss or logits of a model that does not write.
        """
        if return_type not in (None, "auto", "logits", "loss", "both"):
            raise ModelError(f"return_type {return_type!r} is not one of None, logits, loss, both, auto")
        if return_type in ("logits", "loss", "both") and not self.writes:
            raise ModelError(f"a {type(self.hf).__name__} writes nothing, so it has no logits and no loss")
        inputs = self._inputs(input)
        tags = self.model_tags(inputs) if self.writes else None
        self._pass = ModelPass(tags, patches_of(self.hf, inputs.get("pixel_values")))
        given = {key: value for key, value in inputs.items() if key not in _NOT_INPUTS}
        try:
            with self._token_masks(input, {}):
                output = self._called(given)(**given, **({"use_cache": False} if self.writes else {}))
        except Stop:
            return None
        finally:
            self._pass = ModelPass()
        if return_type is None or tags is None:
            return None
        logits = output.logits
        if return_type in ("auto", "logits"):
            return logits
        ids, _ = ids_of(self.hf, inputs)
        assert ids is not None  # as there are tags
        losses, counted = next_word_loss(logits, ids, tags)
        loss = losses if loss_per_token else losses.sum() / counted.sum()
        return loss if return_type == "loss" else (logits, loss)

    @torch.no_grad()
    def generate(self, input: Input, **options: Any) -> Int[Tensor, "batch positions"]:
        """What the model writes: transformers' own `generate` with the hooks on and its cache on.

        A captioner's row holds its caption; of its position tokens the picture alone is taken, and it writes from the start.
        Hooks see the prompt first and one position per step after that; `tags_now` says which they see.

        Raises:
            ModelError: the model writes nothing, a batch is padded on the right, or decoding is assisted.
        """
        if not self.writes:
            raise ModelError(f"a {type(self.hf).__name__} writes nothing")
        if assisted := [key for key in ("assistant_model", "prompt_lookup_num_tokens") if options.get(key) is not None]:
            raise ModelError(f"{assisted[0]}: assisted decoding visits positions in another order; leave it out")
        inputs = self._inputs(input)
        if isinstance(input, Tensor) and self.vocabulary.image is None:
            inputs = without_text(self.hf, inputs)
        mask = inputs.get("attention_mask")
        if mask is not None and not bool(mask[:, -1].all()):
            raise ModelError("the batch is padded on the right, which changes the answers; pad it on the left")
        config = self.hf.generation_config
        tags = self.model_tags(inputs, start=True)
        cached = bool(options.get("use_cache", config.use_cache is not False))
        self._pass = ModelPass(tags, patches_of(self.hf, inputs.get("pixel_values")), cached)
        if (image := self.vocabulary.image) is not None:  # a placeholder that it writes would ask for a picture
            suppressed = options.get("suppress_tokens", config.suppress_tokens) or []
            options["suppress_tokens"] = sorted({*suppressed, image})
        try:
            return self.hf.generate(**{k: v for k, v in inputs.items() if k not in _NOT_INPUTS}, **options)
        finally:
            self._pass = ModelPass()

    def model_tags(self, inputs: dict[str, Any], start: bool = False) -> Tags:
        """What each position of the text side is; see `vocabulary.text_tags`."""
        return text_tags(self.hf, self.vocabulary, inputs, start)

    def tags_now(self, hook: str, x: Float[Tensor, "... d"]) -> Int[Tensor, "..."]:
        """The tag of every position of what passes a hook at this moment; for hook functions."""
        return self._pass.tags_at(self._point_of(hook), x)

    def attach_memes(
        self,
        images: Sequence[Any],
        texts: Sequence[str | None] | None,
        labels: dict[str, Sequence[Any]] | None = None,
        splits: Sequence[str] | None = None,
    ) -> Self:
        """Row i is `images[i]` (a PIL image) with `texts[i]`, through the model's own processor."""
        from sae_lens_meme.hooks.processors import processed

        return self.attach(processed(self, images, texts, splits))  # type: ignore[arg-type]

    def attach(self, source: Any) -> Self:
        """Set what position tokens stand for."""
        if not isinstance(source, PositionSource):
            raise DataError(
                f"a {type(source).__name__} does not say what its positions are; give hooks.positions.PositionRows"
            )
        return super().attach(source)  # type: ignore[arg-type]

    def token_dataset(
        self,
        split: str | None = "test",
        *,
        keep: str | Collection[str] = ALL_KINDS,
        labelled: bool = False,
        hook: str | None = None,
    ) -> datasets.Dataset:
        """Position tokens of a split (None: all) as SAELens' tokenised dataset, a new one each time.

        Train on it with `context_size` the number of positions, `exclude_special_tokens=[0]` and `prepend_bos=False`.

        Args:
            keep: the kinds of positions that take part: `text`, `image`, `special`.
            labelled, hook: of other models; rows have no labels here, and their positions are those of every hook.

        Raises:
            DataError: no position of the split is of these kinds.
        """
        source: Any = self._require_source()
        rows = None if split is None else source.rows(split)
        return position_dataset(source.tags, keep, rows, f"split {split!r}")

    def to_tokens(self, *_: Any, **__: Any) -> Tensor:
        raise ModelError(
            "the token of a position is its row number + 1; give inputs of the model, position tokens, or "
            "model.token_dataset() where a dataset is needed"
        )

    def _passed(self, hook: str, _module: Any, _args: Any, output: Any) -> Any:
        """The forward hook of a module; no function inside another, which `copy.deepcopy` would leave with this model."""
        x = output[0] if isinstance(output, tuple) else output
        if x.shape[-1] != self.shapes[hook].width:
            raise AssertionError(f"{hook}: width {x.shape[-1]}, declared {self.shapes[hook].width}")
        new = self.tap(hook, x).to(x)  # an SAE in float32 inside a model in bfloat16
        if self.get_submodule(hook)._backward_hooks:  # of a view from behind one autograd lets nobody write into it
            new = new.clone()  # as Chameleon does with its logits
        self._pass.seen[hook] += x.shape[-2]
        return (new, *output[1:]) if isinstance(output, tuple) else new

    def rows_differ(self, hook: str) -> bool:
        """Whether what passes a hook are the positions of pictures, which are not those of the tokens."""
        return self.writes and hook.startswith((names.IMAGE_RESID, names.PROJECTED))

    def require_reach(self, hook: str) -> None:
        """Refuse a hook from which nothing reaches the text; see `blocks.require_read`."""
        if self.writes:
            require_read(hook, self.feature_blocks)

    def add_sae(
        self, sae: SAE[Any], use_error_term: bool | None = None, exclude_special_tokens: bool | list[int] = False
    ) -> None:
        hook = sae.cfg.metadata.hook_name
        if exclude_special_tokens and self.rows_differ(str(hook)):
            raise ModelError(f"{hook} has the positions of pictures, not those of tokens; attach it without exclusions")
        super().add_sae(sae, use_error_term, exclude_special_tokens)

    def _require_fit(self, sae: SAE[Any]) -> None:
        super()._require_fit(sae)
        self.require_reach(str(sae.cfg.metadata.hook_name))

    def _instead_of(self, hook: str) -> str:
        return "pictures or tiles are not rows here; train on the tower alone, model.tower()"

    def _inputs(self, input: Input) -> dict[str, Any]:
        if isinstance(input, Tensor):
            source: Any = self._require_source()
            rows = rows_of_tokens(input)
            require_rows(source, rows)
            given: dict[str, Any] = source.take(rows)
        elif isinstance(input, Mapping):
            given = dict(input)
        else:
            raise DataError(
                f"the input is of type {type(input).__name__}; give position tokens, a tensor (batch, positions), or inputs "
                "of the model by name, as its processor makes them"
            )
        return {name: _placed(value, self.cfg) for name, value in given.items()}

    def _called(self, inputs: dict[str, Any]) -> Any:
        """The tower alone where there are pictures and no texts for CLIP to compare them with."""
        if self.writes or "input_ids" in inputs or text_side(self.hf) is None:
            return self.hf
        return image_encoder(self.hf)


def _placed(value: Any, cfg: HookedModelConfig) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.to(cfg.device, cfg.dtype if value.is_floating_point() else None)
