"""Writes a planned corpus into its step folder: shards, then the card and the list of bad rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Features, Image, Value

from sae_lens_meme.corpus.card import corpus_card
from sae_lens_meme.corpus.groups import Links
from sae_lens_meme.corpus.notes import corpus_facts
from sae_lens_meme.corpus.pictures import picture_size, read_picture
from sae_lens_meme.corpus.rows import Row
from sae_lens_meme.corpus.skipped import BadRow, count_skipped
from sae_lens_meme.corpus.survey import PictureHashes
from sae_lens_meme.errors import BadImageError, StorageError
from sae_lens_meme.labels import LABELS
from sae_lens_meme.progress import progress_bar
from sae_lens_meme.shards import shard_names, write_dataset
from sae_lens_meme.storage import StepFolder

BAD_ROWS, DUPLICATES = "bad_rows.jsonl", "duplicates.jsonl"
MAX_SHARD_BYTES = 256 << 20  # a shard is held in memory while it is written


@dataclass(frozen=True)
class Plan:
    splits: Mapping[str, list[Row]]
    looks: Mapping[Row, PictureHashes]
    links: Links
    preset: str
    holdout: float
    shard_size: int
    bad: Sequence[BadRow]
    dropped: Mapping[str, int]
    duplicates: Sequence[BadRow] | None = None
    """What `deduplicate` left out; None where it was not requested."""
    unread: Sequence[str] = ()
    """What was not read of the sources, in sentences."""

    @property
    def extra_labels(self) -> list[str]:
        names = {name for rows in self.splits.values() for row in rows for name in row.labels}
        return sorted(names - set(LABELS))


def corpus_features(extra_labels: Sequence[str] = ()) -> Features:
    """The columns of a corpus: what a meme is, the eight labels, then labels that only this corpus has."""
    labels = {name: Value("int64") for name in (*LABELS, *extra_labels)}
    order = ("id", "source", "split", "group", "image", "text", "text_origin", "image_sha256")
    return Features({name: Image() if name == "image" else Value("string") for name in order} | labels)


def write_corpus(step: StepFolder, plan: Plan, *, progress: bool) -> None:
    """Write every shard that is not there yet, then finish the step."""
    step.reopen()
    features = corpus_features(plan.extra_labels)
    shards = {split: list(_shards(rows, plan.shard_size)) or [[]] for split, rows in plan.splits.items()}
    with progress_bar("corpus", _missing(step, shards), show=progress) as advance:
        for split, parts in shards.items():
            columns = [partial(_columns, split, rows, plan, advance) for rows in parts]
            write_dataset(step, features, columns, subfolder=split, split=split)
    _finish(step, plan)


def _missing(step: StepFolder, shards: dict[str, list[list[Row]]]) -> int:
    """Memes in shards that no earlier run has written."""
    return sum(
        len(rows)
        for split, parts in shards.items()
        for name, rows in zip(shard_names(len(parts)), parts, strict=True)
        if not step.has(f"{split}/{name}")
    )


def _shards(rows: Sequence[Row], most: int) -> Iterator[list[Row]]:
    shard: list[Row] = []
    held = 0
    for row in rows:
        size = picture_size(row.picture) or 0
        if shard and (len(shard) == most or held + size > MAX_SHARD_BYTES):
            yield shard
            shard, held = [], 0
        shard.append(row)
        held += size
    if shard:
        yield shard


def _columns(split: str, rows: list[Row], plan: Plan, advance: Callable[[int], None]) -> dict[str, list[Any]]:
    records = []
    for row in rows:
        records.append(_record(row, split, plan.links.groups[row], _same_bytes(row, plan.looks[row])))
        advance(1)
    return {name: [record.get(name) for record in records] for name in corpus_features(plan.extra_labels)}


def _same_bytes(row: Row, look: PictureHashes) -> bytes:
    """The bytes of a picture, which are those that were looked at."""
    with suppress(BadImageError):
        data = read_picture(row.picture, row.image)
        if hashlib.sha256(data).hexdigest() == look.sha256:
            return data
    raise StorageError(f"{row.where}: image {row.image!r} changed during the run; run it again in a new --out")


def _record(row: Row, split: str, group: str, image: bytes) -> dict[str, Any]:
    return {
        "id": row.id,
        "source": row.source,
        "split": split,
        "group": group,
        "image": {"bytes": image, "path": Path(row.image).name},
        "text": row.text or "",  # text_origin tells missing from empty; a tokenizer needs a string
        "text_origin": row.text_origin,
        "image_sha256": hashlib.sha256(image).hexdigest(),
        **row.labels,
    }


def _finish(step: StepFolder, plan: Plan) -> None:
    step.write_text("dataset_dict.json", json.dumps({"splits": list(plan.splits)}))
    step.write_text(BAD_ROWS, "".join(map(_json_line, plan.bad)))
    if plan.duplicates is not None:
        step.write_text(DUPLICATES, "".join(map(_json_line, plan.duplicates)))
    facts = {
        "preset": plan.preset,
        "holdout": plan.holdout,
        "labels": [*LABELS, *plan.extra_labels],
        "dropped": dict(plan.dropped),
        "skipped": count_skipped(plan.bad),
        **({"unread": list(plan.unread)} if plan.unread else {}),
        **corpus_facts(plan.splits, plan.links),
    }
    step.write_text("README.md", corpus_card(plan.splits, facts))
    step.finish(**facts)


def _json_line(row: BadRow) -> str:
    return json.dumps(row.as_json(), ensure_ascii=True) + "\n"
