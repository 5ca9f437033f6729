"""Merges the sources' rows into splits: `all` keeps every labelled row, `intervlm` repeats the published merge."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sae_lens_meme.corpus.options import Preset
from sae_lens_meme.corpus.pictures import picture_hash
from sae_lens_meme.corpus.rows import Row
from sae_lens_meme.corpus.skipped import BadRows
from sae_lens_meme.errors import BadTableError
from sae_lens_meme.labels import SPLIT_NAMES, SPLITS, read_split

# The published merge takes PrideMM's train and test (it never reads `val`), the challenge's train and
# dev_seen, and calls all of Memotion train: 4,328 + 8,500 + 6,992 train, 507 + 500 test.
INTERVLM_SPLITS = {
    ("pridemm", "train"): "train",
    ("pridemm", "test"): "test",
    ("hmc", "train"): "train",
    ("hmc", "dev_seen"): "test",
    ("hmc", "dev"): "test",
    ("memotion", None): "train",
}


@dataclass(frozen=True)
class Chosen:
    """The rows of a corpus, each with the split that its source gives it, and how many were left out for which reason."""

    given: dict[Row, str | None]
    dropped: dict[str, int] = field(default_factory=dict)


def choose(rows: Sequence[Row], *, preset: Preset = "all", bad: BadRows | None = None) -> Chosen:
    """The rows that a preset takes.

    Raises:
        BadTableError: an id occurs twice, a split has an unknown name, no row is left.
    """
    bad = bad or BadRows()
    dropped: Counter[str] = Counter()
    wanted = _published(rows, dropped) if preset == "intervlm" else _labelled(rows, dropped)
    given = {row: _given_split(row, preset) for row in unique(wanted, bad)}
    for row, split in given.items():
        if split is None and row.split is not None:
            known = ", ".join(SPLIT_NAMES)
            bad.add(row.as_bad("unknown split", f"split is {row.split!r}, allowed: {known}; correct the split"))
    placed = {row: split for row, split in given.items() if split is not None or row.split is None}
    if not placed:
        why = ", ".join(f"{reason} ({count:,})" for reason, count in sorted(dropped.items())) or "all rows were skipped"
        raise BadTableError(f"no row is left after the merge: {why}; check the preset and the sources")
    return Chosen(placed, dict(sorted(dropped.items())))


def deal(given: Mapping[Row, str | None], groups: Mapping[Row, str], holdout: float = 0.1) -> dict[str, list[Row]]:
    """Rows by split, in the order of the sources.

    Args:
        groups: the name of each row's group.
        holdout: share of each of validation and test for sources without a split, by hash of the group's name: memes of
            one group get one split; 0 keeps all in train.
    """
    placed = dict(given) | _cut(given, groups, holdout)
    splits = {name: [row for row, split in placed.items() if split == name] for name in SPLITS}
    return {split: members for split, members in splits.items() if members}


def unique(rows: Iterable[Row], bad: BadRows | None = None) -> list[Row]:
    """Rows with ids of their own. Skipping keeps one of several equal rows, and none of rows that contradict each other.

    Raises:
        BadTableError: an id occurs twice and `bad` raises; the message names the first five.
    """
    bad = bad or BadRows()
    by_id: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_id[row.id].append(row)
    repeated = [same for same in by_id.values() if len(same) > 1]
    if repeated and bad.on_bad == "raise":
        ids = ", ".join(repr(same[0].id) for same in repeated[:5])
        places = " and ".join(f"{row.file.name} row {row.row}" for row in repeated[0][:2])
        raise BadTableError(
            f"{len(repeated)} ids occur more than once: {ids} (the first in {places});"
            " give every meme its own id or pass --on-bad skip"
        )
    for same in repeated:
        equal = all(_equal(row, same[0]) for row in same[1:])
        for row in same[1:] if equal else same:
            other = same[0] if row is not same[0] else same[1]
            how = "this row repeats" if equal else "another row of the id, with other content, is"
            bad.add(row.as_bad("repeated id", f"{how} {other.file.name} row {other.row}; give every meme its own id"))
        by_id[same[0].id] = same[:1] if equal else []
    return [row for same in by_id.values() for row in same]


def _equal(one: Row, other: Row) -> bool:
    """All but the place in the table is the same."""
    if replace(one, picture=other.picture, file=other.file, row=other.row) != other:
        return False
    if one.picture == other.picture:
        return True
    return picture_hash(one.picture, one.image) == picture_hash(other.picture, other.image) is not None


def _labelled(rows: Sequence[Row], dropped: Counter[str]) -> list[Row]:
    """Every labelled row once: the challenge released test memes without labels, and 400 of dev_seen in dev_unseen too."""
    seen = {row.id for row in rows if row.source == "hmc" and row.split in ("dev", "dev_seen")}
    kept = []
    for row in rows:
        if row.source == "hmc" and row.split == "dev_unseen" and row.id in seen:
            dropped["hmc dev_unseen: also in dev_seen"] += 1
        elif row.source == "hmc" and all(value is None for value in row.labels.values()):
            dropped[f"hmc {row.split}: no label"] += 1
        else:
            kept.append(row)
    return kept


def _published(rows: Sequence[Row], dropped: Counter[str]) -> list[Row]:
    kept = []
    for row in rows:
        if (row.source, row.split) in INTERVLM_SPLITS:
            kept.append(row)
        else:
            dropped[f"{row.source} {row.split}: not in the published merge"] += 1
    return kept


def _given_split(row: Row, preset: Preset) -> str | None:
    return INTERVLM_SPLITS[row.source, row.split] if preset == "intervlm" else read_split(row.split)


def _cut(given: Mapping[Row, str | None], groups: Mapping[Row, str], holdout: float) -> dict[Row, str]:
    """A split for the rows that have none: that of the rest of their group, else by the hash of its name."""
    if not holdout:
        return {row: "train" for row, split in given.items() if split is None}
    fixed: dict[str, str] = {}
    for row, split in given.items():
        if split is not None:
            fixed[groups[row]] = min(split, fixed.get(groups[row], split), key=SPLITS.index)
    free = ((row, groups[row]) for row, split in given.items() if split is None)
    return {row: fixed.get(group) or hashed_split(group, holdout) for row, group in free}


def hashed_split(identity: str, holdout: float) -> str:
    """Test below `holdout`, validation below twice that: a meme's split depends on no meme outside its group."""
    position = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big") / 2**64
    return "test" if position < holdout else "validation" if position < 2 * holdout else "train"
