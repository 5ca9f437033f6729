"""SAE-V on memes: cross-modal weights, item scores, and whether keeping the best-scored memes trains a better probe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field
from scipy.stats import norm
from scipy.stats import t as student
from typing_extensions import Self

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.base import Evaluator, Unavailable
from sae_lens_meme.evaluators.classifiers import Task, tasks_of
from sae_lens_meme.evaluators.cross_modal import quantities as q
from sae_lens_meme.evaluators.cross_modal.comparison import Aurocs, Comparison, FilterOptions, compare
from sae_lens_meme.evaluators.cross_modal.selection import (
    CRITERIA,
    ItemScores,
    item_scores,
    jaccard,
    kept_again,
    random_overlap,
    rank_correlation,
)
from sae_lens_meme.evaluators.cross_modal.token_weights import of_tokens
from sae_lens_meme.evaluators.cross_modal.weights import MemePairs, SideHooks, Weights, cross_modal_weights
from sae_lens_meme.evaluators.latents import Latents, hook_of
from sae_lens_meme.evaluators.result import Interval, Measure, Number, Result, Section, of_known
from sae_lens_meme.metrics.multiple_testing import rejected
from sae_lens_meme.metrics.resampling import percentile_interval
from sae_lens_meme.metrics.threads import in_threads
from sae_lens_meme.options import Positive
from sae_lens_meme.row_kind import TOKEN

if TYPE_CHECKING:
    from sae_lens_meme.evaluators.context import Context

WEIGHTS = Section(
    "SAE-V: cosine of pictures and captions of the memes that fire a latent, train memes",
    "chance: any two memes of the same sources; permuted: activations given to other memes of the same source",
)
FILTER = Section(
    "SAE-V's filter: AUROC within source of a probe trained on the best memes minus one trained on as many random memes",
    "sum, random, CLIP score, all memes: AUROC within source on held-out memes of probes trained on the best memes by the "
    "sum of weights, on random memes, on the best by CLIP score, on all; the interval counts the draw of the train memes and that of the held-out memes",
)
ALPHA = 0.05
MIN_RESAMPLES = 20
"""For a standard error."""
ROUNDING = 1e-9
"""Cosines that differ by less are the same: where all memes are alike, none is above chance."""
_NO_INTERVALS = "n_bootstrap is 0: no intervals"
_NO_DRAWS = "there is no random selection to compare with: n_random is 0, or none has every class"


class CrossModal(Evaluator):
    """Cross-modal weight of each latent (Lou et al. 2025, SAE-V), and the data filter made of it beside plain ones.

    The two sides of a fused embedding are the text and the image embedding of the memes that fire; see
    `cross_modal_weights`. On token rows they are SAE-V's own: text tokens and image tokens; see `token_omega`.

    Args:
        sides: the hooks to compare, default the image and the text embedding.
    """

    name = "cross_modal"
    question = "SAE-V's weight of each latent, and whether its filter keeps better training memes"
    control = "random memes, CLIP score, L0; permuted memes for the weights"

    class Options(FilterOptions):
        tasks: list[str] | None = None
        """Labels to compare the filters on, default every label with 2 to 20 classes."""
        top: Annotated[int, Field(ge=2)] = 5
        """Memes whose text and image are compared, for each latent."""
        min_support: Positive | None = None
        """Train memes on which a latent must fire; default `top`."""
        delta: Annotated[float, Field(ge=0)] = 0.0
        """A latent fires where its activation is larger than this."""

    def __init__(
        self, embeddings: Embeddings, *, hook: str | None = None, sides: SideHooks | None = None, **options: Any
    ):
        super().__init__(embeddings, hook=hook, **options)
        self.sides = sides or SideHooks()

    @classmethod
    def from_context(cls, context: Context) -> Self:
        options: dict[str, Any] = {"shares": (context.options.share,)} | context.options_of(cls)
        return cls(context.embeddings, **options)

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        """
        Raises:
            Unavailable: the embeddings do not have both sides, or they have no cosine; token rows of one kind alone.
        """
        if embeddings.row_kind == TOKEN:
            hook = hook_of(sae, embeddings, self.hook)
            return of_tokens(embeddings, latents, hook, delta=self.options.delta, seed=self.options.seed)
        if why := self.sides.incomparable(embeddings):
            raise Unavailable(why)
        tasks, skipped = tasks_of(embeddings, self.options.tasks)
        pairs = MemePairs.of(embeddings, self.sides)
        weighing = {key: getattr(self.options, key) for key in ("top", "min_support", "delta", "n_bootstrap", "seed")}
        weights = cross_modal_weights(embeddings, latents, pairs=pairs, **weighing)
        permuted = cross_modal_weights(embeddings, latents, pairs=pairs, shuffled=True, **weighing)
        scores = item_scores(embeddings, latents, weights, pairs=pairs)
        measures = [
            *_of_weights(weights, permuted, pairs, len(scores.train)),
            *_of_scores(scores),
            *(m for share in self.options.shares for m in self._kept_again(share, latents, scores, weights)),
        ]
        compared = in_threads(
            lambda task: compare(task, latents, scores, self.options), tasks, cost=lambda task: task.size
        )
        for task, found in zip(tasks, compared, strict=True):
            measures += self._of_task(task, found)
        measures += [q.AUROC["auroc"](None, f"{task}/all", reason=why) for task, why in skipped.items()]
        return Result(
            self.name,
            WEIGHTS,
            tuple(measures),
            weights.table(),
            q.columns(weights),
            _verdict(weights, measures, len(self.options.shares)),
        )

    def _kept_again(self, share: float, latents: Latents, scores: ItemScores, weights: Weights) -> Iterator[Measure]:
        """Mean over resamples of the weights and their spread, beside two random selections."""
        within = self.options.within_source
        overlap, both = random_overlap(scores, share, within)
        expected: dict[str, float] = {"kept_again": overlap, "jaccard": both}
        for by, kept in kept_again(latents, scores, weights, share, within).items():
            for name, replicates in (("kept_again", kept), ("jaccard", jaccard(kept))):
                group = f"stability/keep_{share:g}/{by}"
                mean = replicates.mean() if len(replicates) else None
                random = q.AGAIN[f"{name}_random"](expected[name], group)
                found = q.AGAIN[name](mean, group, interval=_spread(replicates, "resamples of the train memes"))
                if (by, name) == ("sum", "kept_again") and mean is not None:
                    label = f"memes kept again by a bootstrap of the weights, best {share:.0%}"
                    found = found.row(label, random.control("chance"), section=WEIGHTS)
                yield from (found, random)

    def _of_task(self, task: Task, found: Comparison) -> Iterator[Measure]:
        """AUROCs of the probes on what each score keeps, and their differences to the mean of the random selections."""
        name = task.name
        rows = f"probes fitted on known train memes, measured on {len(task.held_out)} known {task.split or 'held-out'} rows"
        undefined = _undefined(len(task.held_out))
        yield q.N_TRAIN(found.n_train, name)
        everything = _levels(f"{name}/all", found.everything, undefined, f"all of them; {rows}")
        yield from everything.values()
        for share, n_kept in found.n_kept.items():
            at, draws = f"{name}/keep_{share:g}", found.random[share]
            yield q.N_KEPT(n_kept, at)
            random = _random(f"{at}/random", draws, undefined, rows)
            yield from random.values()
            levels: dict[str, Levels] = {}
            differences: dict[str, Measure] = {}
            for by in CRITERIA:
                mine = found.by_score[share, by]
                why = (mine, mine) if isinstance(mine, str) else undefined
                aurocs = np.full_like(found.everything, np.nan) if isinstance(mine, str) else mine
                same = f" ({q.SAME_AS_SUM})" if by == "mean" and found.mean_is_sum[share] else ""
                levels[by] = _levels(f"{at}/{by}", aurocs, why, f"{q.KEPT_BY[by]}{same}; {rows}")
                pooled, within = _differences(f"{at}/{by}", aurocs, draws, why, f"{q.KEPT_BY[by]}{same}; {rows}")
                yield from levels[by].values()
                yield pooled
                differences[by] = within
            for by, within in differences.items():
                yield _shown(within, name, share, levels, random, everything) if by == "sum" else within


Levels = dict[str, Measure]


def _shown(
    difference: Measure, task: str, share: float, levels: dict[str, Levels], random: Levels, everything: Levels
) -> Measure:
    """The row of a task; scores that give no selection are not printed."""
    if difference.value is None:
        return difference
    level = "auroc_within_source"
    beside = {"sum": levels["sum"], "random": random, "CLIP score": levels["clip"], "L0": levels["l0"]}
    controls = [found[level].control(label) for label, found in (beside | {"all memes": everything}).items()]
    controls = [control for control in controls if control.value is not None]
    return difference.row(f"{task}, best {share:.0%}", *controls, section=FILTER)


def _of_weights(weights: Weights, permuted: Weights, pairs: MemePairs, n_train: int) -> list[Measure]:
    """Counts and medians over the latents that have a weight."""
    has = ~np.isnan(weights.omega)
    n, few = int(has.sum()), f"no latent fires on {weights.min_support} train memes"
    counts = {
        "memes/train": n_train,
        "memes/without_cosine": n_train - len(pairs.train),
        "latents/silent": int((weights.support == 0).sum()),
        "latents/too_rare": int((~has & (weights.support > 0)).sum()),
        "latents/with_weight": n,
    }
    medians = {
        "omega/median_permuted": permuted.omega,
        "omega/median_chance": weights.chance,
        "omega/median_corrected": weights.corrected,
        "omega/median_paired": weights.paired,
        "omega/median_unpaired": weights.unpaired,
    }
    found = {key: q.OF_WEIGHTS[key](value) for key, value in counts.items()}
    found |= {key: q.OF_WEIGHTS[key](of_known(np.median, values), reason=few) for key, values in medians.items()}
    no_share = _NO_INTERVALS if n and not len(weights.replicates) else few
    permuted_share = q.OF_WEIGHTS["omega/above_chance_permuted"](_above_chance(permuted), reason=no_share)
    few_resamples = f"n_bootstrap is {len(weights.replicates)}: {MIN_RESAMPLES} give a standard error" if n else few
    significant, significant_permuted = (
        q.OF_WEIGHTS[f"omega/significant{suffix}"](_significant(of), reason=few_resamples)
        for suffix, of in (("", weights), ("_permuted", permuted))
    )
    median = q.OF_WEIGHTS["omega/median"](of_known(np.median, weights.omega), reason=few)
    above = q.OF_WEIGHTS["omega/above_chance"](_above_chance(weights), reason=no_share)
    if median.value is not None:
        beside = (found["omega/median_permuted"].control("permuted"), found["omega/median_chance"].control("chance"))
        median = median.row(f"median weight of {n} latents", *beside, section=WEIGHTS)
    if significant.value is not None:
        label = f"share of the {n} latents above chance (q < .05, Benjamini-Hochberg over latents)"
        significant = significant.row(label, significant_permuted.control("permuted"), section=WEIGHTS)
    cosines = {
        "cosine/same_meme": float(pairs.clip[pairs.train].mean()),
        "cosine/two_memes": pairs.any_pair,
        "cosine/two_memes_within_source": pairs.pair_within_source,
    }
    alone = "there are no two such train memes"
    return [
        *found.values(),
        *(median, above, permuted_share, significant, significant_permuted),
        *(q.OF_WEIGHTS[key](value, reason=alone) for key, value in cosines.items()),
    ]


def _of_scores(scores: ItemScores) -> Iterator[Measure]:
    """Rank correlations over the train memes."""
    for by in ("sum", "mean"):
        for other in ("l0", "clip"):
            value = rank_correlation(scores.by(by)[scores.train], scores.by(other)[scores.train])
            same = f"the {by} score or {other} is the same for all train memes that have both"
            yield q.SPEARMAN[other](value, f"score/{by}", reason=same)


def _levels(at: str, aurocs: Aurocs, why: Sequence[str], rows: str) -> Levels:
    return {
        level: quantity(aurocs[i, 0], at, rows=rows, reason=why[i])
        for i, (level, quantity) in enumerate(q.AUROC.items())
    }


def _random(at: str, draws: np.ndarray, why: Sequence[str], rows: str) -> Levels:
    """Mean, lowest and highest of the random selections."""
    found: Levels = {}
    for i, level in enumerate(q.AUROC):
        each = draws[:, i, 0] if len(draws) else np.full(1, np.nan)
        reason = why[i] if len(draws) else _NO_DRAWS
        for suffix, value in (("", each.mean()), ("_lowest", each.min()), ("_highest", each.max())):
            key = f"{level}{suffix}"
            found[key] = q.RANDOM[key](value, at, rows=rows, reason=reason)
    return found


def _differences(at: str, aurocs: Aurocs, draws: np.ndarray, why: Sequence[str], rows: str) -> list[Measure]:
    """Pooled, and within source."""
    difference = aurocs - draws.mean(axis=0) if len(draws) else np.full_like(aurocs, np.nan)
    found = []
    for i, level in enumerate(q.AUROC):
        reason = why[i] if np.isnan(aurocs[i, 0]) else _NO_DRAWS
        ends = _with_training_draw(difference[i], draws[:, i, 0] if len(draws) else np.empty(0))
        quantity = q.DIFFERENCE[f"{level}_minus_random"]
        found.append(quantity(difference[i, 0], at, rows=rows, interval=ends, reason=reason))
    return found


def _with_training_draw(difference: np.ndarray, drawn: np.ndarray) -> Interval:
    """Student's t around the difference, from two variances.

    The kept memes are one selection of their size, and `drawn` are the AUROCs of probes on random ones: what one such
    training set moves the kept side by, and the mean of them the other.
    """
    replicates = difference[1:][~np.isnan(difference[1:])]
    if len(replicates) < 2 or len(drawn) < 2 or np.isnan(difference[0]):
        few = "n_random is below 2: the draw of the train memes is not known"
        return Interval(None, None, q.BOTH_DRAWS, few if len(replicates) > 1 and len(drawn) < 2 else _NO_INTERVALS)
    held_out, train = replicates.var(ddof=1), drawn.var(ddof=1) * (1 + 1 / len(drawn))
    if (total := held_out + train) == 0:
        return Interval(difference[0], difference[0], q.BOTH_DRAWS)
    freedom = total**2 / (train**2 / (len(drawn) - 1) + held_out**2 / (len(replicates) - 1))
    half = student.ppf(0.975, freedom) * np.sqrt(total)
    return Interval(difference[0] - half, difference[0] + half, q.BOTH_DRAWS)


def _spread(replicates: np.ndarray, what: str) -> Interval:
    low, high = percentile_interval(replicates) if len(replicates) else (np.nan, np.nan)
    return Interval(low, high, what, None if len(replicates) and not np.isnan(replicates).all() else _NO_INTERVALS)


def _undefined(n_held_out: int) -> tuple[str, str]:
    """Why an AUROC is undefined: pooled, and within source."""
    if not n_held_out:
        return "no known test or validation rows", "no known test or validation rows"
    return (
        f"all {n_held_out} held-out rows are of one class",
        f"the {n_held_out} held-out rows of each source are of one class",
    )


def _above_chance(weights: Weights) -> Number:
    low = weights.interval[0]
    measured = ~np.isnan(low)
    return float((low[measured] > weights.chance[measured] + ROUNDING).mean()) if measured.any() else None


def _significant(weights: Weights) -> Number:
    """Share with q < .05: one-sided p of (omega - chance) / standard error, Benjamini-Hochberg over the latents.

    The standard error is the spread of the resamples. Shares of resamples would not do: of 200 they are no smaller than
    1 / 201, so that fewer than a tenth of the latents could never be found.
    """
    measured = ~np.isnan(weights.omega)
    if len(weights.replicates) < MIN_RESAMPLES or not measured.any():
        return None
    drawn = weights.replicates[:, measured]
    known = (~np.isnan(drawn)).sum(axis=0) >= MIN_RESAMPLES
    excess = (weights.omega - weights.chance)[measured][known]
    error = np.nanstd(drawn[:, known], axis=0, ddof=1)
    log_p = np.where(excess > ROUNDING, norm.logsf(excess / np.maximum(error, ROUNDING)), 0.0)
    return float(rejected(log_p, ALPHA).sum() / measured.sum())


def _verdict(weights: Weights, measures: Sequence[Measure], n_shares: int) -> str | None:
    """Latents whose memes have a caption near their picture, and whether the filter made of them helps or harms."""
    share = _significant(weights)
    if share is None:
        return None
    n = int((~np.isnan(weights.omega)).sum())
    found = f"{round(share * n)} of {n} latents fire on memes with picture and caption closer than chance (q < .05)"
    ends = [m.interval for m in measures if m.section is FILTER and m.interval and m.interval.low is not None]
    if not ends:
        return f"{found}."
    better, worse = (sum(of(end) for end in ends) for of in (lambda e: e.low > 0, lambda e: e.high < 0))
    what = "labels" if n_shares == 1 else "comparisons"
    return f"{found}; SAE-V's filter beats random memes on {better} and loses on {worse} of {len(ends)} {what}."
