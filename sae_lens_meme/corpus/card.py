"""The dataset card of a corpus: what is in it, what is missing, where it comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from sae_lens_meme.corpus.groups import KINDS
from sae_lens_meme.corpus.leaks import ANY
from sae_lens_meme.corpus.notes import corpus_notes
from sae_lens_meme.corpus.readers import READERS
from sae_lens_meme.corpus.rows import Row
from sae_lens_meme.labels import LEVELS
from sae_lens_meme.markdown import markdown_table, markdown_text

_TEMPLATE = Path(__file__).with_name("card.md")

# A reader sees a layout, not an origin: planted memes come in the same three layouts.
OTHER = "the user's own table and pictures; this package does not know their terms."

PRESETS = {
    "all": "Preset `all`: every labelled row that the releases have, in the releases' own splits. Memes that HMC's dev_seen"
    " and dev_unseen share appear once. Sources without a split are divided by the SHA-256 of the id:"
    " {holdout:.0%} test, {holdout:.0%} validation, the rest train; copies of a picture, near ones too, stay together.",
    "intervlm": "Preset `intervlm`: the published merge, row for row: PrideMM train and test (its validation rows are not"
    " read there), HMC train and, as test, dev_seen, and all of Memotion as train.",
}


def corpus_card(splits: Mapping[str, Sequence[Row]], facts: Mapping[str, Any]) -> str:
    """Markdown with the counts of these rows; `facts` are those of the corpus' manifest."""
    rows = [row for members in splits.values() for row in members]
    sources = list(dict.fromkeys(row.source for row in rows))
    readers = [(source, READERS.get(source)) for source in sources]
    preset = PRESETS[facts["preset"]].format(holdout=facts["holdout"])
    card = DatasetCard.from_template(
        DatasetCardData(license="other", pretty_name="Meme corpus", tags=["memes", "not-for-all-audiences"]),
        template_path=str(_TEMPLATE),
        n=f"{len(rows):,}",
        rows=_rows_table(splits, sources),
        captions=f"Memes without a caption (`text` is empty, `text_origin` is `none`): {facts['without_caption']:,}.",
        labels=_labels_table(rows, facts["labels"]),
        missing=_missing_table(rows, sources, facts["labels"]),
        left_out=_list(
            [f"{reason}: {count:,} rows" for reason, count in facts["dropped"].items()], "No row was left out."
        ),
        notes=_list(
            [markdown_text(note) for note in corpus_notes(facts)], "Train and test share no picture and no caption."
        ),
        leaks=_leaks_table(facts["leaks"]),
        merge="\n\n".join([preset, *(reader.note for _, reader in readers if reader and reader.note)]),
        provenance=_list([f"{markdown_text(s)}: {(reader and reader.provenance) or OTHER}" for s, reader in readers]),
    )
    return str(card).rstrip() + "\n"


def _rows_table(splits: Mapping[str, Sequence[Row]], sources: Sequence[str]) -> str:
    counts = {split: Counter(row.source for row in rows) for split, rows in splits.items()}
    body = [[source, *(f"{counts[split][source]:,}" for split in splits)] for source in sources]
    total = ["all", *(f"{len(rows):,}" for rows in splits.values())]
    return markdown_table(["source", *splits], [*body, total])


def _labels_table(rows: Sequence[Row], labels: Sequence[str]) -> str:
    body = []
    for label in labels:
        counts = Counter(row.labels.get(label) for row in rows)
        missing = counts.pop(None, 0)
        values = ", ".join(
            f"{_level(label, value)}: {counts[value]:,}" for value in sorted(v for v in counts if v is not None)
        )
        body.append([label, f"{len(rows) - missing:,}", f"{missing:,}", values or "-"])
    return markdown_table(["label", "known", "missing", "values"], body)


def _level(label: str, value: int) -> str:
    name = LEVELS.get(label, {}).get(value)
    return f"{value} {name}" if name else str(value)


def _missing_table(rows: Sequence[Row], sources: Sequence[str], labels: Sequence[str]) -> str:
    size = Counter(row.source for row in rows)
    known = Counter((row.source, label) for row in rows for label, value in row.labels.items() if value is not None)
    body = [[label, *(f"{1 - known[source, label] / size[source]:.1%}" for source in sources)] for label in labels]
    return markdown_table(["label", *sources], body)


def _leaks_table(leaks: Mapping[str, Mapping[str, Mapping[str, int]]]) -> str:
    """How many held-out memes share something with train."""
    body = [
        [split, source, *(f"{counts[what]:,}" for what in ("memes", *KINDS, ANY))]
        for split, sources in leaks.items()
        for source, counts in sources.items()
    ]
    return (
        markdown_table(["split", "source", "memes", *KINDS, "any of these"], body) if body else "No meme is held out."
    )


def _list(lines: Sequence[str], otherwise: str = "") -> str:
    return "\n".join(f"- {line}" for line in lines) or otherwise
