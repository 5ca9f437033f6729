"""Writes a planned corpus into its step folder: shards of verified pictures, then the card and the list of bad rows."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Image, Value, load_from_disk

from sae_lens_meme.corpus.card import corpus_card
from sae_lens_meme.corpus.merge import Merged
from sae_lens_meme.corpus.notes import corpus_facts
from sae_lens_meme.corpus.pictures import picture_size, read_picture
from sae_lens_meme.corpus.rows import Row
from sae_lens_meme.corpus.skipped import BadRow, BadRows, count_skipped, require_every_class
from sae_lens_meme.errors import BadImageError, StorageError
from sae_lens_meme.images import open_image
from sae_lens_meme.labels import LABELS
from sae_lens_meme.progress import progress_bar
from sae_lens_meme.shards import shard_names, write_dataset
from sae_lens_meme.storage import StepFolder

BAD_ROWS = "bad_rows.jsonl"
MAX_SHARD_BYTES = 256 << 20  # a shard is held in memory while it is written
_WORKERS = min(8, os.cpu_count() or 1)  # each may hold a picture of 50 megapixels


@dataclass(frozen=True)
class Plan:
    merged: Merged
    preset: str
    holdout: float
    shard_size: int
    bad: BadRows

    @property
    def extra_labels(self) -> list[str]:
        names = {name for rows in self.merged.splits.values() for row in rows for name in row.labels}
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
    shards = {split: list(_shards(rows, plan.shard_size)) for split, rows in plan.merged.splits.items()}
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
    with ThreadPoolExecutor(_WORKERS) as pool:  # Pillow decodes outside the interpreter lock
        for row, image in zip(rows, pool.map(_verified_bytes, rows), strict=True):
            if isinstance(image, bytes):
                records.append(_record(row, split, plan.merged.groups[row.id], image))
            elif plan.bad.on_bad == "raise":
                raise BadImageError(f"{row.where}: {image} or pass --on-bad skip")
            advance(1)
    return {name: [record.get(name) for record in records] for name in corpus_features(plan.extra_labels)}


def _verified_bytes(row: Row) -> bytes | BadImageError:
    try:
        data = read_picture(row.picture, row.image)
        open_image(data, name=row.image)
    except BadImageError as error:
        return error
    return data


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
    written = {split: _written(step.path / split) for split in plan.merged.splits}
    bad = [*plan.bad.rows, *_bad_images(plan, written)]
    kept = {split: [row for row in rows if row.id in written[split]] for split, rows in plan.merged.splits.items()}
    require_every_class((row for rows in kept.values() for row in rows), bad)
    step.write("dataset_dict.json", lambda path: _write_text(path, json.dumps({"splits": list(kept)})))
    step.write(BAD_ROWS, lambda path: _write_text(path, "".join(_json_line(row) for row in bad)))
    facts = {
        "preset": plan.preset,
        "holdout": plan.holdout,
        "labels": [*LABELS, *plan.extra_labels],
        "dropped": plan.merged.dropped,
        "skipped": count_skipped(bad),
        **corpus_facts(kept, written, plan.merged.groups),
    }
    step.write("README.md", lambda path: _write_text(path, corpus_card(kept, facts)))
    step.finish(**facts)


def _written(folder: Path) -> dict[str, str]:
    """Id and hash of every picture of a split."""
    rows = load_from_disk(str(folder))
    assert isinstance(rows, Dataset)
    return dict(zip(rows["id"][:], rows["image_sha256"][:], strict=True))


def _bad_images(plan: Plan, written: dict[str, dict[str, str]]) -> Iterator[BadRow]:
    """Why a planned row is in no shard: asked again, because an earlier run may have written the shard."""
    for split, rows in plan.merged.splits.items():
        for row in rows:
            if row.id in written[split]:
                continue
            error = _verified_bytes(row)
            if isinstance(error, bytes):
                raise StorageError(
                    f"{row.where}: image {row.image!r} changed during the run; run it again in a new --out"
                )
            yield row.as_bad("broken picture" if picture_size(row.picture) else "missing picture", str(error))


def _json_line(row: BadRow) -> str:
    return json.dumps(row.as_json(), ensure_ascii=True) + "\n"


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
