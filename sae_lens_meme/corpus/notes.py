"""What a user of the corpus should know besides its rows: what was skipped, and what train and test share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sae_lens_meme.corpus.groups import CAPTION, PICTURE, Links
from sae_lens_meme.corpus.leaks import Splits, leak_counts, leak_sentences
from sae_lens_meme.corpus.skipped import skipped_line
from sae_lens_meme.storage import read_finished


def corpus_notes(corpus: str | Path | Mapping[str, Any]) -> list[str]:
    """Sentences for the last lines of the command and for the card.

    Args:
        corpus: the folder of a corpus, or the facts of its manifest.

    Raises:
        StorageError: there is no finished corpus in this folder.
    """
    facts = corpus if isinstance(corpus, Mapping) else read_finished(corpus, "corpus")["facts"]
    notes = [line] if (line := skipped_line(facts["skipped"])) else []
    notes += facts.get("unread", ())
    for what in ("pictures", "captions"):
        for split, (shared, n) in facts[f"shared_{what}"].items():
            if shared:
                notes.append(f"{shared:,} of {n:,} {split} {what} {'is' if shared == 1 else 'are'} also in train")
    notes += leak_sentences(facts)
    if facts["labels_without_test"]:
        notes.append(
            f"no test rows with {', '.join(facts['labels_without_test'])}: scores of these have no held-out test"
        )
    return notes


def dropped_note(facts: Mapping[str, Any]) -> str | None:
    """For the last lines of the command, which rows the merge left out; the card has a list of them.

    Args:
        facts: those of a manifest.
    """
    reasons = ", ".join(f"{reason} ({count:,})" for reason, count in facts["dropped"].items())
    total = sum(facts["dropped"].values())
    return f"{total:,} row{'s' * (total != 1)} left out: {reasons}" if total else None


def corpus_facts(splits: Splits, links: Links) -> dict[str, Any]:
    """Facts of the manifest that are counted over the rows that were written.

    `shared_pictures` and `shared_captions` give for each other split how many of its rows have the picture (the caption)
    of a train row, and how many have one at all; `leaks` is `leak_counts`.
    """
    known = {
        split: {name for row in rows for name, v in row.labels.items() if v is not None}
        for split, rows in splits.items()
    }
    rows = [row for members in splits.values() for row in members]
    sizes = Counter(links.groups[row] for row in rows)
    return {
        "rows": {split: len(members) for split, members in splits.items()},
        "sources": {
            split: dict(sorted(Counter(row.source for row in members).items())) for split, members in splits.items()
        },
        "shared_pictures": _shared(splits, links, PICTURE),
        "shared_captions": _shared(splits, links, CAPTION),
        "leaks": leak_counts(splits, links),
        "n_groups": len(sizes),
        "largest_group": max(sizes.values(), default=0),
        "without_caption": sum(row.text is None for row in rows),
        "labels_without_test": sorted(known.get("train", set()) - known["test"]) if "test" in splits else [],
    }


def _shared(splits: Splits, links: Links, kind: str) -> dict[str, list[int]]:
    values = {
        split: [key for row in rows for key in links.keys[row] if key[0] == kind] for split, rows in splits.items()
    }
    train = set(values.pop("train", ()))
    return {split: [sum(value in train for value in found), len(found)] for split, found in values.items()}
