"""The files of a study: pairs of neurons with the users' choice, and each neuron's pictures and activations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64

from sae_lens_meme.errors import BadTableError

PAIRS, TOP_IMAGES, ACTIVATIONS = "pairs.csv", "top16_images.csv", "activations.csv"


@dataclass(frozen=True, eq=False)
class UserStudy:
    """The benchmark as it was released, or another study in its format."""

    folder: Path
    x: np.ndarray
    """One neuron of each pair."""
    y: np.ndarray
    """The other."""
    chose_x: np.ndarray
    """Whether most users chose x."""
    published: dict[str, dict[str, float]]
    """Scores that `pairs.csv` has, such as `MS dino` and `MS clip`: a metric each."""
    top_images: dict[str, list[str]]
    """The pictures that activate each neuron most, the strongest first; empty without that file."""

    @classmethod
    def read(cls, folder: str | Path) -> UserStudy:
        """From a folder with `pairs.csv`.

        Raises:
            BadTableError: a file is missing or holds something else; the message names the line.
        """
        folder = Path(folder)
        pairs = _table(folder / PAIRS, ["k_x", "k_y", "R_user"])
        x, y = pairs["k_x"].to_numpy(str), pairs["k_y"].to_numpy(str)
        chosen = pairs["R_user"].to_numpy(str)
        is_x, is_y = (np.isin(chosen, (side, f"k_{side}")) | (chosen == of) for side, of in (("x", x), ("y", y)))
        if (itself := np.flatnonzero(x == y)).size:
            line = int(itself[0])
            raise BadTableError(
                f"{folder / PAIRS}, line {line + 2}: k_x and k_y are both {str(x[line])!r}; a pair is of two neurons"
            )
        if (wrong := np.flatnonzero(is_x == is_y)).size:
            line = int(wrong[0])
            raise BadTableError(
                f"{folder / PAIRS}, line {line + 2}: R_user is {str(chosen[line])!r}, it must be one of the two neurons, "
                f"{str(x[line])!r} or {str(y[line])!r}"
            )
        return cls(folder, x, y, is_x, _published(pairs, x, y, folder / PAIRS), _top_images(folder / TOP_IMAGES))

    def __len__(self) -> int:
        return len(self.x)

    @property
    def neurons(self) -> list[str]:
        """In ascending order."""
        return sorted({*self.x.tolist(), *self.y.tolist()})

    def activations(self) -> Iterator[tuple[str, Float64[np.ndarray, " pictures"]]]:
        """Each neuron with its activations on all pictures, line by line: the file is large.

        Raises:
            BadTableError: the file is missing, or a line has other numbers than the first.
        """
        path, lines = self.folder / ACTIVATIONS, dict[str, int]()
        try:
            with open(path, encoding="utf-8", newline="") as file:
                n = len(next(file, "").split(",")) - 1
                for number, line in enumerate(file, start=2):
                    name, _, rest = line.strip().partition(",")
                    try:
                        values = np.array(rest.split(","), dtype=np.float64)
                    except ValueError:
                        values = np.empty(0)
                    if len(values) != n or not np.isfinite(values).all():
                        raise BadTableError(f"{path}, line {number}: neuron {name!r} has no {n} finite activations")
                    if lines.setdefault(name, number) != number:
                        raise BadTableError(f"{path}, line {number}: neuron {name!r} is also on line {lines[name]}")
                    yield name, values
        except (OSError, UnicodeDecodeError) as error:
            raise BadTableError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None


def read_scores(path: str | Path) -> dict[str, float]:
    """A metric from a CSV with the columns `k` and `score`.

    Raises:
        BadTableError: the file is missing, or holds something else.
    """
    table = _table(Path(path), ["k", "score"])
    if (again := np.flatnonzero(table["k"].duplicated())).size:
        line = int(again[0])
        raise BadTableError(f"{path}, line {line + 2}: neuron {table['k'].iloc[line]!r} has a score already")
    return dict(zip(table["k"].to_numpy(str).tolist(), _numbers(table["score"], Path(path)).tolist(), strict=True))


def _table(path: Path, columns: list[str]) -> pd.DataFrame:
    if not path.is_file():
        raise BadTableError(f"{path}: cannot be read (no such file); give the folder that holds it")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, header=None)
        names = table.iloc[0].tolist()
        table = table.iloc[1:].reset_index(drop=True).set_axis(names, axis=1)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise BadTableError(f"{path}: cannot be read ({' '.join(str(error).split())[:160]})") from None
    if len(set(names)) < len(names):
        raise BadTableError(f"{path}: a column occurs twice ({max(names, key=names.count)!r}); remove one")
    if missing := [name for name in columns if name not in table.columns]:
        raise BadTableError(f"{path}: has no column {missing[0]!r} (it has {', '.join(map(repr, table.columns[:8]))})")
    if not len(table):
        raise BadTableError(f"{path}: has no rows")
    return table


def _numbers(column: pd.Series, path: Path) -> Float64[np.ndarray, " rows"]:
    """Empty cells are NaN."""
    found: Any = pd.to_numeric(column.where(column != "", "nan"), errors="coerce")
    values = np.array(found, dtype=np.float64)
    if (wrong := np.flatnonzero(~np.isfinite(values) & ~column.str.lower().isin(["", "nan"]).to_numpy())).size:
        what = "a finite number" if np.isinf(values[wrong[0]]) else "a number"
        raise BadTableError(
            f"{path}, line {wrong[0] + 2}: {str(column.name)!r} is {column.iloc[wrong[0]]!r}, not {what}"
        )
    return values


def _published(pairs: pd.DataFrame, x: np.ndarray, y: np.ndarray, path: Path) -> dict[str, dict[str, float]]:
    """`MS_x_dino` and `MS_y_dino` are the metric `MS dino`.

    Raises:
        BadTableError: a neuron has two scores of one metric.
    """
    found: dict[str, dict[str, float]] = {}
    for name in pairs.columns:
        if "_x_" not in name or (other := name.replace("_x_", "_y_")) not in pairs.columns:
            continue
        scores = found.setdefault(name.replace("_x_", " "), {})
        for neurons, column in ((x, name), (y, other)):
            for neuron, value in zip(neurons.tolist(), _numbers(pairs[column], path).tolist(), strict=True):
                if abs(scores.setdefault(neuron, value) - value) > 1e-6:
                    raise BadTableError(
                        f"{path}: neuron {neuron!r} has two scores in {column!r}, {scores[neuron]} and {value}"
                    )
    return found


def _top_images(path: Path) -> dict[str, list[str]]:
    if not path.is_file():
        return {}
    table = _table(path, ["k", "x_1"])
    images = [name for name in table.columns if name != "k"]
    return dict(zip(table["k"].tolist(), table[images].to_numpy(str).tolist(), strict=True))
