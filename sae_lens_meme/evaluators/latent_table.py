"""The latents of an evaluation in memory as one table, which a notebook shows with pictures and sorts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sae_lens_meme.errors import BadImageError, ConfigError
from sae_lens_meme.evaluators.naming.compute import LEAST_AUROC
from sae_lens_meme.evaluators.naming.quantities import NO_NAME
from sae_lens_meme.report import Column, latents_html

PLACES = (0, 0.25, 0.5, 0.75)
"""Which of a latent's memes are shown, by the share of its memes that are stronger: the strongest alone flatter."""
_BLURRED, _SHARP = 64, 160
_NAME = ("printed", "auroc", "auroc_low", "auroc_high")


@dataclass(frozen=True, eq=False)
class LatentTable:
    """`frame` is the table; in a notebook it can be sorted, and its pictures are blurred until you hover over them."""

    frame: pd.DataFrame
    """latent, name, AUROC of the name with its interval, share of memes it fires on, mean activation, ids of memes."""
    note: str
    pictures: Any = None
    """Ids of memes -> (blurred, sharp) addresses."""

    def _repr_html_(self) -> str:
        return latents_html(_columns(self.frame), self.frame["memes"].tolist(), self.pictures or {}, self.note)

    def __str__(self) -> str:
        return f"{self.frame.to_string(index=False)}\n{self.note}"


def latent_table(found: Any, corpus: Any, n: int) -> LatentTable:
    """See `Evaluation.latent_table`.

    Raises:
        ConfigError: `n` is below 1.
    """
    if n < 1:
        raise ConfigError(f"n is {n}, it must be 1 or more")
    split, rows = found.embeddings.held_out()
    rows = np.arange(len(found.embeddings)) if split is None else rows
    acts = found.latents.csr()[rows].tocsc()
    fires = np.diff(acts.indptr)
    shown = np.argsort(-fires, kind="stable")[:n]
    frame = pd.DataFrame({"latent": shown.astype(int)}).join(_named(found), on="latent")
    frame["fires"] = fires[shown] / max(len(rows), 1)
    frame["mean activation"] = [
        acts.data[acts.indptr[i] : acts.indptr[i + 1]].mean() if fires[i] else None for i in shown
    ]
    frame["memes"] = [_spread(acts, i, found.embeddings.ids[rows]) for i in shown]
    of = f"the {len(rows):,} {f'{split} ' if split else ''}memes"
    note = (
        f"{len(shown)} of {len(fires):,} latents, those that fire on most of {of}; a name is printed where it held on "
        f"memes not used to choose it, with an AUROC of {LEAST_AUROC:g} or more there; memes: the strongest, and those behind 25, 50 and 75 % of the memes on which the latent fires."
    )
    if "naming" not in found.results:
        note += " Names are missing: evaluate naming too."
    return LatentTable(frame, note, None if corpus is None else _pictures(corpus, frame["memes"]))


def _named(found: Any) -> pd.DataFrame:
    if "naming" not in found.results:
        return pd.DataFrame(columns=["name", "AUROC", "low", "high"])
    table = found.results["naming"].table.set_index("latent")
    shown = table["holds"].fillna(False).astype(bool) & (table["printed"] != NO_NAME)
    return table[list(_NAME)].where(shown).set_axis(["name", "AUROC", "low", "high"], axis=1)


def _spread(acts: Any, latent: int, ids: np.ndarray) -> list[str]:
    """Ids of the memes at `PLACES`."""
    part = slice(acts.indptr[latent], acts.indptr[latent + 1])
    order = acts.indices[part][np.argsort(-acts.data[part], kind="stable")]
    places = dict.fromkeys(round(place * (len(order) - 1)) for place in PLACES) if len(order) else {}
    return [str(ids[order[place]]) for place in places]


def _columns(frame: pd.DataFrame) -> list[Column]:
    auroc = [_interval(row) for row in frame[["AUROC", "low", "high"]].itertuples(index=False)]
    return [
        Column("latent", frame["latent"].tolist(), [str(i) for i in frame["latent"]]),
        Column("name", frame["name"].tolist(), ["" if pd.isna(x) else str(x) for x in frame["name"]]),
        Column("AUROC of the name", frame["AUROC"].tolist(), auroc),
        Column("fires on", frame["fires"].tolist(), [f"{x:.1%}" for x in frame["fires"]]),
        Column("mean activation", frame["mean activation"].tolist(), ["" if pd.isna(x) else f"{x:.3g}" for x in frame["mean activation"]]),
    ]  # fmt: skip


def _interval(row: Any) -> str:
    if pd.isna(row.AUROC):
        return ""
    ends = "" if pd.isna(row.low) else f" ({row.low:.2f} to {row.high:.2f})"
    return f"{row.AUROC:.2f}{ends}"


def _pictures(corpus: Any, memes: pd.Series) -> dict[str, tuple[str, str]]:
    from datasets import Image

    from sae_lens_meme.corpus import all_rows
    from sae_lens_meme.images import data_uri, open_image

    rows = all_rows(corpus)
    places = {str(id): place for place, id in enumerate(rows["id"])}
    encoded = rows.select_columns(["image"]).cast_column("image", Image(decode=False))
    found = {}
    for id in {id for ids in memes for id in ids if id in places}:
        cell = encoded[places[id]]["image"]
        try:
            image = open_image(cell["bytes"] if cell["bytes"] is not None else cell["path"], name=id)
        except (BadImageError, TypeError):  # it is missing or broken: its id is shown
            continue
        found[id] = (data_uri(image, _BLURRED, blurred=True), data_uri(image, _SHARP))
    return found
