"""One row a latent: its name, how the name was chosen, and its scores on memes that did not choose it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from sae_lens_meme.evaluators.naming.memes import Memes
from sae_lens_meme.evaluators.naming.names import ACTIVATION, Candidates, Names, Settings
from sae_lens_meme.evaluators.naming.paired import SCORES
from sae_lens_meme.evaluators.result import nullable

WHOLE = ("n", "support", "n_true")
HELD_OUT = tuple(score for score in (*SCORES, *ACTIVATION) if score != "log_p")
SELECTION = ("support", "auroc", "correlation", "f1")
KIND_CATEGORIES = ["word", "concept", "external"]


def names_table(names: Names, memes: Memes, settings: Settings) -> pd.DataFrame:
    """Null where undefined; `reason` says why a latent has no name."""
    kind = [None if k < 0 else KIND_CATEGORIES[k] for k in names.kind]
    chosen = {name: _chosen(found) for name, found in names.candidates.items()}
    columns: dict[str, Any] = {
        "latent": np.arange(len(kind)),
        "name": pd.array([None if k is None else chosen[k][i] for i, k in enumerate(kind)], dtype="string"),
        "kind": pd.Categorical(kind, categories=KIND_CATEGORIES),
        "reason": pd.array(_reasons(names, memes, settings), dtype="string"),
        "fires_selection": names.fires,
        **_scores("", names.held_out, HELD_OUT),
        "p": nullable(np.exp(names.held_out["log_p"])),
        "log10_p": nullable(names.held_out["log_p"] / math.log(10)),
        "q": nullable(names.q),
        "holds": _holds(names, settings.alpha),
    }
    for name, found in names.candidates.items():
        columns[name] = pd.array(chosen[name], dtype="string")
        columns |= _word_columns(found) if found.odds is not None else {}
        columns[f"{name}_q_selection"] = nullable(found.q_selection)
        columns |= {f"{name}_{s}_selection": _column(s, found.selection[s]) for s in SELECTION}
        columns |= _scores(f"{name}_", found.held_out, HELD_OUT)
        columns[f"{name}_p"], columns[f"{name}_q"] = nullable(np.exp(found.held_out["log_p"])), nullable(found.q)
    return pd.DataFrame(columns)


def named_externally(table: pd.DataFrame, given: dict[int, str]) -> pd.DataFrame:
    """These latents under these names. The scores of a word or a concept are not those of the new name: null."""
    table, rows = table.copy(), list(given)
    table.loc[rows, "name"] = list(given.values())
    table.loc[rows, "kind"] = "external"
    table.loc[rows, ["reason", *HELD_OUT, "p", "log10_p", "q", "holds"]] = pd.NA
    return table


def top_words(found: Candidates, latent: int) -> list[tuple[str, float]]:
    """The candidate words of a latent and their z, best first."""
    assert found.odds is not None
    pairs = zip(found.odds.word[latent], found.odds.z[latent], strict=True)
    return [(str(found.family.names[word]), float(z)) for word, z in pairs if word >= 0]


def _word_columns(found: Candidates) -> dict[str, Any]:
    assert found.odds is not None
    none = found.chosen < 0
    lists = [None if n else ", ".join(w for w, _ in top_words(found, i)) for i, n in enumerate(none)]
    return {
        "words": pd.array(lists, dtype="string"),
        "word_z": nullable(np.where(none, np.nan, found.odds.z[:, 0])),
        "word_log_odds": nullable(np.where(none, np.nan, found.odds.log_odds[:, 0])),
    }


def _chosen(found: Candidates) -> list[str | None]:
    return [None if c < 0 else str(found.family.names[c]) for c in found.chosen]


def _scores(prefix: str, found: dict[str, np.ndarray], which: tuple[str, ...]) -> dict[str, Any]:
    return {f"{prefix}{score}": _column(score, found[score]) for score in which}


def _column(score: str, values: np.ndarray) -> Any:
    column = nullable(values)
    return column.astype("Int64") if score in WHOLE else column


def _holds(names: Names, alpha: float) -> Any:
    return pd.arrays.BooleanArray(names.holds(alpha), np.isnan(names.q))


def _reasons(names: Names, memes: Memes, settings: Settings) -> list[str | None]:
    tried = " or ".join(names.candidates) or "word or concept"
    nothing = f"no {tried} is associated with firing on the selection rows (q_selection >= {settings.alpha:g})"
    if not names.candidates:
        nothing = "; ".join(memes.reasons.values())
    few = f"fires on fewer than {settings.min_support} selection rows"
    return [
        None if kind >= 0 else "fires on no selection row" if n == 0 else few if n < settings.min_support else nothing
        for kind, n in zip(names.kind, names.fires, strict=True)
    ]
