"""The answers to the questions, their intervals, and the sentence made from them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int, Int8
from statsmodels.stats.proportion import proportion_confint

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.confounders import quantities as q
from sae_lens_meme.evaluators.confounders.compute import (
    BestUnit,
    Values,
    choose,
    flipped_choice,
    flips,
    order,
    share_of,
)
from sae_lens_meme.evaluators.confounders.pairs import FEWEST, Question, Questions
from sae_lens_meme.evaluators.result import Interval, Measure, Result, nullable
from sae_lens_meme.metrics.multiple_testing import benjamini_hochberg
from sae_lens_meme.metrics.resampling import bootstrap_weights, percentile_interval

FEW_COMPONENTS = 20
"""With fewer, a bootstrap interval is too short."""
ALPHA = 0.05


class PairAnswer:
    """To one question: the units chosen, and how each reading orders the held-out pairs."""

    def __init__(self, question: Question):
        self.question = question
        self.chosen: dict[str, BestUnit] = {}
        self.signs: dict[str, Int8[np.ndarray, " pairs"]] = {}
        self.ordered_selection, self.flipped = np.nan, np.empty(0)

    def read(self, name: str, values: Values) -> None:
        """Choose a unit and order the held-out pairs by it."""
        chosen = self.chosen[name] = choose(values, self.question.selection)
        self.signs[name] = order(values, chosen, self.question.held_out)
        if name == q.SAE:
            self.ordered_selection = share_of(order(values, chosen, self.question.selection))

    def flip(self, values: Values, component: Int[np.ndarray, " memes"], draws: int, seed: int) -> None:
        of = self.question
        if draws:
            self.flipped = flipped_choice(
                *(values, of.selection, of.held_out, component, draws, np.random.default_rng(seed))
            )

    def share(self, name: str) -> float:
        """NaN where the embeddings lack that side."""
        return share_of(self.signs[name]) if name in self.signs else np.nan


class ConfounderReport:
    """The measures, the table and the verdict.

    Args:
        replicates: bootstrap samples of the components; 0 for no intervals.
    """

    def __init__(
        self, questions: Questions, answers: list[PairAnswer], embeddings: Embeddings, replicates: int, seed: int
    ):
        self.questions, self.answers = questions, answers
        self.component = [questions.component[answer.question.held_out.true] for answer in answers]
        self.flips = [flips(a.signs[q.SAE], mine) for a, mine in zip(answers, self.component, strict=True)]
        self.q = benjamini_hochberg(np.log([found.p for found in self.flips]))
        self.weights = self._resampled(embeddings, replicates, seed)

    def result(self) -> Result:
        measures = [*self._of_sets(), *self._means(), *self._left_out()]
        return Result("confounders", q.SECTION, tuple(measures), self.table(), q.COLUMNS, self.verdict())

    def _resampled(
        self, embeddings: Embeddings, replicates: int, seed: int
    ) -> Int[np.ndarray, "replicates components"]:
        """How often each component is drawn, within the source of its first meme; only those with held-out pairs."""
        scored = np.unique(np.concatenate(self.component))
        first = np.full(self.questions.component.max() + 1, len(embeddings))
        by_id = embeddings.by_id[np.isin(embeddings.by_id, self.questions.rows)]
        codes = self.questions.component[np.searchsorted(self.questions.rows, by_id)]
        first[codes[::-1]] = by_id[::-1]
        weights = np.zeros((replicates, len(first)), np.int64)
        for i, drawn in enumerate(bootstrap_weights(embeddings.strata[first[scored]], replicates, seed)):
            weights[i, scored] = drawn
        return weights

    # intervals

    def _draws(self, place: int, name: str) -> Float64[np.ndarray, " replicates"]:
        """The share in each bootstrap sample; NaN without pairs."""
        mine, width = self.component[place], self.weights.shape[1]
        right = self.weights @ np.bincount(mine, weights=(self.answers[place].signs[name] + 1) / 2, minlength=width)
        drawn = self.weights @ np.bincount(mine, minlength=width)
        return np.divide(right, drawn, out=np.full(len(drawn), np.nan), where=drawn > 0)

    def _interval(self, place: int) -> Interval | None:
        share, n = self.answers[place].share(q.SAE), len(np.unique(self.component[place]))
        if not len(self.weights):
            return None
        if n < FEW_COMPONENTS or share in (0, 1):
            ends: Any = proportion_confint(share * n, n, method="wilson")
            return Interval(*map(float, ends), what=q.WILSON)
        return self._bootstrap(self._draws(place, q.SAE), n)

    def _bootstrap(self, draws: Float64[np.ndarray, " replicates"], n: int) -> Interval | None:
        """Of a number on `n` components."""
        if not len(draws):
            return None
        if n < FEW_COMPONENTS:
            return Interval(None, None, q.BOOTSTRAP, f"{n} components; a bootstrap needs {FEW_COMPONENTS}")
        low, high = percentile_interval(draws)
        if low == high:
            return Interval(None, None, q.BOOTSTRAP, "it is the same in every component")
        return Interval(float(low), float(high), q.BOOTSTRAP)

    # measures

    def _of_sets(self) -> Iterator[Measure]:
        order = sorted(range(len(self.answers)), key=lambda i: -len(self.answers[i].question.held_out))
        for i in order:
            answer, found, key = self.answers[i], self.flips[i], self.answers[i].question.key
            pairs = f"{len(answer.question.held_out)} held-out pairs ({self.questions.split})"
            rivals = {name: of(answer.share(name), key, rows=pairs) for name, of in q.OF_RIVALS.items()}
            flipped = q.OF_FLIPPED(answer.flipped.mean() if len(answer.flipped) else None, key, rows=pairs)
            quantile = q.FLIPS_95(found.quantile, key, rows=pairs)
            beside = [measure.control(q.RIVALS[name][0]) for name, measure in rivals.items()]
            beside += [flipped.control("flipped"), quantile.control("flips 95%")]
            shown = (
                f"{answer.question.concept}, {q.SHARED[answer.question.shared]} ({len(answer.question.held_out)} pairs)"
            )
            yield q.ORDERED(answer.share(q.SAE), key, rows=pairs, interval=self._interval(i)).row(shown, *beside)
            yield from (*rivals.values(), flipped, quantile)
            yield q.P(found.p, key, rows=pairs)
            yield q.Q(self.q[i], key, rows=pairs)
            apart = answer.share(q.SAE) - answer.share(q.NEURONS)
            draws = self._draws(i, q.SAE) - self._draws(i, q.NEURONS)
            components = len(np.unique(self.component[i]))
            yield q.MINUS_NEURONS(apart, key, rows=pairs, interval=self._bootstrap(draws, components))
            yield q.N_PAIRS(len(answer.question.held_out), key)
            yield q.N_COMPONENTS(components, key)
            yield q.N_TIED(int((answer.signs[q.SAE] == 0).sum()), key)
            yield q.N_SELECTION(len(answer.question.selection), key)

    def _means(self) -> Iterator[Measure]:
        yield q.N_SETS(len(self.answers))
        yield q.N_ABOVE(int((self.q < ALPHA).sum()))
        draws = np.array([self._draws(i, q.SAE) for i in range(len(self.answers))])
        components = len(np.unique(np.concatenate(self.component)))
        yield q.MEAN(self.mean(q.SAE), interval=self._bootstrap(draws.mean(axis=0), components))
        yield from (of(self.mean(name)) for name, of in q.OF_MEANS.items())

    def mean(self, name: str) -> float:
        return float(np.mean([answer.share(name) for answer in self.answers]))

    def _left_out(self) -> Iterator[Measure]:
        pairs, names = self.questions.pairs, ", ".join(self.questions.too_few) or "none"
        how = "; ".join(f"{kind}: {how}" for kind, how in pairs.how.items())
        yield Measure("n_pairs_across_splits", self.questions.across, f"pairs that differ in a label, left out; {how}")
        yield Measure("n_copies", pairs.copies, "pairs left out because they share picture and caption")
        yield Measure("n_crowded", pairs.crowded, "memes left out because too many share their picture or caption")
        yield Measure(
            "n_unknown", pairs.unknown, "pairs of the file left out because a meme is not in these embeddings"
        )
        what = f"sets left out: fewer than {FEWEST} pairs choose or score ({names})"
        yield Measure("n_sets_left_out", len(self.questions.too_few), what)

    # what is read first

    def verdict(self) -> str:
        n, above = len(self.answers), int((self.q < ALPHA).sum())
        rivals = {
            q.NEURONS: "one raw neuron",
            q.PROBE: "a linear probe",
            q.IMAGE_ONLY: "image only",
            q.TEXT_ONLY: "text only",
        }
        means = {said: self.mean(name) for name, said in rivals.items()}
        beside = ", ".join(f"{said} {mean:.2f}" for said, mean in means.items() if not np.isnan(mean))
        if n == 1:
            answer, found = self.answers[0], self.flips[0]
            can = "tells apart" if above else "does not tell apart"
            return (
                f"One latent {can} memes ({q.SHARED[answer.question.shared]}) by {answer.question.concept[:40]}: "
                f"{answer.share(q.SAE):.2f} of {len(self.component[0])} held-out pairs (flips reach {found.quantile:.2f}; {beside})."
            )
        can = f"in {above} of {n} sets" if above else f"in none of {n} sets"
        return (
            f"One latent tells confounder pairs apart better than chance {can} (label x shared side; q < {ALPHA}): "
            f"on average {self.mean(q.SAE):.2f} of held-out pairs, {beside}."
        )

    def table(self) -> pd.DataFrame:
        intervals = [self._interval(i) for i in range(len(self.answers))]
        columns = {
            "ordered_selection": [a.ordered_selection for a in self.answers],
            "ordered": [a.share(q.SAE) for a in self.answers],
            "low": [np.nan if interval is None else interval.low for interval in intervals],
            "high": [np.nan if interval is None else interval.high for interval in intervals],
            "p": [found.p for found in self.flips],
            "q": self.q,
            "flips_95": [found.quantile for found in self.flips],
            "ordered_permuted": [a.flipped.mean() if len(a.flipped) else np.nan for a in self.answers],
            **{f"ordered_{name}": [a.share(name) for a in self.answers] for name in q.RIVALS},
        }
        made = {
            "concept": [a.question.concept for a in self.answers],
            "shared": [a.question.shared for a in self.answers],
            "latent": _units(self.answers, q.SAE),
            "sign": [a.chosen[q.SAE].sign for a in self.answers],
            "n_selection_pairs": [len(a.question.selection) for a in self.answers],
            "n_pairs": [len(a.question.held_out) for a in self.answers],
            "n_components": [len(np.unique(mine)) for mine in self.component],
            "n_tied": [int((a.signs[q.SAE] == 0).sum()) for a in self.answers],
            "neuron": _units(self.answers, q.NEURONS),
            **{name: nullable(np.array(values, dtype=float)) for name, values in columns.items()},
        }
        return pd.DataFrame(made, columns=list(q.COLUMNS))


def _units(answers: list[PairAnswer], name: str) -> pd.Series:
    found = [a.chosen[name].unit for a in answers]
    return pd.Series([None if unit < 0 else unit for unit in found], dtype="Int64")
