"""Reads single memes with an SAE; what they share is loaded once."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.preprocessing import normalize

from sae_lens_meme.attribute.attributor import Attributor, Meme, view_of
from sae_lens_meme.corpus.tables import cell_text
from sae_lens_meme.embed.encoder import Encoder
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.classifiers import Probe, Task
from sae_lens_meme.evaluators.content import LATENTS
from sae_lens_meme.evaluators.decoding import reconstructed
from sae_lens_meme.evaluators.latents import Latents, encode, encode_vector, eval_mode, hook_of
from sae_lens_meme.evaluators.opened import load_sae, sae_weights
from sae_lens_meme.hooks.memeclip import fuse
from sae_lens_meme.hooks.names import FUSED, IMAGE_EMBED, TEXT_EMBED
from sae_lens_meme.images import open_image
from sae_lens_meme.ocr import read_text
from sae_lens_meme.read.decisions import plain
from sae_lens_meme.read.names import NO_EVALUATION, Measured
from sae_lens_meme.read.options import ReadOptions
from sae_lens_meme.read.reading import ActiveLatent, Neighbour, Reading, Seen
from sae_lens_meme.read.vectors import VectorReader
from sae_lens_meme.storage import read_manifest, through_stores

UNUSUAL = 0.05
"""A meme that is reconstructed worse than all but this share of the held-out memes is called unusual."""


@through_stores("sae", "embeddings", "evaluation")
def read_meme(
    picture: str | Path | bytes,
    *,
    sae: Any,
    embeddings: Embeddings | str | Path,
    caption: str | None = None,
    evaluation: str | Path | None = None,
    options: ReadOptions | None = None,
    **given: Any,
) -> Reading:
    """What the model sees in one meme. For many memes make one `MemeReader`.

    Args:
        picture: a file, or its bytes.
        sae: any SAELens SAE, or its folder.
        embeddings: the result of `embed`, of a corpus by a model, or its folder.
        caption: read from the picture where it is None; "" is a meme without one.
        evaluation: the result of `evaluate` for this SAE, for the names of latents.
        options: see `ReadOptions`; or give them by keyword: `read_meme(..., n_latents=5)`.

    Raises:
        BadImageError: the file is not a picture.
        DataError: the embeddings are of arrays, or the evaluation is of another SAE.
        MemeError: a folder, the model or an option is wrong; the message says which.
    """
    return MemeReader(sae, embeddings, evaluation, options, **given).read(picture, caption)


class Look(NamedTuple):
    """What is said of a meme, and what it was read from."""

    reading: Reading
    vectors: dict[str, Float[np.ndarray, "1 d"]]
    """Its embeddings at every hook."""
    latents: Latents
    """One row."""


class MemeReader:
    """An SAE, the model whose embeddings it reads, and the memes that it was trained on.

    Args and errors as of `read_meme`.
    """

    def __init__(
        self,
        sae: Any,
        embeddings: Embeddings | str | Path,
        evaluation: str | Path | None = None,
        options: ReadOptions | None = None,
        **given: Any,
    ):
        self.options = ReadOptions.of(options, given)
        on_disk = isinstance(sae, (str, Path))
        if evaluation is not None and not on_disk:
            raise DataError(
                "an evaluation can only be checked against the folder of its SAE: give that instead of the SAE object"
            )
        self.sae = load_sae(sae, self.options.hook) if on_disk else sae
        self.embeddings = embeddings if isinstance(embeddings, Embeddings) else Embeddings.load(embeddings)
        self.hook = self.options.hook or hook_of(self.sae, self.embeddings)
        self.encoder = Encoder.of_embeddings(self.embeddings, self.options.device)
        expected = {"sae": sae_weights(sae) if on_disk else None, "embeddings": self.embeddings.fingerprint}
        folder = Path(evaluation) if evaluation is not None else None
        self.measured = Measured(folder, expected)
        if folder is not None:  # what is said of held-out memes is of those that were evaluated
            self.embeddings = self.embeddings.as_evaluated(read_manifest(folder)["fingerprint"])
        known = folder / LATENTS if folder is not None else None
        self.latents = Latents.load(known) if known is not None else encode(self.sae, self.embeddings, self.hook)
        if not len(self._train):
            raise DataError(
                f"{self.embeddings.path}: has no train memes; a meme is compared with those that the SAE was trained on"
            )
        self._attributor = Attributor(self.sae, self.hook, self.encoder, self.embeddings)
        self._of_vectors = VectorReader(
            *(self.sae, self.embeddings, self.latents, self.measured, self.options), self.encoder.model.heads
        )
        _ = self.probes, self._fidelities, self._of_vectors.exchange, self._unit  # loaded now, not with the first meme

    def read(self, picture: str | Path | bytes, caption: str | None = None) -> Reading:
        """As `read_meme`."""
        return self.look(picture, caption).reading

    def look(self, picture: str | Path | bytes, caption: str | None = None) -> Look:
        """The same with the embeddings and the latents that it was read from."""
        image = open_image(picture)
        caption_from = "picture" if caption is None else "given"
        caption = cell_text(self._read_text(image) if caption is None else caption)
        if not caption or not caption.strip():
            caption, caption_from = None, "none"
        vectors = self.vectors(image, caption)
        latents = encode_vector(self.sae, vectors[self.hook][0])
        fidelity, rank = self._fidelity(vectors[self.hook])
        meme = Meme("the meme", image, caption)
        reading = Reading(
            picture=str(picture) if not isinstance(picture, bytes) else "(bytes)",
            caption=caption,
            caption_from=caption_from,
            hook=self.hook,
            n_active=int(latents.l0[0]),
            fidelity=fidelity,
            fidelity_rank=rank,
            latents=self._active(meme, vectors, latents),
            decisions=self._of_vectors.decisions(latents),
            neighbours=self._neighbours(latents),
            notes=tuple(self._notes(caption_from, rank)),
            view=view_of(self.encoder),
        )
        return Look(reading, vectors, latents)

    def _read_text(self, image: Any) -> str | None:
        """By the engine that read the memes of the embeddings, where one did."""
        try:
            return read_text(image, self.embeddings.facts.get("ocr", "rapidocr"))
        except ConfigError as error:
            raise ConfigError(
                f"no caption was given and none can be read from the picture: {error}; or pass --caption TEXT"
            ) from None

    def latents_of(self, picture: str | Path | bytes, caption: str | None) -> Latents:
        """The latents of a meme, bit for bit those that `embed` and `evaluate` give it; no OCR."""
        return encode_vector(self.sae, self.vectors(open_image(picture), caption)[self.hook][0])

    def vectors(self, image: Any, caption: str | None) -> dict[str, Float[np.ndarray, "1 d"]]:
        """The embeddings of a meme at every hook, bit for bit those of `embed`."""
        found = self.encoder.encode_meme(image, caption)
        return {**found, FUSED: fuse(found[IMAGE_EMBED], found[TEXT_EMBED], heads=self.encoder.model.heads)}

    @cached_property
    def _train(self) -> Int[np.ndarray, " train"]:
        return self.embeddings.rows("train")

    def _active(self, meme: Meme, vectors: dict[str, np.ndarray], latents: Latents) -> tuple[ActiveLatent, ...]:
        active = self._of_vectors.active(latents, vectors)
        seen = self._seen(meme, [found.latent for found in active[: self.options.n_attributed]])
        return tuple(replace(found, seen=seen.get(found.latent)) for found in active)

    def _seen(self, meme: Meme, latents: list[int]) -> dict[int, Seen]:
        if not latents:
            return {}
        (found,) = self._attributor.attribute([meme], [latents])
        return {
            a.latent: Seen(
                *(a.pre_activation, a.words, a.word_scores, a.patch_scores), [pair._asdict() for pair in a.interactions]
            )
            for a in found
        }

    @property
    def probes(self) -> list[tuple[Task, Probe]]:
        """The probe of each label, fitted to the train memes."""
        return self._of_vectors.probes

    def _neighbours(self, latents: Latents) -> tuple[Neighbour, ...]:
        mine: Any = normalize(latents.csr().astype(np.float64))
        similarity = (self._unit @ mine.T).toarray().ravel()
        found, groups = [], set()
        for i in np.argsort(-similarity, kind="stable"):
            row = int(self._train[i])
            if len(found) == self.options.n_neighbours or similarity[i] <= 0:
                break
            if self.embeddings.groups[row] not in groups:
                groups.add(self.embeddings.groups[row])
                found.append(self._neighbour(row, float(similarity[i]), self._unit[i].multiply(mine)))
        return tuple(found)

    def _neighbour(self, row: int, similarity: float, product: Any) -> Neighbour:
        shared = product.tocoo()
        order = np.argsort(-shared.data, kind="stable")
        texts = self.embeddings.texts
        labels = {task.name: plain(task.label.values[row]) for task, _ in self.probes if task.label.known[row]}
        return Neighbour(
            id=str(self.embeddings.ids[row]),
            caption=None if texts is None else texts[row],
            similarity=similarity,
            shared=shared.col[order].tolist(),
            labels=labels,
        )

    @cached_property
    def _unit(self) -> Any:
        return normalize(self.latents.csr()[self._train].astype(np.float64))

    def _fidelity(self, vector: Float[np.ndarray, "1 d_in"]) -> tuple[float, float | None]:
        """Cosine of embedding and reconstruction, and the share of the held-out memes with a smaller one."""
        with torch.no_grad(), eval_mode(self.sae):
            x_hat = self.sae(torch.from_numpy(vector).to(self.sae.device, self.sae.dtype)).float().cpu().numpy()
        cosine = float(_cosine(vector, x_hat)[0])
        return cosine, float((self._fidelities < cosine).mean()) if len(self._fidelities) else None

    @cached_property
    def _fidelities(self) -> Float[np.ndarray, " held_out"]:
        """Cosine of embedding and reconstruction of every held-out meme."""
        _, rows = self.embeddings.held_out()
        parts = reconstructed(self.sae, self.embeddings, self.latents, self.hook, rows)
        return np.concatenate([_cosine(x, x_hat) for _, x, x_hat in parts] or [np.empty(0)])

    def _notes(self, caption_from: str, rank: float | None) -> list[str]:
        notes = [
            *([NO_EVALUATION[0].upper() + NO_EVALUATION[1:] + "."] if not self.measured.given else []),
            *(["The caption was read from the picture by OCR: check it."] if caption_from == "picture" else []),
            *(
                ["No caption: what latents say about the caption is about a missing one."]
                if caption_from == "none"
                else []
            ),
            *(["These embeddings have no label that a probe could read."] if not self.probes else []),
        ]
        if rank is not None and rank < UNUSUAL:
            notes.append(
                f"The SAE reconstructs {1 - rank:.0%} of the held-out memes better: its latents may miss what this meme shows."
            )
        return notes


def _cosine(x: Float[np.ndarray, "n d"], x_hat: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(x_hat, axis=1)
    return (x * x_hat).sum(axis=1) / np.where(norms > 0, norms, 1)
