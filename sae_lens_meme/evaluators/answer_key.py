"""Planted memes have known factors: how well the best single latent stands for each of them.

Of each factor it is also known whether picture, caption or both together show it, which is what `QuestionSet` finds out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from typing_extensions import Self

from sae_lens_meme import options
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.base import Evaluator, Unavailable
from sae_lens_meme.evaluators.concepts import ConceptLabels
from sae_lens_meme.evaluators.context import Context
from sae_lens_meme.evaluators.latents import Latents, require_latents_of
from sae_lens_meme.evaluators.result import Measure, Number, Quantity, Result, Section, nullable
from sae_lens_meme.metrics.contingency import FALSE, TRUE, UNKNOWN
from sae_lens_meme.metrics.effect_sizes import f1_always_on, f1_score
from sae_lens_meme.metrics.ranking import Ranked, auroc, best_f1, confusion

KINDS = ("visual", "textual", "cross-modal")
"""Of factors, and the classes of `QuestionSet`."""
MIN_AUROC = 0.9

_UNDEFINED = "no test meme has, or none lacks, a value of this factor"
_MEAN = "mean over the values of the factor"
SCORES = {
    "auroc": Quantity(
        "auroc",
        "AUROC within source on test memes of the latent with the best AUROC on train and validation memes; a factor that is "
        f"constant within every source is left out; {_MEAN}",
        _UNDEFINED,
    ),
    "f1": Quantity(
        "f1",
        f"F1 of the same latent on test memes, its threshold chosen on validation memes (on train memes where no validation meme "
        f"has the value); {_MEAN}",
        _UNDEFINED,
    ),
    "f1_always_on": Quantity("f1_always_on", f"control: F1 of a latent that fires on every meme; {_MEAN}", _UNDEFINED),
    "auroc_permuted": Quantity(
        "auroc_permuted",
        f"control: the same choice and score with the factor permuted within source, groups whole (about .5); {_MEAN}",
        _UNDEFINED,
    ),
}
COLUMNS = {
    "factor": "a planted factor",
    "kind": "visual, textual or cross-modal: what shows it",
    "value": "one of its values; True alone of a factor that is true or false",
    "latent": "the latent with the best AUROC on train and validation memes",
    "auroc_selection": "that AUROC: optimistic",
    "auroc": "AUROC of that latent within source on test memes",
    "f1": "its F1 on test memes, the threshold chosen on validation memes, or else on train memes",
    "f1_always_on": "control: F1 of a latent that fires on every meme",
    "n_test": "test memes",
    "auroc_permuted": "control: auroc with the factor permuted within source before the choice",
}
FACTORS = Section(
    "Answer key: AUROC on test memes of the best latent for each planted factor",
    "permuted: the factor permuted within source; F1: of the same latent; always on: a latent that fires on every meme",
    "AUROC, test memes (F1: of the same latent)",
)

N_VALUES = Quantity("n_values", "latents compared: those that stand for a planted value")
N_FACTORS = Quantity("n_factors", "factors that these values belong to")
N_UNDECIDED = Quantity(
    "n_undecided",
    "of them without a class (interval of a share holds one half, or too few items): not in the agreement",
)
AGREEMENT = Quantity("agreement", "share of the latents with a class whose class is the factor's kind")
BY_CHANCE = Quantity(
    "agreement_permuted", "control: mean agreement when the same classes are dealt out to the same latents at random"
)
CLASSES = Section(
    "Answer key: classes of the question set and the kinds of the planted factors",
    "dealt at random: the same classes dealt out to the same latents",
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


class AnswerKeyScores(Evaluator):
    """AUROC and F1 on test memes of the best latent for every planted factor.

    Args:
        factors: `id` and one column a factor; for the comparison of classes also `source`.
        kinds: for each factor `visual`, `textual` or `cross-modal`.
        classes: the table of `QuestionSet`, to compare with the kinds.
    """

    name = "answer_key"
    question = "planted memes only: how well the best latent stands for each factor"
    control = "the factor permuted within source, always on"

    class Options(options.Options):
        seed: options.Count = 0
        """Seed of the permutation."""

    def __init__(
        self,
        embeddings: Embeddings,
        factors: pd.DataFrame,
        kinds: Mapping[str, str],
        *,
        classes: pd.DataFrame | None = None,
        **given: Any,
    ):
        super().__init__(embeddings, **given)
        self.factors, self.kinds, self.classes = factors, dict(kinds), classes

    @classmethod
    def from_context(cls, context: Context) -> Self:
        if (key := context.answer_key) is None:
            raise Unavailable("there is no answer key; pass --answer-key FOLDER")
        classed = context.results.get("question_set")
        classes = None if classed is None else classed.table
        return cls(context.embeddings, key.factors, key.kinds, classes=classes, **context.options_of(cls))

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        found = score_answer_key(latents, embeddings, self.factors, self.kinds, self.options.seed)
        if self.classes is None:
            return found
        # latents of a fused space often stand for a picture's factor together with a caption's
        factors, kinds = with_conjunctions(self.factors, self.kinds)
        pairs = score_answer_key(latents, embeddings, factors, kinds, self.options.seed).table
        assert pairs is not None
        return found.joined("question_set", score_classes(self.classes, pairs).measures)


def score_answer_key(
    latents: Latents, embeddings: Embeddings, factors: pd.DataFrame, kinds: Mapping[str, str], seed: int = 0
) -> Result:
    """The same for any units that come as `Latents`.

    Raises:
        DataError: the key is not of these embeddings, or no factor varies within a source.
    """
    require_latents_of(latents, embeddings)
    labels, columns = planted_values(embeddings, factors, kinds)
    kinds = {factor: kinds[factor] for factor, _ in columns}
    ranked = Ranked.of(latents.csc())
    found = _best(ranked, labels)
    found["auroc_permuted"] = _best(ranked, labels.permuted(np.random.default_rng(seed)))["auroc"]
    named = {
        "factor": [factor for factor, _ in columns],
        "kind": [kinds[factor] for factor, _ in columns],
        "value": [str(value) for _, value in columns],
        "latent": pd.arrays.IntegerArray(found["latent"], np.isnan(found["auroc_selection"])),
    }
    table = pd.DataFrame({name: named.get(name, nullable(found[name]) if name in found else None) for name in COLUMNS})
    measures: list[Measure] = []
    ranked_by: dict[str, tuple[Number, Number]] = {}
    for factor, kind in kinds.items():
        rows = np.flatnonzero(table["factor"] == factor)
        mean = {name: _mean(found[name][rows]) for name in SCORES}
        of = {name: quantity(mean[name], factor) for name, quantity in SCORES.items()}
        if of["auroc"].value is not None:
            ranked_by[factor] = (of["auroc"].value, of["auroc_permuted"].value)
            beside = {"auroc_permuted": "permuted", "f1": "F1", "f1_always_on": "F1 always on"}
            controls = [of[name].control(heading) for name, heading in beside.items()]
            of["auroc"] = of["auroc"].row(f"{factor} ({kind})", *controls, section=FACTORS)
        measures += of.values()
    return Result("answer_key", FACTORS, tuple(measures), table, COLUMNS, _verdict(ranked_by))


def planted_values(
    embeddings: Embeddings, factors: pd.DataFrame, kinds: Mapping[str, str]
) -> tuple[ConceptLabels, list[tuple[str, Any]]]:
    """One concept for each value of each factor, and its factor and value; a true-or-false factor is one concept.

    Where a factor holds several values at once (a tuple a meme), each of them is true or false. Factors that are constant within every source only name it and are left out. A missing value is unknown.

    Raises:
        DataError: the key is not of these embeddings, or no factor varies within a source.
    """
    mine = _of_memes(embeddings, factors, kinds)
    varies: Any = mine[list(kinds)].groupby(embeddings.sources).nunique().max() > 1
    if not varies.any():
        raise DataError("no factor of the answer key varies within a source; give the key of this corpus")
    return _labels(embeddings, mine, [factor for factor in kinds if varies[factor]])


def score_classes(classes: pd.DataFrame, answer_key: pd.DataFrame, *, min_auroc: float = MIN_AUROC) -> Result:
    """How often the class of the latent that stands for a value of a factor is the factor's kind.

    A latent counts once, for the value that it ranks best on test memes: a latent for a caption's mood together
    with the faces' expression ranks mood alone at .75, but is not textual.

    Args:
        classes: the table of `QuestionSet`.
        answer_key: the table of `score_answer_key`: factor, kind, value, latent, auroc.
        min_auroc: a latent stands for a value where its AUROC on test memes is at least this. Below, it ranks memes by
            something else as well (a conjunction of two fair values ranks either of them at .75).

    Raises:
        DataError: a table lacks a column, or a kind is not a class.
        ConfigError: `min_auroc` is not between .5 and 1.
    """
    _require(classes, answer_key, min_auroc)
    table: Any = _compared(classes, answer_key, min_auroc)
    decided = table[table["class"].notna()]
    rows = f"latents with a value that they rank at an AUROC of {min_auroc:g} or more on test memes, each once"
    reason = f"no latent with a class stands for such a factor at an AUROC of {min_auroc:g} or more"
    agreement = AGREEMENT(_mean(decided["agrees"].to_numpy(float)), rows=rows, reason=reason)
    chance = BY_CHANCE(_by_chance(decided["kind"], decided["class"]), rows=rows, reason=reason)
    if agreement.value is not None:
        label = f"agreement with the planted kind (of {len(decided)} latents)"
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
            AGREEMENT(_mean(mine["agrees"].to_numpy(float)), kind, rows=f"of this kind; {rows}", reason=reason),
        ]
    shares = {c: f"{c} of the question set" for c in table.columns if c not in CLASSES_COLUMNS}
    return Result("question_set_answer_key", CLASSES, tuple(measures), table, CLASSES_COLUMNS | shares)


def with_conjunctions(factors: pd.DataFrame, kinds: Mapping[str, str]) -> tuple[pd.DataFrame, dict[str, str]]:
    """The answer key with every visual x textual pair of factors as a cross-modal factor of its own, `object & topic`.

    A dictionary of a fused space gives latents to such pairs ("a cap, and it is a statement") though none of them is
    a factor. Textual factors that are constant within every source make no pairs: they only name it. Factors that hold
    several values at once make none either: next to no meme has both values of such a pair.

    Args:
        factors: `id`, `source` and one column a factor, as in `AnswerKey.factors`.
        kinds: for each factor its kind, as in `AnswerKey.kinds`.

    Raises:
        DataError: there is no column `source`.
    """
    _require_columns("answer key", factors, ("source", *kinds))
    sides: dict[str, list[str]] = {kind: [factor for factor in kinds if kinds[factor] == kind] for kind in KINDS}
    varies: Any = factors.groupby("source")[sides["visual"] + sides["textual"]].nunique().max() > 1
    pairs = {
        f"{visual} & {textual}": factors[visual].astype(str) + " & " + factors[textual].astype(str)
        for visual in sides["visual"]
        for textual in sides["textual"]
        if varies[visual]
        and varies[textual]
        and not (_holds_several(factors[visual]) or _holds_several(factors[textual]))
    }
    return factors.assign(**pairs), {**kinds, **dict.fromkeys(pairs, "cross-modal")}


def _verdict(found: dict[str, tuple[Number, Number]]) -> str | None:
    """From AUROC and permuted AUROC of each factor that has one."""
    if not found:
        return None
    value, permuted = np.nanmean(np.array([*found.values()], np.float64), axis=0)
    worst = min(found, key=lambda factor: found[factor][0] or 0)
    return (
        f"The best latents rank {len(found)} planted factors with a mean AUROC of {value:.2f} on test memes "
        f"({permuted:.2f} permuted), the worst, {worst}, {found[worst][0]:.2f}."
    )


def _of_memes(embeddings: Embeddings, factors: pd.DataFrame, kinds: Mapping[str, str]) -> Any:
    """The rows of the key in the order of the memes."""
    _require_columns("answer key", factors, ("id", *kinds))
    ids: Any = factors["id"]
    if len(twice := ids[ids.duplicated()]):
        raise DataError(f"id {twice.iloc[0]!r} is in the answer key twice; give the key of this corpus")
    if len(lacking := embeddings.ids[~np.isin(embeddings.ids, ids.to_numpy(str))]):
        raise DataError(
            f"id {str(lacking[0])!r} is not in the answer key ({len(lacking)} such memes); give the key of this corpus"
        )
    return factors.set_index("id").loc[embeddings.ids]


def _labels(
    embeddings: Embeddings, mine: pd.DataFrame, factors: Sequence[str]
) -> tuple[ConceptLabels, list[tuple[str, Any]]]:
    columns = [(factor, value) for factor in factors for value in _values(mine[factor])]
    true = np.stack([_holds(mine[factor], value) for factor, value in columns], axis=1)
    known = np.stack([mine[factor].notna().to_numpy(bool) for factor, _ in columns], axis=1)
    codes = np.where(known, np.where(true, TRUE, FALSE), UNKNOWN).astype(np.uint8)
    names = tuple(f"{factor}={value}" for factor, value in columns)
    return ConceptLabels(names, codes, codes, embeddings.strata, embeddings.splits, embeddings.groups), columns


def _values(factor: pd.Series) -> list[Any]:
    values = set(factor.dropna())
    if _holds_several(factor):
        return sorted(set().union(*values))
    return [True] if values <= {True, False} else sorted(values)


def _holds(factor: pd.Series, value: Any) -> np.ndarray:
    if _holds_several(factor):
        return factor.map(lambda values: value in values, na_action="ignore").to_numpy(bool, na_value=False)
    return (factor == value).to_numpy(bool, na_value=False)


def _holds_several(factor: pd.Series) -> bool:
    return isinstance(next(iter(factor.dropna()), None), tuple)


def _best(ranked: Ranked, labels: ConceptLabels) -> dict[str, np.ndarray]:
    test, choose = labels.test_codes(), labels.threshold_codes()[0]
    select = np.where((labels.splits == "test")[:, None], np.uint8(UNKNOWN), labels.known)
    strata = labels.strata("corrected")
    selected = auroc(ranked, select, strata)[0]
    concepts = np.arange(selected.shape[1])
    latent = np.where(np.isnan(selected), -1.0, selected).argmax(axis=0)
    threshold = best_f1(ranked, choose).threshold
    true_fired, fired = confusion(ranked, test, threshold)
    true, n = (test == TRUE).sum(axis=0), (test >= FALSE).sum(axis=0)
    f1 = np.where(np.isnan(threshold), np.nan, f1_score(true_fired, fired, true))
    chosen = ~np.isnan(selected[latent, concepts])
    return {
        "latent": latent,
        "auroc_selection": selected[latent, concepts],
        "auroc": np.where(chosen, auroc(ranked, test, strata)[0][latent, concepts], np.nan),
        "f1": np.where(chosen, f1[latent, concepts], np.nan),
        "f1_always_on": f1_always_on(true, n),
        "n_test": n,
    }


def _mean(values: np.ndarray) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmean(values))


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


def _by_chance(kinds: pd.Series, classes: pd.Series) -> float | None:
    """Mean agreement over all ways of dealing the classes out to these latents."""
    alike = sum(int((kinds == kind).sum()) * int((classes == kind).sum()) for kind in KINDS)
    return alike / len(kinds) ** 2 if len(kinds) else None


def _require(classes: pd.DataFrame, answer_key: pd.DataFrame, min_auroc: float) -> None:
    _require_columns("classes", classes, ("latent", "class"), "; give the table of QuestionSet")
    columns = ("factor", "kind", "value", "latent", "auroc")
    _require_columns("answer_key", answer_key, columns, "; give the table of score_answer_key")
    if unknown := sorted(set(answer_key["kind"]) - set(KINDS)):
        raise DataError(f"answer_key: kind {unknown[0]!r} is none of {', '.join(KINDS)}")
    if not 0.5 <= min_auroc <= 1 or np.isnan(min_auroc):
        raise ConfigError(f"min_auroc is {min_auroc}; give an AUROC between 0.5 and 1")


def _require_columns(where: str, table: pd.DataFrame, columns: Iterable[str], hint: str = "") -> None:
    if missing := [column for column in columns if column not in table.columns]:
        raise DataError(f"{where}: has no column {missing[0]!r}{hint}")
