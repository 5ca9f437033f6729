"""Reads MMHS150K: tweets with a picture, `MMHS150K_GT.json` with the labels of three annotators, `splits/`, `img_resized/`.

The layout is that of the README of the release: by tweet id `tweet_url`, `labels` (three of 0..5), `img_url`, `tweet_text`,
`labels_str`; `splits/{train,val,test}_ids.txt` with an id a line. The files themselves were not seen.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from sae_lens_meme.corpus.columns import ColumnMap, LabelColumn
from sae_lens_meme.corpus.layout import find_file, image_folder, source_folder
from sae_lens_meme.corpus.rows import Layout, Reader, Row, table_rows
from sae_lens_meme.corpus.skipped import BadRows
from sae_lens_meme.corpus.tables import Table, cells_of, read_text
from sae_lens_meme.errors import BadTableError

KINDS = ("NotHate", "Racist", "Sexist", "Homophobe", "Religion", "OtherHate")
LABELS = ("hate", "hate_kind", "hate_votes")
COLUMNS = ColumnMap(
    image="image", text=("tweet_text",), split="split", labels={name: LabelColumn(name) for name in LABELS}
)


def read_mmhs150k(root: str | Path, bad: BadRows | None = None) -> list[Row]:
    """The tweets of MMHS150K_GT.json, with the text of the tweet as the caption.

    Raises:
        BadTableError: a file is missing or damaged, or a tweet is bad and `bad` raises.
    """
    root = source_folder(root, "MMHS150K")
    path = find_file(root, ["MMHS150K_GT.json"])
    try:
        tweets = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise BadTableError(f"{path.name}: is not valid JSON ({error}); download it again") from None
    if not isinstance(tweets, dict) or not tweets:
        raise BadTableError(f"{path.name}: holds no tweets by id; give the file as it was released")
    split = _splits(root)
    rows, faults = [], {}
    for number, (key, tweet) in enumerate(tweets.items(), start=1):
        cells, fault = cells_of(_cells(key, tweet, split.get(key)))
        rows.append(cells)
        if fault is not None:
            faults[number] = fault
    table = Table(path, (COLUMNS.image, *COLUMNS.read()), rows, faults=faults)
    return table_rows(table, Layout(COLUMNS, "mmhs150k", root, image_folder(root, ["img_resized"])), bad or BadRows())


def _splits(root: Path) -> dict[str, str]:
    """The split of each id.

    Raises:
        BadTableError: a file is missing, or two hold the same id.
    """
    found: dict[str, str] = {}
    for split in ("train", "val", "test"):
        path = root / "splits" / f"{split}_ids.txt"
        if not path.is_file():
            raise BadTableError(f"{path}: no such file; give the folder as it was released")
        for key in read_text(path).split():
            if found.setdefault(key, split) != split:
                raise BadTableError(
                    f"{path.name}: id {key!r} is also in {found[key]}_ids.txt; download the splits again"
                )
    return found


def _cells(key: str, tweet: Any, split: str | None) -> dict[str, Any]:
    given = tweet if isinstance(tweet, dict) else {}
    votes = given.get("labels")
    if not isinstance(votes, list) or not votes or any(v not in range(len(KINDS)) for v in votes):
        labels: dict[str, Any] = dict.fromkeys(LABELS) | {
            "hate_kind": f"labels: {votes!r:.50}"
        }  # which no integer is: refused
    else:
        hateful = sum(vote > 0 for vote in votes)
        kind, most = Counter(votes).most_common(1)[0]
        labels = {
            "hate": int(2 * hateful > len(votes)),
            "hate_kind": kind if 2 * most > len(votes) else None,
            "hate_votes": hateful,
        }
    return {"image": f"{key}.jpg", "tweet_text": given.get("tweet_text"), "split": split, **labels}


READER = Reader(
    "mmhs150k",
    read_mmhs150k,
    help="MMHS150K: folder with MMHS150K_GT.json, splits/ and img_resized/.",
    provenance="read from a folder in the layout of MMHS150K (Gomez et al., WACV 2020). If it is that release, its tweets"
    " and pictures belong to third parties.",
    note="MMHS150K: `hate` is what most of its three annotators say; `hate_kind` ("
    + ", ".join(f"{value} {name}" for value, name in enumerate(KINDS))
    + ") is missing where no kind has a majority; `hate_votes` counts those who see hate.",
)
