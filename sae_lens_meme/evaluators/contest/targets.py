"""The targets that units should represent: concepts on labels, planted values; and the memes that select and that score."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int, UInt8

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.answer_key.factors import planted_values
from sae_lens_meme.evaluators.base import Unavailable
from sae_lens_meme.evaluators.concepts import Concept, ConceptLabels, concepts_of, require_concepts
from sae_lens_meme.metrics.association import FALSE, TRUE, UNKNOWN

LABELS, PLANTED, CROSS_MODAL = "labels", "planted", "cross_modal"
FEWEST = 5
"""True and false memes that a target needs among the train memes and among the test memes of one source."""
HIERARCHY = {"scene": "object", "topic": "phrasing"}
"""Planted factors whose values have special cases: this scene with that object, this topic in that phrasing."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Memes that train, that choose a penalty, that choose units (both of these), and that score."""

    train: Int[np.ndarray, " train"]
    validation: Int[np.ndarray, " validation"]
    test: Int[np.ndarray, " test"]
    split: str
    """Of the memes that score."""
    strata: Int[np.ndarray, " n"]

    @classmethod
    def of(cls, embeddings: Embeddings) -> Rows:
        """Raises DataError where no meme is held out, or none trains."""
        split, test = embeddings.held_out()
        train = embeddings.rows("train")
        if split is None or not len(train):
            raise DataError("a contest needs train memes and test or validation memes; these embeddings lack one kind")
        validation = embeddings.rows("validation") if split == "test" else np.empty(0, np.int64)
        return cls(train, validation, test, split, embeddings.strata)

    @property
    def selection(self) -> Int[np.ndarray, " selection"]:
        return np.union1d(self.train, self.validation)


@dataclass(frozen=True, eq=False)
class Targets:
    """One column per target; `group` says to which headline it belongs, `factor` which values exclude one another."""

    names: tuple[str, ...]
    codes: UInt8[np.ndarray, "n targets"]
    group: np.ndarray
    factor: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def columns(self, *groups: str) -> Int[np.ndarray, " chosen"]:
        return np.flatnonzero(np.isin(self.group, groups))

    def only(self, columns: np.ndarray) -> Targets:
        names = tuple(self.names[c] for c in columns)
        return Targets(names, self.codes[:, columns], self.group[columns], self.factor[columns])

    def scorable(self, rows: Rows) -> Targets:
        """Those with enough true and false memes to choose and to score."""
        enough = [_enough(self.codes[:, c], rows) for c in range(len(self))]
        return self.only(np.flatnonzero(enough))

    def same(self) -> Bool[np.ndarray, "targets targets"]:
        """Pairs that are one question: equal on every meme, or opposite."""
        flipped = np.where(self.codes == UNKNOWN, UNKNOWN, FALSE + TRUE - self.codes).astype(np.uint8)
        both = zip(self.codes.T, flipped.T, strict=True)
        question = np.array([min(mine.tobytes(), other.tobytes()) for mine, other in both], dtype=object)
        return np.asarray(question[:, None] == question, dtype=bool)


def _enough(codes: UInt8[np.ndarray, " n"], rows: Rows) -> bool:
    train = [(codes[rows.train] == code).sum() >= FEWEST for code in (FALSE, TRUE)]
    test = [
        all((codes[rows.test][rows.strata[rows.test] == s] == code).sum() >= FEWEST for code in (FALSE, TRUE))
        for s in np.unique(rows.strata[rows.test])
    ]
    return all(train) and any(test)


def targets_of(
    embeddings: Embeddings, rows: Rows, concepts: Iterable[str | Concept] | None, key: Key | None
) -> tuple[Targets, tuple[str, ...]]:
    """Concepts on the labels, then the values of a key's factors; and the names of those that cannot be scored.

    Raises:
        DataError: no target can be scored, or a meme is not in the key.
        ConfigError: a given concept does not fit the labels.
    """
    parts = [*_of_labels(embeddings, concepts), *([_of_key(embeddings, key)] if key is not None else [])]
    if parts:
        names = tuple(name for part in parts for name in part.names)
        codes, group, factor = (
            np.concatenate([getattr(part, name) for part in parts], axis=-1) for name in ("codes", "group", "factor")
        )
        found = Targets(names, codes, group, factor).scorable(rows)
        if len(found):
            return found, tuple(name for name in names if name not in found.names)
    raise DataError(
        f"no label and no planted value has {FEWEST} true and {FEWEST} false memes in train and in one source of "
        f"{rows.split}; add labels or memes"
    )


def _of_labels(embeddings: Embeddings, concepts: Iterable[str | Concept] | None) -> Iterator[Targets]:
    try:
        require_concepts(embeddings, concepts)
    except Unavailable:  # no label has two classes
        return
    parsed = concepts_of(embeddings, concepts)
    labels = ConceptLabels.of(embeddings, parsed)
    yield Targets(labels.names, labels.known, np.full(len(parsed), LABELS), np.array([c.label for c in parsed]))


@dataclass(frozen=True, eq=False)
class Key:
    """A planted truth: `factors` has `id` and one column per factor, `kinds` says where each is seen."""

    factors: pd.DataFrame
    kinds: Mapping[str, str]


def _of_key(embeddings: Embeddings, key: Key) -> Targets:
    labels, columns = planted_values(embeddings, key.factors, key.kinds)
    factors = [factor for factor, _ in columns]
    groups = [CROSS_MODAL if key.kinds[factor] == "cross-modal" else PLANTED for factor in factors]
    return Targets(labels.names, labels.known, np.array(groups), np.array(factors))


def special_cases(targets: Targets, rows: Rows) -> tuple[Targets, np.ndarray]:
    """Conjunctions of the HIERARCHY's factors, and values that imply another; and the general target of each.

    A case is unknown where one of the two is.
    """
    found: list[tuple[str, int, int]] = []
    true, planted = targets.codes == TRUE, targets.columns(PLANTED, CROSS_MODAL)
    for g in planted:
        children = [c for c in planted if targets.factor[c] == HIERARCHY.get(str(targets.factor[g]))]
        found += [(f"{targets.names[g]} & {targets.names[c]}", int(c), int(g)) for c in children]
        found += [
            (targets.names[c], int(c), int(g))
            for c in planted
            if true[:, c].sum() < true[:, g].sum() and not (true[:, c] & (targets.codes[:, g] == FALSE)).any()
        ]
    if not found:
        return targets.only(np.empty(0, np.int64)), np.empty(0, np.int64)
    names, special, general = zip(*found, strict=True)
    codes = np.minimum(targets.codes[:, special], targets.codes[:, general])  # UNKNOWN < FALSE < TRUE
    made = Targets(names, codes, np.full(len(names), PLANTED), targets.factor[np.array(general)])
    kept = np.flatnonzero([_enough(made.codes[:, c], rows) for c in range(len(made))])
    return made.only(kept), np.array(general)[kept]
