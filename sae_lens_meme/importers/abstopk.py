"""SAELens' AbsTopK as it is saved: see `train.abstopk`."""

from __future__ import annotations

from pathlib import Path

from sae_lens.constants import SAE_CFG_FILENAME

from sae_lens_meme.errors import ModelError
from sae_lens_meme.importers.files import read_json
from sae_lens_meme.train.abstopk import abstopk_loader

__all__ = ["abstopk_loader", "recognises"]


def recognises(path: Path) -> bool:
    """Whether the config beside it says so."""
    try:
        return read_json(path / SAE_CFG_FILENAME).get("architecture") == "abstopk"
    except ModelError:
        return False
