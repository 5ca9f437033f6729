"""Merges the sources' rows into splits: `all` keeps every labelled row, `intervlm` repeats the published merge."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from sae_lens_meme.corpus.rows import BadRows, Row, check_unique
from sae_lens_meme.errors import BadTableError, ConfigError
from sae_lens_meme.labels import SPLITS

Preset = Literal["all", "intervlm"]

RELEASE_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "dev_seen": "validation",
    "dev_unseen": "validation",
    "test": "test",
    "test_seen": "test",
    "test_unseen": "test",
}

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
class Merged:
    """Rows by split, in the order of the sources, and how many rows were left out for which reason."""

    splits: dict[str, list[Row]]
    dropped: dict[str, int] = field(default_factory=dict)


def merge(rows: Sequence[Row], *, preset: Preset = "all", holdout: float = 0.1, bad: BadRows | None = None) -> Merged:
    """Give every row its split.

    Args:
        holdout: share of each of validation and test for sources without a split, by hash of the id; 0 keeps all in train.

    Raises:
        BadTableError: an id occurs twice, a split has an unknown name, no row is left.
        ConfigError: unknown preset, or a holdout outside [0, 0.5).
    """
    if not 0 <= holdout < 0.5:
        raise ConfigError(f"holdout: {holdout} is outside [0, 0.5); 0.1 gives 80/10/10")
    if preset not in ("all", "intervlm"):
        raise ConfigError(f"preset: unknown {preset!r}; choose 'all' or 'intervlm'")
    bad = bad or BadRows()
    dropped: Counter[str] = Counter()
    kept = _without_unlabelled(_without_shared_dev(rows, dropped), dropped) if preset == "all" else rows
    splits: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for row in kept:
        split = _intervlm_split(row, dropped) if preset == "intervlm" else _own_split(row, holdout, bad)
        if split is not None:
            splits[split].append(row)
    splits = {split: members for split, members in splits.items() if members}
    if not splits:
        raise BadTableError("no row is left after the merge; check the preset and the sources")
    check_unique(row for members in splits.values() for row in members)
    return Merged(splits, dict(sorted(dropped.items())))


def _without_shared_dev(rows: Sequence[Row], dropped: Counter[str]) -> list[Row]:
    """dev_seen and dev_unseen share 400 memes: each comes once."""
    seen = {row.id for row in rows if row.source == "hmc" and row.split in ("dev", "dev_seen")}
    kept = [row for row in rows if not (row.source == "hmc" and row.split == "dev_unseen" and row.id in seen)]
    if len(kept) < len(rows):
        dropped["hmc dev_unseen: also in dev_seen"] = len(rows) - len(kept)
    return kept


def _without_unlabelled(rows: Sequence[Row], dropped: Counter[str]) -> list[Row]:
    """Phase 1 of the challenge released its test memes without labels."""
    kept = []
    for row in rows:
        if row.source == "hmc" and row.labels.get("hate") is None:
            dropped[f"hmc {row.split}: no label"] += 1
        else:
            kept.append(row)
    return kept


def _own_split(row: Row, holdout: float, bad: BadRows) -> str | None:
    if row.split is None:
        return _hashed_split(row.id, holdout)
    split = RELEASE_SPLITS.get(row.split.strip().casefold())
    if split is None:
        known = ", ".join(RELEASE_SPLITS)
        error = BadTableError(f"split is {row.split!r}, allowed: {known}; correct the split")
        bad.add(row.file, row.row, row.id, error)
    return split


def _hashed_split(identity: str, holdout: float) -> str:
    """Test below `holdout`, validation below twice that: a row's split never depends on the other rows."""
    position = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big") / 2**64
    return "test" if position < holdout else "validation" if position < 2 * holdout else "train"


def _intervlm_split(row: Row, dropped: Counter[str]) -> str | None:
    split = INTERVLM_SPLITS.get((row.source, row.split))
    if split is None:
        dropped[f"{row.source} {row.split}: not in the published merge"] += 1
    return split
