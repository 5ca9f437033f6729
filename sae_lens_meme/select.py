"""The `select` command: SAE-V's filter of training memes, written as a Hugging Face dataset."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from datasets import Dataset, DatasetDict, load_from_disk

from sae_lens_meme.corpus import load_corpus
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.cross_modal import cross_modal_weights, filter_dataset, item_scores
from sae_lens_meme.evaluators.latents import encode
from sae_lens_meme.evaluators.run import load_sae, sae_weights
from sae_lens_meme.storage import StepFolder, read_finished


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
        StorageError: something else is at `out`, or another process writes there.
    """
    dictionary, memes = load_sae(sae, hook), Embeddings.load(embeddings)
    fingerprint = {
        "sae": sae_weights(sae),
        "embeddings": memes.fingerprint,
        "corpus": read_finished(corpus, "corpus")["fingerprint"] if corpus is not None else None,
        "selection": {"share": share, "by": by, "within_source": within_source, "hook": hook},
    }
    with StepFolder(out, "select", fingerprint, overwrite=overwrite) as folder:
        if not folder.complete:
            latents = encode(dictionary, memes)
            scores = item_scores(memes, latents, cross_modal_weights(memes, latents, n_bootstrap=0))
            whole: Any = load_corpus(corpus) if corpus is not None else memes.dataset
            _write(folder, filter_dataset(whole, scores, share, by=by, within_source=within_source))
            folder.finish()
    return load_from_disk(str(out))


def _write(folder: StepFolder, dataset: Dataset | DatasetDict) -> None:
    with TemporaryDirectory(prefix=".writing-", dir=folder.path) as made:  # a run that follows a killed one removes it
        dataset.save_to_disk(made)
        for file in sorted(path for path in Path(made).rglob("*") if path.is_file()):
            folder.write(file.relative_to(made).as_posix(), partial(os.replace, file))
