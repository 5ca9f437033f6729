"""What the reader of a corpus should know beside its rows: what was skipped, and what train and test share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sae_lens_meme.corpus.rows import Row
from sae_lens_meme.corpus.skipped import skipped_line
from sae_lens_meme.storage import read_finished

Splits = Mapping[str, Sequence[Row]]


def corpus_notes(corpus: str | Path | Mapping[str, Any]) -> list[str]:
    """Sentences for the last lines of the command and for the card.

    Args:
        corpus: the folder of a corpus, or the facts of its manifest.

    Raises:
        StorageError: there is no finished corpus in this folder.
    """
    facts = corpus if isinstance(corpus, Mapping) else read_finished(corpus, "corpus")["facts"]
    notes = [line] if (line := skipped_line(facts["skipped"])) else []
    for what in ("pictures", "captions"):
        for split, (shared, n) in facts[f"shared_{what}"].items():
            if shared:
                notes.append(f"{shared:,} of {n:,} {split} {what} {'is' if shared == 1 else 'are'} also in train")
    for split, (shared, n) in facts.get("shared_groups", {}).items():
        if shared > max(facts[f"shared_{what}"][split][0] for what in ("pictures", "captions")):
            notes.append(
                f"{shared:,} of {n:,} {split} memes are of a group (picture, caption or column) that is also in train"
            )
    if facts["labels_without_test"]:
        notes.append(
            f"no test rows with {', '.join(facts['labels_without_test'])}: scores of these have no held-out test"
        )
    return notes


def corpus_facts(splits: Splits, hashes: Mapping[str, Mapping[str, str]], groups: Mapping[str, str]) -> dict[str, Any]:
    """Facts of the manifest that are counted over the rows that were written.

    `shared_pictures`, `shared_captions` and `shared_groups` give for each other split how many of its rows have the
    picture (the caption, the group) of a train row, and how many have one at all.
    """
    captions = {split: [row.text for row in rows if row.text] for split, rows in splits.items()}
    known = {
        split: {name for row in rows for name, v in row.labels.items() if v is not None}
        for split, rows in splits.items()
    }
    return {
        "rows": {split: len(rows) for split, rows in splits.items()},
        "sources": {split: dict(sorted(Counter(row.source for row in rows).items())) for split, rows in splits.items()},
        "shared_pictures": _shared({split: by_id.values() for split, by_id in hashes.items()}),
        "shared_captions": _shared(captions),
        "shared_groups": _shared({split: [groups[row.id] for row in rows] for split, rows in splits.items()}),
        "n_groups": len({groups[row.id] for rows in splits.values() for row in rows}),
        "without_caption": sum(row.text is None for rows in splits.values() for row in rows),
        "labels_without_test": sorted(known.get("train", set()) - known["test"]) if "test" in splits else [],
    }


def _shared(values: Mapping[str, Iterable[str]]) -> dict[str, list[int]]:
    train = set(values.get("train", ()))
    held_out = {split: list(found) for split, found in values.items() if split != "train"}
    return {split: [sum(value in train for value in found), len(found)] for split, found in held_out.items()}
