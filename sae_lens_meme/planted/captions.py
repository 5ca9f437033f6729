"""Captions from textual factors, in each source's way of writing."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from sae_lens_meme.planted.factors import Factors
from sae_lens_meme.planted.phrases import ADDRESSEE_PHRASES, ENDINGS, MOOD_PHRASES, TEMPLATES, TOPIC_PHRASES


def write_caption(factors: Factors, rng: np.random.Generator) -> str:
    """One of thousands of captions that say exactly these textual factors."""
    body = _pick(rng, TEMPLATES[factors.phrasing]).format(
        who=_pick(rng, ADDRESSEE_PHRASES[factors.addressee]),
        what=_pick(rng, TOPIC_PHRASES[factors.topic]),
        how=_pick(rng, MOOD_PHRASES[factors.mood]),
    )
    return _in_style(_tidy(body), _pick(rng, ENDINGS[factors.style]), factors.style, rng)


def _pick(rng: np.random.Generator, phrases: Sequence[str]) -> str:
    return phrases[int(rng.integers(len(phrases)))]


def _tidy(text: str) -> str:
    """Remove what an empty addressee leaves behind: leading or doubled punctuation."""
    text = re.sub(r"^[,:\s]+", "", text)
    text = re.sub(r",\s*([,:])", r"\1", text)
    return re.sub(r":\s*,", ":", text)


def _in_style(body: str, ending: str, style: str, rng: np.random.Generator) -> str:
    if style == "memotion":
        body = body.upper() if rng.random() < 0.6 else body[0].upper() + body[1:]
    elif style == "hmc":
        body = body.replace(",", "")
    return f"{body} {ending}".strip()
