"""What the report shows, read from result folders and checked to belong together."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Image
from jaxtyping import Float32
from safetensors import safe_open

from sae_lens_meme.attributions import STEP, Attributions
from sae_lens_meme.corpus import caption_of, load_rows
from sae_lens_meme.embed.options import HEADS
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.content import EVALUATION, LATENTS, corrected, table_in
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.opened import load_sae, sae_weights
from sae_lens_meme.hooks import read_memeclip_checkpoint
from sae_lens_meme.provenance import SAE_WEIGHTS, require_attribution_of, require_evaluated
from sae_lens_meme.row_kind import MEME
from sae_lens_meme.storage import read_finished, read_json, sha256_json
from sae_lens_meme.train.step import read_log


@dataclass(frozen=True)
class ReportInputs:
    """An evaluation with its memes; nothing here is computed."""

    evaluation: dict[str, Any]
    tables: dict[str, pd.DataFrame]
    """By evaluator."""
    latents: Latents
    memes: Embeddings
    decoder: Float32[np.ndarray, "d_sae d_in"]
    corpus: Any = None
    """The corpus as one dataset, or None."""
    attribution: Attributions | None = None
    sae: Any = None
    """The SAE itself, for what `read` says about each meme, or None."""
    heads: Any = None
    """MemeCLIP's, where the embeddings were fused with them."""
    training: list[dict[str, Any]] = field(default_factory=list)
    """What was logged in training, a record per epoch."""
    fingerprint: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def corpus_rows(self) -> dict[str, int]:
        """The row of each meme in the corpus, by its id."""
        return {} if self.corpus is None else {name: row for row, name in enumerate(self.corpus["id"][:])}

    @cached_property
    def picture_rows(self) -> list[int | None]:
        """The row of the corpus that holds the picture of each row of the embeddings; None where none does."""
        names = self.memes.ids if self.memes.row_kind == MEME else self.memes.dataset["item"][:]
        return [self.corpus_rows.get(str(name)) for name in names]

    @cached_property
    def captions(self) -> list[str | None]:
        """A caption per row, None where there is none: for a token what its model read, else as it was embedded, else of the
        corpus."""
        if "token_text" in self.memes.dataset.column_names and any(read := self.memes.dataset["token_text"][:]):
            return list(read)
        if "text_origin" in self.memes.dataset.column_names:
            return [caption_of(meme) for meme in self.memes.dataset.select_columns(["text", "text_origin"]).to_list()]
        if self.corpus is not None:
            columns = self.corpus.select_columns(["text", "text_origin"])[:]
            written = [
                caption_of({"text": text, "text_origin": origin})
                for text, origin in zip(columns["text"], columns["text_origin"], strict=True)
            ]
            return [None if place is None else written[place] for place in self.picture_rows]
        texts = self.memes.texts
        return [None] * len(self.memes) if texts is None else list(texts)

    def table(self, evaluator: str) -> pd.DataFrame | None:
        """The table of an evaluator that has run and has one."""
        return self.tables.get(evaluator)

    @cached_property
    def alignment(self) -> pd.DataFrame | None:
        """The pairs of `concept_alignment` that hold memes out."""
        return corrected(self.table("concept_alignment"))


def read_inputs(
    evaluation: str | Path,
    sae: str | Path,
    embeddings: str | Path,
    corpus: str | Path | None = None,
    attribution: str | Path | None = None,
) -> ReportInputs:
    """Read the folders.

    Raises:
        StorageError: one is not the result that it must be, or they are not of the same SAE and memes.
    """
    folder = Path(evaluation)
    manifest = read_finished(folder, "evaluate")
    memes = Embeddings.load(embeddings)
    content = read_json(folder / EVALUATION)
    weights = sae_weights(sae)
    require_evaluated(folder, "sae", weights, f"the SAE {sae}")
    require_evaluated(folder, "embeddings", memes.fingerprint, f"the embeddings {embeddings}")
    if attribution is not None:
        require_attribution_of(folder, attribution)
    latents = Latents.load(folder / LATENTS)
    tables = {name: table_in(folder, name) for name in content["results"]}
    return ReportInputs(
        evaluation=content,
        tables={name: table for name, table in tables.items() if table is not None},
        latents=latents,
        memes=memes.as_evaluated(manifest["fingerprint"]),
        decoder=_decoder(Path(sae)),
        corpus=None if corpus is None else load_rows(corpus).cast_column("image", Image(decode=False)),
        attribution=None if attribution is None else Attributions.load(attribution),
        sae=load_sae(sae, content["sae"]["hook"]),
        heads=_heads(memes),
        training=read_log(sae),
        fingerprint={
            "evaluation": sha256_json(manifest["files"]),
            "sae": weights,
            "embeddings": memes.fingerprint,
            "corpus": None if corpus is None else sha256_json(read_finished(corpus, "corpus")["fingerprint"]),
            "attribution": None if attribution is None else sha256_json(read_finished(attribution, STEP)["files"]),
        },
    )


def _heads(memes: Embeddings) -> Any:
    file = memes.path / HEADS if memes.path else None
    return read_memeclip_checkpoint(file).heads if file is not None and file.is_file() else None


def _decoder(sae: Path) -> np.ndarray:
    with safe_open(str(sae / SAE_WEIGHTS), framework="pt") as file:
        return file.get_tensor("W_dec").float().numpy()
