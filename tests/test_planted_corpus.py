"""The planted corpus: labels have the causes that the answer key names, at the real prevalences."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2_contingency

from sae_lens_meme.labels import LEVELS
from sae_lens_meme.planted.causes import NOISE, SHARES
from sae_lens_meme.planted.extras import PROPS, SAYINGS
from sae_lens_meme.planted.factors import OBJECTS, SEVERAL, TEXTUAL, TOPICS, VISUAL
from sae_lens_meme.planted.phrases import ADDRESSEE_PHRASES, MOOD_PHRASES, TOPIC_PHRASES
from sae_lens_meme.planted.pictures import draw_picture
from sae_lens_meme.planted.places import meme_places
from sae_lens_meme.planted.rows import STREAMS, PlantedMeme, planted_memes


@pytest.fixture(scope="module")
def memes() -> list[PlantedMeme]:
    return list(planted_memes(seed=0, scale=1.0))


@pytest.fixture(scope="module")
def table(memes: list[PlantedMeme]) -> Any:
    """Factors and published labels of the full-size corpus, without its pictures."""
    rows = [{"stream": m.stream, "source": m.source, **m.factors.row(), **_prefixed(m.labels)} for m in memes]
    return pd.DataFrame(rows)


def _prefixed(labels: dict[str, int]) -> dict[str, int]:
    return {f"label_{name}": value for name, value in labels.items()}


def _label_by_hand(label: str, source: str, row: Any) -> int:
    """The rules once more, written differently from the package."""
    happy_words, happy_faces = row["mood"] == "cheerful", row["expression"] == "smile"
    if label == "hate":
        return int(happy_words ^ happy_faces)
    if label == "target":
        return {"none": 0, "person": 1, "group": 2, "company": 3}[row["addressee"]]
    if label == "stance":
        return {"none": 0, "up": 1, "down": 2}[row["sign"]]
    if label == "humor":
        level = ["statement", "question", "punchline", "exaggeration"].index(row["phrasing"])
        return level if source == "memotion" else 2 * (level > 0)
    if label == "offensive":
        return row["bursts"]
    if label == "sentiment":
        light = {"dark": -1, "plain": 0, "bright": 1}[row["light"]]
        return light + (happy_words and happy_faces) - (not happy_words and not happy_faces)
    if label == "motivational":
        return int(row["topic"] in {"computers", "reading", "gardening"})
    turn = 2 * np.pi * (TOPICS.index(row["topic"]) - OBJECTS.index(row["object"])) / 8
    return min(3, round(float(np.degrees(np.arccos(np.clip(np.cos(turn), -1, 1)))) // 44.9))


@pytest.mark.parametrize(("source", "label"), [(s, la) for s in SHARES for la in SHARES[s]])
def test_a_label_follows_from_the_factors_but_for_the_declared_noise(table: Any, source: str, label: str) -> None:
    rows = table[(table["source"] == source) & table[f"label_{label}"].notna()]
    truth = np.array([_label_by_hand(label, source, row) for _, row in rows.iterrows()])
    wrong = float((truth != rows[f"label_{label}"].to_numpy()).mean())
    shares = np.array(list(SHARES[source][label].values()))
    expected = NOISE[label] * (1 - (shares**2).sum())
    assert 0 < wrong < NOISE[label]
    assert wrong == pytest.approx(expected, abs=4 * np.sqrt(expected / len(rows)) + 0.01)


@pytest.mark.parametrize(("source", "label"), [(s, la) for s in SHARES for la in SHARES[s]])
def test_prevalences_are_those_of_the_real_data_set(table: Any, source: str, label: str) -> None:
    values = table.loc[table["source"] == source, f"label_{label}"].dropna()
    for level, share in SHARES[source][label].items():
        assert (values == level).mean() == pytest.approx(share, abs=0.07 if label == "sentiment" else 0.05), level


def test_every_source_has_its_own_labels_only(memes: list[PlantedMeme]) -> None:
    for meme in memes:
        expected = set(SHARES[meme.source]) - (set() if meme.labels.get("hate") == 1 else {"target"})
        assert set(meme.labels) == expected
        assert all(meme.labels[label] in LEVELS[label] for label in meme.labels)


@pytest.mark.parametrize("cause", ["clash", "distance"])
@pytest.mark.parametrize("factor", [f for f in VISUAL + TEXTUAL if f not in (*SEVERAL, "style")])
def test_neither_the_picture_nor_the_caption_alone_tells_a_cross_modal_factor(
    table: Any, cause: str, factor: str
) -> None:
    for stream, rows in table.groupby("stream"):
        if len(rows) < 400:
            continue
        counts = pd.crosstab(rows[factor], rows[cause])
        assert _p(counts) > 1e-4, (stream, factor)


def test_both_together_tell_it(table: Any) -> None:
    pairs = table.groupby(["mood", "expression"])["clash"].mean()
    assert set(pairs) == {0.0, 1.0}
    assert (table.groupby(["topic", "object"])["distance"].nunique() == 1).all()


def test_sources_differ_in_style(table: Any) -> None:
    for factor in ("scene", "colour", "layout", "light"):
        assert _p(pd.crosstab(table[factor], table["source"])) < 1e-20, factor


def test_a_caption_says_its_topic_and_its_mood_and_nothing_else(memes: list[PlantedMeme]) -> None:
    for meme in memes:
        text = meme.caption.lower()
        topics = [topic for topic, words in TOPIC_PHRASES.items() if any(_says(text, phrase) for phrase in words)]
        moods = [mood for mood, words in MOOD_PHRASES.items() if any(phrase in text for phrase in words)]
        assert meme.factors.topic in topics
        assert moods == [meme.factors.mood]
        assert all(_says(text, phrase) for phrase in meme.factors.phrase)
        assert (meme.factors.phrasing == "question") == ("?" in text)
        assert ",," not in text.replace(" ", "")
        assert text == text.strip()


def _p(counts: Any) -> float:
    result: Any = chi2_contingency(counts)
    return result.pvalue


def _says(text: str, phrase: str) -> bool:
    return phrase.replace(",", "") in text


@pytest.mark.parametrize(("factor", "rows"), [("prop", PROPS), ("phrase", SAYINGS)])
def test_each_prop_and_expression_is_in_one_to_four_percent_of_the_memes(
    memes: list[PlantedMeme], factor: str, rows: Any
) -> None:
    names = [name for row in rows for name in row]
    assert len(set(names)) == len(names) == 124
    found = Counter(name for meme in memes for name in getattr(meme.factors, factor))
    shares = np.array([found[name] for name in names]) / len(memes)
    assert 0.005 < shares.min() < shares.max() < 0.05  # four standard errors of .01 and of .04
    assert all(len(set(row) & set(getattr(meme.factors, factor))) <= 1 for meme in memes for row in rows)


def test_a_factor_changes_the_picture_inside_its_box_only(memes: list[PlantedMeme]) -> None:
    """But for scene, light and layout, which are everywhere, and for figures, whose faces move the others' jitter."""
    other = {"object": "car", "colour": "blue", "expression": "smile", "hat": "none", "sign": "none", "bursts": 0}
    other |= {"prop": ()}
    for meme in [m for m in memes if m.factors.prop and m.factors.sign != "none" and m.factors.bursts][:40]:
        before = np.array(meme.draw()).astype(int)
        size = len(before)
        for factor, value in other.items():
            if getattr(meme.factors, factor) == value:
                continue
            boxes = [row[4:8] for row in meme_places(meme) if row[1] == factor]
            changed = replace(meme.factors, **{factor: value})
            after = np.array(draw_picture(changed, meme.caption, np.random.default_rng([*meme._key, 1]))).astype(int)
            rows, columns = np.nonzero(np.abs(before - after).sum(axis=-1))
            inside = np.zeros(len(rows), bool)
            for x0, y0, x1, y1 in boxes:
                x, y = columns / size, rows / size
                inside |= (x >= x0 - 0.03) & (x <= x1 + 0.03) & (y >= y0 - 0.03) & (y <= y1 + 0.03)
            assert len(rows), (meme.id, factor)
            assert inside.all(), (meme.id, factor)


def test_the_words_of_a_place_say_its_value(memes: list[PlantedMeme]) -> None:
    said = {"topic": TOPIC_PHRASES, "mood": MOOD_PHRASES, "addressee": ADDRESSEE_PHRASES}
    for meme in memes[::7]:
        words = meme.caption.split()
        for _, factor, value, kind, *box, start, end in meme_places(meme):
            if kind == "visual":
                assert (start, end) == (None, None)
                assert all(0 <= c <= 1 for c in box)
                continue
            text = re.sub("[,:!?]", "", " ".join(words[start:end])).lower()
            if factor in said:
                assert text in said[factor][value]
            elif factor == "phrase":
                assert text == value
                assert value in meme.factors.phrase
            elif factor in ("clash", "pairing"):
                assert text in MOOD_PHRASES[meme.factors.mood]


def test_captions_are_diverse(memes: list[PlantedMeme]) -> None:
    counts = Counter(meme.caption.lower() for meme in memes)
    assert len(counts) > 0.95 * len(memes)


def test_ids_are_unique_and_a_row_depends_on_seed_stream_and_index_only() -> None:
    large, small = list(planted_memes(5, 4.0)), list(planted_memes(5, 0.1))
    assert len({meme.id for meme in large}) == len(large)
    by_id = {meme.id: meme for meme in large}
    for meme in small:
        assert by_id[meme.id].factors == meme.factors
        assert by_id[meme.id].caption == meme.caption
    assert [m.caption for m in planted_memes(6, 0.01)] != [m.caption for m in planted_memes(5, 0.01)]


def test_a_factor_of_the_picture_changes_the_picture(memes: list[PlantedMeme]) -> None:
    meme = memes[0]
    other = {"scene": "beach", "object": "car", "colour": "blue", "layout": "top", "expression": "smile"}
    other |= {"hat": "none", "light": "dark", "sign": "up", "bursts": 0, "figures": 3}
    other |= {"prop": ("red heart",)}
    assert set(other) == set(VISUAL)
    before = np.array(draw_picture(meme.factors, meme.caption, np.random.default_rng(0)))
    for factor, value in other.items():
        changed = replace(meme.factors, **{factor: value})
        after = np.array(draw_picture(changed, meme.caption, np.random.default_rng(0)))
        assert getattr(meme.factors, factor) != value
        assert (before != after).any(axis=-1).mean() > 0.004, factor


def test_full_size_memotion_has_every_extension_and_a_missing_caption(memes: list[PlantedMeme]) -> None:
    suffixes = Counter(Path(meme.name).suffix for meme in memes if meme.source == "memotion")
    assert suffixes[".jpg"] > suffixes[".png"] > suffixes[".jpeg"] > 0
    assert STREAMS["memotion"].rows > 119
