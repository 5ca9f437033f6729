"""The merge on label files that are generated with the exact counts of the real releases."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_lens_meme.corpus import BadRows, Row, read_hmc, read_memotion, read_pridemm
from sae_lens_meme.corpus.groups import find_links
from sae_lens_meme.corpus.merge import choose, deal
from sae_lens_meme.corpus.options import Preset
from sae_lens_meme.errors import BadTableError
from sae_lens_meme.labels import LABELS

SHARED = Path(__file__).parents[2] / "shared"

# shared/data/dialects.json has these; the tests must also run where that file is not
PRIDEMM = {"train": 4328, "val": 228, "test": 507}
HMC = {"train": (5481, 3019), "dev_seen": (253, 247), "dev_unseen": (340, 200), "test_seen": (510, 490)}
HMC |= {"test_unseen": (1250, 750)}
SHARED_DEV = 400
MEMOTION = 6992
INTERVLM_VALID = {"hate": 13835, "target": 2367, "stance": 4835, "humor": 11827}
INTERVLM_VALID |= dict.fromkeys(("offensive", "sentiment", "motivational", "sarcasm"), 6992)
# 2,482 hateful rows in all, 2,367 of them in train and test
HATEFUL = {"train": 2118, "val": 2482 - 2367, "test": 2367 - 2118}


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> list[Row]:
    """Rows of the three releases, read from generated files in their layouts; there are no pictures."""
    root = tmp_path_factory.mktemp("releases")
    for name in ("pridemm", "hmc", "memotion"):
        (root / name).mkdir()
    write_pridemm(root / "pridemm")
    write_hmc(root / "hmc")
    write_memotion(root / "memotion")
    return [*read_pridemm(root / "pridemm"), *read_hmc(root / "hmc"), *read_memotion(root / "memotion")]


def write_pridemm(root: Path) -> None:
    rows = []
    for split, size in PRIDEMM.items():
        for i in range(size):
            hate = int(i < HATEFUL[split])
            rows.append((f"img_{len(rows) + 1}.png", hate, i % 4 if hate else None, i % 3, i % 2, split, "a text"))
    columns = ["name", "hate", "target", "stance", "humour", "split", "text"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "PrideMM.csv", index=False, na_rep="NA")


def write_hmc(root: Path) -> None:
    start = 1000
    for split, (no, yes) in HMC.items():
        labels = [0] * no + [1] * yes
        if split == "dev_unseen":  # the first 400 of dev_seen again
            start -= 500
            labels = [0] * 253 + [1] * 147 + [0] * 87 + [1] * 53
            lines = [row(start + i, label) for i, label in enumerate(labels[:SHARED_DEV])]
            start += 500
            lines += [row(start + i, label) for i, label in enumerate(labels[SHARED_DEV:])]
            start += len(labels) - SHARED_DEV
        else:
            lines = [row(start + i, label) for i, label in enumerate(labels)]
            start += len(labels)
        (root / f"{split}.jsonl").write_text("".join(lines))


def row(number: int, label: int) -> str:
    return json.dumps({"id": f"{number:05}", "img": f"img/{number:05}.png", "label": label, "text": "a text"}) + "\n"


def write_memotion(root: Path) -> None:
    levels = {
        "humour": ["not_funny", "funny", "very_funny", "hilarious"],
        "sarcasm": ["not_sarcastic", "general", "twisted_meaning", "very_twisted"],
        "offensive": ["not_offensive", "slight", "very_offensive", "hateful_offensive"],
        "motivational": ["not_motivational", "motivational"],
        "overall_sentiment": ["very_negative", "negative", "neutral", "positive", "very_positive"],
    }
    frame = pd.DataFrame({"image_name": [f"image_{i}.jpg" for i in range(MEMOTION)]})
    frame["text_ocr"] = frame["text_corrected"] = "a text"
    frame.loc[[119, 4799, 6781, 6784, 6786], "text_corrected"] = None
    frame.loc[[119, 4799, 6781, 6784], "text_ocr"] = None
    for name, values in levels.items():
        frame[name] = [values[i % len(values)] for i in range(MEMOTION)]
    frame.to_csv(root / "labels.csv")


class Merged(NamedTuple):
    splits: dict[str, list[Row]]
    dropped: dict[str, int]


def merge(rows: list[Row], preset: Preset = "all", holdout: float = 0.1, bad: BadRows | None = None) -> Merged:
    """As `build_corpus` does, but for the pictures, which are not there."""
    chosen = choose(rows, preset=preset, bad=bad)
    return Merged(deal(chosen.given, find_links(list(chosen.given), {}).groups, holdout), chosen.dropped)


def counts(rows: list[Row]) -> dict[str, int]:
    return {label: sum(row.labels.get(label) is not None for row in rows) for label in LABELS}


def test_intervlm_is_the_published_merge(released):
    merged = merge(released, preset="intervlm")
    train, test = merged.splits["train"], merged.splits["test"]
    assert list(merged.splits) == ["train", "test"]
    assert (len(train), len(test)) == (19_820, 1_007)
    assert Counter(row.source for row in train) == {"pridemm": 4328, "hmc": 8500, "memotion": 6992}
    assert Counter(row.source for row in test) == {"pridemm": 507, "hmc": 500}
    assert counts([*train, *test]) == INTERVLM_VALID
    assert merged.dropped["pridemm val: not in the published merge"] == 228


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared folder beside the checkout")
def test_the_generated_counts_are_those_of_the_real_files():
    real = json.loads((SHARED / "data" / "dialects.json").read_text())
    assert real["valid_labels_after_v2_merge"] == INTERVLM_VALID
    assert real["pridemm"]["split"] == PRIDEMM
    assert {split: tuple(real["hmc"][split]["label"].values()) for split in HMC} == HMC
    assert real["hmc"]["dev_unseen"]["ids_shared_with_dev_seen"] == SHARED_DEV
    assert real["memotion"]["rows"] == MEMOTION
    assert (real["total_20827"]["merged_train"], real["total_20827"]["merged_test"]) == (19_820, 1_007)


def test_all_keeps_every_labelled_row_once(released):
    merged = merge(released)
    hmc = {split: [row for row in rows if row.source == "hmc"] for split, rows in merged.splits.items()}
    pridemm = {split: sum(row.source == "pridemm" for row in rows) for split, rows in merged.splits.items()}
    assert {split: len(rows) for split, rows in hmc.items()} == {"train": 8500, "validation": 640, "test": 3000}
    assert pridemm == {"train": 4328, "validation": 228, "test": 507}
    assert merged.dropped == {"hmc dev_unseen: also in dev_seen": 400}
    assert sum(map(len, merged.splits.values())) == 5063 + 12_140 + 6992


def test_memotion_is_held_out_by_the_hash_of_the_id_alone(released):
    memotion = [row for row in released if row.source == "memotion"]
    splits = merge(memotion, holdout=0.1).splits
    assert {name: len(rows) / MEMOTION for name, rows in splits.items()} == pytest.approx(
        {"train": 0.8, "validation": 0.1, "test": 0.1}, abs=0.02
    )
    again = merge(list(reversed(memotion[:500])), holdout=0.1).splits
    where = {row.id: name for name, rows in splits.items() for row in rows}
    assert all(where[row.id] == name for name, rows in again.items() for row in rows)
    first = [int(hashlib.sha256(row.id.encode()).hexdigest()[:16], 16) / 16**16 for row in splits["test"]]
    assert max(first) < 0.1
    assert list(merge(memotion, holdout=0).splits) == ["train"]


def test_humor_and_sarcasm_keep_what_the_sources_tell(released):
    pridemm = [row for row in released if row.source == "pridemm"]
    memotion = [row for row in released if row.source == "memotion"]
    assert Counter(row.labels["humor"] for row in pridemm).keys() == {0, 2}
    assert Counter(row.labels["sarcasm"] for row in memotion) == {0: 1748, 1: 1748, 2: 1748, 3: 1748}
    assert {row.labels["target"] for row in pridemm if row.labels["hate"] == 0} == {None}


def a_row(number: int, **changes) -> Row:
    values = {"id": f"s/{number}", "source": "s", "split": None, "picture": Path("a"), "text": "", "labels": {}}
    values |= {"text_origin": "dataset", "image": "a", "file": Path("t.csv"), "row": number}
    return Row(**(values | changes))


@given(st.floats(0, 0.49), st.integers(1, 60))
def test_every_row_without_a_split_lands_in_exactly_one(holdout, size):
    splits = merge([a_row(i) for i in range(size)], holdout=holdout).splits
    assert sorted(row.row for rows in splits.values() for row in rows) == list(range(size))


def test_unlabelled_rows_of_the_challenge_are_counted():
    rows = [a_row(i, source="hmc", split="test", labels={"hate": None}) for i in range(3)]
    fine = a_row(8, source="hmc", split="test", labels={"hate": None, "pc_race": 0, "pc_sex": None})
    merged = merge([*rows, fine, a_row(9)], holdout=0)
    assert merged.dropped == {"hmc test: no label": 3}
    assert [row.id for row in merged.splits["train"]] == ["s/9"]
    assert [row.id for row in merged.splits["test"]] == ["s/8"]  # a fine-grained label is a label


def test_rejections():
    with pytest.raises(BadTableError, match=r't\.csv, row 3 \(id "s/3"\): split is \'dve\', allowed: train'):
        merge([a_row(3, split="dve")])
    bad = BadRows("skip")
    assert len(merge([a_row(3, split="dve"), a_row(4)], holdout=0, bad=bad).splits["train"]) == 1
    assert [row.id for row in bad.rows] == ["s/3"]
    with pytest.raises(BadTableError, match="1 ids occur more than once: 's/1'"):
        merge([a_row(1), a_row(1)])
    with pytest.raises(
        BadTableError, match=r"no row is left after the merge: s train: not in the published merge \(1\); check"
    ):
        merge([a_row(1, split="train")], preset="intervlm")
