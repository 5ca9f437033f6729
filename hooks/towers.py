"""CLIP's two towers by name: open_clip's models, the Hugging Face hub, and the package's own demo encoder.

Weights are read from safetensors, or by `torch.load(weights_only=True)`; nothing that is loaded can run code.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import replace as replaced
from difflib import get_close_matches
from functools import cached_property
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal

import open_clip
import torch
from jaxtyping import Int
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sae_lens_meme.errors import ModelError
from sae_lens_meme.hooks.encode import require_unprojected_text

Fusion = Literal["clip", "memeclip"]
DEMO_ENCODER = "demo-encoder"
RANDOM = "random"


@dataclass(frozen=True)
class CaptionTokenizer:
    """Captions to tokens. A missing caption reads as `missing`: MemeCLIP was trained on the word "null"."""

    tokenizer: Callable[[list[str]], Tensor]
    missing: str = ""

    def __call__(self, texts: Sequence[str | None]) -> Int[Tensor, "batch n_ctx"]:
        return self.tokenizer([self.missing if text is None else text for text in texts])


@dataclass
class Towers:
    """A CLIP with what must come before it.

    `preprocess` makes pixels `(3, h, w)` of a PIL image; `tokenize` takes captions, None where one is missing.
    """

    model: Any  # open_clip.CLIP, or another of open_clip's two-tower classes
    preprocess: Callable[[Any], Tensor]
    tokenize: CaptionTokenizer
    name: str

    @property
    def d_embed(self) -> int:
        """Width of the projected image and text embeddings."""
        text = getattr(self.model, "text", self.model)
        projection = getattr(text, "text_projection", None)
        if isinstance(projection, nn.Linear):
            return projection.out_features
        return projection.shape[1] if isinstance(projection, Tensor) else text.output_dim

    @cached_property
    def weights_sha256(self) -> str:
        return state_sha256(self.model)


def load_towers(name: str, fusion: Fusion = "clip", seed: int = 0) -> Towers:
    """Load a CLIP, in float32, on the CPU, for evaluation.

    Args:
        name: `ARCHITECTURE/TAG` of open_clip (`ViT-L-14/openai`), `hf-hub:OWNER/NAME`,
            `ARCHITECTURE/random` (weights drawn from `seed`), or `demo-encoder`.
        fusion: `memeclip` squashes pictures to a square and reads a missing caption as "null".

    Raises:
        ModelError: the name is unknown, names no weights, or they cannot be had.
    """
    if name == DEMO_ENCODER:
        with as_file(files("sae_lens_meme") / "planted" / "encoder") as folder:
            return replaced(load_local_towers(folder, fusion), name=DEMO_ENCODER)
    architecture, tag = _split(name)
    try:
        with _quiet_open_clip():
            model = _create(architecture, tag, seed)
            tokenizer = open_clip.get_tokenizer(architecture)
    except Exception as error:  # open_clip, the hub client and urllib raise a dozen unrelated classes
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"model {name!r}: cannot be loaded ({reason}); check the name and the network, or use {DEMO_ENCODER!r}, which needs none"
        ) from error
    cfg = PreprocessCfg(**open_clip.get_model_preprocess_cfg(model))
    return _towers(model, cfg, tokenizer, name, fusion)


def load_local_towers(folder: str | Path, fusion: Fusion = "clip") -> Towers:
    """Load a CLIP from a folder with `config.json`, `merges.txt.gz` and `weights.safetensors`.

    The configuration is open_clip's (`embed_dim`, `vision_cfg`, `text_cfg`, optionally `quick_gelu`) with
    `preprocess` (`mean`, `std`, `size`, `resize_mode`, ...) and `tokenizer` (`context_length`).

    Raises:
        ModelError: a file is missing, damaged, or does not fit the others.
    """
    folder = Path(folder)
    for file in ("config.json", "merges.txt.gz", "weights.safetensors"):
        if not (folder / file).is_file():
            raise ModelError(f"{folder}: has no {file}; the encoder is incomplete, install the package again")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        known = {key: config[key] for key in ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu") if key in config}
        model = open_clip.CLIP(**known)
        tokenizer = SimpleTokenizer(str(folder / "merges.txt.gz"), **config.get("tokenizer", {}))
        state = {key: value.float() for key, value in load_file(folder / "weights.safetensors").items()}
        model.load_state_dict(state)
        cfg = PreprocessCfg(**{"size": model.visual.image_size, **config.get("preprocess", {})})
    except (ValueError, TypeError, KeyError, RuntimeError, OSError, SafetensorError) as error:
        raise ModelError(
            f"{folder}: cannot be loaded ({' '.join(str(error).split())[:300]}); install it again"
        ) from error
    if tokenizer.vocab_size > model.vocab_size:
        raise ModelError(
            f"{folder}: merges.txt.gz makes {tokenizer.vocab_size} tokens, the model knows {model.vocab_size}"
        )
    if tokenizer.context_length != model.context_length:
        raise ModelError(
            f"{folder}: the tokenizer's context_length is {tokenizer.context_length}, the model's {model.context_length}"
        )
    return _towers(model, cfg, tokenizer, folder.name, fusion)


def state_sha256(module: nn.Module) -> str:
    """Hash of the names, types, shapes and bytes of a module's state."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        value = value.detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _create(architecture: str, tag: str | None, seed: int) -> Any:
    if tag != RANDOM:
        # open_clip only warns when OpenAI's weights meet an architecture with another activation, and
        # when a hub repository has no weights at all
        quick_gelu = bool(get_pretrained_cfg(architecture, tag).get("quick_gelu")) if tag else False
        return open_clip.create_model(
            architecture, tag, force_quick_gelu=quick_gelu, require_pretrained=True, weights_only=True
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return open_clip.create_model(architecture, pretrained_text=False)


@contextmanager
def _quiet_open_clip() -> Iterator[None]:
    """open_clip logs to the root logger: what matters of that is raised here, and the rest is noise.

    A first record on a root logger without handlers would also install one for good.
    """
    root, handler = logging.getLogger(), logging.NullHandler()

    def drop(_: logging.LogRecord) -> bool:
        return False

    root.addHandler(handler)
    root.addFilter(drop)
    try:
        yield
    finally:
        root.removeFilter(drop)
        root.removeHandler(handler)


def _towers(model: Any, cfg: PreprocessCfg, tokenizer: Any, name: str, fusion: Fusion) -> Towers:
    if fusion == "memeclip":
        require_unprojected_text(model, name)
        cfg = replaced(cfg, resize_mode="squash")
    preprocess: Any = image_transform_v2(cfg, is_train=False)
    captions = CaptionTokenizer(tokenizer, missing="null" if fusion == "memeclip" else "")
    return Towers(model.eval(), preprocess, captions, name)


def _split(name: str) -> tuple[str, str | None]:
    """The architecture and the tag of its weights, both known to open_clip."""
    if name.startswith(("hf-hub:", "local-dir:")):
        return name, None
    known = open_clip.list_models()
    if name.replace("/", "-") in known:
        tags = list_pretrained_tags_by_model(name.replace("/", "-"))
        raise ModelError(
            f"model {name!r} names no weights; write {name.replace('/', '-')}/TAG with one of {', '.join([*tags, RANDOM])}"
        )
    architecture, _, tag = name.rpartition("/")
    architecture = architecture.replace("/", "-")
    if architecture not in known:
        near = get_close_matches(architecture or name, [*known, DEMO_ENCODER], n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "open_clip.list_models() names them"
        raise ModelError(f"model {name!r} is not known to open_clip; {hint}")
    tags = [*list_pretrained_tags_by_model(architecture), RANDOM]
    if tag not in tags:
        raise ModelError(f"model {name!r}: {architecture} has no weights {tag!r}; it has {', '.join(tags)}")
    return architecture, tag
