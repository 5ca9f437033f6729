"""CLIP's two towers by name: open_clip's models, the Hugging Face hub, a folder, and the package's own demo encoder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from dataclasses import replace as replaced
from difflib import get_close_matches
from functools import cached_property
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal

import open_clip
import torch
from einops import rearrange
from jaxtyping import Float, Int
from open_clip import factory
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from open_clip.transformer import text_global_pool
from torch import Tensor, nn

from sae_lens_meme.errors import MemeError, ModelError
from sae_lens_meme.hooks import untrusted
from sae_lens_meme.hooks.base import state_sha256
from sae_lens_meme.hooks.names import DEMO_ENCODER, PLANTED_ENCODERS

Fusion = Literal["clip", "memeclip"]
RANDOM = "random"
RESIZE = {"crop": "shortest", "squash": "squash", "pad": "longest"}
"""open_clip's names of the ways in which a picture becomes a square."""
HUB, FOLDER, AT = "hf-hub:", "local-dir:", "@"
OPEN_CLIP = "open_clip_config.json"


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
    pictures: PreprocessCfg
    """What `preprocess` was made of."""

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

    @property
    def resized(self) -> str:
        """How a picture becomes a square: a key of `RESIZE`."""
        return next(how for how, mode in RESIZE.items() if mode == self.pictures.resize_mode)

    def resize(self, how: str) -> None:
        """Make squares of pictures in another way: `crop`, `squash` or `pad`.

        Raises:
            ModelError: it is none of these.
        """
        if how not in RESIZE:
            raise ModelError(f"resize is {how!r}, it must be one of {', '.join(RESIZE)}")
        self.pictures = replaced(self.pictures, resize_mode=RESIZE[how])
        preprocess: Any = image_transform_v2(self.pictures, is_train=False)
        self.preprocess = preprocess


def load_towers(name: str, fusion: Fusion = "clip", seed: int = 0) -> Towers:
    """Load a CLIP, in float32, on the CPU, for evaluation; nothing of a model is run as code.

    Args:
        name: `ARCHITECTURE/TAG` of open_clip (`ViT-L-14/openai`), `hf-hub:OWNER/NAME`, `local-dir:FOLDER`
            (see `load_local_towers`), `ARCHITECTURE@FILE` or `ARCHITECTURE/TAG@FILE` (a checkpoint of your own, with
            the activation and normalisation of those weights), `ARCHITECTURE/random` (weights drawn from `seed`), or
            `demo-encoder` or `crowded-encoder`.
        fusion: `memeclip` squashes pictures to a square and reads a missing caption as "null".

    Raises:
        ModelError: the name is unknown, names no weights, or they cannot be obtained or ask for code.
    """
    if name in PLANTED_ENCODERS:
        with as_file(files("sae_lens_meme") / "planted" / PLANTED_ENCODERS[name]) as folder:
            return replaced(load_local_towers(folder, fusion), name=name)
    if name.startswith(FOLDER):
        return load_local_towers(name.removeprefix(FOLDER), fusion)
    if AT in name and not name.startswith(HUB):
        return _from_file(name, fusion)
    with _one_line(f"model {name!r}", f"check the name and the network, or use {DEMO_ENCODER!r}, which needs none"):
        if name.startswith(HUB):
            repository = name.removeprefix(HUB)
            of_hub = untrusted.read_config(untrusted.from_hub(repository) / OPEN_CLIP)
            return _open_clip_towers(of_hub, Path(factory.download_pretrained_from_hf(repository)), None, name, fusion)
        architecture, tag = _split(name)
        config: dict[str, Any] = {"model_cfg": factory.get_model_config(architecture)}
        if tag == RANDOM:
            return _open_clip_towers(config, None, None, name, fusion, seed)
        weights = _as_trained(config, architecture, tag)
        return _open_clip_towers(config, Path(factory.download_pretrained(weights)), None, name, fusion)


def _as_trained(config: dict[str, Any], architecture: str, tag: str) -> dict[str, Any]:
    """What open_clip knows of these weights; their activation and normalisation go into the configuration."""
    weights = get_pretrained_cfg(architecture, tag)
    if weights.get("quick_gelu"):  # OpenAI's weights; the architecture of that name has another activation
        config["model_cfg"]["quick_gelu"] = True
    config["preprocess_cfg"] = weights
    return weights


def _from_file(name: str, fusion: Fusion) -> Towers:
    """A checkpoint on this machine, of an architecture of open_clip; its folder is not part of the name."""
    model, _, path = name.partition(AT)
    tagged = model.replace("/", "-") not in open_clip.list_models()
    architecture, tag = _split(model) if tagged else (model.replace("/", "-"), RANDOM)
    config: dict[str, Any] = {"model_cfg": factory.get_model_config(architecture)}
    if tag != RANDOM:
        _as_trained(config, architecture, tag)
    if not Path(path).is_file():
        raise ModelError(f"model {name!r}: there is no file {path!r}; give a checkpoint of {architecture}")
    with _one_line(f"{path}", f"give a checkpoint of {architecture}"):
        return _open_clip_towers(config, Path(path), None, f"{model}{AT}{Path(path).name}", fusion)


def load_local_towers(folder: str | Path, fusion: Fusion = "clip") -> Towers:
    """Load a CLIP from a folder of one of two kinds.

    Either open_clip's own: `open_clip_config.json` (`model_cfg`, `preprocess_cfg`), weights and, where it names
    one, the files of its tokenizer. Or, for an encoder with a vocabulary of its own, `config.json`,
    `merges.txt.gz` and `weights.safetensors`: the configuration is open_clip's `model_cfg` with `preprocess`
    (`mean`, `std`, `size`, `resize_mode`, ...) and `tokenizer` (`context_length`).

    Raises:
        ModelError: a file is missing, damaged, does not fit the others, or asks for code.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder; give one with {OPEN_CLIP} and weights")
    with _one_line(str(folder), "save the model again"):
        untrusted.check_folder(folder)
        name = FOLDER + folder.resolve().name
        if (folder / OPEN_CLIP).is_file():
            config = untrusted.read_config(folder / OPEN_CLIP)
            return _open_clip_towers(config, untrusted.find_weights(folder), folder, name, fusion)
        return _own_towers(folder, name, fusion)


def _open_clip_towers(
    config: dict[str, Any], weights: Path | None, folder: Path | None, name: str, fusion: Fusion, seed: int = 0
) -> Towers:
    """From a configuration of open_clip's; without weights they are drawn from `seed`."""
    where = f"{name}, {OPEN_CLIP}"
    model_cfg = untrusted.checked_towers(config.get("model_cfg"), where)
    text_cfg = model_cfg["text_cfg"]
    custom = model_cfg.pop("custom_text", False) or "hf_model_name" in text_cfg
    kind: Any = open_clip.CLIP if not custom else open_clip.CustomTextCLIP
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = (open_clip.CoCa if custom and "multimodal_cfg" in model_cfg else kind)(**model_cfg)
    if weights is not None:
        untrusted.load_weights(model, weights)
    given = factory.merge_preprocess_dict(asdict(PreprocessCfg()), config.get("preprocess_cfg") or {})
    cfg = PreprocessCfg(**given | {"size": getattr(model.visual, "image_size", given["size"])})
    return _towers(model, cfg, untrusted.load_tokenizer(text_cfg, folder, where), name, fusion)


def _own_towers(folder: Path, name: str, fusion: Fusion) -> Towers:
    for file in ("config.json", "merges.txt.gz", "weights.safetensors"):
        if not (folder / file).is_file():
            raise ModelError(f"{folder}: has no {file}; the encoder is incomplete")
    config = untrusted.read_config(folder / "config.json")
    known = {key: config[key] for key in ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu") if key in config}
    model = open_clip.CLIP(**untrusted.checked_towers(known, folder / "config.json"))
    tokenizer = SimpleTokenizer(str(folder / "merges.txt.gz"), **config.get("tokenizer", {}))
    untrusted.load_weights(model, folder / "weights.safetensors")
    if tokenizer.vocab_size > model.vocab_size:
        raise ModelError(
            f"{folder}: merges.txt.gz makes {tokenizer.vocab_size} tokens, the model knows {model.vocab_size}"
        )
    if tokenizer.context_length != model.context_length:
        raise ModelError(
            f"{folder}: the tokenizer's context_length is {tokenizer.context_length}, the model's {model.context_length}"
        )
    cfg = PreprocessCfg(**{"size": model.visual.image_size, **config.get("preprocess", {})})
    return _towers(model, cfg, tokenizer, name, fusion)


@contextmanager
def _one_line(what: str, hint: str) -> Iterator[None]:
    """Whatever goes wrong in open_clip, the hub client or urllib as one `ModelError`, and nothing logged.

    open_clip logs to the root logger; a first record on one without handlers would install a handler for good.
    """
    root, handler = logging.getLogger(), logging.NullHandler()

    def drop(_: logging.LogRecord) -> bool:
        return False

    root.addHandler(handler)
    root.addFilter(drop)
    try:
        yield
    except MemeError:
        raise
    except Exception as error:  # a dozen unrelated classes
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{what}: cannot be loaded ({reason}); {hint}") from error
    finally:
        root.removeFilter(drop)
        root.removeHandler(handler)


def _towers(model: Any, cfg: PreprocessCfg, tokenizer: Any, name: str, fusion: Fusion) -> Towers:
    if fusion == "memeclip":
        require_unprojected_text(model, name)
        cfg = replaced(cfg, resize_mode="squash")
    preprocess: Any = image_transform_v2(cfg, is_train=False)
    captions = CaptionTokenizer(tokenizer, missing="null" if fusion == "memeclip" else "")
    return Towers(model.eval(), preprocess, captions, name, cfg)


def _split(name: str) -> tuple[str, str]:
    """The architecture and the tag of its weights, both known to open_clip."""
    known = open_clip.list_models()
    if name.replace("/", "-") in known:
        tags = list_pretrained_tags_by_model(name.replace("/", "-"))
        raise ModelError(
            f"model {name!r} names no weights; write {name.replace('/', '-')}/TAG with one of {', '.join([*tags, RANDOM])}, "
            f"or {name}{AT}FILE for a checkpoint of your own"
        )
    architecture, _, tag = name.rpartition("/")
    architecture = architecture.replace("/", "-")
    if architecture not in known:
        near = get_close_matches(architecture or name, [*known, *PLANTED_ENCODERS], n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "open_clip.list_models() names them"
        raise ModelError(f"model {name!r} is not known to open_clip; {hint}")
    tags = [*list_pretrained_tags_by_model(architecture), RANDOM]
    if tag not in tags:
        raise ModelError(f"model {name!r}: {architecture} has no weights {tag!r}; it has {', '.join(tags)}")
    return architecture, tag


def unprojected_text(clip: Any, tokens: Int[Tensor, "batch n_ctx"]) -> Float[Tensor, "batch width"]:
    """The feature at the end token after `ln_final`, which `open_clip.CLIP.encode_text` then projects."""
    seen: list[Tensor] = []
    handle = clip.ln_final.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    try:
        clip.encode_text(tokens)
    finally:
        handle.remove()
    return text_global_pool(seen[-1], tokens, clip.text_pool_type, eos_token_id=clip.text_eos_id)


def require_unprojected_text(clip: Any, name: str) -> None:
    if not isinstance(clip, open_clip.CLIP):
        raise ModelError(
            f"model {name!r}: fusion memeclip reads the text feature before CLIP's projection, which a "
            f"{type(clip).__name__} does not show; take an architecture such as ViT-L-14"
        )


def image_transformer(clip: Any) -> Any | None:
    """The image tower's transformer, or None where it is a ResNet or timm's."""
    transformer = getattr(clip.visual, "transformer", None)
    return transformer if hasattr(transformer, "resblocks") else None


def text_transformer(clip: Any) -> Any | None:
    transformer = getattr(getattr(clip, "text", clip), "transformer", None)
    return transformer if hasattr(transformer, "resblocks") else None


@contextmanager
def tapped(transformer: Any | None, tap: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
    """Pass the residual stream after each block through `tap(layer, x)`, x always (batch, tokens, width)."""
    if transformer is None:
        yield
        return
    with ExitStack() as stack:
        for layer, block in enumerate(transformer.resblocks):
            hook = _batch_first_hook(layer, tap, transformer.batch_first)
            stack.callback(block.register_forward_hook(hook).remove)
        yield


def _batch_first_hook(layer: int, tap: Callable[[int, Tensor], Tensor], batch_first: bool) -> Callable[..., Tensor]:
    def hook(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        if batch_first:
            return tap(layer, output)
        return rearrange(
            tap(layer, rearrange(output, "token batch d -> batch token d")), "batch token d -> token batch d"
        )

    return hook
