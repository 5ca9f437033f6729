"""Where every planted meme shows each of its factors: `places.parquet` beside `factors.parquet` in the answer key.

One row per meme, factor and place, for what is present only: a meme with two faces has two rows of `expression`, and a
meme without a sign none of `sign`.

=====================  ============================================================================================
id, factor, value      as in factors.parquet, the value as text ("2", "True"); of a factor that holds several values
                       at once (prop, phrase, joke) one of them
kind                   visual, textual or cross-modal
x0, y0, x1, y1         box in the picture, shares of its width and height from its upper left corner; null of a textual factor
word_start, word_end   words of the caption split at white space, the end exclusive; null of a visual factor
=====================  ============================================================================================

A cross-modal factor has both: the box of the picture's part and the words of the caption's (clash and pairing: each
face, and the words of the mood; distance, mismatch and far: the object, and the words of the topic; a joke: its prop, and the
words of its saying). What is everywhere has
no place: scene, light, the layout `frame`, and the style, which is how the whole caption is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sae_lens_meme.planted.arrangement import picture_places
from sae_lens_meme.planted.crowded import JOKES
from sae_lens_meme.planted.rows import PlantedMeme

SIDES = {
    "clash": ("expression", "mood"),
    "pairing": ("expression", "mood"),
    "distance": ("object", "topic"),
    "mismatch": ("object", "topic"),
    "far": ("object", "topic"),
}
"""The factor of the picture and that of the caption which decide a cross-modal factor."""
SCHEMA = pa.schema(
    {
        **dict.fromkeys(("id", "factor", "value", "kind"), pa.string()),
        **dict.fromkeys(("x0", "y0", "x1", "y1"), pa.float32()),
        **dict.fromkeys(("word_start", "word_end"), pa.int16()),
    }
)


def write_places(memes: Iterable[PlantedMeme], path: Path) -> None:
    columns = list(zip(*(row for meme in memes for row in meme_places(meme)), strict=True))
    table = pa.table([pa.array(c, t) for c, t in zip(columns, SCHEMA.types, strict=True)], schema=SCHEMA)
    pq.write_table(table, path, compression="zstd")


def meme_places(meme: PlantedMeme) -> Iterator[tuple[Any, ...]]:
    """Rows of one meme, in the order of the columns."""
    factors, nowhere, silent = meme.factors, (None,) * 4, (None, None)
    boxes = {
        name: [tuple(round(c, 4) for c in box) for box in found]
        for name, found in picture_places(factors, meme.arrangement).items()
    }
    stickers = {name: tuple(round(c, 4) for c in placed.box()) for name, placed in meme.arrangement.props.items()}
    words: dict[str, list[tuple[int, int]]] = {}
    for name, found in boxes.items():
        yield from ((meme.id, name, str(getattr(factors, name)), "visual", *box, *silent) for box in found)
    yield from ((meme.id, "prop", name, "visual", *box, *silent) for name, box in stickers.items())
    sayings = {}
    for span in meme.written.spans:
        words.setdefault(span.factor, []).append((span.start, span.end))
        sayings[span.value] = (span.start, span.end)
        yield meme.id, span.factor, span.value, "textual", *nowhere, span.start, span.end
    for name, (seen, said) in SIDES.items():
        value = getattr(factors, name)
        if value is not False:
            pairs = [(box, span) for box in boxes[seen] for span in words[said]]
            yield from ((meme.id, name, str(value), "cross-modal", *box, *span) for box, span in pairs)
    for joke in factors.joke:
        prop, saying = JOKES[joke]
        yield meme.id, "joke", joke, "cross-modal", *stickers[prop], *sayings[saying]
