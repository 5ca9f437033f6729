"""A chat model and an SAE of its decoder, as both studies need them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from sae_lens_meme.errors import ModelError
from sae_lens_meme.evaluators.run import load_sae, sae_weights
from sae_lens_meme.hooks import HookedVLM
from sae_lens_meme.hooks.base import state_sha256
from sae_lens_meme.hooks.names import DECODER_CROSS, DECODER_RESID
from sae_lens_meme.steer.step import open_model
from sae_lens_meme.storage import sha256_file, sha256_json
from sae_lens_meme.studies.options import StudyOptions

Pictures = dict[str, Path]


class Study(NamedTuple):
    """What a study runs on."""

    model: HookedVLM
    sae: Any
    hook: str
    fingerprint: dict[str, Any]
    """Of the model, the SAE and the options that change a number; the pictures are added."""


def open_study(sae: str | Path, hook: str | None, options: StudyOptions, files: list[Pictures]) -> Study:
    """Load both.

    Raises:
        ModelError: the model takes no question, or the SAE's hook is not of its decoder: where the picture comes first,
            nothing there knows the question.
    """
    dictionary = load_sae(sae, hook)
    hook = str(dictionary.cfg.metadata.hook_name)
    if not hook.startswith((DECODER_RESID, DECODER_CROSS)):
        raise ModelError(f"{hook}: sees the picture before the question is asked; give an SAE of a decoder block")
    model, dtype = open_model(options.model, options.device, options.dtype)
    if not model.writes or model.vocabulary.image is None:
        raise ModelError(f"{options.model}: takes no question about a picture; give a chat model")
    dictionary.to(model.device)
    paths = {name for name, field in type(options).model_fields.items() if "Path" in str(field.annotation)}
    fingerprint = {
        "sae": sae_weights(sae),
        "model": [options.model, state_sha256(model.hf)],
        "pictures": sha256_json([{name: sha256_file(file) for name, file in part.items()} for part in files]),
        "options": options.model_dump(mode="json", exclude={"model", "device", "batch_size", *paths}),
        "dtype": dtype,
        "hook": hook,
    }
    return Study(model, dictionary, hook, fingerprint)
