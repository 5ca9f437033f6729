"""Pairs of memes with the same picture or caption (or of a file), and for each question those that differ in a concept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int, UInt8
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import BadTableError, DataError
from sae_lens_meme.evaluators.concepts import Concept, ConceptLabels, concepts_of
from sae_lens_meme.evaluators.confounders.compute import Oriented
from sae_lens_meme.hooks.names import IMAGE_EMBED, TEXT_EMBED
from sae_lens_meme.labels import is_missing
from sae_lens_meme.metrics.association import FALSE, TRUE, UNKNOWN

PICTURE, CAPTION, GIVEN = "picture", "caption", "given"
"""What the memes of a pair share; given: a file names the pair, and neither is known to be shared."""
IMAGE_HASH = "image_sha256"
MOST_SHARED = 50
"""A picture or caption of more memes than these makes no pairs: "lol" is on memes that have nothing else in common."""


@dataclass(frozen=True, eq=False)
class ConfounderPairs:
    """Pairs of rows within a split, whatever their labels. The first of a pair has the smaller id."""

    first: Int[np.ndarray, " pairs"]
    second: Int[np.ndarray, " pairs"]
    kind: np.ndarray
    component: Int[np.ndarray, " n"]
    """Of every meme: memes that a chain of pairs joins, or that are of one group, are not independent evidence."""
    across: Bool[np.ndarray, " pairs"]
    """The two are of different splits."""
    copies: int
    """Pairs left out because they share picture and caption: nothing could tell these apart."""
    crowded: int
    """Memes whose picture or caption is shared by more than MOST_SHARED."""
    unknown: int
    """Pairs of a file left out because these embeddings lack one of the two."""
    how: Mapping[str, str]
    """How each kind was found."""


class _Shared(NamedTuple):
    code: Int[np.ndarray, " n"]
    usable: Bool[np.ndarray, " n"]
    """False where the meme has no picture or caption."""
    how: str


def find_pairs(embeddings: Embeddings, given: Path | None = None) -> ConfounderPairs:
    """All pairs that share one side, or those of a file whose first two columns are ids.

    Raises:
        BadTableError: the file cannot be read, or names no pair of these memes.
    """
    sides = {kind: side for kind, side in ((PICTURE, _pictures(embeddings)), (CAPTION, _captions(embeddings))) if side}
    rank = np.empty(len(embeddings), np.int64)
    rank[embeddings.by_id] = np.arange(len(embeddings))
    crowded = unknown = 0
    if given is not None:
        found, unknown = _read(given, embeddings)
        parts = [(found, np.full(len(found), GIVEN, dtype=object))]
    else:
        parts = []
        for kind, side in sides.items():
            found, many = _within(side, embeddings.by_id)
            crowded += many
            parts.append((found, np.full(len(found), kind, dtype=object)))
    edges = np.concatenate([edges for edges, _ in parts] or [np.empty((0, 2), np.int64)])
    kinds = np.concatenate([kind for _, kind in parts] or [np.empty(0, dtype=object)])
    turned = rank[edges[:, 0]] > rank[edges[:, 1]]
    edges[turned] = edges[turned, ::-1]
    same = {kind: side.code[edges[:, 0]] == side.code[edges[:, 1]] for kind, side in sides.items()}
    for kind, shared in same.items():
        kinds[(kinds == GIVEN) & shared] = kind
    copies = np.logical_and.reduce(list(same.values())) if len(same) == 2 else np.zeros(len(edges), bool)
    component, n_copies = _components(edges, embeddings), len(np.unique(edges[copies], axis=0))  # each is found twice
    edges, kinds = edges[~copies], kinds[~copies]
    across = embeddings.splits[edges[:, 0]] != embeddings.splits[edges[:, 1]]
    how = (
        {kind: side.how for kind, side in sides.items()}
        if given is None
        else dict.fromkeys(sides, f"pairs of {given.name}")
    )
    return ConfounderPairs(edges[:, 0], edges[:, 1], kinds, component, across, n_copies, crowded, unknown, how)


def _pictures(embeddings: Embeddings) -> _Shared | None:
    if IMAGE_HASH in embeddings.dataset.column_names:
        hashes = pd.Series(embeddings.dataset[IMAGE_HASH][:], dtype=object)
        known = ~hashes.map(is_missing).to_numpy(dtype=bool)
        if known.any():
            code = np.where(known, pd.factorize(hashes)[0], -1 - np.arange(len(hashes)))
            return _Shared(code, known, f"the same {IMAGE_HASH}")
    return _equal_vectors(embeddings, IMAGE_EMBED)


def _captions(embeddings: Embeddings) -> _Shared | None:
    if embeddings.texts is not None:
        captions = [" ".join(("" if is_missing(text) else text).casefold().split()) for text in embeddings.texts]
        known = np.array([bool(caption) for caption in captions])
        if known.any():
            code = pd.factorize(np.array(captions, dtype=object))[0]
            return _Shared(code, known, "the same caption, ignoring case and spaces")
    return _equal_vectors(embeddings, TEXT_EMBED)


def _equal_vectors(embeddings: Embeddings, hook: str) -> _Shared | None:
    if hook not in embeddings.hooks:
        return None
    digests = [hashlib.blake2b(row.tobytes()).digest() for _, batch in embeddings.batches(hook) for row in batch]
    code = pd.factorize(np.array(digests, dtype=object))[0]
    return _Shared(code, np.ones(len(code), bool), f"{hook} equal bit for bit")


def _within(side: _Shared, by_id: np.ndarray) -> tuple[Int[np.ndarray, "pairs 2"], int]:
    """All pairs of memes with the same code, and the number of memes whose code too many have."""
    members = by_id[side.usable[by_id]]
    members = members[np.argsort(side.code[members], kind="stable")]
    _, starts, sizes = np.unique(side.code[members], return_index=True, return_counts=True)
    parts = [np.empty((0, 2), np.int64)]
    for size in np.unique(sizes[(sizes > 1) & (sizes <= MOST_SHARED)]):
        families = members[starts[sizes == size][:, None] + np.arange(size)]
        parts.append(families[:, np.stack(np.triu_indices(size, 1), axis=1)].reshape(-1, 2))
    return np.concatenate(parts), int(sizes[sizes > MOST_SHARED].sum())


def _components(edges: Int[np.ndarray, "pairs 2"], embeddings: Embeddings) -> Int[np.ndarray, " n"]:
    """Numbered in the order of the ids."""
    n, groups = len(embeddings), embeddings.groups
    start, end = np.r_[edges[:, 0], np.arange(n)], np.r_[edges[:, 1], n + groups]
    graph = csr_matrix((np.ones(len(start), bool), (start, end)), shape=(2 * n, 2 * n))
    found, component = connected_components(graph, directed=False)[1][:n], np.empty(n, np.int64)
    component[embeddings.by_id] = pd.factorize(found[embeddings.by_id])[0]
    return component


def _read(file: Path, embeddings: Embeddings) -> tuple[Int[np.ndarray, "pairs 2"], int]:
    row = {str(name): i for i, name in enumerate(embeddings.ids)}
    pairs = {frozenset((row[a], row[b])): None for a, b in _ids(file) if a in row and b in row and a != b}
    unknown = sum(a not in row or b not in row for a, b in _ids(file))
    if not pairs:
        raise BadTableError(
            f"{file}: names no pair of two memes of these embeddings; its first two columns must be ids"
        )
    return np.array([sorted(pair) for pair in pairs], dtype=np.int64), unknown


def _ids(file: Path) -> Iterator[tuple[str, str]]:
    try:
        if file.suffix == ".parquet":
            table = pd.read_parquet(file)
        else:
            separator = "\t" if file.suffix == ".tsv" else ","
            table = pd.read_csv(file, dtype=str, keep_default_na=False, sep=separator)
    except FileNotFoundError:
        raise BadTableError(f"{file}: no such file; give a CSV or Parquet file with two columns of ids") from None
    except Exception as error:  # pandas and Arrow raise a dozen unrelated classes of damaged files
        reason = next(iter(str(error).splitlines()), "")[:200]
        raise BadTableError(
            f"{file}: cannot be read ({reason}); give a CSV or Parquet file with two columns of ids"
        ) from None
    if table.shape[1] < 2:
        raise BadTableError(f"{file}: has {table.shape[1]} column(s); two columns of ids are needed")
    yield from zip(table.iloc[:, 0].astype(str), table.iloc[:, 1].astype(str), strict=True)


FEWEST = 5
"""Pairs that choose and held-out pairs, of each of which a set needs this many."""


@dataclass(frozen=True, eq=False)
class Question:
    """Of the memes that share one side: which of the two is the concept true of?"""

    concept: str
    shared: str
    selection: Oriented
    """Pairs of train memes, and of validation memes where test memes score."""
    held_out: Oriented

    @property
    def key(self) -> str:
        return f"{self.concept}/{self.shared}"

    def rows(self) -> Int[np.ndarray, " rows"]:
        return np.concatenate([rows for pairs in (self.selection, self.held_out) for rows in (pairs.true, pairs.false)])

    def placed(self, rows: Int[np.ndarray, " memes"]) -> Question:
        """The same with places in these ascending rows."""
        selection, held_out = (
            Oriented(np.searchsorted(rows, pairs.true), np.searchsorted(rows, pairs.false))
            for pairs in (self.selection, self.held_out)
        )
        return replace(self, selection=selection, held_out=held_out)


@dataclass(frozen=True, eq=False)
class Questions:
    """Those with enough pairs, and what was left out."""

    asked: tuple[Question, ...]
    """Their pairs are places in `rows`."""
    rows: Int[np.ndarray, " memes"]
    """Every meme of a pair that is used."""
    component: Int[np.ndarray, " memes"]
    pairs: ConfounderPairs
    split: str
    across: int
    """Pairs that differ in a concept and lie in two splits."""
    too_few: tuple[str, ...]

    @classmethod
    def of(cls, embeddings: Embeddings, concepts: Iterable[str | Concept] | None, given: Path | None) -> Questions:
        """Raises DataError where no set has enough pairs; the message says what there is."""
        pairs = find_pairs(embeddings, given)
        split, held_out = embeddings.held_out()
        if split is None:
            raise DataError("no memes are held out, so that no pair could score a latent; give the memes splits")
        labels = ConceptLabels.of(embeddings, concepts_of(embeddings, concepts))
        in_held_out, selects = np.zeros((2, len(embeddings)), bool)
        in_held_out[held_out] = True
        selects[np.union1d(embeddings.rows("train"), embeddings.rows("validation") if split == "test" else [])] = True
        asked, too_few, differ = [], [], np.zeros(len(pairs.first), bool)
        for name, codes in _distinct(labels):
            mine = _differ(codes, pairs)
            differ |= mine
            for shared in (PICTURE, CAPTION, GIVEN):
                these = mine & (pairs.kind == shared) & ~pairs.across
                question = Question(
                    *(name, shared), _oriented(codes, pairs, these & selects[pairs.first]),
                    _oriented(codes, pairs, these & in_held_out[pairs.first]),
                )  # fmt: skip
                if min(len(question.selection), len(question.held_out)) >= FEWEST:
                    asked.append(question)
                elif these.any():
                    too_few.append(f"{question.key} ({len(question.selection)} choose, {len(question.held_out)} score)")
        rows = np.unique(np.concatenate([np.empty(0, np.int64), *(question.rows() for question in asked)]))
        component = np.unique(pairs.component[rows], return_inverse=True)[1]
        asked = tuple(question.placed(rows) for question in asked)
        found = cls(asked, rows, component, pairs, split, int((differ & pairs.across).sum()), tuple(too_few))
        if not asked:
            raise DataError(found.why_none())
        return found

    def why_none(self) -> str:
        if len(self.pairs.first):
            found = (
                f"too few memes share a picture or a caption and differ in a label: it needs {FEWEST} such pairs of train and "
                f"validation memes, which choose a latent, and {FEWEST} of {self.split} memes, which score it"
            )
        else:
            found = "no two memes share a picture or a caption"
        counts = {
            "pairs in two splits": self.across,
            "pairs that share picture and caption": self.pairs.copies,
            f"memes whose picture or caption more than {MOST_SHARED} have": self.pairs.crowded,
        }
        left_out = [f"{what}: {n:,}" for what, n in counts.items() if n]
        return "; ".join([found, *([f"too few: {', '.join(self.too_few[:3])}"] if self.too_few else []), *left_out])


def _distinct(labels: ConceptLabels) -> list[tuple[str, UInt8[np.ndarray, " n"]]]:
    """Without concepts that repeat an earlier one: hate=0 orders the pairs of hate=1 the other way round."""
    seen: set[bytes] = set()
    found = []
    for name, codes in zip(labels.names, labels.known.T, strict=True):
        opposite = np.where(codes == UNKNOWN, UNKNOWN, FALSE + TRUE - codes).astype(codes.dtype)
        question = min(codes.tobytes(), opposite.tobytes())
        if question not in seen:
            seen.add(question)
            found.append((name, codes))
    return found


def _differ(codes: UInt8[np.ndarray, " n"], pairs: ConfounderPairs) -> Bool[np.ndarray, " pairs"]:
    """True of one and false of the other; a missing label is neither."""
    first, second = codes[pairs.first], codes[pairs.second]
    return (first != second) & (first != UNKNOWN) & (second != UNKNOWN)


def _oriented(codes: UInt8[np.ndarray, " n"], pairs: ConfounderPairs, which: Bool[np.ndarray, " pairs"]) -> Oriented:
    first, second = pairs.first[which], pairs.second[which]
    is_first = codes[first] == TRUE
    return Oriented(np.where(is_first, first, second), np.where(is_first, second, first))
