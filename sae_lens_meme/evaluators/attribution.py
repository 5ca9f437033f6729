"""Planted memes have known places: whether the word or patch that drives a latent most is where its factor was put."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from typing_extensions import Self

from sae_lens_meme import options
from sae_lens_meme.attributions import GRID, Attributions
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.answer_key import MIN_AUROC, score_answer_key
from sae_lens_meme.evaluators.base import Evaluator, Unavailable
from sae_lens_meme.evaluators.context import Context
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.result import Interval, Measure, Quantity, Result, Section, nullable
from sae_lens_meme.evaluators.rows import measured_rows
from sae_lens_meme.metrics.resampling import bootstrap_weights, percentile_interval

VISUAL, TEXTUAL = "visual", "textual"
PARTS = {VISUAL: "patch", TEXTUAL: "word"}
PLACES = ("id", "factor", "value", "x0", "y0", "x1", "y1", "word_start", "word_end")
"""Columns of the places: a box in shares of the picture, or words `word_start` to before `word_end` of `caption.split()`.
A meme has a value where it has a place with it."""

_ROWS = "held-out memes that have the value, among those that attribution chose for the latent"
_UNDEFINED = "no latent that stands for such a value was attributed on a held-out meme with a known place"
HIT = Quantity(
    "hit_rate",
    "share of memes on which the patch (word) with the largest occlusion score of the best latent is one that the factor "
    "was drawn on (put into); the latent has the best AUROC on train and validation memes",
    _UNDEFINED,
)
CHANCE = Quantity("chance", "control: mean share of the patches (words) of these memes that are such ones", _UNDEFINED)
OTHERS = Quantity(
    "other_latents",
    "control: the same hits by the other attributed latents of these memes, those left out that stand for the factor",
    "no other latent was attributed on these memes",
)
N = Quantity("n", "memes measured, once for each latent")
N_VALUES = Quantity("n_values", "values of the factor with a latent that stands for them, of which memes are measured")
SECTION = Section(
    "Answer key: the strongest word or patch of a latent is where its factor was put",
    "chance: a word or patch at random; others: the strongest one of other latents on the same memes",
)
COLUMNS = {
    "factor": "a planted factor",
    "kind": "visual or textual",
    "value": "its value",
    "latent": "the latent with the best AUROC on train and validation memes",
    "id": "a held-out meme with this value, on which the latent is active",
    "strongest": "the patch or word with the largest occlusion score",
    "hit": "it is one that the factor was drawn on or put into",
    "chance": "control: share of the patches or words that are",
    "other_latents": "control: share of other attributed latents of this meme whose strongest one is; null without any",
}


class AttributionHits(Evaluator):
    """Hit rate of attribution against chance for every planted factor that a picture or a caption shows.

    Args:
        attributions: the result of `attribute` for the SAE.
        factors: as for `AnswerKeyScores`.
        kinds: as for `AnswerKeyScores`.
        places: where each factor of a meme is, with the columns `PLACES`; several rows are several places.
    """

    name = "attribution"
    question = "planted memes only: whether the word or region that drives a latent is where its factor was put"
    control = "a word or patch at random, other latents on the same memes"

    class Options(options.Options):
        min_auroc: float = MIN_AUROC
        """A latent stands for a value where its AUROC on train and validation memes is at least this."""
        n_bootstrap: options.Count = 200
        """Resamples of the memes for intervals."""
        seed: options.Count = 0
        """Seed of the resamples."""

    def __init__(
        self,
        embeddings: Embeddings,
        attributions: Attributions,
        factors: pd.DataFrame,
        kinds: Mapping[str, str],
        places: pd.DataFrame,
        **given: Any,
    ):
        super().__init__(embeddings, **given)
        self.attributions, self.factors, self.kinds, self.places = attributions, factors, dict(kinds), places

    @classmethod
    def from_context(cls, context: Context) -> Self:
        key = context.answer_key
        if context.attributions is None:
            raise Unavailable("there is no attribution; run attribute and pass --attribution FOLDER")
        if key is None:
            raise Unavailable("there is no answer key; pass --answer-key FOLDER")
        if getattr(key, "places", None) is None:
            raise Unavailable("the answer key does not say where factors are; write the planted corpus again")
        return cls(
            *(context.embeddings, context.attributions, key.factors, key.kinds, key.places), **context.options_of(cls)
        )

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        if missing := [name for name in PLACES if name not in self.places.columns]:
            raise DataError(f"places: no column {missing[0]!r}; they have {', '.join(self.places.columns)}")
        best: Any = score_answer_key(latents, embeddings, self.factors, self.kinds).table
        stands: Any = best[best["kind"].isin(list(PARTS)) & (best["auroc_selection"] >= self.options.min_auroc)]
        table = self._hits(stands, embeddings)
        order = {name: i for i, name in enumerate(self.kinds)}
        table = table.sort_values(
            ["factor", "value", "latent", "id"], key=lambda c: c.map(order) if c.name == "factor" else c
        )
        return _result(table.reset_index(drop=True), self.kinds, embeddings, self.options)

    def _hits(self, stands: Any, embeddings: Embeddings) -> pd.DataFrame:
        """The columns of the table, a row per pair of value and meme."""
        scores: Any = self.attributions.scores(embeddings.ids[measured_rows(embeddings)[0]])
        used: Any = self.places[
            self.places["id"].isin(scores["id"].unique()) & self.places["factor"].isin(stands["factor"].unique())
        ]
        places = dict(list(used.groupby(["factor", "value", "id"], sort=False)))
        of_meme = dict(list(scores.groupby("id", sort=False)))
        rows = []
        for value in stands.itertuples():
            own = set(stands.loc[stands["factor"] == value.factor, "latent"])
            part = PARTS[value.kind]
            mine = scores[scores["latent"] == value.latent]
            for row in mine.itertuples():
                place, n = places.get((value.factor, value.value, row.id)), getattr(row, f"n_{part}")
                if place is None or not n:
                    continue
                covered = _patches(place) if part == "patch" else _words(place, n)
                if covered.all() or not covered.any():  # what is everywhere cannot be missed
                    continue
                others = of_meme[row.id]
                others = others.loc[~others["latent"].isin(own), f"strongest_{part}"].to_numpy()
                others = others[others >= 0]
                rows.append(
                    {
                        **{"factor": value.factor, "kind": value.kind, "value": value.value, "latent": value.latent},
                        "id": row.id,
                        "strongest": (strongest := getattr(row, f"strongest_{part}")),
                        "hit": bool(covered[strongest]),
                        "chance": float(covered.mean()),
                        "other_latents": float(covered[others].mean()) if len(others) else np.nan,
                    }
                )
        return pd.DataFrame(rows, columns=list(COLUMNS))


def _patches(places: pd.DataFrame) -> Bool[np.ndarray, " patches"]:
    """The patches that a box touches, row by row from the top left."""
    edges = np.arange(GRID + 1) / GRID
    covered = np.zeros((GRID, GRID), dtype=bool)
    for box in places[["x0", "y0", "x1", "y1"]].dropna().to_numpy(float):
        columns, rows = ((edges[:-1] < box[i + 2]) & (edges[1:] > box[i]) for i in (0, 1))
        covered |= rows[:, None] & columns[None, :]
    return covered.ravel()


def _words(places: pd.DataFrame, n: int) -> Bool[np.ndarray, " words"]:
    covered = np.zeros(n, dtype=bool)
    for start, end in places[["word_start", "word_end"]].dropna().to_numpy(int):
        covered[start:end] = True
    return covered


def _result(table: Any, kinds: Mapping[str, str], embeddings: Embeddings, given: Any) -> Result:
    measures: list[Measure] = []
    for kind in PARTS:
        mine = table[table["kind"] == kind]
        measures += _measures(mine, f"all_{kind}", f"all {kind} factors", embeddings, given)
    for factor, kind in kinds.items():
        if kind in PARTS:
            mine = table[table["factor"] == factor]
            measures += _measures(mine, factor, f"{factor} ({kind})", embeddings, given)
    table = table.assign(other_latents=nullable(table["other_latents"].to_numpy(float)))
    table = table.astype({"latent": "Int64", "strongest": "Int64", "hit": "boolean"})
    found = {measure.key: measure.value for measure in measures}
    return Result("attribution", SECTION, tuple(measures), table, COLUMNS, _verdict(found))


def _measures(mine: Any, group: str, label: str, embeddings: Embeddings, given: Any) -> list[Measure]:
    rows = f"{_ROWS}; mean over factors" if group.startswith("all_") else _ROWS
    interval = _interval(mine, embeddings, given)
    hit = HIT(_mean(mine, "hit"), group, rows=rows, interval=interval)
    chance, others = (
        CHANCE(_mean(mine, "chance"), group, rows=rows),
        OTHERS(_mean(mine, "other_latents"), group, rows=rows),
    )
    n = N(len(mine), group)
    if hit.value is not None:
        hit = hit.row(f"{label}, {len(mine)} memes", chance.control("chance"), others.control("others"))
    return [hit, chance, others, n, N_VALUES(mine[["factor", "value"]].drop_duplicates().shape[0], group)]


def _mean(mine: pd.DataFrame, column: str) -> float:
    """Of the means of the factors; NaN without a row."""
    return float(mine.astype({column: float}).groupby("factor")[column].mean().mean())


def _interval(mine: pd.DataFrame, embeddings: Embeddings, given: Any) -> Interval | None:
    if not len(mine) or not given.n_bootstrap:
        return None
    row_of = pd.Series(np.arange(len(embeddings)), index=embeddings.ids)
    rows, factors = row_of[mine["id"]].to_numpy(), pd.factorize(mine["factor"])[0]
    memes, at = np.unique(rows, return_inverse=True)
    drawn = bootstrap_weights(embeddings.strata[memes], given.n_bootstrap, given.seed, embeddings.groups[memes])
    hits = mine["hit"].to_numpy(float)
    means = np.array([_weighted(hits, weights[at].astype(float), factors) for weights in drawn])
    low, high = percentile_interval(means)
    return Interval(low, high, "bootstrap of the memes, those of one group drawn together, for these latents")


def _weighted(hits: Float[np.ndarray, " n"], weights: Float[np.ndarray, " n"], factors: np.ndarray) -> float:
    total = np.bincount(factors, weights)
    with np.errstate(invalid="ignore"):
        return float(np.nanmean(np.bincount(factors, weights * hits) / total)) if total.any() else np.nan


def _verdict(found: Mapping[str, Any]) -> str | None:
    sentences = []
    for kind, part in PARTS.items():
        rate, chance = found[f"all_{kind}/hit_rate"], found[f"all_{kind}/chance"]
        if rate is not None:
            sentences.append(
                f"on {rate:.0%} of the memes the strongest {part} is where the {kind} factor was put (chance {chance:.0%})"
            )
    if not sentences:
        return None
    return f"On average over factors, {' and '.join(sentences)}."
