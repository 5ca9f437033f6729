"""Rows of `activations/`: each meme as the tokens of a text, since Neuronpedia has no field for a picture.

The first token is the meme and holds the activation; then come the words of its caption and a grid of patches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sae_lens_meme.attributions import GRID, TOP
from sae_lens_meme.export.examples import PATCHES, Example
from sae_lens_meme.export.names import ExportNames
from sae_lens_meme.export.text import clean, identity, number, token
from sae_lens_meme.export.write import Row

PATCH = "■"
_RESERVED = ("top", "bottom")
"""Data sources of Neuronpedia's own."""


def activation_rows(
    examples: Iterable[Example],
    names: ExportNames,
    largest: Callable[[int], float],
    origin: Callable[[str], tuple[str, str]],
) -> Iterator[Row]:
    """Args:
    largest: the largest activation of a latent on any meme.
    origin: `dataSource` and `dataIndex` of a meme.
    """
    for example in examples:
        source, place = origin(example.meme)
        yield {
            "id": row_id(example, names),
            **names.of_row(example.latent),
            "creatorId": names.creator,
            **_content(example),
            "dataSource": f"meme {source}" if source in _RESERVED else source,
            "dataIndex": place,
            **_bin(example, largest(example.latent)),
        }


def row_id(example: Example, names: ExportNames) -> str:
    parts = example.latent, example.kind, example.interval, example.rank, example.meme
    return identity(names.neuronpedia_id, *parts)


def tokens_of(example: Example) -> list[str]:
    """The meme, ` word` for each word, and a line of patches for each row of the grid."""
    words = [token(f" {word}") for word in example.words]
    grid = ["\n", *[PATCH] * GRID] * GRID if example.patch_scores else []
    return [f"⟦{token(example.meme)}⟧", *words, *grid]


def patch_token(example: Example, patch: int) -> int:
    """The place of a patch among the tokens."""
    row, column = divmod(patch, GRID)
    return 1 + len(example.words) + row * (GRID + 1) + 1 + column


def _content(example: Example) -> Row:
    tokens, activation = tokens_of(example), number(example.activation)
    values = [activation, *_values(example, activation)]
    z = [(1 + word, patch_token(example, patch), number(value)) for word, patch, value in _positive(example)]
    return {
        "tokens": tokens,
        "values": values,
        "maxValue": activation,
        "maxValueTokenIndex": 0,
        "minValue": min(values),
        "zIndices": [[word for word, _, _ in z], [patch for _, patch, _ in z]],
        "zValues": [value for _, _, value in z],
    }


def _values(example: Example, activation: float) -> list[float]:
    """Scores of words and patches on one scale, from 0 to the activation; what works against the latent is 0."""
    words = example.word_scores or [0.0] * len(example.words)
    peak = max([0.0, *words, *example.patch_scores])

    def scaled(score: float) -> float:
        return min(activation, number(max(score, 0.0) / peak * activation)) if peak > 0 else 0.0

    patches = [scaled(score) for score in example.patch_scores]
    lines = [value for row in range(0, len(patches), GRID) for value in (0.0, *patches[row : row + GRID])]
    return [*(scaled(score) for score in words), *lines]


def _positive(example: Example) -> list[tuple[int, int, float]]:
    """The word x patch interactions that work together, if both are among the tokens."""
    known = len(example.patch_scores) == PATCHES
    return [pair for pair in example.interactions if known and pair[2] > 0 and number(pair[2]) > 0]


def _bin(example: Example, largest: float) -> Row:
    if example.kind == TOP or example.interval is None:
        return {"binMin": -1.0, "binMax": number(largest), "binContains": -1.0}
    low, high, share = example.interval
    return {"binMin": number(low), "binMax": number(high), "binContains": number(share)}


def public_source(url: str | None, meme: str) -> str:
    """The meme's id, or its public address."""
    return clean(url.replace("{id}", _quoted(meme)) if url else meme)


def _quoted(meme: str) -> str:
    from urllib.parse import quote

    return quote(meme.encode("utf-8", "replace"), safe="")


def as_dict(example: Example) -> dict[str, Any]:
    """Words and signed scores, for the sidecar."""
    return {
        "words": [clean(word) for word in example.words],
        "word_scores": [number(score) for score in example.word_scores],
        "patch_scores": [number(score) for score in example.patch_scores],
        "interactions": [
            {"word": word, "patch": patch, "value": number(value)} for word, patch, value in example.interactions
        ],
    }
