"""Describes a corpus: one pass over its columns, one over the headers of its pictures."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from itertools import combinations
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset, Image
from PIL import Image as Pillow
from scipy.stats import false_discovery_control, random_table

from sae_lens_meme.corpus.build import all_rows, caption_of
from sae_lens_meme.errors import DataError
from sae_lens_meme.labels import SPLITS, is_label_column
from sae_lens_meme.progress import progress_bar

CONTEXT = 77
"""Tokens that CLIP reads of a caption, its first and last among them."""
CUT = 0.25
"""A centre crop that loses more than this share of a picture is counted."""
_COLUMNS = ("id", "source", "split", "text", "text_origin", "image")
_SIDEWAYS = (5, 6, 7, 8)
_ORIENTATION = 274
_BATCH = 256


@dataclass(frozen=True)
class DescriptionTable:
    """One table: a row is a list of cells in the order of the columns; None is undefined."""

    name: str
    title: str
    columns: list[str]
    rows: list[list[Any]]
    conclusion: str

    def records(self) -> list[dict[str, Any]]:
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


@dataclass(frozen=True)
class Description:
    """The tables, and the counts behind the histograms of the figure."""

    tables: dict[str, DescriptionTable]
    histograms: dict[str, dict[str, list[float]]]
    """By name `edges` and `counts`."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON: of each table its rows as records."""
        tables = {name: {**asdict(table), "rows": table.records()} for name, table in self.tables.items()}
        return {"tables": tables, "histograms": self.histograms}


def percent(part: float, whole: float) -> str:
    """A share as text; a small one is not rounded to zero."""
    share = part / whole if whole else 0.0
    return "under 0.1%" if 0 < share < 0.001 else f"{share:.1%}" if share < 0.1 else f"{share:.0%}"


def describe_corpus(corpus: Any, *, progress: bool = True) -> Description:
    """Count what a corpus holds.

    Args:
        corpus: the result of the `corpus` step, or a `DatasetDict` or `Dataset` of its columns.

    Raises:
        StorageError: the folder is not a finished corpus.
        DataError: a column is missing, or there are no memes.
    """
    rows = all_rows(corpus)
    if missing := [name for name in _COLUMNS if name not in rows.column_names]:
        raise DataError(f"corpus: has no column {', '.join(missing)}; give the result of 'corpus'")
    if not len(rows):
        raise DataError("corpus: has no memes; build it again")
    memes: Any = pd.DataFrame(rows.remove_columns("image").with_format(None).to_pandas())
    memes["caption"] = [caption_of(meme) for meme in memes[["text", "text_origin"]].to_dict("records")]
    memes["source"] = memes["source"].fillna("(none)")
    group = pd.factorize(memes["group" if "group" in memes else "id"])[0]
    memes["group"] = np.where(group < 0, -1 - np.arange(len(memes)), group)  # a meme without a group is its own
    labels = [name for name in rows.column_names if is_label_column(name)]
    sizes = _sizes(rows, progress)
    captioned = memes[memes["caption"].notna()]
    lengths = captioned["caption"].map(_token_counts(captioned["caption"].unique())).to_numpy(np.int64)
    tables = [
        _rows(memes),
        _known(memes, labels),
        cooccurrence(memes, labels),
        _captions(captioned, lengths, len(memes)),
        _pictures(memes, sizes),
    ]
    aspects = np.log2(sizes[:, 1] / sizes[:, 0])
    histograms = {
        "tokens": _histogram(np.minimum(lengths, 2 * CONTEXT), np.arange(2, 2 * CONTEXT + 4, 3)),
        "aspect": _histogram(np.clip(aspects, -2, 2), np.linspace(-2.05, 2.05, 42)),
    }
    return Description({table.name: table for table in tables}, histograms)


def _rows(memes: pd.DataFrame) -> DescriptionTable:
    """Memes by source and split."""
    splits = [*SPLITS, *sorted(set(memes["split"]) - set(SPLITS))]
    rows = [
        [source, len(mine), mine["group"].nunique(), *(int((mine["split"] == split).sum()) for split in splits)]
        for source, mine in memes.groupby("source")
    ]
    untested = [row[0] for row in rows if row[3 + splits.index("test")] == 0]
    groups = memes["group"].nunique()
    conclusion = (
        f"{len(memes):,} memes are {groups:,} independent groups (same picture, same caption, or the column group): "
        "intervals must count groups. "
        + (f"No test memes: {', '.join(untested)}." if untested else "Every source has test memes.")
    )
    return DescriptionTable("rows", "Memes by source", ["source", "memes", "groups", *splits], rows, conclusion)


def _known(memes: pd.DataFrame, labels: list[str]) -> DescriptionTable:
    """How many memes of each source have each label, and a caption."""
    rows = []
    for source, mine in memes.groupby("source"):
        known = [int(mine[label].notna().sum()) for label in labels]
        rows.append([source, len(mine), int(mine["caption"].notna().sum()), *known])
    partly = [label for label in labels if 0 < memes[label].notna().sum() < len(memes)]
    never = [label for label in labels if not memes[label].notna().any()]
    alone = [label for label in labels if memes.loc[memes[label].notna(), "source"].nunique() == 1]
    conclusion = (
        (
            f"{len(partly)} of {len(labels)} labels are missing on some memes: missing is not negative, so that a score "
            "counts only memes where the label is known"
            if partly
            else f"Each of {len(labels)} labels is known on every meme or on none"
        )
        + (f"; known in one source only: {', '.join(alone)}" if alone else "")
        + (f"; never known: {', '.join(never)}" if never else "")
        + "."
    )
    return DescriptionTable(
        "known", "Memes with a caption, and with each label", ["source", "memes", "caption", *labels], rows, conclusion
    )


def _captions(captioned: pd.DataFrame, tokens: np.ndarray, memes: int) -> DescriptionTable:
    rows = []
    for source, places in captioned.reset_index(drop=True).groupby("source").groups.items():
        texts, mine = captioned["caption"].iloc[places], tokens[np.asarray(places)]
        letters = texts.str.len()
        rows.append(
            [
                *(source, len(texts), int(texts.nunique()), float(letters.median()), int(letters.max())),
                *(float(np.median(mine)), float(np.percentile(mine, 95)), int(mine.max()), int((mine > CONTEXT).sum())),
            ]
        )
    beyond = int((tokens > CONTEXT).sum())
    read_by_ocr = int((captioned["text_origin"] == "ocr").sum())
    conclusion = (
        f"{beyond:,} of {len(tokens):,} captions ({percent(beyond, len(tokens))}) are longer than the {CONTEXT} tokens that "
        f"CLIP reads: the rest is lost. {memes - len(captioned):,} memes have no caption"
        + (" (`ocr` reads them from the picture)" if len(captioned) < memes else "")
        + (f"; {read_by_ocr:,} were read by OCR" if read_by_ocr else "")
        + "."
    )
    columns = ["source", "captions", "distinct", "letters", "most letters", "tokens", "95 % of tokens", "most tokens"]
    return DescriptionTable("captions", "Length of captions (medians)", [*columns, f"over {CONTEXT}"], rows, conclusion)


def _pictures(memes: pd.DataFrame, sizes: np.ndarray) -> DescriptionTable:
    width, height = sizes.T
    lost = 1 - sizes.min(axis=1) / sizes.max(axis=1)
    rows = []
    for source in sorted(set(memes["source"])):
        mine = (memes["source"] == source).to_numpy()
        rows.append(
            [
                *(source, int(mine.sum()), float(np.median(width[mine])), float(np.median(height[mine]))),
                *(float(np.median(height[mine] / width[mine])), int((lost[mine] > CUT).sum())),
                float(lost[mine].mean()),
            ]
        )
    cut = int((lost > CUT).sum())
    tall = int(((lost > CUT) & (height > width)).sum())
    conclusion = (
        f"A centre crop, CLIP's default, cuts more than a quarter off {cut:,} of {len(lost):,} pictures "
        f"({percent(cut, len(lost))}; {tall:,} of them tall, where it takes the lines at the top and the bottom): "
        + ("compare with embed --resize pad or squash." if cut else "it loses little here.")
    )
    columns = ["source", "pictures", "width", "height", "height / width", "over a quarter cut", "mean share cut"]
    return DescriptionTable("pictures", "Size of pictures in pixels (medians)", columns, rows, conclusion)


def _sizes(rows: Dataset, progress: bool) -> np.ndarray:
    """Width and height of every picture, upright, from its header, int64 [memes, 2]."""
    pictures = rows.select_columns(["image"]).cast_column("image", Image(decode=False))
    found = []
    with progress_bar("describe", len(rows), unit="pictures", show=progress) as advance:
        for batch in pictures.iter(_BATCH):
            found += [_size(picture["bytes"]) for picture in batch["image"]]  # pyright: ignore[reportArgumentType, reportCallIssue]
            advance(len(batch["image"]))  # pyright: ignore[reportArgumentType, reportCallIssue]
    return np.array(found, dtype=np.int64)


def _size(data: bytes) -> tuple[int, int]:
    image = Pillow.open(io.BytesIO(data))
    try:
        sideways = image.getexif().get(_ORIENTATION) in _SIDEWAYS
    except Exception:  # damaged EXIF beside sound pixels, as `open_image` has it
        sideways = False
    width, height = image.size
    return (height, width) if sideways else (width, height)


def _token_counts(captions: Any) -> dict[str, int]:
    """Tokens of each caption by CLIP's own vocabulary, with the two that begin and end it."""
    from open_clip.tokenizer import SimpleTokenizer  # it imports torch

    tokenizer = SimpleTokenizer()
    return {caption: len(tokenizer.encode(caption)) + 2 for caption in captions}


def _histogram(x: np.ndarray, edges: np.ndarray) -> dict[str, list[float]]:
    counts, edges = np.histogram(x, edges)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


DRAWS, SIGNIFICANT = 199, 0.05
"""Permutations at least, and the q up to which labels go together."""
_PAIR_COLUMNS = ["labels", "memes with both", "groups", "V", "V permuted", "p", "q"]


def cooccurrence(memes: pd.DataFrame, labels: list[str]) -> DescriptionTable:
    """Cramér's V of every two labels, on one meme of each group, beside V where one of them is permuted within sources.

    As many permutations as let a single pair be significant among all.
    """
    rng, named = np.random.default_rng(0), list(combinations(labels, 2))
    draws = max(DRAWS, ceil(len(named) / SIGNIFICANT))
    pairs = [_pair(memes, a, b, draws, rng) for a, b in named]
    rows = [row for row in pairs if row[1]]
    tested = [row for row in rows if row[5] is not None]
    for row, q in zip(tested, false_discovery_control([row[5] for row in tested]) if tested else [], strict=True):
        row[6] = float(q)
    beyond = [row for row in tested if row[6] <= SIGNIFICANT]
    strongest = max(beyond, key=lambda row: row[3] - row[4], default=None)
    never, constant = len(pairs) - len(rows), len(rows) - len(tested)
    conclusion = (
        f"{len(beyond)} of {len(tested)} pairs of labels go together within their sources (q <= {SIGNIFICANT})"
        + (f", most {strongest[0]}: a score for one is partly a score for the other" if strongest is not None else "")
        + (f"; of {constant} pairs one label has a single value where both are known" if constant else "")
        + (f"; {never} pairs are on no meme together" if never else "")
        + "."
    )
    return DescriptionTable("cooccurrence", "Labels that go together (Cramér's V)", _PAIR_COLUMNS, rows, conclusion)


def _pair(memes: pd.DataFrame, a: str, b: str, draws: int, rng: np.random.Generator) -> list[Any]:
    both: Any = memes[memes[a].notna() & memes[b].notna()]
    one = both.sort_values("id").drop_duplicates("group")  # copies are no independent evidence
    row: list[Any] = [f"{a}, {b}", len(both), len(one), None, None, None, None]
    if not len(one):
        return row
    x, y, source = (pd.factorize(one[name], sort=True)[0] for name in (a, b, "source"))
    if min(x.max(), y.max()) == 0:  # one value only
        return row
    shape = (source.max() + 1, x.max() + 1, y.max() + 1)
    of_source = np.bincount(np.ravel_multi_index((source, x, y), shape), minlength=np.prod(shape)).reshape(shape)
    permuted = np.zeros((draws, *shape[1:]))
    for table in of_source:  # what a permutation within a source makes of its table: another of the same margins
        permuted += random_table(table.sum(axis=1), table.sum(axis=0)).rvs(draws, random_state=rng)
    v = _v(np.concatenate([of_source.sum(axis=0)[None], permuted]))
    observed, by_chance = v[0], v[1:]
    p = (1 + int((by_chance >= observed).sum())) / (1 + draws)
    return [*row[:3], float(observed), float(by_chance.mean()), p, None]


def _v(tables: np.ndarray) -> np.ndarray:
    """Cramér's V of each of many tables [tables, rows, columns] of the same margins, none of them 0."""
    n, expected = tables[0].sum(), np.outer(tables[0].sum(axis=1), tables[0].sum(axis=0)) / tables[0].sum()
    chi2 = ((tables - expected) ** 2 / expected).sum(axis=(1, 2))
    return np.sqrt(chi2 / n / (min(expected.shape) - 1))
