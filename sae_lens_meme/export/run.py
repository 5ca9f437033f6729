"""The folders of a run, which must all be of one SAE on the same memes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sae_lens_meme.attributions import STEP, Attributions
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.content import LATENTS, corrected, table_in
from sae_lens_meme.evaluators.latents import Latents, hook_of
from sae_lens_meme.evaluators.opened import load_sae, sae_weights
from sae_lens_meme.provenance import require_attribution_of, require_evaluated
from sae_lens_meme.storage import read_finished, sha256_json


@dataclass(frozen=True)
class Run:
    """Raises:
    StorageError: a folder is not the finished result of its step, or of another SAE or other memes.
    """

    evaluation: Path
    sae: Path
    embeddings: Path
    attribution: Path | None
    corpus: Path | None

    def __post_init__(self) -> None:
        require_evaluated(self.evaluation, "sae", sae_weights(self.sae), f"the SAE {self.sae}")
        require_evaluated(self.evaluation, "embeddings", self.memes.fingerprint, f"the embeddings {self.embeddings}")
        if self.attribution is not None:
            require_attribution_of(self.evaluation, self.attribution)

    @cached_property
    def dictionary(self) -> Any:
        hook = read_finished(self.evaluation, "evaluate")["fingerprint"]["hook"]
        return load_sae(self.sae, hook)

    @cached_property
    def memes(self) -> Embeddings:
        """In the splits of the evaluation."""
        made = read_finished(self.evaluation, "evaluate")["fingerprint"]
        return Embeddings.load(self.embeddings).as_evaluated(made)

    @property
    def hook(self) -> str:
        return hook_of(self.dictionary, self.memes)

    @cached_property
    def latents(self) -> Latents:
        latents = Latents.load(self.evaluation / LATENTS)
        if not latents.l0.any():
            raise DataError(f"{self.evaluation}: no latent is active on any meme; there is nothing to export")
        return latents

    @property
    def decoder(self) -> np.ndarray:
        return self.dictionary.W_dec.detach().float().cpu().numpy()

    @cached_property
    def attributions(self) -> Attributions | None:
        return None if self.attribution is None else Attributions.load(self.attribution)

    def table(self, evaluator: str) -> Any:
        """The table of an evaluator, a `pandas.DataFrame`; None where it was not run."""
        return table_in(self.evaluation, evaluator)

    @property
    def alignment(self) -> Any:
        """The pairs of `concept_alignment` that hold memes out and take sources and groups into account."""
        return corrected(self.table("concept_alignment"))

    def recorded(self) -> dict[str, Any]:
        """What a result that is made of these folders depends on."""
        steps = {"evaluate": self.evaluation, STEP: self.attribution, "corpus": self.corpus}
        files = {
            step: sha256_json(read_finished(folder, step)["files"]) if folder else None
            for step, folder in steps.items()
        }
        return {"sae": sae_weights(self.sae), "embeddings": self.memes.fingerprint, **files}
