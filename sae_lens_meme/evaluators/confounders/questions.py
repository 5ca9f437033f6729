"""The pairs of each question: pairs that differ in a concept, by what they share and by split."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, UInt8

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.concepts import Concept, ConceptLabels, concepts_of
from sae_lens_meme.evaluators.confounders.compute import Oriented
from sae_lens_meme.evaluators.confounders.pairs import CAPTION, GIVEN, MOST_SHARED, PICTURE, ConfounderPairs, find_pairs
from sae_lens_meme.metrics.contingency import FALSE, TRUE, UNKNOWN

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
