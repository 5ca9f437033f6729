"""What an evaluator returns: measures, each declared once with its control and its meaning, and one tidy table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

Number = float | int | None


class Control(NamedTuple):
    """The same measure where there is nothing to find, or for a trivial rival."""

    name: str
    """The heading of its column."""
    value: Number
    what: str


class Interval(NamedTuple):
    """The ends of a 95 % interval, `key_low` and `key_high` in the views of a result; None where undefined."""

    low: Number
    high: Number
    what: str
    """How it was made, and what it does not cover."""
    reason: str | None = None
    """Why it is None; default the measure's own reason."""


class Section(NamedTuple):
    """A block of the printed table."""

    title: str
    note: str
    """What the columns beside the value are, for all rows."""
    axis: str | None = None
    """What the values are, where the block is drawn in the figure."""


@dataclass(frozen=True)
class Measure:
    """A number, declared once. NaN and infinity become None.

    Raises:
        ValueError: it has no `what`, or is None without a reason. That is a fault of the evaluator.
    """

    key: str
    """Flat, `group/number`; unique within its result."""
    value: Number
    what: str
    """Rows, split, definition."""
    interval: Interval | None = None
    controls: tuple[Control, ...] = ()
    reason: str | None = None
    """Why the value is None; not kept where it is defined."""
    shown: str | None = None
    """The label of its row in the printed table; None: JSON and Parquet only."""
    section: Section | None = None
    """The block of that row, where it is not the result's own."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", defined(self.value))
        if self.interval is not None:
            low, high = defined(self.interval.low), defined(self.interval.high)
            object.__setattr__(self, "interval", self.interval._replace(low=low, high=high))
        object.__setattr__(self, "controls", tuple(c._replace(value=defined(c.value)) for c in self.controls))
        if self.value is not None:
            object.__setattr__(self, "reason", None)
        elif not self.reason:
            raise ValueError(f"{self.key} is undefined and no reason is given")
        if not self.what:
            raise ValueError(f"{self.key}: nothing says what it is")

    def control(self, name: str) -> Control:
        """This measure as the control of another."""
        return Control(name, self.value, self.what)

    def row(self, label: str, *controls: Control, section: Section | None = None) -> Measure:
        """The same, shown in the printed table with these controls beside it."""
        return replace(self, shown=label, controls=controls, section=section)

    def under(self, prefix: str) -> Measure:
        """The same with `prefix/` before its key."""
        return replace(self, key=f"{prefix}/{self.key}")


@dataclass(frozen=True)
class Quantity:
    """What a number is, wherever it is measured: declared once, made a `Measure` by a call with its value."""

    key: str
    what: str
    undefined: str = "there are no such rows"
    """Why it is None, where a call says nothing else."""

    def __call__(
        self,
        value: Any,
        group: str = "",
        *,
        rows: str = "",
        interval: Interval | None = None,
        reason: str | None = None,
    ) -> Measure:
        """
        Args:
            group: goes before the key, with a slash.
            rows: which rows, added to `what`.
        """
        key = f"{group}/{self.key}" if group else self.key
        what = f"{self.what}; {rows}" if rows else self.what
        return Measure(key, value, what, interval=interval, reason=reason or self.undefined)


@dataclass(frozen=True, eq=False)
class Result:
    """The result of one evaluator.

    Raises:
        ValueError: two measures share a key, or a column of the table is not explained or not there.
    """

    name: str
    """The evaluator's name, and the first part of its keys."""
    section: Section
    """The block of the printed table for rows that name no other."""
    measures: tuple[Measure, ...]
    table: pd.DataFrame | None = None
    """Tidy; null where undefined."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """What each column of the table is."""
    verdict: str | None = None
    """One sentence that says what to conclude, made from the numbers."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "measures", tuple(self.measures))
        keys = [key for measure in self.measures for key in _views(measure)]
        if repeated := sorted({key for key in keys if keys.count(key) > 1} if len(set(keys)) < len(keys) else ()):
            raise ValueError(f"{self.name}: {repeated[0]} is declared twice")
        given = set() if self.table is None else set(self.table.columns)
        if unlike := sorted(given ^ set(self.columns)):
            raise ValueError(f"{self.name}: column {unlike[0]!r} is not both in the table and explained")

    @cached_property
    def numbers(self) -> dict[str, Number]:
        """Flat; the ends of an interval under `_low` and `_high`; None where undefined."""
        return {key: value for measure in self.measures for key, (value, _, _) in _views(measure).items()}

    @cached_property
    def reasons(self) -> dict[str, str]:
        """For every None in `numbers`: why."""
        views = (item for measure in self.measures for item in _views(measure).items())
        return {key: reason for key, (value, _, reason) in views if value is None and reason is not None}

    @cached_property
    def explain(self) -> dict[str, str]:
        """For every key of `numbers`: rows, split, definition."""
        return {key: what for measure in self.measures for key, (_, what, _) in _views(measure).items()}

    def joined(self, prefix: str, measures: Iterable[Measure]) -> Result:
        """This result with more measures under `prefix/`."""
        return replace(self, measures=(*self.measures, *(measure.under(prefix) for measure in measures)))

    @property
    def _shown(self) -> list[Measure]:
        """Without rows of nothing but dashes: `skipped` and the reasons say what is missing."""
        rows = (measure for measure in self.measures if measure.shown is not None)
        return [m for m in rows if m.value is not None or any(c.value is not None for c in m.controls)]

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the printed table."""
        return [
            {
                "section": (measure.section or self.section).title,
                "measure": measure.shown,
                "value": measure.value,
                "low": measure.interval.low if measure.interval else None,
                "high": measure.interval.high if measure.interval else None,
                "controls": {control.name: control.value for control in measure.controls},
            }
            for measure in self._shown
        ]

    def sections(self) -> list[dict[str, Any]]:
        """The blocks of its rows, in their order."""
        found = dict.fromkeys(measure.section or self.section for measure in self._shown)
        return [section._asdict() for section in found]

    def to_log_dict(self) -> dict[str, float]:
        """A fresh flat dict of floats for logging; undefined numbers are left out."""
        return {key: float(value) for key, value in self.numbers.items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """Strict JSON values; the table is left to Parquet."""
        return {
            "name": self.name,
            "numbers": dict(self.numbers),
            "reasons": dict(self.reasons),
            "explain": dict(self.explain),
            "columns": dict(self.columns),
            "verdict": self.verdict,
        }


def _views(measure: Measure) -> dict[str, tuple[Number, str, str | None]]:
    """key -> (value, what, reason) of the number and of the ends of its interval."""
    found: dict[str, tuple[Number, str, str | None]] = {measure.key: (measure.value, measure.what, measure.reason)}
    if (interval := measure.interval) is not None:
        reason = interval.reason or measure.reason or "the resamples do not define it"
        for end, value in (("low", interval.low), ("high", interval.high)):
            found[f"{measure.key}_{end}"] = (value, f"{end} end of the 95 % interval: {interval.what}", reason)
    return found


def defined(value: Any) -> Number:
    """A Python number, or None for NaN and infinity (to go with a reason)."""
    if value is None or not math.isfinite(value):
        return None
    return int(value) if isinstance(value, Integral) else float(value)


def of_known(statistic: Callable[[np.ndarray], Any], values: np.ndarray) -> Number:
    """Of the values that are defined, such as their mean; None where none is."""
    known = values[~np.isnan(values)]
    return float(statistic(known)) if len(known) else None


def nullable(column: np.ndarray) -> Any:
    """A flat column for a table, in which NaN is a null; whole numbers as they are."""
    flat = np.ascontiguousarray(column).ravel()
    if flat.dtype.kind == "i":
        return flat
    return pd.arrays.FloatingArray(flat.astype(np.float64), np.isnan(flat))
