"""Models of strangers, read as data: tensors without their pickles' code, configurations that ask for none.

open_clip and transformers run code of a model's folder where its configuration says so, and open_clip
opens a pickle in full after some errors; so they get nothing that was not checked here.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import torch
from open_clip import factory
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from safetensors.torch import save_file
from torch import Tensor

from sae_lens_meme.errors import MemeError, ModelError

CODE_KEYS = ("auto_map", "trust_remote_code", "custom_pipelines", "custom_generate")
CONFIGS = ("open_clip_config.json", "config.json", "tokenizer_config.json", "special_tokens_map.json")
TOKENIZER_OPTIONS = {
    "clean": str,
    "strip_sep_token": bool,
    "language": str,
    "reduction_mask": str,
    "additional_special_tokens": list,
}
"""What a model's `tokenizer_kwargs` may set; the others name files, or code."""


class Plain:
    """Stands in for a class of another project: the attributes that its pickle holds, and none of its code."""


def unpickled(
    path: Path, refuse: type[MemeError] = ModelError, *, file: BinaryIO | None = None, plain: Sequence[str] = ()
) -> Any:
    """What a `.pt`, `.ckpt` or `.bin` file holds: tensors, numbers, strings and containers of them.

    Args:
        file: read this instead; `path` is what a message names.
        plain: full names of classes whose objects are read as `Plain`.

    Raises:
        refuse: the file is damaged, or holds anything else; nothing of it has run.
    """
    try:
        with warnings.catch_warnings():  # of other protocols and of sparse tensors
            warnings.simplefilter("ignore")
            with torch.serialization.safe_globals([(Plain, name) for name in plain]):
                # said here: an environment variable can turn torch's default off
                return torch.load(file or path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises whatever its instructions stumble over
        reason = " ".join(str(error).split("\n")[0].split())[:160] or type(error).__name__
        raise refuse(
            f"{path}: cannot be read as tensors only ({reason}); where you trust it, save its state_dict alone and give that file"
        ) from None


def read_config(file: Path) -> dict[str, Any]:
    """A JSON mapping in which no key asks for code.

    Raises:
        ModelError: there is no such file, it is no JSON mapping, or it asks for code; the key is named.
    """
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file}: cannot be read as JSON ({' '.join(str(error).split())})") from None
    if not isinstance(config, dict):
        raise ModelError(f"{file}: holds a {type(config).__name__}, not a mapping; take another model")
    for key, value in _nested(config):
        if value and key.rpartition(".")[2] in CODE_KEYS:
            raise ModelError(
                f"{file}: {key} asks for code of the model to be run, and no code from a model runs here; "
                "use a model that needs none"
            )
    return config


def check_folder(folder: Path) -> None:
    """Every configuration that open_clip and transformers read from a folder.

    Raises:
        ModelError: as for `read_config`, or the tokenizer is not one of transformers' own.
    """
    for file in (folder / name for name in CONFIGS):
        if file.is_file():
            name = read_config(file).get("tokenizer_class")
            if name is not None and not _is_tokenizer(name):
                raise ModelError(
                    f"{file}: tokenizer_class is {name!r}, which is not a tokenizer of transformers; "
                    "code of a model does not run here, take a model that needs none"
                )


def from_hub(repository: str) -> Path:
    """The folder of a repository's configurations and tokenizer, checked; no code is downloaded."""
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(repository, allow_patterns=["*.json", "*.txt", "*.model"]))
    check_folder(folder)
    return folder


def checked_towers(model_cfg: Any, where: Path | str) -> dict[str, Any]:
    """A copy of open_clip's `model_cfg` whose towers are open_clip's and timm's own, without weights of theirs.

    Raises:
        ModelError: a tower is a file or code from elsewhere.
    """
    parts = ("vision_cfg", "text_cfg")
    if not isinstance(model_cfg, dict) or not all(isinstance(model_cfg.get(part), dict) for part in parts):
        raise ModelError(f"{where}: has no model_cfg with vision_cfg and text_cfg; give a model of open_clip")
    vision, text = (dict(model_cfg[part]) for part in parts)
    if (timm := vision.get("timm_model_name")) is not None:
        if not re.fullmatch(r"[\w.-]+", str(timm)):
            raise ModelError(f"{where}: vision_cfg.timm_model_name is {timm!r}, which is not one of timm's own models")
        vision["timm_model_pretrained"] = False
    if (name := text.get("hf_model_name")) is not None:
        if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", str(name)) or Path(name).exists():
            raise ModelError(f"{where}: text_cfg.hf_model_name is {name!r}, which is not a repository on the hub")
        text |= {"hf_model_name": str(from_hub(name)), "hf_model_pretrained": False}
    return {**model_cfg, "vision_cfg": vision, "text_cfg": text}


def load_tokenizer(text_cfg: Mapping[str, Any], folder: Path | None, where: Path | str) -> Any:
    """The tokenizer that a `text_cfg` names: from `folder`, or from the hub, or open_clip's own.

    Raises:
        ModelError: an option that is not one of `TOKENIZER_OPTIONS`.
    """
    options = text_cfg.get("tokenizer_kwargs") or {}
    for key, value in options.items():
        if not isinstance(value, TOKENIZER_OPTIONS.get(key, ())):
            raise ModelError(
                f"{where}: text_cfg.tokenizer_kwargs.{key} is {value!r}; a model may set {', '.join(TOKENIZER_OPTIONS)}"
            )
    length = text_cfg.get("context_length", 77)
    if name := text_cfg.get("hf_tokenizer_name"):
        mode, files = text_cfg.get("tokenizer_mode"), folder or from_hub(name)
        return HFTokenizer(str(files), length, tokenizer_mode=mode, trust_remote_code=False, **options)
    return SimpleTokenizer(context_length=length, **options)


def load_weights(model: Any, file: Path) -> None:
    """Load a checkpoint of any kind that open_clip reads.

    Raises:
        ModelError: a pickle holds more than tensors.
    """
    if file.suffix in (".safetensors", ".npz", ".npy"):  # numpy refuses pickles unless told otherwise
        factory.load_checkpoint(model, str(file))
        return
    content = unpickled(file)
    content = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(content, Mapping):
        raise ModelError(f"{file}: holds a {type(content).__name__}, not a state dict; take another checkpoint")
    tensors = {str(k): v.contiguous().clone() for k, v in content.items() if isinstance(v, Tensor)}
    with TemporaryDirectory() as made:
        save_file(tensors, plain := Path(made) / "weights.safetensors")
        factory.load_checkpoint(model, str(plain))


def find_weights(folder: Path) -> Path:
    """The checkpoint in a folder: open_clip's before another library's, safetensors before pickles."""
    for stem in ("open_clip*", "*"):
        for suffix in (".safetensors", ".bin", ".pth", ".pt"):
            if found := sorted(folder.glob(stem + suffix)):
                return found[0]
    raise ModelError(f"{folder}: has no weights (.safetensors, .bin, .pth); the model is incomplete")


def _nested(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        name = f"{path}.{key}" if path else str(key)
        yield name, inner
        yield from _nested(inner, name)


def _is_tokenizer(name: Any) -> bool:
    import transformers

    found = [getattr(transformers, spelt, None) for spelt in (str(name), f"{name}Fast", str(name).removesuffix("Fast"))]
    return any(isinstance(kind, type) and issubclass(kind, transformers.PreTrainedTokenizerBase) for kind in found)
