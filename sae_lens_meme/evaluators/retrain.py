"""SAEs that are trained for comparison: the same recipe on shuffled data, and with other seeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import StorageError
from sae_lens_meme.evaluators.base import Unavailable
from sae_lens_meme.storage import read_finished

CONTROL = "control_shuffled"


def train_control(sae: Path, embeddings: Embeddings, out: Path) -> Any:
    """The same recipe trained on embeddings whose dimensions are permuted independently.

    Raises:
        Unavailable: the SAE was not trained by `train`, or on several hooks at once.
    """
    from sae_lens_meme.train import train

    return train(_recipe(sae), out=out, embeddings=embeddings, shuffled=True, overwrite=True, progress=False)


def train_seed(sae: Path, embeddings: Embeddings, out: Path, offset: int) -> Any:
    """The same recipe with its seed raised by `offset`.

    Raises:
        Unavailable: as for `train_control`.
    """
    from sae_lens_meme.train import train

    config = _recipe(sae)
    other = replace(config, section={**config.section, "seed": config.seed + offset})
    return train(other, out=out, embeddings=embeddings, overwrite=True, progress=False)


def _recipe(sae: Path) -> Any:
    from sae_lens_meme.train import TrainConfig
    from sae_lens_meme.train.config import Recipe

    if (sae.parent / "runner_cfg.json").is_file() and not (sae / "manifest.json").is_file():
        raise Unavailable("this SAE was trained together with others; train it alone to have this control")
    try:
        fingerprint = read_finished(sae, "train")["fingerprint"]
    except StorageError:
        raise Unavailable("this SAE was not trained by `train`: its recipe is not known") from None
    if "begun_with" in fingerprint:
        raise Unavailable("this SAE was trained further from given weights: its recipe alone cannot reproduce it")
    return TrainConfig(fingerprint["config"], Recipe(**fingerprint["recipe"]))
