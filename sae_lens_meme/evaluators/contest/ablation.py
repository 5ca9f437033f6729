"""What probes lose when units are ablated: targeted probe perturbation, and removal of a spurious correlation.

Both as SAEBench defines them (Karvonen et al. 2025): of an embedding x = error + sum of activation x direction, units are
set to zero and the error is kept, so that a linear probe's logit falls by activation x (direction . weights).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.contest.matched import Draws, Weights
from sae_lens_meme.evaluators.contest.probing import LinearProbes, fit_balanced, largest, mean_differences
from sae_lens_meme.evaluators.contest.targets import FEWEST, LABELS, PLANTED, Rows, Targets
from sae_lens_meme.evaluators.contest.units import Units
from sae_lens_meme.metrics.association import FALSE, TRUE, UNKNOWN
from sae_lens_meme.metrics.ranking import auroc_of_scores
from sae_lens_meme.metrics.threads import in_threads

TIED = 0.9
"""Share of the memes of a biased training set on which the label and the tie agree."""
MOST_TASKS, MOST_IN_CELL, SMALLEST_GAP, SCR_C = 20, 1_000, 0.05, 0.01


def effects(
    difference: Float64[np.ndarray, " units"], along: Float64[np.ndarray, " units"], signed: bool = False
) -> Float64[np.ndarray, " units"]:
    """How much of a probe's logit tells the classes apart through each unit: mean difference x (direction . weights).

    Args:
        signed: the units are directions, of which either sign may stand for the target; else a unit that is less active
            on the target counts nothing.
    """
    return (difference if signed else np.maximum(difference, 0)) * along


def chosen(
    effect: Float64[np.ndarray, " units"], n: int, seed: Sequence[int] | None = None
) -> Int[np.ndarray, " chosen"]:
    """The n units with the largest effect, or as many as have one; with a seed n of these at random."""
    if seed is not None:
        return np.random.default_rng(seed).permutation(np.flatnonzero(effect))[:n]
    return largest(effect, min(n, int(np.count_nonzero(effect))))


def tpp(
    units: Units,
    difference: Float64[np.ndarray, "units targets"],
    probes: LinearProbes,
    logits: Float64[np.ndarray, "test targets"],
    targets: Targets,
    rows: Rows,
    ns: Sequence[int],
    weights: Weights,
    seed: int | None = None,
) -> dict[tuple[str, int], Draws]:
    """For each target what its own probe loses minus what the others lose on average, on test memes.

    `("tpp", n)` is SAEBench's: of balanced accuracy, units by effect. `("tpp_auroc", n)` is of AUROC, which a shift of all
    logits does not change, units by |effect| whatever its sign; for the one n nearest to 5, without bootstrap samples.

    Args:
        difference: of the units' means, see `mean_differences`.
        logits: of the probes on test memes, before.
        seed: of units that are drawn at random in place of those with the largest effect.
    """
    assert units.decoder is not None
    codes, same = targets.codes[rows.test], targets.same()
    along = units.decoder @ probes.coef
    fall = _Fall(logits, codes, rows.strata[rows.test], weights)
    middle = min(ns, key=lambda n: abs(n - 5))

    def of(t: int) -> dict[tuple[str, int], np.ndarray]:
        others, drawn_by = np.flatnonzero(~same[t]), None if seed is None else (seed, t)

        def after(effect: np.ndarray, n: int) -> np.ndarray:
            out = chosen(effect, n, drawn_by)
            return logits - units.take(out)[rows.test] @ along[out]

        effect = effects(difference[:, t], along[:, t], units.dense)
        found = {("tpp", n): _own_minus_others(fall.accuracy(after(effect, n)), t, others) for n in ns}
        size = np.abs(effects(difference[:, t], along[:, t], signed=True))
        found["tpp_auroc", middle] = _own_minus_others(fall.auroc(after(size, middle))[None], t, others)
        return found

    found = in_threads(of, range(len(targets)))
    return {key: np.stack([of_target[key] for of_target in found], axis=1) for key in found[0]}


def _own_minus_others(fall: Float64[np.ndarray, "draws targets"], own: int, others: np.ndarray) -> np.ndarray:
    return fall[:, own] - (fall[:, others].mean(axis=1) if len(others) else 0)


class _Fall:
    """How far probes fall from where they were."""

    def __init__(
        self, logits: Float64[np.ndarray, "test targets"], codes: np.ndarray, strata: np.ndarray, weights: Weights
    ):
        self.codes, self.strata, self.drawn = codes, strata, weights.T.astype(np.float64)
        self.right = self._right(logits)
        self.classes = [(codes == code).astype(np.float64) for code in (FALSE, TRUE)]
        self.sizes = [np.maximum(self.drawn @ mine, 1) for mine in self.classes]
        self.auroc_before = self._auroc(logits)

    def accuracy(self, after: Float64[np.ndarray, "test targets"]) -> Float64[np.ndarray, "draws targets"]:
        """Of the mean accuracy of the two classes."""
        lost = self.right - self._right(after)
        moved = np.flatnonzero(lost.any(axis=1))
        parts = zip(self.classes, self.sizes, strict=True)
        return sum(self.drawn[:, moved] @ (lost * mine)[moved] / size for mine, size in parts) / 2  # type: ignore[return-value]

    def auroc(self, after: Float64[np.ndarray, "test targets"]) -> Float64[np.ndarray, " targets"]:
        return self.auroc_before - self._auroc(after)

    def _right(self, logits: np.ndarray) -> Float64[np.ndarray, "test targets"]:
        return ((logits > 0) == (self.codes == TRUE)).astype(np.float64)

    def _auroc(self, logits: np.ndarray) -> Float64[np.ndarray, " targets"]:
        known = [self.codes[:, c] != UNKNOWN for c in range(self.codes.shape[1])]
        columns = zip(logits.T, self.codes.T, known, strict=True)
        return np.array([auroc_of_scores(x[k], code[k] == TRUE, self.strata[k])[0] for x, code, k in columns])


class Tie(NamedTuple):
    """A target, and what it is tied to in a biased training set; True, False and unknown as codes."""

    name: str
    target: Int[np.ndarray, " n"]
    tie: Int[np.ndarray, " n"]

    def cells(self, rows: np.ndarray) -> list[np.ndarray]:
        """Those of the rows where (target, tie) is both, only the target, only the tie, neither."""
        pairs = ((TRUE, TRUE), (TRUE, FALSE), (FALSE, TRUE), (FALSE, FALSE))
        return [rows[(self.target[rows] == t) & (self.tie[rows] == s)] for t, s in pairs]

    def as_target(self) -> Targets:
        """The tie itself."""
        return Targets((self.name,), self.tie.astype(np.uint8)[:, None], np.array([PLANTED]), np.array([self.name]))


class Biased(NamedTuple):
    """A probe that learned the tie, what removing the tie could win, and how the tie is read."""

    tie: Tie
    balanced_rows: Int[np.ndarray, " balanced"]
    probe: LinearProbes
    of_tie: LinearProbes
    accuracy: float
    gap: float
    """Balanced minus biased accuracy."""


def ties(targets: Targets, embeddings: Embeddings, rows: Rows, group: str) -> Iterator[Tie]:
    """Labels are tied to the two sources that have both of their classes; planted values to those of another factor."""
    columns, codes, strata = targets.columns(group), targets.codes, embeddings.strata
    same = targets.same()
    columns = [c for i, c in enumerate(columns) if not same[c, columns[:i]].any()]
    for i, c in enumerate(columns):
        if group == LABELS:
            known = [(int((codes[strata == s, c] != UNKNOWN).sum()), -int(s)) for s in np.unique(strata)]
            first, second = (-s for _, s in sorted(known, reverse=True)[:2]) if len(known) > 1 else (-1, -2)
            tie = np.where(strata == first, TRUE, np.where(strata == second, FALSE, UNKNOWN))
            candidates = [("source", tie)]
        else:
            later = columns[i + 1 :] + columns[:i]
            other = [o for o in later if targets.factor[o] != targets.factor[c]]
            candidates = [(targets.names[o], codes[:, o]) for o in other]
        for name, tie in candidates:
            made = Tie(f"{targets.names[c]} tied to {name}", codes[:, c], tie)
            if all(len(cell) >= 4 * FEWEST for cell in made.cells(rows.train)) and all(
                len(cell) >= FEWEST for cell in made.cells(rows.test)
            ):
                yield made
                break


def biased_probes(
    z: Float[np.ndarray, "n d_in"], targets: Targets, embeddings: Embeddings, rows: Rows, group: str, seed: int
) -> list[Biased]:
    """A probe for each tie that is worse by SMALLEST_GAP or more for it; of at most MOST_TASKS ties."""
    found = list(ties(targets, embeddings, rows, group))
    found = (
        [found[i] for i in np.unique(np.linspace(0, len(found) - 1, MOST_TASKS).round().astype(int))] if found else []
    )
    by_id = np.argsort(embeddings.by_id)

    def fit(item: tuple[int, Tie]) -> Biased:
        i, tie = item
        generator = np.random.default_rng([seed, i])
        cells = [generator.permutation(cell[by_id[cell].argsort()]) for cell in tie.cells(rows.train)]
        even = min(*(len(cell) for cell in cells), MOST_IN_CELL)
        agree = min(len(cells[0]), len(cells[3]), int(2 * TIED * even))
        shares = (agree, round(agree * (1 / TIED - 1)), round(agree * (1 / TIED - 1)), agree)
        balanced = np.concatenate([cell[:even] for cell in cells])
        tied = np.concatenate([cell[:size] for cell, size in zip(cells, shares, strict=True)])
        truth, of_tie = tie.target == TRUE, tie.tie == TRUE
        (clean,) = fit_balanced(z[balanced].astype(np.float64), [truth[balanced], of_tie[balanced]], [SCR_C])
        (probe,) = fit_balanced(z[tied].astype(np.float64), [truth[tied]], [SCR_C])
        only = [LinearProbes(clean.coef[:, j : j + 1], clean.intercept[j : j + 1]) for j in (0, 1)]
        biased, fair = (_cell_accuracy(p.logits(z[rows.test])[:, 0] > 0, tie, rows)[0] for p in (probe, only[0]))
        return Biased(tie, balanced, probe, only[1], biased, fair - biased)

    return [made for made in in_threads(fit, list(enumerate(found))) if made.gap >= SMALLEST_GAP]


def scr(
    units: Units,
    z: Float[np.ndarray, "n d_in"],
    tasks: Sequence[Biased],
    rows: Rows,
    ns: Sequence[int],
    weights: Weights,
    seed: int | None = None,
) -> dict[int, Draws]:
    """For each task (accuracy after ablation - biased accuracy) / (balanced accuracy - biased accuracy), on test memes.

    Units are chosen by |mean difference x (direction . weights)| of a probe for the tie. The four cells of target and tie
    count the same. The denominator is that of the memes as they are in every draw.

    Args:
        seed: as for `tpp`.
    """
    decoder = units.decoder
    assert decoder is not None

    def of(place: int) -> list[np.ndarray]:
        task = tasks[place]
        difference = mean_differences(units, task.tie.as_target(), task.balanced_rows)[:, 0]
        effect = np.abs(effects(difference, decoder @ task.of_tie.coef[:, 0], signed=True))
        order = chosen(effect, max(ns), None if seed is None else (seed, place))
        acts, along = units.take(order)[rows.test], decoder[order] @ task.probe.coef[:, 0]
        logits = task.probe.logits(z[rows.test])[:, 0]
        before = _cell_accuracy(logits > 0, task.tie, rows, weights)
        after = (_cell_accuracy(logits - acts[:, :n] @ along[:n] > 0, task.tie, rows, weights) for n in ns)
        return [(accuracy - before) / task.gap for accuracy in after]

    found = in_threads(of, range(len(tasks)))
    return {n: np.stack([of_task[i] for of_task in found], axis=1) for i, n in enumerate(ns)}


def _cell_accuracy(
    says: Bool[np.ndarray, " test"], tie: Tie, rows: Rows, weights: Weights | None = None
) -> Float64[np.ndarray, " draws"]:
    """Mean over the four cells of target and tie; a cell of which a draw holds no meme is left out of that draw."""
    drawn = np.ones((1, len(says))) if weights is None else weights.T.astype(np.float64)
    right = says == (tie.target[rows.test] == TRUE)
    found = []
    for cell in tie.cells(np.arange(len(tie.target))):
        inside = np.isin(rows.test, cell)
        size = drawn @ inside
        found.append(np.divide(drawn @ (inside & right), size, out=np.full(len(drawn), np.nan), where=size > 0))
    return np.nanmean(found, axis=0)
