"""Which latents are attributed, and on which memes: the strongest, and a sample from every part of their range."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from sae_lens_meme.attribute.options import AttributeOptions
from sae_lens_meme.attributions import QUANTILE, TOP
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.latents import Latents

COLUMNS = (
    *("latent", "row", "kind", "rank"),
    *("interval", "interval_low", "interval_high", "interval_share", "activation"),
)


def choose_latents(latents: Latents, rows: Int[np.ndarray, " rows"], options: AttributeOptions) -> list[int]:
    """Ascending; without a list those that are active on one of these memes.

    Raises:
        ConfigError: a latent that the SAE does not have.
        DataError: none is active.
    """
    if options.latents is not None:
        if (largest := max(options.latents, default=0)) >= latents.d_sae:
            raise ConfigError(
                f"attribute.latents: {largest} is not a latent of this SAE; it has 0..{latents.d_sae - 1}"
            )
        return sorted(set(options.latents))
    active = np.flatnonzero(np.bincount(latents.rows(rows).csr().indices, minlength=latents.d_sae))
    if not len(active):
        raise DataError("no latent is active on these memes; there is nothing to attribute")
    if options.n_latents is not None and options.n_latents < len(active):
        active = np.random.default_rng(options.seed).choice(active, options.n_latents, replace=False)
    return sorted(active.tolist())


def choose_memes(
    latents: Latents,
    embeddings: Embeddings,
    chosen: list[int],
    rows: Int[np.ndarray, " rows"],
    options: AttributeOptions,
) -> pd.DataFrame:
    """One row per pair of latent and meme, with `COLUMNS`.

    All latents draw in the same random order of the memes, so that they share most of the memes that are encoded for
    them; for each latent alone it is a uniform draw. Nothing depends on the order of the rows.
    """
    columns = latents.csc()
    allowed = np.zeros(len(embeddings), dtype=bool)
    allowed[rows] = True
    place = np.empty(len(embeddings), dtype=np.int64)  # of each meme among the ids
    place[embeddings.by_id] = np.arange(len(embeddings))
    shuffled = np.random.default_rng(options.seed).permutation(len(embeddings))[place]
    parts = []
    for latent in chosen:
        span = slice(columns.indptr[latent], columns.indptr[latent + 1])
        mine, values = columns.indices[span], columns.data[span]
        kept = allowed[mine]
        found = pd.DataFrame({"row": mine[kept], "activation": values[kept]})
        found = found.assign(group=embeddings.groups[found["row"]], place=place[found["row"]])
        found["shuffled"] = shuffled[found["row"]]
        parts.append(_of_latent(found, options).assign(latent=latent))
    table: Any = pd.concat(parts, ignore_index=True)[list(COLUMNS)]
    return table


def _of_latent(active: Any, options: AttributeOptions) -> Any:
    strongest = active.sort_values(["activation", "place"], ascending=[False, True]).drop_duplicates("group")
    top = strongest.head(options.top)
    top = top.assign(kind=TOP, rank=np.arange(len(top)), interval=-1)
    edges = np.linspace(0, active["activation"].max() if len(active) else 1, options.intervals + 1, dtype=np.float32)
    interval = np.clip(np.searchsorted(edges, active["activation"]) - 1, 0, options.intervals - 1)
    active = active.assign(interval=interval)
    share = np.bincount(interval, minlength=options.intervals) / max(len(active), 1)
    rest = active[~active["group"].isin(top["group"])].sort_values("shuffled").drop_duplicates("group")
    rank = rest.groupby("interval").cumcount()
    drawn = rest.assign(kind=QUANTILE, rank=rank)[rank < options.per_interval]
    at = drawn["interval"].to_numpy(int)
    drawn = drawn.assign(interval_low=edges[at], interval_high=edges[at + 1], interval_share=share[at])
    return pd.concat([top, drawn.sort_values(["interval", "rank"])]).reindex(columns=COLUMNS)
