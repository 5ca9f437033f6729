"""The dataset card of a corpus: what is in it, what is missing, where it comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sae_lens_meme.corpus.rows import Row
from sae_lens_meme.labels import LEVELS

# A reader sees a layout, not an origin: planted memes come in the same three layouts.
PROVENANCE = {
    "pridemm": "read from a folder in the layout of PrideMM (Shah et al., EMNLP 2024, released with MemeCLIP). If it is that"
    " release, its pictures are third parties' posts and use is bound to its terms.",
    "hmc": "read from a folder in the layout of the Hateful Memes Challenge (Kiela et al., NeurIPS 2020). If it is that"
    " release, use is bound to its licence agreement, which everyone accepts for themselves.",
    "memotion": "read from a folder in the layout of Memotion (Sharma et al., SemEval-2020 Task 8). If it is that release,"
    " its pictures were collected from the web, belong to third parties, and use is bound to its terms.",
}
OTHER = "a table and pictures of the user's own; their terms are not known to this package."

PRESETS = {
    "all": "Preset `all`: every labelled row that the releases have, in the releases' own splits. Memes that HMC's dev_seen"
    " and dev_unseen share come once. Sources without a split are divided by the SHA-256 of the id:"
    " {holdout:.0%} test, {holdout:.0%} validation, the rest train.",
    "intervlm": "Preset `intervlm`: the published merge, row for row: PrideMM train and test (its validation rows are not"
    " read there), HMC train and, as test, dev_seen, and all of Memotion as train.",
}

MERGE_NOTES = {
    "pridemm": "PrideMM's humor knows two values: 0 stays 0, 1 becomes 2 (very_funny), as in the published merge.",
    "memotion": "Memotion's sarcasm keeps its four raw levels; the published merge counts `general` (1) as not sarcastic,"
    " which the concept `sarcasm >= 2` repeats.",
}

_FRONT = """---
license: other
pretty_name: Meme corpus
tags:
- memes
---
"""


def corpus_card(splits: Mapping[str, Sequence[Row]], facts: Mapping[str, Any]) -> str:
    """Markdown with the counts of these rows; `facts` are those of the corpus' manifest."""
    rows = [row for members in splits.values() for row in members]
    sources = list(dict.fromkeys(row.source for row in rows))
    parts = [
        f"{_FRONT}# Meme corpus\n\n{len(rows):,} memes, built by sae-lens-meme. Labels that a source does not have are null.",
        "## Rows\n\n" + _rows_table(splits, sources),
        "## Labels\n\n" + _labels_table(rows, facts["labels"]),
        "## Missing labels\n\n" + _missing_table(rows, sources, facts["labels"]),
        "## Left out\n\n" + _left_out(facts),
        "## Split and merge\n\n" + "\n\n".join(_merge_notes(sources, facts)),
        "## Provenance and licence\n\n" + _provenance(sources),
    ]
    return "\n\n".join(parts) + "\n"


def _rows_table(splits: Mapping[str, Sequence[Row]], sources: Sequence[str]) -> str:
    counts = {split: Counter(row.source for row in rows) for split, rows in splits.items()}
    body = [[source, *(f"{counts[split][source]:,}" for split in splits)] for source in sources]
    total = ["all", *(f"{len(rows):,}" for rows in splits.values())]
    return _table(["source", *splits], [*body, total])


def _labels_table(rows: Sequence[Row], labels: Sequence[str]) -> str:
    body = []
    for label in labels:
        counts = Counter(row.labels.get(label) for row in rows)
        missing = counts.pop(None, 0)
        values = ", ".join(
            f"{_level(label, value)}: {counts[value]:,}" for value in sorted(v for v in counts if v is not None)
        )
        body.append([label, f"{len(rows) - missing:,}", f"{missing:,}", values or "-"])
    return _table(["label", "known", "missing", "values"], body)


def _level(label: str, value: int) -> str:
    name = LEVELS.get(label, {}).get(value)
    return f"{value} {name}" if name else str(value)


def _missing_table(rows: Sequence[Row], sources: Sequence[str], labels: Sequence[str]) -> str:
    size = Counter(row.source for row in rows)
    known = Counter((row.source, label) for row in rows for label, value in row.labels.items() if value is not None)
    body = [[label, *(f"{1 - known[source, label] / size[source]:.1%}" for source in sources)] for label in labels]
    return "Share of a source's rows without the label.\n\n" + _table(["label", *sources], body)


def _left_out(facts: Mapping[str, Any]) -> str:
    reasons = [f"- {reason}: {count:,} rows" for reason, count in facts["dropped"].items()]
    if facts["bad_rows"]:
        reasons.append(f"- bad rows, listed in bad_rows.jsonl: {facts['bad_rows']:,}")
    return "\n".join(reasons) or "No row was left out."


def _merge_notes(sources: Sequence[str], facts: Mapping[str, Any]) -> list[str]:
    preset = PRESETS[facts["preset"]].format(holdout=facts["holdout"])
    return [preset, *(MERGE_NOTES[source] for source in sources if source in MERGE_NOTES)]


def _provenance(sources: Sequence[str]) -> str:
    return "\n".join(f"- {_cell(source)}: {PROVENANCE.get(source, OTHER)}" for source in sources)


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    """A source's name is the user's text: it cannot break the table or bring markup."""
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), ("|", "&#124;"), ("[", "&#91;"), ("`", "&#96;")):
        text = text.replace(character, entity)
    return " ".join(text.split())
