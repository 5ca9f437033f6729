"""Whether the question set's class of a latent is the kind of the factor that the latent stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.answer_key.factors import KINDS, holds_several, require_columns
from sae_lens_meme.evaluators.result import Quantity, Result, Section, of_known

MIN_AUROC = 0.9

N_VALUES = Quantity("n_values", "latents compared: those that stand for a planted value")
N_FACTORS = Quantity("n_factors", "factors that these values belong to")
N_UNDECIDED = Quantity(
    "n_undecided",
    "of them without a class (interval of a share holds one half, or too few items): not in the agreement",
)
AGREEMENT = Quantity("agreement", "share of the latents with a class whose class is the factor's kind")
BY_CHANCE = Quantity(
    "agreement_permuted", "control: mean agreement when the same classes are assigned to the same latents at random"
)
CLASSES = Section(
    "Answer key: classes of the question set and the kinds of the planted factors",
    "factors alone: latents that rank a planted value at .9 or more; with conjunctions: also those of a picture's value together "
    "with a caption's, which are not factors; dealt at random: the same classes assigned to the same latents at random",
)
CLASSES_COLUMNS = {
    "factor": "the planted factor that the latent ranks best",
    "kind": "its kind",
    "value": "the value of it",
    "latent": "a latent that stands for the value",
    "auroc": "its AUROC on test memes",
    "class": "class of the question set; null where undecided",
    "agrees": "the class is the kind; null without a class",
}


def score_classes(
    classes: pd.DataFrame, answer_key: pd.DataFrame, *, min_auroc: float = MIN_AUROC, of: str = ""
) -> Result:
    """How often the class of the latent that stands for a value of a factor is the factor's kind.

    A latent counts once, for the value that it ranks best on test memes: a latent for a caption's mood together
    with the faces' expression ranks mood alone at .75, but is not textual.

    Args:
        classes: the table of `QuestionSet`.
        answer_key: the table of `score_answer_key`: factor, kind, value, latent, auroc.
        min_auroc: a latent stands for a value where its AUROC on test memes is at least this. Below, it ranks memes by
            something else as well (a conjunction of two fair values ranks either of them at .75).
        of: what the answer key holds, said in the printed row.

    Raises:
        DataError: a table lacks a column, or a kind is not a class.
        ConfigError: `min_auroc` is not between .5 and 1.
    """
    _require(classes, answer_key, min_auroc)
    table: Any = _compared(classes, answer_key, min_auroc)
    decided = table[table["class"].notna()]
    rows = f"latents with a value that they rank at an AUROC of {min_auroc:g} or more on test memes, each once"
    reason = f"no latent with a class stands for such a factor at an AUROC of {min_auroc:g} or more"
    agreement = AGREEMENT(of_known(np.mean, decided["agrees"].to_numpy(float)), rows=rows, reason=reason)
    chance = BY_CHANCE(_by_chance(decided["kind"], decided["class"]), rows=rows, reason=reason)
    if agreement.value is not None:
        label = f"agreement with the planted kind{f', {of}' if of else ''} (of {len(decided)} latents)"
        agreement = agreement.row(label, chance.control("dealt at random"), section=CLASSES)
    measures = [
        N_VALUES(len(table), rows=rows),
        N_FACTORS(int(table["factor"].nunique()), rows=rows),
        N_UNDECIDED(len(table) - len(decided), rows=rows),
        *(agreement, chance),
    ]
    for kind in KINDS:
        mine = decided[decided["kind"] == kind]
        measures += [
            N_VALUES(len(mine), kind, rows=f"of this kind, with a class; {rows}"),
            AGREEMENT(
                of_known(np.mean, mine["agrees"].to_numpy(float)), kind, rows=f"of this kind; {rows}", reason=reason
            ),
        ]
    shares = {c: f"{c} of the question set" for c in table.columns if c not in CLASSES_COLUMNS}
    return Result("question_set_answer_key", CLASSES, tuple(measures), table, CLASSES_COLUMNS | shares)


def with_conjunctions(factors: pd.DataFrame, kinds: Mapping[str, str]) -> tuple[pd.DataFrame, dict[str, str]]:
    """The answer key with every visual x textual pair of factors as a cross-modal factor of its own, `object & topic`.

    A dictionary of a fused space gives latents to such pairs ("a cap, and it is a statement") though none of them is
    a factor. Textual factors that are constant within every source make no pairs: they only name it. Factors that
    hold several values at once make none either: next to no meme has both values of such a pair.

    Args:
        factors: `id`, `source` and one column per factor, as in `AnswerKey.factors`.
        kinds: for each factor its kind, as in `AnswerKey.kinds`.

    Raises:
        DataError: there is no column `source`.
    """
    require_columns("answer key", factors, ("source", *kinds))
    sides: dict[str, list[str]] = {kind: [factor for factor in kinds if kinds[factor] == kind] for kind in KINDS}
    sides = {kind: [factor for factor in names if not holds_several(factors[factor])] for kind, names in sides.items()}
    varies: Any = factors.groupby("source")[sides["visual"] + sides["textual"]].nunique().max() > 1
    pairs = {
        f"{visual} & {textual}": factors[visual].astype(str) + " & " + factors[textual].astype(str)
        for visual in sides["visual"]
        for textual in sides["textual"]
        if varies[visual] and varies[textual]
    }
    return factors.assign(**pairs), {**kinds, **dict.fromkeys(pairs, "cross-modal")}


def _compared(classes: pd.DataFrame, answer_key: pd.DataFrame, min_auroc: float) -> pd.DataFrame:
    """One row per latent that stands for a value: kind, class, and whether they agree (null without a class)."""
    best: Any = answer_key[answer_key["auroc"] >= min_auroc]
    best = best.sort_values("auroc", ascending=False, kind="stable")
    best = best.drop_duplicates("latent").sort_index()[["factor", "kind", "value", "latent", "auroc"]]
    shares = [column for column in classes.columns if column.endswith("_share")]
    table = best.merge(classes[["latent", *shares, "class"]], on="latent", how="left")
    table["class"] = table["class"].astype("string")
    table["agrees"] = (table["class"] == table["kind"].astype("string")).astype("boolean")
    return table.reset_index(drop=True)


def _by_chance(kinds: pd.Series, classes: pd.Series) -> float | None:
    """Mean agreement over all ways of dealing the classes out to these latents."""
    alike = sum(int((kinds == kind).sum()) * int((classes == kind).sum()) for kind in KINDS)
    return alike / len(kinds) ** 2 if len(kinds) else None


def _require(classes: pd.DataFrame, answer_key: pd.DataFrame, min_auroc: float) -> None:
    require_columns("classes", classes, ("latent", "class"), "; give the table of QuestionSet")
    columns = ("factor", "kind", "value", "latent", "auroc")
    require_columns("answer_key", answer_key, columns, "; give the table of score_answer_key")
    if unknown := sorted(set(answer_key["kind"]) - set(KINDS)):
        raise DataError(f"answer_key: kind {unknown[0]!r} is not one of {', '.join(KINDS)}")
    if not 0.5 <= min_auroc <= 1 or np.isnan(min_auroc):
        raise ConfigError(f"min_auroc is {min_auroc}; give an AUROC between 0.5 and 1")
