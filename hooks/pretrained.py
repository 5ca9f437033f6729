"""A transformers model and its processor by name: no code from a model is run, only transformers' own classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from sae_lens_meme.errors import MemeError, ModelError
from sae_lens_meme.hooks.untrusted import check_folder


class Processor(NamedTuple):
    """What turns pictures and texts into inputs of a model."""

    image_processor: Any
    tokenizer: Any = None
    both: Any = None
    """transformers' processor of both, where the model has one."""


def load_pretrained(name: str, dtype: Any = None, device_map: Any = None) -> Any:
    """The model of the class that its configuration names.

    Raises:
        ModelError: it cannot be obtained, or transformers has no such class.
    """
    import transformers

    _check(name)
    try:
        config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
        kind = (config.architectures or ["none"])[0]
        if not hasattr(transformers, kind):
            raise ModelError(
                f"model {name!r}: its class is {kind!r}, which is not a class of transformers; take another model"
            )
        options = {key: value for key, value in (("dtype", dtype), ("device_map", device_map)) if value is not None}
        return getattr(transformers, kind).from_pretrained(name, **options)
    except MemeError:
        raise
    except Exception as error:  # the hub client and transformers raise a dozen unrelated classes
        raise ModelError(
            f"model {name!r}: cannot be loaded ({_short(error)}); give a name of the Hugging Face Hub, or a folder"
        ) from error


def load_processor(name: str) -> Processor | None:
    """The processor that belongs to the model; None where its files are not there."""
    from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, ProcessorMixin

    _check(name)
    if isinstance(both := _tried(AutoProcessor, name), ProcessorMixin):
        both.tokenizer.padding_side = "left"  # on the right it changes the answers
        return Processor(both.image_processor, both.tokenizer, both)
    images = _tried(AutoImageProcessor, name)
    return None if images is None else Processor(images, _tried(AutoTokenizer, name))


def _tried(kind: Any, name: str) -> Any | None:
    try:
        return kind.from_pretrained(name, trust_remote_code=False)
    except Exception:  # of a file that is not there, and of one that is of another kind
        return None


def _check(name: str) -> None:
    if Path(name).is_dir():
        check_folder(Path(name))


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
