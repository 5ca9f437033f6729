"""Captions from textual factors, in each source's way of writing, and which of their words say what."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from sae_lens_meme.planted.factors import Factors
from sae_lens_meme.planted.phrases import ADDRESSEE_PHRASES, ENDINGS, MOOD_PHRASES, SAYINGS, TEMPLATES, TOPIC_PHRASES

_OPEN, _CLOSE = range(0xE000, 0xE100), range(0xE100, 0xE200)  # private characters around the pieces of a caption
_MARKS = re.compile("[\ue000-\ue1ff]")


class Span(NamedTuple):
    """The words `start` to `end` (exclusive) of a caption split at white space say that `factor` is `value`."""

    factor: str
    value: str
    start: int
    end: int


@dataclass(frozen=True)
class Caption:
    text: str
    spans: tuple[Span, ...]
    """Of topic, mood, addressee, phrasing (the words of its own, and the word with its mark), phrase.

    What nothing says has no span: no addressee, a plain statement. The style is the writing of the whole caption."""


def write_caption(factors: Factors, rng: np.random.Generator) -> Caption:
    """One of thousands of captions that say exactly these textual factors."""
    template = _pick(rng, TEMPLATES[factors.phrasing])
    pieces = [("topic", factors.topic), ("mood", factors.mood), ("addressee", factors.addressee)]
    who, what, how = (
        _pick(rng, phrases)
        for phrases in (
            ADDRESSEE_PHRASES[factors.addressee],
            TOPIC_PHRASES[factors.topic],
            MOOD_PHRASES[factors.mood],
        )
    )
    body = _tidy(template.format(what=_marked(0, what), how=_marked(1, how), who=_marked(2, who)))
    pieces.append(("phrasing", factors.phrasing))
    said = {phrase: _marked(len(pieces) + i, phrase) for i, phrase in enumerate(factors.phrase)}
    pieces += [("phrase", phrase) for phrase in said]
    before = "".join(f"{text}, " for phrase, text in said.items() if phrase in SAYINGS[0])
    after = ", ".join(text for phrase, text in said.items() if phrase not in SAYINGS[0])
    whole = f"{before}{_marked(3, body)} {after}".strip()
    return _read_marks(_in_style(whole, _pick(rng, ENDINGS[factors.style]), factors.style, rng), pieces)


def _pick(rng: np.random.Generator, phrases: Sequence[str]) -> str:
    return phrases[int(rng.integers(len(phrases)))]


def _marked(piece: int, text: str) -> str:
    return f"{chr(_OPEN[piece])}{text}{chr(_CLOSE[piece])}" if text else ""


def _tidy(text: str) -> str:
    """Remove what an empty addressee leaves behind: leading or doubled punctuation."""
    text = re.sub(r"^[,:\s]+", "", text)
    text = re.sub(r",\s*([,:])", r"\1", text)
    return re.sub(r":\s*,", ":", text)


def _in_style(body: str, ending: str, style: str, rng: np.random.Generator) -> str:
    if style == "memotion":
        body = body.upper() if rng.random() < 0.6 else re.sub("[a-z]", lambda m: m[0].upper(), body, count=1)
    elif style == "hmc":
        body = body.replace(",", "")
    return f"{body} {ending}".strip()


def _read_marks(marked: str, pieces: Sequence[tuple[str, str]]) -> Caption:
    words = marked.split()
    first = {ord(mark) - _OPEN[0]: i for i, word in enumerate(words) for mark in word if ord(mark) in _OPEN}
    last = {ord(mark) - _CLOSE[0]: i for i, word in enumerate(words) for mark in word if ord(mark) in _CLOSE}
    text = _MARKS.sub("", marked)
    ranges = {piece: range(first[piece], last[piece] + 1) for piece in first}
    spans: list[Span] = []
    for piece, (factor, value) in enumerate(pieces):
        if factor == "phrasing":
            inner = {word for p in range(3) for word in ranges.get(p, ())}
            own = [word for word in ranges[piece] if word not in inner or re.search("[?!]", words[word])]
            spans += [Span(factor, value, start, end) for start, end in _runs(own)]
        elif piece in ranges and (factor, value) != ("addressee", "none"):
            spans.append(Span(factor, value, ranges[piece].start, ranges[piece].stop))
    return Caption(text, tuple(spans))


def _runs(words: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Start and end of each run of consecutive numbers."""
    bounds = [i for i in range(len(words)) if i == 0 or words[i] != words[i - 1] + 1] + [len(words)]
    for start, end in pairwise(bounds):
        yield words[start], words[end - 1] + 1
