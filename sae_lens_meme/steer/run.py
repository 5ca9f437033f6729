"""Steering with all its controls: plain, the SAE attached, the latent set, a random latent, a random direction."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from sae_lens_meme.errors import ConfigError, DataError, ModelError
from sae_lens_meme.hooks import HookedVLM
from sae_lens_meme.progress import progress_bar
from sae_lens_meme.steer.asking import Asker, LatentFiring, firing, first_word
from sae_lens_meme.steer.latents import ALL, latent_set, require_reach
from sae_lens_meme.steer.options import SteerOptions
from sae_lens_meme.steer.scores import (
    ATTACHED,
    PLAIN,
    RANDOM_DIRECTION,
    RANDOM_LATENT,
    STEERED,
    arm_numbers,
    picture_means,
    verdict_of,
    word_scores,
)

NEAREST = 10
"""Latents with the nearest firing rates, of which the control is drawn."""


class WordScorer(Protocol):
    """A CLIP, or anything else that puts words and pictures in one space."""

    def images(self, pictures: Sequence[Any]) -> Float[np.ndarray, "n d"]: ...
    def texts(self, words: Sequence[str]) -> Float[np.ndarray, "n d"]: ...


class Arm(NamedTuple):
    """One way to run the model."""

    name: str
    latent: int | None = None
    strength: float | None = None
    set_to: float | None = None
    """The strength as an activation, where strengths are relative."""
    control: int | None = None
    """The random latent."""


@dataclass(frozen=True)
class SteeredAnswers:
    """What `steer_pictures` found."""

    answers: pd.DataFrame
    """A row a picture and arm."""
    scores: pd.DataFrame
    """A row a latent, arm and strength."""
    firing: dict[int, dict[str, float]]
    """By latent its rate and largest activation on the reference pictures, the controls too."""
    verdict: list[str]

    def to_dict(self) -> dict[str, Any]:
        rows = self.scores.astype(object).where(self.scores.notna(), None).to_dict("records")
        return {"scores": rows, "firing": {str(k): v for k, v in self.firing.items()}, "verdict": self.verdict}


def steer_pictures(
    model: HookedVLM,
    sae: Any,
    pictures: dict[str, Any],
    references: dict[str, Any],
    options: SteerOptions,
    scorer: WordScorer | None = None,
    *,
    progress: bool = True,
) -> SteeredAnswers:
    """Ask about every picture in every arm.

    Args:
        pictures: by name, a PIL image; these are asked about.
        references: others, which say what a latent is about and how often it fires.
        options: its `model`, `pictures`, `references` and `scorer` are not looked at.

    Raises:
        ModelError: the model cannot be asked, or what is set cannot reach the text.
        ConfigError: a latent that the SAE does not have.
        DataError: no pictures.
    """
    hook, where = str(sae.cfg.metadata.hook_name), options.where or ALL
    if not model.writes:
        raise ModelError(f"{model.model_name}: writes nothing, so that no answer can be steered")
    if wrong := [latent for latent in options.latents if not 0 <= latent < sae.cfg.d_sae]:
        raise ConfigError(f"steer.latents: {wrong[0]} is none of 0 to {sae.cfg.d_sae - 1}")
    if len(set(options.latents)) < len(options.latents):
        raise ConfigError(f"steer.latents: {max(options.latents, key=options.latents.count)} is given twice")
    if not pictures or not references:
        raise DataError(
            f"{len(pictures)} pictures to ask about and {len(references)} reference pictures; give some of both"
        )
    require_reach(model, hook, where)
    asker = Asker(model, list(pictures.values()), options.prompt, options.max_new_tokens, options.batch_size)
    known = firing(replace(asker, pictures=list(references.values())), sae, where, options.top)
    arms = _arms(options, known)
    with progress_bar("steer", len(arms) * len(pictures), unit="answers", show=progress) as advance:
        said = {}
        for arm in arms:
            with _running(model, sae, arm, options):
                said[arm] = asker.answers(advance)
    answers = pd.concat([_answers(arm, list(pictures), texts) for arm, texts in said.items()], ignore_index=True)
    scores = _scores(said, known, list(references.values()), options, scorer)
    latents = sorted({i for arm in arms for i in (arm.latent, arm.control) if i is not None})
    facts = {i: {"rate": float(known.rates[i]), "largest": float(known.largest[i])} for i in latents}
    return SteeredAnswers(answers, scores, facts, verdict_of(scores))


def _arms(options: SteerOptions, known: LatentFiring) -> list[Arm]:
    rng = np.random.Generator(np.random.PCG64([options.seed, 0]))
    arms = [Arm(PLAIN), Arm(ATTACHED)]
    for latent in options.latents:
        control = _control(latent, options.latents, known, rng)
        for strength in options.values:
            arms.append(Arm(STEERED, latent, strength, _activation(strength, latent, options, known)))
            if control is not None:
                set_to = _activation(strength, control, options, known)
                arms.append(Arm(RANDOM_LATENT, latent, strength, set_to, control))
            arms.append(Arm(RANDOM_DIRECTION, latent, strength, _activation(strength, latent, options, known)))
    return arms


def _control(latent: int, steered: Sequence[int], known: LatentFiring, rng: np.random.Generator) -> int | None:
    """Another latent that fires about as often; None where none fires."""
    others = np.setdiff1d(np.flatnonzero(known.rates > 0), np.array(steered))
    nearest = others[np.argsort(np.abs(known.rates[others] - known.rates[latent]), kind="stable")][:NEAREST]
    return int(rng.choice(nearest)) if len(nearest) else None


def _activation(strength: float, latent: int, options: SteerOptions, known: LatentFiring) -> float:
    return strength * float(known.largest[latent]) if options.relative and options.mode != "scale" else strength


def _running(model: HookedVLM, sae: Any, arm: Arm, options: SteerOptions) -> AbstractContextManager[Any]:
    if arm.name == PLAIN:
        return nullcontext()
    if arm.name == ATTACHED:
        return model.saes([sae], use_error_term=options.error_term)
    assert arm.latent is not None
    assert arm.set_to is not None
    direction = None
    if arm.name == RANDOM_DIRECTION:  # one for all strengths of a latent
        generator = torch.Generator().manual_seed(options.seed * 1_000_003 + arm.latent)
        direction = torch.randn(sae.cfg.d_in, generator=generator)
    latent = arm.latent if arm.control is None else arm.control
    return latent_set(
        *(model, sae, {latent: arm.set_to}),
        where=options.where or ALL,
        mode=options.mode,
        use_error_term=options.error_term,
        pre_zero=options.pre_zero and direction is None,
        direction=direction,
    )


def _answers(arm: Arm, names: list[str], texts: list[str]) -> pd.DataFrame:
    words = [first_word(text) for text in texts]
    frame = pd.DataFrame({"picture": names, "answer": texts, "word": words})
    return frame.assign(arm=arm.name, latent=_or_na(arm.latent), strength=arm.strength, control=_or_na(arm.control))


def _or_na(number: int | None) -> Any:
    return pd.array([number], dtype="Int64")[0]


def _scores(
    said: dict[Arm, list[str]],
    known: LatentFiring,
    references: list[Any],
    options: SteerOptions,
    scorer: WordScorer | None,
) -> pd.DataFrame:
    words = {arm: [first_word(text) for text in texts] for arm, texts in said.items()}
    plain = next(found for arm, found in words.items() if arm.name == PLAIN)
    images = None if scorer is None else scorer.images(references)
    rows = []
    for latent in options.latents:
        means = None if images is None else _means(latent, images, known, options)
        for arm, found in words.items():
            if arm.latent not in (None, latent):
                continue
            cosines = None if means is None or scorer is None else word_scores(found, scorer.texts, means)
            numbers = arm_numbers(found, plain, cosines, options.bootstrap, options.seed)
            if scorer is not None and means is None:
                numbers["reason"] = "the latent fires on no reference picture"
            rows.append(
                {"latent": latent, "arm": arm.name, "strength": arm.strength, "set_to": arm.set_to, **numbers}
                | {"control": arm.control}
            )
        if not any(arm.control is not None for arm in words if arm.latent == latent):
            missing = {"arm": RANDOM_LATENT, "reason": "no other latent fires on the reference pictures"}
            rows.append({"latent": latent, **missing})
    return pd.DataFrame(rows).astype({"control": "Int64", "n_others": "Int64"})


def _means(latent: int, images: np.ndarray, known: LatentFiring, options: SteerOptions) -> np.ndarray | None:
    """The pictures of this latent and of others that fire; None where it fires on none."""
    if known.rates[latent] == 0:
        return None
    rng = np.random.Generator(np.random.PCG64([options.seed, 1, latent]))
    alive = np.setdiff1d(np.flatnonzero(known.rates > 0), [latent])
    others = rng.choice(alive, min(options.others, len(alive)), replace=False)
    return picture_means(images, [known.top[:, i] for i in (latent, *others)])
