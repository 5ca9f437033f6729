"""The `select` command: SAE-V's filter of training memes, written as a Hugging Face dataset."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, load_from_disk

from sae_lens_meme.corpus import load_corpus
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.base import Unavailable
from sae_lens_meme.evaluators.cross_modal import (
    ItemScores,
    cross_modal_weights,
    filter_dataset,
    item_scores,
    require_share,
    scores_of_tokens,
)
from sae_lens_meme.evaluators.latents import Latents, encode, hook_of
from sae_lens_meme.evaluators.opened import load_sae, sae_weights
from sae_lens_meme.row_kind import TOKEN
from sae_lens_meme.storage import StepFolder, read_finished, through_stores


@through_stores("sae", "embeddings", "corpus")
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
    delta: float = 0.0,
    overwrite: bool = False,
) -> Dataset | DatasetDict:
    """Keep the best share of the train memes by the cross-modal weights of their latents; other splits are kept whole.

    Args:
        sae: an SAE folder.
        embeddings: the result of `embed`: image and text embeddings, or token rows of both modalities (`item`, `modality`).
        out: the folder to write; `datasets.load_from_disk` opens it.
        corpus: filter this corpus; default the embeddings themselves.
        by: `sum` or `mean` of the weights, `clip` (the meme's CLIP score) or `l0`.
        within_source: keep this share of each source.
        delta: a latent is active above this value, in the units of the SAE.

    Raises:
        ConfigError: `share` or `delta` is out of range; `clip` on token rows, which have hidden states.
        DataError: token rows of one modality alone; no latent is active above `delta`.
        StorageError: something else is at `out`, or another process writes there.
    """
    require_share(share)
    if not 0 <= delta < np.inf:
        raise ConfigError(f"delta is {delta}; give an activation, 0 or more")
    dictionary, memes = load_sae(sae, hook), Embeddings.load(embeddings)
    fingerprint = {
        "sae": sae_weights(sae),
        "embeddings": memes.fingerprint,
        "corpus": read_finished(corpus, "corpus")["fingerprint"] if corpus is not None else None,
        "selection": {
            "share": share,
            "by": by,
            "within_source": within_source,
            "hook": hook,
            **({"delta": delta} if delta else {}),
        },
    }
    with StepFolder(out, "select", fingerprint, overwrite=overwrite) as folder:
        if not folder.complete:
            latents = encode(dictionary, memes)
            scores = _scores(memes, latents, hook_of(dictionary, memes, hook), by=by, delta=delta)
            if by != "clip" and not scores.l0[scores.train].any():
                raise DataError(f"select: no latent is active above delta ({delta:g}) on any train meme; lower it")
            whole: Any = load_corpus(corpus) if corpus is not None else memes.dataset
            key = "item" if corpus is None and memes.row_kind == TOKEN else "id"
            _write(folder, filter_dataset(whole, scores, share, by=by, within_source=within_source, key=key))
            folder.finish()
    return load_from_disk(str(out))


def _scores(memes: Embeddings, latents: Latents, hook: str, *, by: str, delta: float) -> ItemScores:
    """Of memes, or of the items of token rows.

    Raises:
        ConfigError, DataError: as `select_memes`.
    """
    if memes.row_kind != TOKEN:
        return item_scores(memes, latents, cross_modal_weights(memes, latents, delta=delta, n_bootstrap=0))
    if by == "clip":
        raise ConfigError(
            "select: by is 'clip', but token rows have hidden states, no CLIP embeddings; take sum, mean or l0"
        )
    try:
        return scores_of_tokens(memes, latents, hook, delta=delta)
    except Unavailable as why:
        raise DataError(f"select: {why}; embed text and image tokens") from None


def _write(folder: StepFolder, dataset: Dataset | DatasetDict) -> None:
    with TemporaryDirectory(prefix=".writing-", dir=folder.path) as made:  # a run that follows a killed one removes it
        dataset.save_to_disk(made)
        for file in sorted(path for path in Path(made).rglob("*") if path.is_file()):
            folder.write(file.relative_to(made).as_posix(), partial(os.replace, file))
