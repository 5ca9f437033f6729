"""What steering and the studies begin with: a model that is shown pictures, an SAE of one of its hooks, folders of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from sae_lens_meme.device import pick_device
from sae_lens_meme.errors import DataError, ModelError
from sae_lens_meme.evaluators.opened import load_sae, sae_weights
from sae_lens_meme.hooks import HookedVLM
from sae_lens_meme.hooks.base import state_sha256
from sae_lens_meme.hooks.names import DECODER_CROSS, DECODER_RESID
from sae_lens_meme.steer.options import AskOptions
from sae_lens_meme.storage import sha256_file, sha256_json

Pictures = dict[str, Path]
"""The files of pictures by their names."""
_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
_NO_NUMBER = {"model", "device", "batch_size"}
"""Options that change no number, or are in the fingerprint as what they name."""


class AskedModel(NamedTuple):
    """A model that answers, and an SAE of its hook, on one device."""

    model: HookedVLM
    sae: Any
    hook: str
    fingerprint: dict[str, Any]
    """Of the model, the SAE, the pictures and the options that change a number."""


def open_asked(
    sae: str | Path, hook: str | None, options: AskOptions, pictures: Sequence[Pictures], *, chat: bool = False
) -> AskedModel:
    """Load model and SAE.

    Args:
        chat: questions are asked, so that the model has to take one and the SAE has to see it.

    Raises:
        ModelError: the model takes no question, or the SAE's hook is not of its decoder: where the picture comes first,
            nothing there knows the question.
    """
    dictionary = load_sae(sae, hook)
    hook = str(dictionary.cfg.metadata.hook_name)
    if chat and not hook.startswith((DECODER_RESID, DECODER_CROSS)):
        raise ModelError(f"{hook}: sees the picture before the question is asked; give an SAE of a decoder block")
    device = pick_device(options.device)
    dtype = options.dtype if options.dtype != "auto" else "bfloat16" if device.startswith("cuda") else "float32"
    model = HookedVLM.from_pretrained(options.model, dtype=getattr(torch, dtype)).to(device)
    if chat and (not model.writes or model.vocabulary.image is None):
        raise ModelError(f"{options.model}: takes no question about a picture; give a chat model")
    dictionary.to(model.device)
    paths = {name for name, field in type(options).model_fields.items() if "Path" in str(field.annotation)}
    fingerprint = {
        "sae": sae_weights(sae),
        "model": [options.model, state_sha256(model.hf)],
        "pictures": sha256_json([{name: sha256_file(file) for name, file in part.items()} for part in pictures]),
        "options": options.model_dump(mode="json", exclude=_NO_NUMBER | paths),
        "dtype": dtype,
        "hook": hook,
    }
    return AskedModel(model, dictionary, hook, fingerprint)


def picture_files(folder: Path) -> Pictures:
    """The pictures of a folder.

    Raises:
        DataError: there are none.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give a folder of pictures")
    found = {file.name: file for file in sorted(folder.iterdir()) if file.suffix.lower() in _SUFFIXES}
    if not found:
        raise DataError(f"{folder}: holds no pictures ({', '.join(_SUFFIXES)})")
    return found


def asked_and_shown(files: Pictures, references: Pictures, seed: int) -> tuple[Pictures, Pictures]:
    """Pictures to ask about and pictures of reference; without references a random half of the files serves as such.

    Raises:
        DataError: there is one picture.
    """
    if references:
        return files, references
    if len(files) < 2:
        raise DataError("one picture cannot be both asked about and a reference; give two or more, or --references")
    order = np.random.Generator(np.random.PCG64([seed, 2])).permutation(len(files))
    chosen = set(order[: len(files) // 2].tolist())
    halves: tuple[Pictures, Pictures] = {}, {}
    for place, (name, file) in enumerate(files.items()):
        halves[place in chosen][name] = file
    return halves
