"""The classes of latents against planted factors, of which it is known whether picture, caption or both show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.question_set.compute import CLASSES
from sae_lens_meme.evaluators.result import Number, Result

NAME = "question_set_answer_key"


def score_classes(classes: pd.DataFrame, answer_key: pd.DataFrame, *, min_auroc: float = 0.9) -> Result:
    """How often the class of the latent that stands for a value of a factor is the factor's kind.

    A latent counts once, for the value that it ranks best on held-out memes: a latent for a caption's mood together
    with the faces' expression ranks mood alone at .75, and is none the less not textual.

    Args:
        classes: the table of `QuestionSet`.
        answer_key: the table of `score_answer_key`: factor, kind, value, latent, auroc.
        min_auroc: a latent stands for a value where its held-out AUROC is at least this. Below, it ranks memes by
            something else as well (a conjunction of two fair values ranks either of them at .75).

    Raises:
        DataError: a table lacks a column, or a kind is not a class.
        ConfigError: `min_auroc` is not between .5 and 1.
    """
    _require(classes, answer_key, min_auroc)
    table: Any = _compared(classes, answer_key, min_auroc)
    decided = table[table["class"].notna()]
    numbers: dict[str, Number] = {
        "n_values": len(table),
        "n_factors": int(table["factor"].nunique()),
        "n_undecided": len(table) - len(decided),
        "agreement": _mean(decided["agrees"]),
        "agreement_permuted": _by_chance(decided["kind"], decided["class"]),
    }
    for kind in CLASSES:
        mine = decided[decided["kind"] == kind]
        numbers[f"{kind}/n_values"] = len(mine)
        numbers[f"{kind}/agreement"] = _mean(mine["agrees"])
    reason = f"no latent with a class stands for such a factor at an AUROC of {min_auroc:g} or more"
    reasons = {key: reason for key, value in numbers.items() if value is None}
    return Result(NAME, numbers, reasons, table, _explain(min_auroc))


def with_conjunctions(factors: pd.DataFrame, kinds: Mapping[str, str]) -> tuple[pd.DataFrame, dict[str, str]]:
    """The answer key with every visual x textual pair of factors as a cross-modal factor of its own, `object & topic`.

    A dictionary of a fused space gives latents to such pairs ("a cap, and it is a statement") though none of them is
    a factor. Textual factors that are constant within every source make no pairs: they only name it.

    Args:
        factors: `id`, `source` and one column a factor, as in `AnswerKey.factors`.
        kinds: for each factor its kind, as in `AnswerKey.kinds`.
    """
    sides: dict[str, list[str]] = {kind: [factor for factor in kinds if kinds[factor] == kind] for kind in CLASSES}
    varies: Any = factors.groupby("source")[sides["visual"] + sides["textual"]].nunique().max() > 1
    pairs = {
        f"{visual} & {textual}": factors[visual].astype(str) + " & " + factors[textual].astype(str)
        for visual in sides["visual"]
        for textual in sides["textual"]
        if varies[visual] and varies[textual]
    }
    return factors.assign(**pairs), {**kinds, **dict.fromkeys(pairs, "cross-modal")}


def _compared(classes: pd.DataFrame, answer_key: pd.DataFrame, min_auroc: float) -> pd.DataFrame:
    """One row a latent that stands for a value: kind, class, and whether they agree (null without a class)."""
    best: Any = answer_key[answer_key["auroc"] >= min_auroc]
    best = best.sort_values("auroc", ascending=False, kind="stable")
    best = best.drop_duplicates("latent").sort_index()[["factor", "kind", "value", "latent", "auroc"]]
    shares = [column for column in classes.columns if column.endswith("_share")]
    table = best.merge(classes[["latent", *shares, "class"]], on="latent", how="left")
    table["class"] = table["class"].astype("string")
    table["agrees"] = (table["class"] == table["kind"].astype("string")).astype("boolean")
    return table.reset_index(drop=True)


def _mean(agrees: pd.Series) -> float | None:
    return float(agrees.astype(float).mean()) if len(agrees) else None


def _by_chance(kinds: pd.Series, classes: pd.Series) -> float | None:
    """Mean agreement over all ways of dealing the classes out to these latents."""
    n = len(kinds)
    counts: list[Mapping[str, int]] = [column.value_counts().to_dict() for column in (kinds, classes)]
    return float(sum(counts[0].get(k, 0) * counts[1].get(k, 0) for k in CLASSES) / n**2) if n else None


def _require(classes: pd.DataFrame, answer_key: pd.DataFrame, min_auroc: float) -> None:
    wanted = {
        "classes": (classes, ("latent", "class")),
        "answer_key": (answer_key, ("factor", "kind", "value", "latent", "auroc")),
    }
    for name, (table, columns) in wanted.items():
        if missing := [column for column in columns if column not in table.columns]:
            raise DataError(f"{name}: has no column {missing[0]!r}; give the table of {_MAKER[name]}")
    if unknown := sorted(set(answer_key["kind"]) - set(CLASSES)):
        raise DataError(f"answer_key: kind {unknown[0]!r} is none of {', '.join(CLASSES)}")
    if not 0.5 <= min_auroc <= 1 or np.isnan(min_auroc):
        raise ConfigError(f"min_auroc is {min_auroc}; give an AUROC between 0.5 and 1")


_MAKER = {"classes": "QuestionSet", "answer_key": "score_answer_key"}


def _explain(min_auroc: float) -> dict[str, str]:
    return {
        "*": f"latents that stand for a planted value: best AUROC on train and validation rows, {min_auroc:g} or more on test rows; "
        "each counts once, for the value that it ranks best; classes from items of held-out memes",
        "*n_values": "latents compared",
        "n_factors": "factors that they belong to",
        "n_undecided": "of them without a class (interval of a share holds one half, or too few items); not in the agreement",
        "*agreement": "share of latents with a class whose class is the factor's kind; control: agreement_permuted",
        "agreement_permuted": "control: mean agreement when the same classes are dealt out to the same latents at random",
    }
