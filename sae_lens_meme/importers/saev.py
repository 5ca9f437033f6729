"""saev (OSU NLP): a line of JSON that says what the SAE is, then its state dict, in one file."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from sae_lens_meme.errors import ModelError
from sae_lens_meme.importers.files import load_tensors, require_file, tensor, tensors, weights_file
from sae_lens_meme.importers.stock import Loaded, stock

LONGEST_HEADER = 1_000_000
"""Bytes of the first line."""
SCHEMAS = (None, 1, 2, 3, 4, 5)
"""None: before saev numbered them."""
_SUBTRACTED = {None: True, 1: True, 2: None, 3: False, 4: False, 5: False}
"""Whether the encoder subtracts b_dec. saev changed that while it wrote schema 2, and today reads all files without."""


def saev_loader(
    path: str | Path,
    device: str = "cpu",
    cfg_overrides: dict[str, Any] | None = None,
    *,
    hook: str | None = None,
    b_dec_at_input: bool | None = None,
) -> Loaded:
    """An SAE of saev: ReLU is `standard`, TopK `topk`, BatchTopK `jumprelu` with its running threshold.

    Args:
        path: the file `sae.pt`, or the folder that holds it.
        hook: the hook that it reads; the file does not say it.
        b_dec_at_input: whether the encoder subtracts b_dec; needed for schema 2, where both were written.

    Raises:
        ModelError: not such a file, of a schema or an activation that is unknown here, or it does not say what it computes.
    """
    weights_path = weights_file(Path(path), ("sae.pt",))
    header, state = _read(weights_path)
    kind, params = _activation(weights_path, header)
    weights = tensors(state, ("W_enc", "b_enc", "W_dec", "b_dec"), weights_path)
    fields: dict[str, Any] = {"architecture": "standard"}
    notes = ["saev may have centred and scaled the activations when it trained; the file does not say"]
    if kind == "TopK":
        k = params.get("top_k", params.get("k", 32))
        if not isinstance(k, int) or k < 1:
            raise ModelError(f"{weights_path}: top_k is {k!r}, not a number of latents")
        fields |= {"architecture": "topk", "k": min(k, len(weights["b_enc"]))}
        notes.append("saev's TopK keeps negative values where fewer than k are positive; this one gives 0 there")
    elif kind == "BatchTopK":
        threshold = tensor(state, "activation.threshold", weights_path, 0).clamp(min=0)
        fields["architecture"] = "jumprelu"
        weights["threshold"] = threshold.expand_as(weights["b_enc"])
        notes.append(f"BatchTopK encodes with its running threshold, {float(threshold):g}")
    return stock(
        weights_path,
        weights,
        device=device,
        overrides=cfg_overrides,
        origin=("saev", kind),
        hook=hook,
        notes=notes,
        apply_b_dec_to_input=_subtracts(weights_path, header.get("schema"), weights["b_dec"], b_dec_at_input),
        **fields,
    )


def recognises(path: Path) -> bool:
    """Whether a file begins with a JSON object."""
    try:
        with open(weights_file(path, ("sae.pt",)), "rb") as file:
            return file.read(1) == b"{" and b"PK\x03\x04" in (file.read(LONGEST_HEADER))
    except (ModelError, OSError):
        return False


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    require_file(path)
    with open(path, "rb") as file:
        line = file.readline(LONGEST_HEADER)
        rest = io.BytesIO(file.read())
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise ModelError(f"{path}: does not begin with saev's line of JSON")
    if header.get("schema") not in SCHEMAS:
        known = ", ".join(str(schema) for schema in SCHEMAS if schema)
        raise ModelError(f"{path}: has schema {header['schema']!r}, known here are {known}; upgrade sae-lens-meme")
    return header, load_tensors(path, file=rest)


def _activation(path: Path, header: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Its name and parameters, wherever this schema has them."""
    cfg = header.get("cfg", {})
    activation = cfg.get("activation") if isinstance(cfg, dict) else None
    if "schema" not in header:
        kind, params = "Relu", {}
    elif isinstance(activation, dict):
        kind, params = activation.get("cls"), activation.get("params", {})
    else:  # the first files of schema 1
        kind, params = header.get("cls"), cfg
    if kind not in ("Relu", "TopK", "BatchTopK") or not isinstance(params, dict):
        raise ModelError(f"{path}: its activation is {kind!r}, known here are Relu, TopK and BatchTopK")
    return kind, params


def _subtracts(path: Path, schema: int | None, b_dec: Tensor, given: bool | None) -> bool:
    told = _SUBTRACTED[schema] if given is None else given
    if told is None and b_dec.any():
        raise ModelError(
            f"{path}: while saev wrote schema 2, it stopped subtracting b_dec before it encodes (5 September 2025); "
            "pass b_dec_at_input= true (before) or false"
        )
    return bool(told)
