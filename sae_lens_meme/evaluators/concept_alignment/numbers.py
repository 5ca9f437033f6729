"""The headline numbers of concept alignment: counts per unit and per test, and the best latent of each concept."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from sae_lens_meme.evaluators.concept_alignment.pairs import Pairs, association, significant
from sae_lens_meme.evaluators.concepts import ConceptLabels
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.result import Number, defined
from sae_lens_meme.metrics.bootstrap import bootstrap_weights, count_interval, percentile_interval
from sae_lens_meme.metrics.contingency import FALSE, TRUE, Counter
from sae_lens_meme.metrics.effect_sizes import f1_score

HEADLINES = ("n_significant_global", "n_significant_concept", "n_latents_global", "n_latents_concept")
INTERVLM_F1 = 0.35

EXPLAIN = {
    "corrected/*": "association on all memes with a known label, stratified by source (exact conditional test, one-sided); "
    "threshold on validation rows (train rows where validation has no true meme, see threshold_split); F1, precision, "
    "recall and AUROC (within source) on test rows only; control: published, labels permuted within source",
    "published/*": "InterVLM's procedure: all rows of all splits pooled, a missing label is a negative (and matches "
    "sentiment<=-1), one-sided Fisher test; F1 is the best over all thresholds on those same rows (f1_validation), so the "
    "_test columns are null; a latent that never fires has p = 1 and counts as a test",
    "*/n_pairs_tested": "pairs whose margins allow more than one table (corrected), all pairs (published)",
    "*/n_significant_global*": "pairs with Benjamini-Hochberg q < alpha over all latents and concepts",
    "*/n_significant_concept*": "pairs with q < alpha, each concept a family of its own",
    "*/n_latents_global*": "latents with at least one such pair; control: the same share of raw neurons",
    **dict.fromkeys(
        ("*/n_significant_*_low", "*/n_significant_*_high", "*/n_latents_*_low", "*/n_latents_*_high"),
        "delete-d jackknife: twice the spread over random four fifths of the memes of each source, laid around the count; a "
        "bootstrap would take a repeated meme for independent evidence",
    ),
    "*/best_latent": "the latent with the best F1 on the rows that choose its threshold",
    "*best_auroc": "of that latent's activation, DeLong interval in the table; a constant latent has .5",
    "*best_f1_validation": "on the rows that chose latent and threshold: too good; control: winners_curse",
    "*best_f1_always_on": "control: F1 of a latent that fires on every meme",
    "*/median_best_*": "median over concepts",
    "*/n_f1_above_0.35": "pairs whose F1 is above InterVLM's threshold; a concept of prevalence above .22 reaches it by always firing",
    "*/n_concepts_above_always_on": "concepts whose best latent beats a latent that fires on every meme",
    "*best_f1_test*": "of the latent with the best F1 on validation rows, measured on test rows; control: f1_always_on; "
    "interval: bootstrap over test memes within source",
    "*/f1_source_only": "control: F1 on test memes of the best rule that reads nothing but the source (it fires on whole sources, "
    "chosen on the rows that choose the threshold); F1 pools the sources, so that a latent that only knows the source gets this",
    "*winners_curse": "f1_validation - f1_test of the latent chosen on validation rows",
    "odds_ratio*": "Mantel-Haenszel over sources, interval of Robins, Breslow and Greenland; null where b c = 0",
    "auroc*": "DeLong interval; null where it is not known: fewer than two memes of a kind, or kinds that are apart",
    "f1_ceiling": "2 min(r, p) / (r + p) at the firing rate r of the threshold and the prevalence p of the same rows",
}


def headline_counts(log_p: np.ndarray, concepts: tuple[str, ...], alpha: float) -> dict[str, Number]:
    """Totals, per unit, per test, and per concept."""
    found = significant(log_p, alpha)
    n_units, n_tested = log_p.shape[0], int((~np.isnan(log_p)).sum())
    totals: dict[str, int] = dict(zip(HEADLINES, _totals(found).tolist(), strict=True))
    numbers: dict[str, Number] = {
        "n_latents": n_units,
        "n_concepts": len(concepts),
        "n_pairs_tested": n_tested,
        **totals,
    }
    for family in ("global", "concept"):
        numbers[f"share_of_latents_{family}"] = totals[f"n_latents_{family}"] / max(n_units, 1)
        numbers[f"share_of_tests_{family}"] = totals[f"n_significant_{family}"] / max(n_tested, 1)
    for c, name in enumerate(concepts):
        for family in ("global", "concept"):
            numbers[f"{name}/n_significant_{family}"] = int(found[family][:, c].sum())
    return numbers


def count_intervals(
    latents: Latents, targets: ConceptLabels, protocol: str, alpha: float, replicates: int, seed: int
) -> dict[str, Number]:
    """`_low` and `_high` of every headline count; nothing for 0 replicates."""
    if replicates == 0:
        return {}
    counter = Counter(latents.csr(), targets.codes(protocol), targets.strata(protocol))

    def count(weights: np.ndarray | None = None) -> np.ndarray:
        return _totals(significant(association(counter.count(weights), protocol, alpha), alpha))

    low, high = count_interval(count, count(), targets.sources, replicates, seed)
    return {
        f"{name}{suffix}": float(values[i])
        for i, name in enumerate(HEADLINES)
        for suffix, values in (("_low", low), ("_high", high))
    }


def score_numbers(
    pairs: Pairs, latents: Latents, targets: ConceptLabels, replicates: int, seed: int
) -> tuple[dict[str, Number], dict[str, str]]:
    """For each concept the latent with the best F1 where the threshold is chosen, and its scores; then the medians."""
    f1 = pairs.columns["f1_validation"]
    usable = np.logical_not(np.isnan(f1).all(axis=0))
    best = np.where(usable, np.argmax(np.where(np.isnan(f1), -1.0, f1), axis=0), 0)
    at_best = {name: np.where(usable, pairs.columns[name][best, np.arange(len(best))], np.nan) for name in _OF_BEST}
    numbers: dict[str, Number] = {}
    for c, concept in enumerate(targets.names):
        numbers[f"{concept}/best_latent"] = int(best[c]) if usable[c] else None
        numbers |= {f"{concept}/best_{name}": defined(values[c]) for name, values in at_best.items()}
    if pairs.protocol == "corrected" and replicates:
        low, high = _f1_interval(pairs, latents, targets, best, replicates, seed)
        for c, concept in enumerate(targets.names):
            numbers[f"{concept}/best_f1_test_low"] = defined(low[c])
            numbers[f"{concept}/best_f1_test_high"] = defined(high[c])
    if pairs.protocol == "corrected":
        alone = f1_source_only(targets)
        numbers |= {f"{concept}/f1_source_only": defined(alone[c]) for c, concept in enumerate(targets.names)}
    numbers |= {f"median_best_{name}": _median(values) for name, values in at_best.items()}
    score = pairs.columns["f1_validation" if pairs.protocol == "published" else "f1_test"]
    numbers["n_f1_above_0.35"] = int((score > INTERVLM_F1).sum())
    numbers["n_concepts_above_always_on"] = _above(at_best, pairs.protocol)
    return numbers, {key: _reason(key, pairs.protocol) for key, value in numbers.items() if value is None}


def f1_source_only(targets: ConceptLabels) -> Float[np.ndarray, " concepts"]:
    """F1 on test memes of the best rule that fires on whole sources; NaN without a true test meme or rows to choose on.

    The rule with the best F1 fires on the sources of the highest prevalence; how many is chosen, as every
    threshold is, on the validation rows.
    """
    choose, test = targets.threshold_codes()[0], targets.test_codes()
    out = np.full(len(targets.names), np.nan)
    for c in range(len(out)):
        true, known = (np.bincount(targets.sources, choose[:, c] >= code) for code in (TRUE, FALSE))
        order = np.argsort(-true / np.maximum(known, 1), kind="stable")
        scores = f1_score(true[order].cumsum(), known[order].cumsum(), true.sum())
        if np.isnan(scores).all():
            continue
        fires = np.isin(targets.sources, order[: np.argmax(scores) + 1])
        is_true, is_known = test[:, c] == TRUE, test[:, c] >= FALSE
        out[c] = f1_score((fires & is_true).sum(), (fires & is_known).sum(), is_true.sum())
    return out


_OF_BEST = ("f1_validation", "f1_test", "winners_curse", "f1_always_on", "auroc")


def _totals(found: dict[str, np.ndarray]) -> np.ndarray:
    """In the order of HEADLINES."""
    return np.array([*(found[f].sum() for f in found), *(found[f].any(axis=1).sum() for f in found)])


def _f1_interval(
    pairs: Pairs, latents: Latents, targets: ConceptLabels, best: np.ndarray, replicates: int, seed: int
) -> np.ndarray:
    """Bootstrap over test memes of the F1 of the chosen latents: [2, concepts]."""
    rows = np.flatnonzero(targets.splits == "test")
    if len(rows) == 0:
        return np.full((2, len(best)), np.nan)
    codes, threshold = targets.known[rows], pairs.columns["threshold"][best, np.arange(len(best))]
    fires = latents.csc()[:, best][rows].toarray() >= threshold  # NaN fires nowhere
    flags = np.hstack([fires & (codes == TRUE), fires & (codes >= FALSE), codes == TRUE]).astype(np.float64)
    weights = np.array(list(bootstrap_weights(targets.sources[rows], replicates, seed)))
    true_fired, fired, true = np.split(weights @ flags, 3, axis=1)
    return percentile_interval(np.where(np.isnan(threshold), np.nan, f1_score(true_fired, fired, true)))


def _median(values: np.ndarray) -> Number:
    return None if np.isnan(values).all() else float(np.nanmedian(values))


def _above(at_best: dict[str, np.ndarray], protocol: str) -> Number:
    score = at_best["f1_validation" if protocol == "published" else "f1_test"]
    if np.isnan(score).all():
        return None
    return int((score > at_best["f1_always_on"]).sum())  # NaN is above nothing


def _reason(key: str, protocol: str) -> str:
    if protocol == "published":
        return "the published protocol holds no rows out" if "_test" in key or "curse" in key else "no meme is true"
    if "f1_validation" in key or "best_latent" in key:
        return "no latent fires on a meme with a known label among the rows that choose the threshold, or none of these is true"
    return "no test meme has a known label of both classes, or there is no threshold"
