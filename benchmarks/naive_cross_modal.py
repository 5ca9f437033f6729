"""The loops of SAE-V's released code on memes: one latent, one pair of vectors, one item at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np


def weights(
    z: np.ndarray,
    image: np.ndarray,
    text: np.ndarray,
    latents: Iterable[int],
    top: int,
    draws: np.ndarray | None = None,
) -> dict[int, float]:
    """Mean of the top x top cosines of each latent's strongest memes; latents with fewer memes are left out.

    Args:
        draws: how often each meme is in the data, default once. A meme is not paired with its own copy.
    """
    found = {}
    for latent in latents:
        memes = [(float(value), meme) for meme, value in enumerate(z[:, latent]) if value > 0]
        memes.sort(key=lambda pair: (-pair[0], pair[1]))
        strongest: list[int] = []
        for _, meme in memes:
            strongest += [meme] * (1 if draws is None else int(draws[meme]))
            if len(strongest) >= top:
                found[latent] = _weight(strongest[:top], image, text)
                break
    return found


def item_scores(active: Sequence[Sequence[int]], weight: Mapping[int, float]) -> list[float]:
    """Sum of the weights of each item's active latents."""
    scores = []
    for latents in active:
        score = 0.0
        for latent in latents:
            if latent in weight:
                score += weight[latent]
        scores.append(score)
    return scores


def _weight(memes: list[int], image: np.ndarray, text: np.ndarray) -> float:
    own = [_cosine(text[m], image[m]) for m in memes]
    others = [_cosine(text[a], image[b]) for a in memes for b in memes if a != b]
    if not others:
        return float("nan")
    return float(np.mean(own) / len(memes) + (1 - 1 / len(memes)) * np.mean(others))


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return float(np.dot(a, b) / norm) if norm > 0 else 0.0
