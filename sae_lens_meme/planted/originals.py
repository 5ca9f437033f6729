"""Tables of the planted corpus in the layouts of the original releases of PrideMM, Hateful Memes and Memotion 7k."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

import numpy as np

from sae_lens_meme.labels import LEVELS
from sae_lens_meme.planted.rows import PlantedMeme

_SHARED_DEV = 0.8  # of dev_seen comes again in dev_unseen


def original_tables(memes: Sequence[PlantedMeme]) -> dict[str, str]:
    """`{path below the written folder: the table's text}`."""
    streams: dict[str, list[PlantedMeme]] = {}
    for meme in memes:
        streams.setdefault(meme.stream, []).append(meme)
    pridemm, memotion = streams.pop("pridemm"), streams.pop("memotion")
    dev = streams["dev_seen"]
    streams["dev_unseen"] = dev[: round(_SHARED_DEV * len(dev))] + streams["dev_unseen"]
    hmc = {f"HMC/{split}.jsonl": _hmc_table(part) for split, part in streams.items()}
    return {"PrideMM/PrideMM.csv": _pridemm_table(pridemm), **hmc, "Memotion/labels.csv": _memotion_table(memotion)}


def _pridemm_table(memes: Sequence[PlantedMeme]) -> str:
    """`target` is `NA`, as the release spells it, exactly where hate is 0; humour is 0 or 1; 10 % are test, 4.5 % val."""
    order = np.random.default_rng([memes[0].seed]).permutation(len(memes)) / len(memes)
    rows = []
    for meme, place in zip(memes, order, strict=True):
        split = "test" if place < 0.1 else "val" if place < 0.145 else "train"
        labels, humour = meme.labels, int(meme.labels["humor"] > 0)
        rows.append(
            [meme.name, labels["hate"], labels.get("target", "NA"), labels["stance"], humour, split, meme.caption]
        )
    return _csv(["name", "hate", "target", "stance", "humour", "split", "text"], rows)


def _hmc_table(memes: Sequence[PlantedMeme]) -> str:
    rows = [
        {"id": meme.name[:5], "img": f"img/{meme.name}", "label": meme.labels["hate"], "text": meme.caption}
        for meme in memes
    ]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _memotion_table(memes: Sequence[PlantedMeme]) -> str:
    """Levels as words; a few captions are missing from `text_ocr`, and fewer from `text_corrected`, never both."""
    names = {"humour": "humor", "sarcasm": "sarcasm", "offensive": "offensive"}
    names |= {"motivational": "motivational", "overall_sentiment": "sentiment"}
    rows = []
    for i, meme in enumerate(memes):
        read = "" if i % 43 == 7 else meme.caption.upper().replace("O", "0")
        corrected = "" if i % 1400 == 119 else meme.caption
        labels = [LEVELS[label][meme.labels[label]] for label in names.values()]
        rows.append([i, meme.name, read if corrected else meme.caption, corrected, *labels])
    return _csv(["", "image_name", "text_ocr", "text_corrected", *names], rows)


def _csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()
