"""What is said about one meme: plain values, ready for a terminal, for JSON and for a page."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

PICTURE, CAPTION, BOTH, EITHER = "picture", "caption", "both", "either"


@dataclass(frozen=True)
class Name:
    """What a latent stands for, as `naming` measured it on held-out memes."""

    name: str | None
    """A word or a concept; None where there is none."""
    auroc: float | None
    """How well the statement ranks memes that fire above those of their source that do not, .5 is nothing."""
    auroc_low: float | None
    auroc_high: float | None
    q: float | None
    holds: bool
    """q < .05 on memes not used to choose the name."""
    evidence: str
    """The same in words; "no evidence" where the null is not beaten."""


@dataclass(frozen=True)
class Sides:
    """Which side of the meme decides a latent."""

    decided_by: str | None
    """picture, caption, both (neither alone), either (one is enough); None where the embeddings have one side alone."""
    other_captions: float | None
    """Share of other memes' captions with which the latent stays active."""
    other_pictures: float | None


@dataclass(frozen=True)
class Seen:
    """What drives a latent before TopK: f(meme) - f(meme without the word or patch)."""

    pre_activation: float
    words: list[str]
    word_scores: list[float]
    patch_scores: list[float] | None
    """7 x 7, row by row from the top left."""
    interactions: list[dict[str, float]]


@dataclass(frozen=True)
class ActiveLatent:
    latent: int
    activation: float
    """Bit for bit that of the batch pipeline."""
    firing_rate: float
    """Share of the train memes on which it is active."""
    stronger_than: float | None
    """Share of the train memes on which it is active that have a smaller activation; None where it is active on none."""
    name: Name
    sides: Sides
    seen: Seen | None


@dataclass(frozen=True)
class Carrier:
    """A latent and its exact share of a probe's margin: they add up, with the bias, to the margin."""

    latent: int
    contribution: float


@dataclass(frozen=True)
class Decision:
    """What the probe of a label reads from the latents, and which of them carry it."""

    label: str
    decided: Any
    """The class with the largest probability."""
    probability: float
    runner_up: Any
    prevalence: float
    """Control: share of this class among the train memes with the label."""
    auroc: float | None
    """Of the probe on held-out memes, within source."""
    auroc_low: float | None
    auroc_high: float | None
    auroc_permuted: float | None
    """Control: of a probe on permuted labels."""
    margin: float
    """Logit of the class above that of the runner-up."""
    bias: float
    """The part of it that no latent carries."""
    carriers: list[Carrier]
    without: float
    """Probability of the class when these latents are taken out."""
    without_random: list[float]
    """Control: the same for as many other active latents of similar activation; 2.5, 50 and 97.5 % of the draws."""
    evidence: str


@dataclass(frozen=True)
class Neighbour:
    """A train meme with similar latents."""

    id: str
    caption: str | None
    similarity: float
    """Cosine of the latents."""
    shared: list[int]
    """Latents that both have, the most of the cosine first."""
    labels: dict[str, Any]


@dataclass(frozen=True)
class Reading:
    """What a model sees in one meme."""

    picture: str
    caption: str | None
    caption_from: str
    """given, picture (read by OCR) or none."""
    hook: str
    n_active: int
    fidelity: float
    """Cosine of embedding and reconstruction."""
    fidelity_rank: float | None
    """Share of the held-out memes that are reconstructed worse."""
    latents: tuple[ActiveLatent, ...]
    decisions: tuple[Decision, ...]
    neighbours: tuple[Neighbour, ...]
    notes: tuple[str, ...]
    """What to distrust, and what could not be said."""
    view: str = "whole"
    """The patches cover the "whole" picture or its "centre" square."""

    def to_dict(self) -> dict[str, Any]:
        """Strict JSON values."""
        return asdict(self)
