"""What held-out memes share with earlier splits, and how the shared memes are dropped if the user asks for it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sae_lens_meme.corpus.groups import KINDS, Key, Links
from sae_lens_meme.corpus.rows import Row
from sae_lens_meme.corpus.skipped import BadRow
from sae_lens_meme.errors import BadTableError
from sae_lens_meme.labels import SPLITS

Splits = Mapping[str, Sequence[Row]]
CHAIN = "chain"
_HOW = {
    "picture": "has the picture of",
    "near picture": "has nearly the picture of",
    "caption": "has the caption of",
    "group": "has the group of",
    CHAIN: "is joined by other memes to",
}
ANY = "any"


def leak_counts(splits: Splits, links: Links) -> dict[str, dict[str, dict[str, int]]]:
    """Of each held-out split and source: how many memes, and how many share each of `KINDS` with a train meme.

    `any` counts the memes whose group (`Links.groups`) is also in train: those that `evaluate` can leave out.
    A near picture may also be the same one. Captions are counted however many memes have them.
    """
    train = splits.get("train", ())
    keys: set[Key] = {key for row in train for key in links.keys[row]}
    groups = {links.groups[row] for row in train}
    found: dict[str, dict[str, dict[str, int]]] = {}
    for split, rows in splits.items():
        if split == "train":
            continue
        counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for row in rows:
            shared = {kind for kind, value in links.keys[row] if (kind, value) in keys}
            counts[row.source].update(["memes", *shared, *([ANY] if links.groups[row] in groups else [])])
        found[split] = {
            source: {what: counted[what] for what in ("memes", *KINDS, ANY)} for source, counted in counts.items()
        }
    return found


def deduplicate(splits: Splits, links: Links) -> tuple[dict[str, list[Row]], list[BadRow]]:
    """Without the train memes of a group that is also in validation or test, and the validation memes of one in test.

    Test loses none. Afterwards no group lies in two splits.

    Raises:
        BadTableError: no train meme is left.
    """
    later: dict[str, tuple[str, Row]] = {}
    holders: dict[Key, tuple[str, Row]] = {}
    kept: dict[str, list[Row]] = {}
    dropped: list[BadRow] = []
    for split in reversed([name for name in SPLITS if name in splits]):
        rows = [row for row in splits[split] if links.groups[row] not in later]
        dropped += [_dropped(row, links, holders, later) for row in splits[split] if links.groups[row] in later]
        kept[split] = rows
        for row in rows:
            later.setdefault(links.groups[row], (split, row))
            for key in links.uniting(row):
                holders.setdefault(key, (split, row))
    if not kept.get("train"):
        raise BadTableError("dedupe: every train meme is in a group that is also held out; assign new splits")
    return {split: kept[split] for split in splits}, dropped


def _dropped(
    row: Row, links: Links, holders: Mapping[Key, tuple[str, Row]], later: Mapping[str, tuple[str, Row]]
) -> BadRow:
    direct = sorted((key for key in links.uniting(row) if key in holders), key=lambda key: KINDS.index(key[0]))
    kind = direct[0][0] if direct else CHAIN
    split, other = holders[direct[0]] if direct else later[links.groups[row]]
    return row.as_bad(kind, f"{_HOW[kind]} {other.id!r}, which is in {split}")


def dropped_counts(dropped: Sequence[BadRow]) -> dict[str, int]:
    """For `dropped` of the manifest: the reasons in words."""
    kinds = Counter(row.kind for row in dropped)
    return {f"dedupe: {_HOW[kind]} a held-out meme": kinds[kind] for kind in (*KINDS, CHAIN) if kinds[kind]}


def leak_sentences(facts: Mapping[str, Any]) -> list[str]:
    """A sentence for each split of which more memes are contaminated than the counts of pictures and captions say.

    Args:
        facts: those of a manifest.
    """
    found = []
    for split, sources in facts.get("leaks", {}).items():
        total = sum((Counter(counts) for counts in sources.values()), Counter())
        if total[ANY] <= max(total["picture"], total["caption"]):
            continue
        by_source = ", ".join(
            f"{source} {counts[ANY]:,} of {counts['memes']:,}" for source, counts in sources.items() if counts[ANY]
        )
        near = f", {total['near picture']:,} of them a near picture" if total["near picture"] else ""
        found.append(
            f"{total[ANY]:,} of {total['memes']:,} {split} memes are in a group (picture, near picture, caption or column)"
            f" that is also in train{near}" + (f" ({by_source})" if len(sources) > 1 else "")
        )
    return found
