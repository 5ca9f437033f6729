"""The measures, the table and the verdict of superposition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int

from sae_lens_meme.evaluators.contest import Targets
from sae_lens_meme.evaluators.context import SHUFFLED
from sae_lens_meme.evaluators.result import Interval, Measure, Quantity, Section, nullable
from sae_lens_meme.evaluators.superposition.compute import Answers, Geometry, expected_abs_cosine
from sae_lens_meme.evaluators.superposition.quantities import (
    ANSWERING,
    CLOSED_FORM,
    COLUMNS,
    COSINE,
    FACTORS,
    HEADINGS,
    MEAN,
    N_DIMENSIONS,
    N_TARGETS,
    N_UNITS,
    NEAREST,
    NEURONS,
    NO_DECODER,
    OF_ANSWERS,
    OF_GEOMETRY,
    OF_UNITS,
    ONE,
    PERMUTED,
    RANDOM,
    SAE,
    SUM,
    TARGETS,
    UNITS,
)
from sae_lens_meme.metrics.resampling import percentile_interval

LISTED = 10
FIRST = Section(
    "Superposition: targets that a unit responds to",
    "chosen on train and validation memes, confirmed on test memes; every unit is made to fire as often as a latent (shuffled: "
    "its own rate); neurons: either sign of a dimension; random: directions of the embedding; shuffled: latents of an SAE of "
    "shuffled data; permuted: latents, targets permuted within source. Fewer targets are better only at an equal share of units "
    "that respond at all",
    "targets of a unit that responds to any",
)
DIRECTIONS = Section(
    "Superposition: how decoder directions share dimensions",
    "dimensions divided by their standard deviation, rows of unit length; random: as many random directions; shuffled: decoder "
    "of an SAE of shuffled data",
)


class MeasuredUnits(NamedTuple):
    """One set of units. Answers may be of the first ones alone."""

    rate: Float64[np.ndarray, " answered"]
    fires: Bool[np.ndarray, " units"]
    index: Int[np.ndarray, " units"]
    answers: Answers | None = None
    geometry: Geometry | None = None

    @property
    def confirmed(self) -> Bool[np.ndarray, "firing targets"] | None:
        return None if self.answers is None else self.answers.confirmed[self.fires[: len(self.answers.confirmed)]]


class SuperpositionReport:
    """What to print, and every number."""

    def __init__(
        self,
        measured: Mapping[str, MeasuredUnits],
        targets: Targets | None,
        permuted: Sequence[Answers],
        n_dimensions: int,
        reason: str | None,
        given: Any,
    ):
        self.measured, self.targets, self.permuted = measured, targets, permuted
        self.n_dimensions, self.reason, self.given = n_dimensions, reason, given
        answered = {name: of for name, of in measured.items() if of.answers is not None}
        self.numbers = {name: self._of_answers(of, given.n_bootstrap) for name, of in answered.items()}
        if permuted and targets is not None:
            draws = [self._of_answers(measured[SAE]._replace(answers=drawn), 0) for drawn in permuted]
            self.numbers[PERMUTED] = {q: np.array([_mean([draw[q][0] for draw in draws])]) for q in OF_ANSWERS}

    def measures(self) -> Iterator[Measure]:
        yield N_TARGETS(None if self.targets is None else len(self.targets), reason=self.reason)
        yield from self._answering()
        yield from self._geometry()

    def _answering(self) -> Iterator[Measure]:
        made = {name: self._made(name, values) for name, values in self.numbers.items()}
        yield from (N_UNITS(int(of.fires.sum()), name, rows=UNITS[name]) for name, of in self.measured.items())
        if SAE not in made:
            yield from (quantity(None, SAE, reason=self.reason) for quantity in OF_ANSWERS)
            return
        labels = {
            TARGETS: f"targets of a latent that responds to any (of {len(self.targets or ())})",
            FACTORS: "labels and factors of such a latent",
            ONE: "of such latents, to one target alone",
            ANSWERING: f"latents that respond to any (of {int(self.measured[SAE].fires.sum())})",
        }
        for quantity, label in labels.items():
            beside = [made[name][quantity].control(h) for name, h in HEADINGS.items() if name in made]
            yield made[SAE][quantity].row(label, *beside)
        yield from (measure for name, of in made.items() if name != SAE for measure in of.values())

    def _made(self, name: str, values: Mapping[Quantity, np.ndarray]) -> dict[Quantity, Measure]:
        rows = UNITS[name] + (f", {len(self.permuted)} draws" if name == PERMUTED else "")
        made = {}
        for quantity, draws in values.items():
            ends = percentile_interval(draws[1:]) if len(draws) > 1 else None
            interval = None if ends is None else Interval(float(ends[0]), float(ends[1]), OF_UNITS)
            made[quantity] = quantity(draws[0], name, rows=rows, interval=interval)
        return made

    def _of_answers(self, of: MeasuredUnits, replicates: int) -> dict[Quantity, Float64[np.ndarray, " draws"]]:
        """The value, then that of each resample of the units."""
        assert of.answers is not None
        assert self.targets is not None
        fires = of.fires[: len(of.answers.confirmed)]
        n, factors = of.answers.confirmed.sum(axis=1)[fires], of.answers.factors(self.targets)[fires]
        weights = np.ones((replicates + 1, len(n)))
        rng = np.random.default_rng(self.given.seed)
        for drawn in weights[1:] if len(n) else ():
            drawn[:] = np.bincount(rng.integers(0, len(n), len(n)), minlength=len(n))
        answering = weights @ (n > 0)

        def share(part: np.ndarray, whole: Any) -> np.ndarray:
            whole = np.broadcast_to(np.asarray(whole, np.float64), len(weights))
            return np.divide(weights @ part, whole, out=np.full(len(weights), np.nan), where=whole > 0)

        return {
            TARGETS: share(n, answering),
            FACTORS: share(factors, answering),
            ONE: share(n == 1, answering),
            ANSWERING: share(n > 0, len(n)),
        }

    def _geometry(self) -> Iterator[Measure]:
        yield N_DIMENSIONS(self.n_dimensions)
        yield CLOSED_FORM(expected_abs_cosine(self.n_dimensions) if self.n_dimensions else None)
        made: dict[str, dict[Quantity, Measure]] = {}
        for name in (SAE, RANDOM, SHUFFLED):
            found = self.measured[name].geometry if name in self.measured else None
            if found is not None or name == SAE:
                values = _of_geometry(found)
                rows = "as many random directions" if name == RANDOM else UNITS[name]
                made[name] = {q: q(values[q], name, rows=rows, reason=NO_DECODER) for q in OF_GEOMETRY}
        labels = {
            SUM: f"feature dimensionality, summed (of {self.n_dimensions} dimensions)",
            MEAN: "feature dimensionality of a latent",
            COSINE: "|cosine| with another latent",
            NEAREST: "|cosine| with the nearest latent",
        }
        for quantity, label in labels.items():
            beside = [of[quantity].control(HEADINGS[name]) for name, of in made.items() if name != SAE]
            yield made[SAE][quantity].row(label, *beside, section=DIRECTIONS)
        yield from (measure for name, of in made.items() if name != SAE for measure in of.values())

    def table(self) -> pd.DataFrame:
        """One row per unit that fires."""
        parts = [self._rows(name, of) for name, of in self.measured.items()]
        return pd.concat(parts, ignore_index=True).astype({"targets": "string"})

    def _rows(self, name: str, of: MeasuredUnits) -> pd.DataFrame:
        n = len(of.fires)
        none = np.full(n, np.nan)
        columns: dict[str, Any] = {"units": np.full(n, name, dtype=object), "unit": of.index}
        columns["firing_rate"] = _padded(of.rate, n)
        columns |= dict.fromkeys(("n_selected", "n_targets", "n_factors"), none)
        columns["targets"] = np.full(n, None, dtype=object)
        if of.answers is not None and self.targets is not None:
            confirmed, names = of.answers.confirmed, np.array(self.targets.names, dtype=object)
            columns["n_selected"] = _padded(of.answers.selected.sum(axis=1), n)
            columns["n_targets"] = _padded(confirmed.sum(axis=1), n)
            columns["n_factors"] = _padded(of.answers.factors(self.targets), n)
            listed = ["; ".join(names[mine][:LISTED]) for mine in confirmed]
            columns["targets"] = np.array(listed + [None] * (n - len(listed)), dtype=object)
        columns |= dict(zip(Geometry._fields, of.geometry or (none, none, none), strict=True))
        table = pd.DataFrame(
            {c: nullable(columns[c]) if c not in ("units", "unit", "targets") else columns[c] for c in COLUMNS}
        )
        counts = dict.fromkeys(("n_selected", "n_targets", "n_factors"), "Int64")
        return table[of.fires].astype(counts)

    def verdict(self) -> str | None:
        parts = [*self._verdict_of_answers(), *self._verdict_of_geometry()]
        sentence = "; ".join(parts)
        return f"{sentence[:1].upper()}{sentence[1:]}." if parts else None

    def _verdict_of_answers(self) -> Iterator[str]:
        if SAE not in self.numbers:
            return
        found = {name: of[TARGETS][0] for name, of in self.numbers.items() if name != PERMUTED}
        if np.isnan(found[SAE]):
            yield f"No latent responds to any of {len(self.targets or ())} targets on test memes"
            return
        names = {NEURONS: "neurons", RANDOM: "random directions", SHUFFLED: "shuffled data"}
        beside = ", ".join(
            f"{text} {found[name]:.1f}" for name, text in names.items() if not np.isnan(found.get(name, np.nan))
        )
        share, rival = (_percent(self.numbers[name][ANSWERING][0]) for name in (SAE, NEURONS))
        yield (
            f"At equal firing rate {share} of the latents respond to a target (neurons {rival}), on average to {found[SAE]:.1f} of "
            f"{len(self.targets or ())}{f' ({beside})' if beside else ''}"
        )

    def _verdict_of_geometry(self) -> Iterator[str]:
        here = self.measured[SAE].geometry
        if here is None:
            return
        total, random = (_of_geometry(self.measured[name].geometry)[SUM] for name in (SAE, RANDOM))
        if total is not None and random is not None:
            yield f"their directions use {total:.0f} of {self.n_dimensions} dimensions (random directions {random:.0f})"


def _of_geometry(found: Geometry | None) -> dict[Quantity, float | None]:
    if found is None:
        return dict.fromkeys(OF_GEOMETRY)
    dimensionality = found.dimensionality[~np.isnan(found.dimensionality)]
    return {
        SUM: float(dimensionality.sum()) if len(dimensionality) else None,
        MEAN: _mean(dimensionality),
        COSINE: _mean(found.mean_abs_cosine),
        NEAREST: _mean(found.max_abs_cosine),
    }


def _percent(share: float) -> str:
    return f"{share:.0%}" if share == 0 or share >= 0.01 else "under 1%"


def _mean(values: Any) -> float:
    values = np.asarray(values, np.float64)
    return float(np.nanmean(values)) if len(values) and not np.isnan(values).all() else np.nan


def _padded(values: np.ndarray, n: int) -> np.ndarray:
    return np.concatenate([values.astype(np.float64), np.full(n - len(values), np.nan)])
