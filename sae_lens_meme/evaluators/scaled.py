"""Which SAEs map an embedding to itself, as it is: training ones work in a scaled space, and some things are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from sae_lens_meme.errors import ModelError
from sae_lens_meme.provenance import not_folded


def require_maps_to_itself(sae: Any, where: str | Path = "sae") -> Any:
    """Refuse what does not map a meme's vector to itself.

    Raises:
        ModelError: no SAE, a transcoder, an SAE of sequences, or one of scaled activations whose scale is not known.
    """
    if not hasattr(sae, "cfg"):
        raise ModelError(f"{where}: a {type(sae).__name__} is no SAE; load_sae(folder) loads one")
    architecture = sae.cfg.architecture()
    if "transcoder" in architecture:
        raise ModelError(
            f"{where}: is a {architecture}, which maps one hook to another; give an SAE, which maps one to itself"
        )
    if architecture == "temporal":
        raise ModelError(f"{where}: is a temporal SAE, which reads a sequence of tokens; a meme is one vector")
    if not isinstance(sae, _Unscaled) and (reason := not_folded(sae.cfg.normalize_activations)):
        raise ModelError(f"{where}: {reason}")
    return sae


def unscaled(sae: Any, activation_scaler: Any) -> Any:
    """A training SAE, which works in scaled space, wrapped: raw embeddings in, raw embeddings out."""
    if activation_scaler is None or (activation_scaler.scaling_factor is None and activation_scaler.whitening is None):
        return sae
    return _Unscaled(sae, activation_scaler)


class _Unscaled:
    def __init__(self, sae: Any, scaler: Any):
        self._sae, self._scaler = sae, scaler

    def encode(self, x: Tensor) -> Tensor:
        return self._sae.encode(self._scaler.scale(x))

    def decode(self, acts: Tensor) -> Tensor:
        return self._scaler.unscale(self._sae.decode(acts))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sae, name)
