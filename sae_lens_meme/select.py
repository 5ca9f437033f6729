"""The `select` command: SAE-V's filter of training memes, written as a Hugging Face dataset."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from sae_lens_meme.corpus import load_corpus
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import StorageError
from sae_lens_meme.evaluators import load_sae
from sae_lens_meme.evaluators.cross_modal import cross_modal_weights, filter_dataset, item_scores
from sae_lens_meme.evaluators.latents import encode


def select_memes(
    sae: str | Path,
    embeddings: str | Path,
    *,
    out: str | Path,
    corpus: str | Path | None = None,
    share: float = 0.5,
    by: str = "sum",
    within_source: bool = False,
    hook: str | None = None,
    overwrite: bool = False,
) -> Dataset | DatasetDict:
    """Keep the best share of the train memes by the cross-modal weights of their latents; all others stay.

    Args:
        sae: an SAE folder.
        embeddings: the result of `embed`, with image and text embeddings.
        out: the folder to write; `datasets.load_from_disk` opens it.
        corpus: filter this corpus; default the embeddings themselves.
        by: `sum` or `mean` of the weights, `clip` (the meme's CLIP score) or `l0`.
        within_source: keep this share of each source.

    Raises:
        StorageError: there is something at `out`, and `overwrite` is not set.
    """
    out = Path(out)
    if out.exists() and not overwrite:
        raise StorageError(f"{out}: is there already; pass --overwrite to replace it, or another --out")
    dictionary, memes = load_sae(sae, hook), Embeddings.load(embeddings)
    latents = encode(dictionary, memes)
    scores = item_scores(memes, latents, cross_modal_weights(memes, latents, n_bootstrap=0))
    whole: Any = load_corpus(corpus) if corpus is not None else memes.dataset
    filtered = filter_dataset(whole, scores, share, by=by, within_source=within_source)
    _save(filtered, out)
    return filtered


def _save(dataset: Dataset | DatasetDict, out: Path) -> None:
    """Under a temporary name first: what is at `out` is whole."""
    writing = out.with_name(f".writing-{out.name}")
    shutil.rmtree(writing, ignore_errors=True)
    dataset.save_to_disk(writing)
    if out.exists():
        shutil.rmtree(out)
    os.replace(writing, out)
