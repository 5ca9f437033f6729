"""The metric benchmark of sae-for-vlm: which of two neurons users called more focused, and which a metric prefers.

Its folder holds `pairs.csv` (1,000 pairs of neurons, the users' choice, two published scores of each), `top16_images.csv`
(the pictures that users saw) and `activations.csv` (each neuron on 50,000 pictures, from which new metrics are made).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64
from scipy.stats import norm

from sae_lens_meme.errors import BadTableError, DataError
from sae_lens_meme.evaluators.result import Interval, Measure, Quantity, Result, Section, nullable
from sae_lens_meme.storage import StepFolder, sha256_file, to_json

PAIRS, TOP_IMAGES, ACTIVATIONS = "pairs.csv", "top16_images.csv", "activations.csv"
SPARSITY = "fires on fewer pictures"
"""A trivial metric: of neurons and SAE latents, users may simply call the sparser one more focused."""
WIDTH = 0.1
"""Of the bins of differences, as in the paper's table."""
Scores = Mapping[str, float]
"""A metric: a score of each neuron; the larger is preferred."""

N_PAIRS, N_NEURONS = Quantity("n_pairs", "pairs that users judged"), Quantity("n_neurons", "neurons in them")
_NONE = "no pair has both scores"
SCORED = Quantity("n_scored", "pairs of which both neurons have a score; the others are left out", _NONE)
AGREEMENT = Quantity(
    "agreement",
    "share of pairs in which the metric prefers the neuron that most of three users chose; a tie counts half",
    _NONE,
)
BEYOND = Quantity(
    "minus_sparsity", f"agreement minus that of preferring the neuron that {SPARSITY}, the same pairs", _NONE
)
_INTERVAL = "Wilson's, with the sample size that a variance over pairs that share a neuron leaves (dyadic-robust)"
_DIFFERENCE = "normal, with the dyadic-robust variance of the paired difference"
COLUMNS = {
    "metric": "that is compared with users",
    "from": "least absolute difference of its scores in the bin",
    "to": "where the bin ends; the last one is open",
    "n_pairs": "pairs in the bin",
    "agreement": "share in which the metric prefers the neuron that users chose; a tie counts half; null without pairs",
    "low": f"low end of its 95 % interval: {_INTERVAL}",
    "high": f"high end of its 95 % interval: {_INTERVAL}",
}


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
        if (wrong := np.flatnonzero((is_x == is_y) | (x == y))).size:
            line = int(wrong[0])
            raise BadTableError(
                f"{folder / PAIRS}, line {line + 2}: R_user is {str(chosen[line])!r}, it must be one of the two neurons, "
                f"{x[line]} or {y[line]}"
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
        path = self.folder / ACTIVATIONS
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
                    yield name, values
        except (OSError, UnicodeDecodeError) as error:
            raise BadTableError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None

    def metric(self, score: Callable[[Float64[np.ndarray, " pictures"]], float]) -> dict[str, float]:
        """A metric made of the activations of each neuron alone."""
        return {name: score(values) for name, values in self.activations()}


def monosemanticity_of(vectors: Float[np.ndarray, "pictures d"]) -> Callable[[Float64[np.ndarray, " pictures"]], float]:
    """MS of Pach et al. 2025 under the embeddings of all pictures, in linear time; NaN where it has no weight.

    The sum over pairs of a_n a_m cos(n, m) is half of |sum a e|^2 minus the sum of a^2, e unit vectors.
    """
    x = np.asarray(vectors, np.float64)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    units = np.divide(x, norms, out=np.zeros_like(x), where=norms > 0)

    def score(activations: Float64[np.ndarray, " pictures"]) -> float:
        if len(activations) != len(units):
            raise DataError(f"user study: {len(units)} embeddings for activations on {len(activations)} pictures")
        span = activations.max() - activations.min()
        if span <= 0:
            return float("nan")
        a = (activations - activations.min()) / span
        squares = (a**2 * (norms[:, 0] > 0)).sum()
        weight = a.sum() ** 2 - (a**2).sum()
        return float((np.square(a @ units).sum() - squares) / weight) if weight > 0 else float("nan")

    return score


def sparsity(activations: Float64[np.ndarray, " pictures"]) -> float:
    """Share of the pictures on which a neuron does not fire."""
    return float((activations <= 0).mean())


def read_scores(path: str | Path) -> dict[str, float]:
    """A metric from a CSV with the columns `k` and `score`.

    Raises:
        BadTableError: the file is missing, or holds something else.
    """
    table = _table(Path(path), ["k", "score"])
    return dict(zip(table["k"].to_numpy(str).tolist(), _numbers(table["score"], Path(path)).tolist(), strict=True))


def user_agreement(study: UserStudy, metrics: Mapping[str, Scores]) -> Result:
    """How often each metric and the users prefer the same neuron of a pair.

    Pairs that share a neuron are not independent: variances add up the products of all pairs of pairs that share one
    (Aronow, Samii and Assenova 2015).

    Args:
        metrics: by name, a score of each neuron; the larger is preferred. With `SPARSITY` among them every other is also
            compared with it.

    Returns:
        A row for each metric, and a table of agreement by how far apart the metric puts the two neurons.

    Raises:
        DataError: there is no metric.
    """
    if not metrics:
        raise DataError("user study: there is no metric; give --scores or --embeds, or published scores in pairs.csv")
    section = Section(
        f"Agreement with users on which of two neurons is more focused, {len(study)} pairs",
        f"chance: 0.5; {SPARSITY}: what that alone gives on the same pairs",
    )
    measures, tables = [N_PAIRS(len(study)), N_NEURONS(len(study.neurons))], []
    agrees = {name: _agrees(study, scores) for name, scores in metrics.items()}
    for name, scores in metrics.items():
        known = ~np.isnan(agrees[name])
        value, interval = _share(study, agrees[name])
        rows = f"metric: {name}"
        at = name.replace(" ", "_")
        controls = [_constant("chance", 0.5)]
        measures.append(SCORED(int(known.sum()), at, rows=rows))
        if SPARSITY in metrics and name != SPARSITY:
            both = known & ~np.isnan(agrees[SPARSITY])
            rival = np.where(both, agrees[SPARSITY], np.nan)
            controls.append(AGREEMENT(_share(study, rival)[0], rows=SPARSITY).control(SPARSITY))
            measures.append(_beyond(study, agrees[name] - rival, at, rows))
        found = AGREEMENT(value, at, rows=rows, interval=interval)
        measures.append(found.row(name, *controls) if value is not None else found)
        tables.append(_by_distance(study, name, scores, agrees[name]))
    return Result(
        "user_study", section, tuple(measures), pd.concat(tables, ignore_index=True), COLUMNS, _verdict(measures)
    )


def compare_with_users(
    folder: str | Path,
    out: str | Path,
    *,
    embeds: Sequence[str | Path] = (),
    scores: Sequence[str | Path] = (),
    overwrite: bool = False,
) -> Result:
    """The command `user-study`: published scores of the study, sparsity, MS under other embeddings, and given scores.

    Args:
        folder: of the study.
        out: gets `user_study.json` and `user_study.parquet`.
        embeds: `.npy` files [pictures, d] in the order of `activations.csv`; each gives MS under it, named by its file.
        scores: CSV files with `k` and `score`; each is a metric, named by its file.

    Raises:
        BadTableError, DataError, StorageError: one line each, with what to do.
    """
    study = UserStudy.read(folder)
    given = [Path(file) for file in (*embeds, *scores)]
    inside = [study.folder / name for name in (PAIRS, ACTIVATIONS) if (study.folder / name).is_file()]
    if missing := next((file for file in given if not file.is_file()), None):
        raise BadTableError(f"{missing}: no such file")
    fingerprint = {"study": [sha256_file(file) for file in inside], "given": {f.name: sha256_file(f) for f in given}}
    metrics: dict[str, Scores] = dict(study.published)
    makers = {f"MS {Path(file).stem}": monosemanticity_of(_vectors(Path(file))) for file in embeds}
    if (study.folder / ACTIVATIONS).is_file():
        makers = {SPARSITY: sparsity, **makers}
        rows = [
            (name, {metric: make(values) for metric, make in makers.items()}) for name, values in study.activations()
        ]
        metrics |= {metric: {name: row[metric] for name, row in rows} for metric in makers}
    elif embeds:
        raise BadTableError(
            f"{study.folder / ACTIVATIONS}: no such file; --embeds needs the activations of the neurons"
        )
    metrics |= {Path(file).stem: read_scores(file) for file in scores}
    result = user_agreement(study, metrics)
    with StepFolder(out, "user-study", fingerprint, overwrite=overwrite) as step:
        if not step.complete:
            step.write("user_study.json", lambda path: path.write_text(to_json(result.to_dict()), encoding="utf-8"))
            step.write("user_study.parquet", lambda path: result.table.to_parquet(path, index=False))  # type: ignore[union-attr]
            step.finish(metrics=list(metrics))
    return result


def _vectors(path: Path) -> np.ndarray:
    try:
        vectors = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadTableError(
            f"{path}: is not an array ({' '.join(str(error).split())[:120]}); give .npy [pictures, d]"
        ) from None
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or not np.isfinite(vectors.astype(np.float64)).all():
        raise BadTableError(f"{path}: must be [pictures, d], finite; it is {getattr(vectors, 'shape', 'an archive')}")
    return vectors


def _agrees(study: UserStudy, scores: Scores) -> Float64[np.ndarray, " pairs"]:
    """1, 0, or a half for a tie; NaN without a score."""
    x, y = (np.array([scores.get(name, np.nan) for name in side], np.float64) for side in (study.x, study.y))
    prefers_x = np.where(x == y, 0.5, x > y)
    return np.where(np.isnan(x + y), np.nan, np.where(study.chose_x, prefers_x, 1 - prefers_x))


def _share(study: UserStudy, agrees: Float64[np.ndarray, " pairs"]) -> tuple[float | None, Interval]:
    known = ~np.isnan(agrees)
    n = int(known.sum())
    if not n:
        return None, Interval(None, None, _INTERVAL)
    p = float(agrees[known].mean())
    simple = p * (1 - p) / n
    inflated = _variance(study, np.where(known, agrees - p, 0.0), n) / simple if simple > 0 else 1.0
    size, z = n / max(inflated, 1.0), norm.ppf(0.975)
    middle, half = (p + z**2 / (2 * size)) / (1 + z**2 / size), z * np.sqrt(p * (1 - p) / size + z**2 / (4 * size**2))
    half /= 1 + z**2 / size
    return p, Interval(max(middle - half, 0.0), min(middle + half, 1.0), _INTERVAL)


def _variance(study: UserStudy, residuals: Float64[np.ndarray, " pairs"], n: int) -> float:
    """Of their mean: products of residuals over all pairs of pairs that have a neuron in common."""
    ends = np.stack([study.x, study.y])
    names, place = np.unique(ends, return_inverse=True)
    place = place.reshape(ends.shape)
    by_neuron = np.bincount(place.ravel(), np.tile(residuals, 2), minlength=len(names))
    same = np.unique(np.sort(place, axis=0), axis=1, return_inverse=True)[1].ravel()  # pairs of the same two neurons
    by_pair = np.bincount(same, residuals)
    return max(float((by_neuron**2).sum() - (by_pair**2).sum()), 0.0) / n**2


def _beyond(study: UserStudy, differences: Float64[np.ndarray, " pairs"], at: str, rows: str) -> Measure:
    known = ~np.isnan(differences)
    n = int(known.sum())
    if not n:
        return BEYOND(None, at, rows=rows)
    mean = float(differences[known].mean())
    half = norm.ppf(0.975) * np.sqrt(_variance(study, np.where(known, differences - mean, 0.0), n))
    return BEYOND(mean, at, rows=rows, interval=Interval(mean - half, mean + half, _DIFFERENCE))


def _constant(name: str, value: float) -> Any:
    return Measure(name, value, "a preference by the toss of a coin").control(name)


def _by_distance(study: UserStudy, metric: str, scores: Scores, agrees: np.ndarray) -> pd.DataFrame:
    """Bins of the absolute difference: 0.1 wide where scores lie within 1 of each other, else a tenth of the range."""
    x, y = (np.array([scores.get(name, np.nan) for name in side], np.float64) for side in (study.x, study.y))
    distance = np.abs(x - y)
    known = ~np.isnan(distance)
    most = distance[known].max() if known.any() else 0.0
    width = WIDTH if most <= 1 else most / 10
    n_bins = max(int(np.ceil(most / width - 1e-9)), 1)
    place = np.minimum((distance[known] / width).astype(int), n_bins - 1)
    rows = []
    for b in range(n_bins):
        mine = np.zeros(len(distance), bool)
        mine[np.flatnonzero(known)[place == b]] = True
        value, interval = _share(study, np.where(mine, agrees, np.nan))
        rows.append((metric, b * width, (b + 1) * width, int(mine.sum()), value, interval.low, interval.high))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    for name in ("agreement", "low", "high"):
        table[name] = nullable(table[name].to_numpy(np.float64))
    return table


def _verdict(measures: list[Measure]) -> str | None:
    """Of each metric: what it agrees on, and whether that is more than sparsity alone gives."""
    said = []
    for found in (m for m in measures if m.shown is not None and m.shown != SPARSITY):
        ends = found.interval
        beyond = next((m for m in measures if m.key == f"{found.key.split('/')[0]}/{BEYOND.key}"), None)
        text = f"{found.shown} and users agree on {found.value:.1%} of the pairs"
        text += (
            f" ({ends.low:.1%} to {ends.high:.1%})" if ends and ends.low is not None and ends.high is not None else ""
        )
        if beyond is not None and beyond.interval is not None and beyond.interval.low is not None:
            more = "more than" if beyond.interval.low > 0 else "not more than"
            text += f", {more} by preferring the neuron that {SPARSITY}"
        said.append(text)
    return f"{'; '.join(said)}." if said else None


def _table(path: Path, columns: list[str]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise BadTableError(f"{path}: cannot be read ({' '.join(str(error).split())[:160]})") from None
    if missing := [name for name in columns if name not in table.columns]:
        raise BadTableError(f"{path}: has no column {missing[0]!r} (it has {', '.join(table.columns[:8])})")
    if not len(table):
        raise BadTableError(f"{path}: has no rows")
    return table


def _numbers(column: pd.Series, path: Path) -> Float64[np.ndarray, " rows"]:
    """Empty cells are NaN."""
    values = pd.to_numeric(column.where(column != "", None), errors="coerce").to_numpy(np.float64)
    if (wrong := np.flatnonzero(np.isnan(values) & ~column.str.lower().isin(["", "nan"]).to_numpy())).size:
        raise BadTableError(f"{path}, line {wrong[0] + 2}: {column.name} is {column.iloc[wrong[0]]!r}, not a number")
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
                        f"{path}: neuron {neuron} has two scores in {column}, {scores[neuron]} and {value}"
                    )
    return found


def _top_images(path: Path) -> dict[str, list[str]]:
    if not path.is_file():
        return {}
    table = _table(path, ["k", "x_1"])
    images = [name for name in table.columns if name != "k"]
    return dict(zip(table["k"].tolist(), table[images].to_numpy(str).tolist(), strict=True))
