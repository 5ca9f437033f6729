"""The Standard Question Set on a model that reads a picture and a text: latents of every picture under every prompt.

The model is a function that gives latents, so that any hooked model will do. Read the latent at the last position of the
prompt, or at generated ones: where the picture comes first, image positions do not know the question, and a latent that
is read there is visual by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int
from scipy import sparse

from sae_lens_meme.config import QUESTIONS, read_yaml
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.question_set.compute import CLASSES, TERMS, Cells, TwoByTwo, effects
from sae_lens_meme.evaluators.question_set.quantities import CLASS_WHAT, LABELS, explained, table_of
from sae_lens_meme.evaluators.result import Interval, Measure, Quantity, Result, Section, nullable
from sae_lens_meme.options import check_keys

LatentsOf = Callable[[Sequence[Any], str], Any]
"""Pictures and a prompt to latents, [pictures, d_sae], dense or sparse."""

N_PICTURES, N_PROMPTS = Quantity("n_pictures", "pictures of the grid"), Quantity("n_prompts", "prompts of the grid")
N_ITEMS = Quantity(
    "n_items", "pairs of pictures under a pair of prompts each; a picture is in one pair, which has a prompt once"
)
N_LATENTS = Quantity("n_latents", "latents that fire in enough items: these are classed")
_TOO_RARE = "no latent fires in enough items"
COUNTS = {name: Quantity(f"n_{name}", f"latents: {what}", _TOO_RARE) for name, what in CLASS_WHAT.items()}
SHARES = {
    name: Quantity(f"share_{name}", f"share of n_latents: {what}", _TOO_RARE) for name, what in CLASS_WHAT.items()
}
OF_GRID = {
    f"{term}_share_of_grid": f"{term} share of the sum of squares of the whole grid about its mean (these pictures and prompts, "
    "no inference to others); null where the latent is the same in all cells"
    for term in TERMS
}


class Grid(NamedTuple):
    """Latents of every picture under every prompt: all prompts of the first picture, then of the second, and so on."""

    cells: Latents
    n_pictures: int
    prompts: tuple[str, ...]

    def rows(self, picture: np.ndarray, prompt: np.ndarray) -> Latents:
        """The cells of these pictures and prompts."""
        return self.cells.rows(picture * len(self.prompts) + prompt)


def read_questions(path: str | Path = QUESTIONS) -> list[str]:
    """Questions from a YAML file, default those that come with the package.

    Raises:
        ConfigError: the file is not there, or holds no list of different questions under `questions`.
    """
    given = read_yaml(path)
    check_keys(str(path), given, ("questions",))
    questions = given.get("questions")
    if not isinstance(questions, list) or not all(isinstance(q, str) and q.strip() for q in questions):
        raise ConfigError(f"{path}: questions is {questions!r}; give a list of questions")
    if len(questions) < 2 or len(set(questions)) < len(questions):
        raise ConfigError(f"{path}: give two questions or more, each once")
    return questions


def ask(latents_of: LatentsOf, pictures: Sequence[Any], prompts: Sequence[str], *, batch_size: int = 16) -> Grid:
    """Every prompt of every picture.

    Args:
        latents_of: a batch of pictures and one prompt to latents.

    Raises:
        DataError: it does not give one row per picture.
    """
    if not len(pictures) or not prompts:
        raise DataError("question set: give one picture and one prompt or more")
    columns = []
    for prompt in prompts:
        parts = []
        for start in range(0, len(pictures), batch_size):
            batch = pictures[start : start + batch_size]
            parts.append(sparse.csr_matrix(latents_of(batch, prompt)))
            if parts[-1].shape[0] != len(batch):
                raise DataError(
                    f"question set: {parts[-1].shape[0]} rows of latents for {len(batch)} pictures; give one each"
                )
        columns.append(sparse.vstack(parts, format="csr"))
    n, q = len(pictures), len(prompts)
    by_picture = np.arange(n * q).reshape(q, n).T.ravel()  # prompt by prompt is how they were read
    read: Any = sparse.vstack(columns, format="csr")
    return Grid(Latents.from_csr(read[by_picture]), n, tuple(prompts))


_BLOCK = 1024


def grid_shares(grid: Grid) -> Float64[np.ndarray, "3 d_sae"]:
    """Shares of picture, prompt and interaction in the sum of squares of the two-way table; NaN where it is constant."""
    z, found = grid.cells.csc(), []
    for start in range(0, grid.cells.d_sae, _BLOCK):
        table = (
            z[:, start : start + _BLOCK].toarray().astype(np.float64).reshape(grid.n_pictures, len(grid.prompts), -1)
        )
        mean = table.mean((0, 1), keepdims=True)
        image, text = table.mean(1, keepdims=True) - mean, table.mean(0, keepdims=True) - mean
        both = table - mean - image - text
        squares = np.stack([np.square(np.broadcast_to(part, table.shape)).sum((0, 1)) for part in (image, text, both)])
        total = squares.sum(axis=0)
        constant = total <= 1e-12 * np.square(table).sum((0, 1))
        found.append(np.divide(squares, total, out=np.full_like(squares, np.nan), where=~constant))
    return np.concatenate(found, axis=1)


class GridItems(NamedTuple):
    """Items for `effects`: two pictures under two prompts each."""

    cells: Cells
    pair: Int[np.ndarray, " items"]
    """The pair of pictures of each item: items of one pair are not independent evidence."""


def grid_items(grid: Grid, seed: int = 0, *, drawn: Collection[str] = TERMS[:2]) -> GridItems:
    """Disjoint pairs of pictures, each under disjoint pairs of prompts that are drawn for it.

    Args:
        drawn: without "text" the two prompts of the grid are two fixed conditions, in their order.

    Raises:
        DataError: fewer than four pictures or two prompts; or more than two where they are fixed.
    """
    q = len(grid.prompts)
    if grid.n_pictures < 4 or q < 2:
        raise DataError(f"question set: {grid.n_pictures} pictures x {q} prompts; give 4 x 2 or more")
    if "text" not in drawn and q != 2:
        raise DataError(f"question set: {q} prompts; fixed conditions are two")
    rng, n_pairs, each = np.random.default_rng(seed), grid.n_pictures // 2, q // 2
    a, b = rng.permutation(grid.n_pictures)[: 2 * n_pairs].reshape(2, n_pairs).repeat(each, axis=1)
    order = np.tile(np.arange(q), (n_pairs, 1))
    order = rng.permuted(order, axis=1) if "text" in drawn else order
    first, second = order[:, : 2 * each].reshape(-1, 2).T
    cells = Cells(grid.rows(a, first), grid.rows(a, second), grid.rows(b, first), grid.rows(b, second))
    return GridItems(cells, np.arange(n_pairs).repeat(each))


def standard_question_set(
    grid: Grid,
    *,
    controls: Mapping[str, Grid] | None = None,
    drawn: Collection[str] = TERMS[:2],
    min_items: int = 10,
    n_bootstrap: int = 200,
    seed: int = 0,
) -> Result:
    """Whether picture, prompt or both together decide each latent, as `QuestionSet` does for fused memes.

    Classes are of the intervals of the variance shares over items. They hold for prompts like these: the choice of the
    prompts themselves is not in the intervals.

    Args:
        controls: grids of other units of the same hook, such as raw dimensions or random directions.
        drawn: ("image", "text") where prompts are draws from a set; ("image",) for two fixed prompts.
        min_items: latents that fire in fewer items are left out.

    Raises:
        DataError: the grid is too small.
    """
    cells, pair = grid_items(grid, seed, drawn=drawn)
    of = {"": cells, "permuted": _permuted(cells, seed)}
    of |= {name: grid_items(other, seed, drawn=drawn).cells for name, other in (controls or {}).items()}
    found = {
        name: effects(part, drawn=drawn, min_items=min_items, n_bootstrap=n_bootstrap, groups=pair, seed=seed)
        for name, part in of.items()
    }
    here = found[""]
    items = f"{pair[-1] + 1} pairs of pictures, {here.n_items} items of two of {len(grid.prompts)} prompts"
    section = Section(
        f"Standard Question Set: share of {len(here.latents)} latents that the picture decides, the question, or only both together",
        f"{items}; permuted: nothing tells picture from question; intervals are over pictures, not over prompts",
    )
    sizes = (grid.n_pictures, len(grid.prompts), here.n_items, len(here.latents))
    measures = [q(n) for q, n in zip((N_PICTURES, N_PROMPTS, N_ITEMS, N_LATENTS), sizes, strict=True)]
    measures += _counted(found, items, n_bootstrap)
    table = table_of(here)
    for name, shares in zip(OF_GRID, grid_shares(grid), strict=True):
        table[name] = nullable(shares[here.latents])
    known = [name for name in table.columns if name not in OF_GRID]
    resampled = f"95 % percentile bootstrap over pairs of pictures, {n_bootstrap} resamples"
    columns = explained(known, resampled) | OF_GRID
    return Result("question_set", section, tuple(measures), table, columns, _verdict(here, found))


def _permuted(cells: Cells, seed: int) -> Cells:
    """Each item's four cells in a random order, the same for all latents."""
    n = cells.aa.n_samples
    order = np.random.default_rng(seed).permuted(np.arange(4 * n).reshape(4, n), axis=0)
    joined = Latents.concatenate(list(cells))
    return Cells(*(joined.rows(rows) for rows in order))


def _counted(found: Mapping[str, TwoByTwo], items: str, n_bootstrap: int) -> list[Measure]:
    """Counts and shares of every class; those of the SAE are rows."""
    how = f"{n_bootstrap} resamples of the pairs: the spread of the count as each latent's interval moves"
    measures = []
    for i, name in enumerate(CLASS_WHAT):
        shares = {}
        for group, one in found.items():
            m, n = len(one.latents), int(one.counts[i])
            ends = one.counts_interval[:, i] if one.counts_interval is not None and m and not group else None
            interval = None if ends is None else Interval(ends[0] / m, ends[1] / m, how)
            measures.append(COUNTS[name](n, group, rows=items))
            shares[group] = SHARES[name](n / m if m else None, group, rows=items, interval=interval)
        beside = [share.control(group) for group, share in shares.items() if group and share.value is not None]
        if shares[""].value is not None:
            n, m = int(found[""].counts[i]), len(found[""].latents)
            shares[""] = shares[""].row(f"{LABELS[name]} ({n} of {m} latents)", *beside)
        measures += shares.values()
    return measures


def _verdict(here: TwoByTwo, found: Mapping[str, TwoByTwo]) -> str | None:
    """Beside the cells permuted, and beside random directions where they were given."""
    m = len(here.latents)
    if not m:
        return None
    visual, textual, both = (int(n) for n in here.counts[: len(CLASSES)])
    by_chance = int(found["permuted"].counts[:2].sum())
    said = (
        f"{visual} of {m} latents follow the picture, {textual} the question, {both} need both together; with cells "
        f"permuted {by_chance} would follow one side"
    )
    if (random := found.get("random")) is not None and len(random.latents):
        shares = " %, ".join(f"{100 * n / len(random.latents):.0f}" for n in random.counts[: len(CLASSES)])
        said += f"; of random directions {shares} % do"
    return f"{said}."
