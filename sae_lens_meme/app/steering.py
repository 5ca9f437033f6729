"""What the classifiers say about one meme when one of its latents is made weaker or stronger."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int
from scipy import sparse

from sae_lens_meme.errors import MemeError
from sae_lens_meme.evaluators.influence import CosineHead, CosineRoute, decoder_rows, head_of, latent_route
from sae_lens_meme.evaluators.influence.routes import Route
from sae_lens_meme.hooks.names import FUSED
from sae_lens_meme.read.decisions import nearest
from sae_lens_meme.read.reader import Look, MemeReader

STRONGEST = 5.0
"""The largest multiplier, as `influence` steers by default."""
PROBE, HEAD = "probe on latents", "MemeCLIP's head"


class Outcome(NamedTuple):
    """What one classifier says about the meme before and after a latent is multiplied."""

    label: str
    reader: str
    decided: Any
    """The class with the largest probability before."""
    before: float
    after: float
    """Probabilities of that class."""
    others: list[float]
    """Control: its change when one of the active latents of most similar activation is multiplied instead."""
    now: Any
    """The class with the largest probability after."""
    evidence: str
    """How good the classifier is on held-out memes."""

    @property
    def change(self) -> float:
        return self.after - self.before

    @property
    def beats_others(self) -> bool:
        return bool(self.others) and abs(self.change) > max(map(abs, self.others))


class _Steered(NamedTuple):
    route: Route
    reader: str
    before: Float64[np.ndarray, " classes"]
    evidence: str

    def after(self, multiplier: float) -> Float64[np.ndarray, "active classes"]:
        """Probabilities when each active latent is multiplied, one at a time."""
        change = self.route.deltas(0, 1, np.array([multiplier]))[:, 0]
        if self.route.n_outputs == 1:  # the probability of the second class
            change = np.hstack([-change, change])
        return self.before + change


class SteeredMeme:
    """One meme whose active latents can be multiplied.

    Args:
        latents: those that are active, ascending, and `values` their activations.
    """

    def __init__(self, latents: Int[np.ndarray, " k"], values: Float64[np.ndarray, " k"], steered: list[_Steered]):
        self._latents, self._values, self._steered = latents, values, steered

    @property
    def strengths(self) -> list[tuple[int, float]]:
        """Active latents with their activations, the strongest first."""
        order = np.argsort(-self._values, kind="stable")
        return [(int(self._latents[i]), float(self._values[i])) for i in order]

    def outcomes(self, latent: int, multiplier: float) -> list[Outcome]:
        """Of every classifier, z of the latent times the multiplier."""
        place = int(np.flatnonzero(self._latents == latent)[0])
        near = nearest(self._values, np.delete(np.arange(len(self._values)), place), place)
        return [_outcome(steered, steered.after(multiplier), place, near) for steered in self._steered]


class Steering:
    """The classifiers of a `MemeReader`: a probe per label and, where the embeddings were made with them, MemeCLIP's heads."""

    def __init__(self, reader: MemeReader):
        self._reader = reader
        _ = self._head

    @property
    def no_head(self) -> str | None:
        """Why MemeCLIP's head is not shown; None where it is."""
        return self._head if isinstance(self._head, str) else None

    def of(self, look: Look) -> SteeredMeme:
        """Of a meme that was read."""
        active = look.latents.values[0] > 0
        latents, values = look.latents.indices[0][active], look.latents.values[0][active].astype(np.float64)
        if not len(latents):
            return SteeredMeme(latents, values, [])
        row: Any = sparse.csr_matrix(values[None])
        return SteeredMeme(latents, values, [*self._probes(look, latents, row), *self._heads(look, latents, row)])

    def _probes(self, look: Look, latents: np.ndarray, row: Any) -> list[_Steered]:
        evidence = {decision.label: decision.evidence for decision in look.reading.decisions}
        narrow = [replace(probe, coef=probe.coef[:, latents]) for _, probe in self._reader.probes]
        return [
            _Steered(
                latent_route(probe, row, np.zeros((0, len(latents)))),
                *(PROBE, probe.predict_proba(row)[0], evidence[probe.task]),
            )
            for probe in narrow
        ]

    def _heads(self, look: Look, latents: np.ndarray, row: Any) -> list[_Steered]:
        if isinstance(self._head, str):
            return []
        head, decoder = self._head
        vector = look.vectors[FUSED]
        directions = np.zeros((0, decoder.shape[1]))
        route = CosineRoute(head, row, _OneMeme(vector), FUSED, np.zeros(1, int), decoder[latents], directions)  # pyright: ignore[reportArgumentType]  it only takes vectors
        return [_Steered(route, HEAD, head.predict_proba(vector)[0], "how good it is was not measured here")]

    @cached_property
    def _head(self) -> tuple[CosineHead, Float64[np.ndarray, "d_sae d_in"]] | str:
        """The head and the rows of the decoder, or why there are none."""
        model = self._reader.encoder.model
        if model.heads is None:
            return "The embeddings were made without MemeCLIP's heads, so there is no head to watch."
        if self._reader.hook != FUSED:
            return f"MemeCLIP's head reads {FUSED} and the SAE {self._reader.hook}, so the head is not shown."
        try:
            head = head_of(model)
            assert isinstance(head, CosineHead)
            return head, decoder_rows(self._reader.sae)
        except MemeError as error:
            return f"MemeCLIP's head is not shown: {error}."


class _OneMeme:
    """Stands for embeddings that hold one vector."""

    def __init__(self, vector: np.ndarray):
        self._vector = vector

    def take(self, hook: str, rows: Any) -> np.ndarray:
        return self._vector


def _outcome(steered: _Steered, after: np.ndarray, place: int, near: np.ndarray) -> Outcome:
    decided = int(steered.before.argmax())
    classes = steered.route.classes
    return Outcome(
        label=steered.route.task,
        reader=steered.reader,
        decided=classes[decided],
        before=float(steered.before[decided]),
        after=float(after[place, decided]),
        others=(after[near, decided] - steered.before[decided]).tolist(),
        now=classes[int(after[place].argmax())],
        evidence=steered.evidence,
    )
