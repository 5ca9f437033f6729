"""Planted memes have known factors: how well the best single latent stands for each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.base import Evaluator
from sae_lens_meme.evaluators.concepts import ConceptLabels
from sae_lens_meme.evaluators.latents import Latents, require_latents_of
from sae_lens_meme.evaluators.result import Number, Result, defined
from sae_lens_meme.metrics.contingency import FALSE, TRUE, UNKNOWN
from sae_lens_meme.metrics.effect_sizes import f1_always_on, f1_score
from sae_lens_meme.metrics.ranking import Ranked, auroc, best_f1, confusion

SCORES = ("auroc", "f1", "f1_always_on", "auroc_permuted")

EXPLAIN = {
    "*/auroc": "within source, on test rows, of the latent with the best AUROC on train and validation rows; "
    "a factor of several values is the mean over its values; a factor that is constant within every source is left out",
    "*/f1*": "of the same latent on test rows, its threshold chosen on validation rows; control: f1_always_on, a latent that fires on every meme",
    "*/auroc_permuted": "control: the same selection and measurement with the factor permuted within source (about 0.5)",
}


class AnswerKeyScores(Evaluator):
    """Held-out AUROC and F1 of the best latent for every planted factor.

    Args:
        factors: `id` and one column a factor.
        kinds: for each factor `visual`, `textual` or `cross-modal`.
    """

    name = "answer_key"

    def __init__(
        self,
        embeddings: Embeddings,
        factors: pd.DataFrame,
        kinds: Mapping[str, str],
        *,
        seed: int = 0,
        hook: str | None = None,
    ):
        super().__init__(embeddings, hook=hook)
        self.factors, self.kinds, self.seed = factors, dict(kinds), seed

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        return score_answer_key(latents, embeddings, self.factors, self.kinds, self.seed)


def score_answer_key(
    latents: Latents, embeddings: Embeddings, factors: pd.DataFrame, kinds: Mapping[str, str], seed: int = 0
) -> Result:
    """The same for any units that come as `Latents`.

    Raises:
        DataError: a meme of the embeddings is not in the answer key, or no factor varies within a source.
    """
    require_latents_of(latents, embeddings)
    kinds = {factor: kind for factor, kind in kinds.items() if _varies_within_a_source(embeddings, factors, factor)}
    if not kinds:
        raise DataError("no factor of the answer key varies within a source; give the key of this corpus")
    targets, columns = _targets(embeddings, factors, kinds)
    ranked = Ranked.of(latents.csc())
    found = _best(ranked, targets)
    permuted = _best(ranked, targets.permuted(np.random.default_rng(seed)))
    table = pd.DataFrame(
        {
            "factor": [factor for factor, _ in columns],
            "kind": [kinds[factor] for factor, _ in columns],
            "value": [str(value) for _, value in columns],
            **found,
            "auroc_permuted": permuted["auroc"],
        }
    )
    numbers: dict[str, Number] = {}
    for factor, rows in table.groupby("factor", sort=False):
        numbers |= {f"{factor}/{score}": defined(rows[score].mean()) for score in SCORES}
    reasons = {
        key: "no test meme has, or none lacks, a value of this factor" for key, v in numbers.items() if v is None
    }
    return Result("answer_key", numbers, reasons, table, dict(EXPLAIN))


def _varies_within_a_source(embeddings: Embeddings, factors: pd.DataFrame, factor: str) -> bool:
    """A factor that only names the source cannot be told apart from it."""
    source = dict(zip(embeddings.ids, embeddings.sources, strict=True))
    return bool((factors.groupby(factors["id"].map(source))[factor].nunique() > 1).any())


def _targets(
    embeddings: Embeddings, factors: pd.DataFrame, kinds: Mapping[str, str]
) -> tuple[ConceptLabels, list[tuple[str, Any]]]:
    """One concept for each value of each factor; a true-or-false factor is one concept."""
    mine: Any = factors.set_index("id").reindex(embeddings.ids)
    lacking = mine.index[mine[next(iter(kinds))].isna()]
    if len(lacking):
        raise DataError(
            f"id {lacking[0]!r} is not in the answer key ({len(lacking)} such memes); give the key of this corpus"
        )
    columns = [
        (factor, value)
        for factor in kinds
        for value in (
            [True] if mine[factor].dtype == bool or set(mine[factor]) <= {True, False} else sorted(set(mine[factor]))
        )
    ]
    truth = np.stack([(mine[factor] == value).to_numpy(dtype=bool) for factor, value in columns], axis=1)
    codes = np.where(truth, np.uint8(TRUE), np.uint8(FALSE))
    sources = np.unique(embeddings.sources, return_inverse=True)[1]
    names = tuple(f"{factor}={value}" for factor, value in columns)
    return ConceptLabels(names, codes, codes, sources, embeddings.splits), columns


def _best(ranked: Ranked, targets: ConceptLabels) -> dict[str, np.ndarray]:
    test, choose = targets.test_codes(), targets.threshold_codes()[0]
    select = np.where((targets.splits == "test")[:, None], np.uint8(UNKNOWN), targets.known)
    strata = targets.strata("corrected")
    selected = auroc(ranked, select, strata)[0]
    concepts = np.arange(selected.shape[1])
    latent = np.where(np.isnan(selected), -1.0, selected).argmax(axis=0)
    threshold = best_f1(ranked, choose).threshold
    true_fired, fired = confusion(ranked, test, threshold)
    true, n = (test == TRUE).sum(axis=0), (test >= FALSE).sum(axis=0)
    f1 = np.where(np.isnan(threshold), np.nan, f1_score(true_fired, fired, true))
    return {
        "latent": latent,
        "auroc_selection": selected[latent, concepts],
        "auroc": auroc(ranked, test, strata)[0][latent, concepts],
        "f1": f1[latent, concepts],
        "f1_always_on": f1_always_on(true, n),
        "n_test": n,
    }
