"""The memes that stand for each latent: those that `attribute` analysed, else chosen by the same function."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from sae_lens_meme.attribute.choose import choose_memes
from sae_lens_meme.attribute.options import AttributeOptions
from sae_lens_meme.attributions import QUANTILE, Attributions
from sae_lens_meme.dashboard.numbers import clean, short, shorts, signed_bytes
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import StorageError
from sae_lens_meme.evaluators.latents import Latents

MOST_INTERACTIONS = 9
PARTS = ("caption_local", "image_local", "meme_global")
_SHOWN = ("kind", "interval", "interval_low", "interval_high", "interval_share", "activation")
_DETAILS = ("words", "word_scores", "patch_scores", "interactions", *PARTS)


class Choices:
    """For each latent its memes: the strongest, then from the highest interval down."""

    def __init__(
        self, latents: Latents, memes: Embeddings, attribution: Attributions | None, options: AttributeOptions
    ):
        self._attribution = attribution
        looked_into = _looked_into(attribution, memes) if attribution is not None else None
        others = sorted(set(range(latents.d_sae)) - set(attribution.latents if attribution is not None else ()))
        parts = [] if looked_into is None else [looked_into]
        if others:
            parts.append(choose_memes(latents, memes, others, np.arange(len(memes)), options).assign(at=-1))
        table = pd.concat(parts, ignore_index=True)
        table = table.assign(
            last=table["kind"] == QUANTILE, below=-table["interval"].fillna(0).astype(float)
        ).sort_values(["latent", "last", "below", "rank"], kind="stable", ignore_index=True)
        self._starts = np.searchsorted(table["latent"].to_numpy(np.int64), np.arange(latents.d_sae + 1))
        self._table = table
        self._rows = table["row"].to_numpy(np.int64)

    def rows(self, latent: int | None = None) -> np.ndarray:
        """Rows of the embeddings: the memes of a latent, or those of all latents one after the other."""
        return self._rows if latent is None else self._rows[self._part(latent)]

    def strongest(self, most: int) -> list[int]:
        """Rows of the strongest meme of every latent, then of the next ones, at most this many."""
        top = self._table.loc[~self._table["last"], :]
        ranked = top.sort_values(["rank", "latent"], kind="stable")["row"].tolist()
        return list(dict.fromkeys([*ranked, *self._rows.tolist()]))[:most]

    def of(self, latent: int) -> dict[str, list[Any]]:
        """Columns of the page of a latent: an entry per meme."""
        mine = self._table.iloc[self._part(latent)]
        shown = {name: shorts(mine[name].tolist()) for name in _SHOWN}
        places = mine["at"].to_numpy(np.int64)
        if self._attribution is None or not len(places) or places[0] < 0:
            return shown
        return shown | _details(self._attribution.dataset.select(places).select_columns(list(_DETAILS))[:])

    def _part(self, latent: int) -> slice:
        return slice(int(self._starts[latent]), int(self._starts[latent + 1]))


def _looked_into(attribution: Attributions, memes: Embeddings) -> pd.DataFrame:
    columns = attribution.dataset.data
    ids = columns.column("id")
    places = pc.index_in(ids, value_set=pa.array([str(name) for name in memes.ids]))  # pyright: ignore[reportAttributeAccessIssue]
    if places.null_count:
        stranger = ids.filter(pc.is_null(places))[0].as_py()  # pyright: ignore[reportAttributeAccessIssue]
        raise StorageError(f"attribution: meme {stranger!r} is not in these embeddings; attribute these memes")
    kept = {name: columns.column(name).to_pandas() for name in ("latent", "rank", *_SHOWN)}
    return pd.DataFrame({**kept, "row": np.asarray(places, dtype=np.int64), "at": np.arange(len(ids))})


def _details(found: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {
        "words": [[clean(word) for word in words or []] for words in found["words"]],
        "word_scores": [signed_bytes(scores) for scores in found["word_scores"]],
        "word_scale": [_largest(scores) for scores in found["word_scores"]],
        "patches": [None if scores is None else signed_bytes(scores) for scores in found["patch_scores"]],
        "patch_scale": [_largest(scores) for scores in found["patch_scores"]],
        "together": [_strongest(pairs) for pairs in found["interactions"]],
        **{part: shorts(found[part]) for part in PARTS},
    }


def _largest(scores: list[float] | None) -> Any:
    return short(np.abs(np.nan_to_num(np.array(scores or [0.0], dtype=np.float64))).max(initial=0.0))


def _strongest(pairs: list[dict[str, Any]] | None) -> list[list[Any]]:
    """Triples of word, patch and interaction."""
    ranked = sorted(pairs or [], key=lambda pair: -abs(pair["value"]))[:MOST_INTERACTIONS]
    return [[int(pair["word"]), int(pair["patch"]), short(pair["value"])] for pair in ranked]
