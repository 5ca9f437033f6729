"""How well the best single latent stands for each planted factor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.concepts import ConceptLabels
from sae_lens_meme.evaluators.latents import Latents, require_latents_of
from sae_lens_meme.evaluators.result import Measure, Number, Quantity, Result, Section, nullable, of_known
from sae_lens_meme.metrics.association import FALSE, TRUE, UNKNOWN, f1_always_on, f1_score
from sae_lens_meme.metrics.ranking import Ranked, auroc, best_f1, confusion

KINDS = ("visual", "textual", "cross-modal")
"""Of factors, and the classes of `QuestionSet`."""
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

RIVAL = "best-unit AUROC of {}, from the contest: mean over the values of the factor that it scores"
FROM_CONTEST = (
    "neurons, PCA, ICA: the best dense unit; k: of as many that fire as latents; shuffled: an SAE of shuffled data (all from "
    "the contest, for the values that it scores)"
)
NO_CONTEST = "what neurons, PCA, ICA and random directions reach is in the contest, which was not run"


def score_answer_key(
    latents: Latents,
    embeddings: Embeddings,
    factors: pd.DataFrame,
    kinds: Mapping[str, str],
    seed: int = 0,
    rivals: Mapping[str, Mapping[str, float]] | None = None,
) -> Result:
    """The same for any units that come as `Latents`.

    Args:
        rivals: AUROC of the best unit of other dictionaries, by heading and factor, to stand beside it.

    Raises:
        DataError: the key is not of these embeddings, or no factor varies within a source.
    """
    require_latents_of(latents, embeddings)
    labels, columns = planted_values(embeddings, factors, kinds)
    kinds = {factor: kinds[factor] for factor, _ in columns}
    ranked = Ranked.of(latents.csr())
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
        of = {name: quantity(of_known(np.mean, found[name][rows]), factor) for name, quantity in SCORES.items()}
        if of["auroc"].value is not None:
            ranked_by[factor] = (of["auroc"].value, of["auroc_permuted"].value)
            beside = {"auroc_permuted": "permuted", "f1": "F1", "f1_always_on": "F1 always on"}
            controls = [of[name].control(heading) for name, heading in beside.items()]
            others = {
                heading: Measure(
                    f"{factor}/auroc_{heading.replace(' ', '_')}",
                    found_by.get(factor),
                    RIVAL.format(heading),
                    reason="the contest has no such value",
                )
                for heading, found_by in (rivals or {}).items()
            }
            section = FACTORS._replace(note=f"{FACTORS.note}; {FROM_CONTEST if others else NO_CONTEST}")
            of["auroc"] = of["auroc"].row(
                f"{factor} ({kind})", *controls, *(m.control(h) for h, m in others.items()), section=section
            )
            measures += others.values()
        measures += of.values()
    return Result("answer_key", FACTORS, tuple(measures), table, COLUMNS, _verdict(ranked_by))


def planted_values(
    embeddings: Embeddings, factors: pd.DataFrame, kinds: Mapping[str, str]
) -> tuple[ConceptLabels, list[tuple[str, Any]]]:
    """One concept for each value of each factor, and its factor and value; a true-or-false factor is one concept.

    Where a factor holds several values at once (a tuple per meme), each of them is true or false. Factors that are constant within every source only name it and are left out. A missing value is unknown.

    Raises:
        DataError: the key is not of these embeddings, or no factor varies within a source.
    """
    mine = _of_memes(embeddings, factors, kinds)
    varies: Any = mine[list(kinds)].groupby(embeddings.sources).nunique().max() > 1
    if not varies.any():
        raise DataError("no factor of the answer key varies within a source; give the key of this corpus")
    return _labels(embeddings, mine, [factor for factor in kinds if varies[factor]])


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
    require_columns("answer key", factors, ("id", *kinds))
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
    if holds_several(factor):
        return sorted(set().union(*values))
    return [True] if values <= {True, False} else sorted(values)


def _holds(factor: pd.Series, value: Any) -> np.ndarray:
    if holds_several(factor):
        return factor.map(lambda values: value in values, na_action="ignore").to_numpy(bool, na_value=False)
    return (factor == value).to_numpy(bool, na_value=False)


def holds_several(factor: pd.Series) -> bool:
    """Each cell is a tuple of values."""
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


def require_columns(where: str, table: pd.DataFrame, columns: Iterable[str], hint: str = "") -> None:
    if missing := [column for column in columns if column not in table.columns]:
        raise DataError(f"{where}: has no column {missing[0]!r}{hint}")
