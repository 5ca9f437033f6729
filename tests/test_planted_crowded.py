"""The crowded world: more props and sayings than dimensions, labels that follow from single ones, and an encoder that reads them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sae_lens_meme.config import read_yaml
from sae_lens_meme.errors import ConfigError, StorageError
from sae_lens_meme.evaluators.concepts import Concept
from sae_lens_meme.evaluators.options import EvaluateOptions
from sae_lens_meme.hooks.towers import load_towers
from sae_lens_meme.pipeline import run
from sae_lens_meme.planted import DEMO_ENCODER, PlantedOptions, read_answer_key, write_planted
from sae_lens_meme.planted.aligned import aligned_factors
from sae_lens_meme.planted.captions import write_caption
from sae_lens_meme.planted.causes import NOISE
from sae_lens_meme.planted.crowded import CROWDED_LABELS, JOKES, LEVELS, crowded
from sae_lens_meme.planted.phrases import SAYINGS
from sae_lens_meme.planted.pictures import draw_picture
from sae_lens_meme.planted.places import meme_places
from sae_lens_meme.planted.props import PROPS
from sae_lens_meme.planted.rows import PlantedMeme, planted_memes
from sae_lens_meme.train import load_train_config

ENCODER = DEMO_ENCODER.parent / "crowded_encoder"
NAMES = [name for rows in (PROPS, SAYINGS) for row in rows for name in row]


@pytest.fixture(scope="module")
def memes() -> list[PlantedMeme]:
    return list(planted_memes(seed=0, scale=1.0, world="crowded"))


# the corpus


@pytest.mark.whole
def test_each_prop_and_saying_is_in_one_to_four_percent_of_the_memes(memes: list[PlantedMeme]):
    assert len(set(NAMES)) == len(NAMES) == 248
    found = Counter(name for meme in memes for name in (*meme.factors.prop, *meme.factors.phrase))
    shares = np.array([found[name] for name in NAMES]) / len(memes)
    assert 0.007 < shares.min() < shares.max() < 0.04  # .0125, less three standard errors
    assert 3 < shares.sum() < 4
    for meme in memes:
        for row in PROPS:
            assert len(set(row) & set(meme.factors.prop)) <= 1
        for row in SAYINGS:
            assert len(set(row) & set(meme.factors.phrase)) <= 1


def test_a_joke_is_its_prop_and_its_saying_and_neither_tells(memes: list[PlantedMeme]):
    for joke, (prop, saying) in JOKES.items():
        has = np.array([[prop in m.factors.prop, saying in m.factors.phrase, joke in m.factors.joke] for m in memes])
        assert (has[:, 2] == (has[:, 0] & has[:, 1])).all()
        assert 20 < has[:, 2].sum() < min(has[:, 0].sum(), has[:, 1].sum())
        assert has[:, 2].mean() > 10 * has[:, 0].mean() * has[:, 1].mean()


def _by_hand(meme: PlantedMeme, label: str) -> int:
    """The rules once more, written differently from the package."""
    level = 0
    for value, cause in LEVELS[label].items():
        sides = JOKES.get(cause, (cause,))
        if all(side in meme.factors.prop + meme.factors.phrase for side in sides):
            level = value
    return 2 * (level > 0) if (label, meme.source) == ("humor", "pridemm") else level


@pytest.mark.parametrize("label", LEVELS)
def test_a_label_follows_from_single_details_but_for_the_declared_noise(memes: list[PlantedMeme], label: str):
    rows = [meme for meme in memes if label in meme.labels]
    truth, said = (np.array(v) for v in ([_by_hand(m, label) for m in rows], [m.labels[label] for m in rows]))
    assert set(truth) == {0, *LEVELS[label]}
    for level in LEVELS[label]:
        of_true, of_others = (said[truth == level] == level).mean(), (said[truth != level] == level).mean()
        assert of_true > 1 - NOISE[label] - 0.08
        assert of_others < 0.01


def test_a_label_is_told_by_what_its_cause_names(memes: list[PlantedMeme]):
    for label, cause in CROWDED_LABELS.causes.items():
        assert cause["kind"] in ("visual", "textual", "cross-modal")
        if label != "target":
            assert cause["levels"] == {str(level): name for level, name in LEVELS[label].items()}


def test_a_prop_changes_the_picture_inside_its_box_only(memes: list[PlantedMeme]):
    for meme in [m for m in memes if m.factors.prop][:30]:
        bare: Any = replace(meme.factors, prop=())
        with_prop, without = (
            np.array(draw_picture(factors, meme.caption, np.random.default_rng([*meme._key, 1]))).astype(int)
            for factors in (meme.factors, bare)
        )
        rows, columns = np.nonzero(np.abs(with_prop - without).sum(axis=-1))
        inside = np.zeros(len(rows), bool)
        for _, factor, _, _, x0, y0, x1, y1, *_ in meme_places(meme):
            if factor == "prop":
                x, y = columns / len(without), rows / len(without)
                inside |= (x >= x0 - 0.02) & (x <= x1 + 0.02) & (y >= y0 - 0.02) & (y <= y1 + 0.02)
        assert len(rows)
        assert inside.all(), meme.id


def test_the_words_of_a_saying_are_where_the_key_says(memes: list[PlantedMeme]):
    for meme in memes[::5]:
        words, places = meme.caption.split(), list(meme_places(meme))
        said = {value: " ".join(words[s:e]).strip(",").lower() for _, f, value, *_, s, e in places if f == "phrase"}
        assert said == {name: name for name in meme.factors.phrase}
        jokes = [(value, kind, box, s) for _, f, value, kind, *box, s, _ in places if f == "joke"]
        assert {value for value, *_ in jokes} == set(meme.factors.joke)
        assert all(kind == "cross-modal" and None not in (*box, s) for _, kind, box, s in jokes)


def test_the_plain_world_has_none_and_is_what_it_was():
    plain = list(planted_memes(0, 0.1))
    assert not any(meme.factors.prop + meme.factors.phrase + meme.factors.joke for meme in plain)
    digest = hashlib.sha256("\n".join(f"{m.caption} {m.labels}" for m in plain).encode()).hexdigest()
    assert digest == "6c525fed16e7e33ff691dcdebffb8163ee620a17b63bac700eb3da792b2ea4e4"


@pytest.mark.whole
def test_it_is_written_with_its_key_and_in_no_other_worlds_folder(tmp_path: Path):
    given: dict[str, Any] = {"seed": 3, "scale": 0.04, "progress": False}
    paths = write_planted(tmp_path / "a", world="crowded", **given)
    write_planted(tmp_path / "b", world="crowded", **given)
    files = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file() and p.name != ".lock"]
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)
    key, memes = read_answer_key(paths.answer_key), list(planted_memes(3, 0.04, "crowded"))
    for name in ("prop", "phrase", "joke"):
        assert key.factors[name].tolist() == [getattr(meme.factors, name) for meme in memes]
    assert {key.kinds[name] for name in ("prop", "phrase", "joke")} == {"visual", "textual", "cross-modal"}
    assert key.places is not None
    shown = key.places[key.places["factor"] == "prop"].groupby("id")["value"].agg(set)
    assert shown.to_dict() == {m.id: set(m.factors.prop) for m in memes if m.factors.prop}
    with pytest.raises(StorageError, match="world"):
        write_planted(tmp_path / "a", **given)
    with pytest.raises(ConfigError, match=r"world is 'full', it must be 'plain' or 'crowded'"):
        write_planted(tmp_path / "c", world="full", **given)


# the encoder


def test_the_two_encoders_are_small_and_plain():
    files = [path for folder in (DEMO_ENCODER, ENCODER) for path in folder.iterdir()]
    assert {path.name for path in files} == {"README.md", "config.json", "merges.txt.gz", "weights.safetensors"}
    assert sum(path.stat().st_size for path in files) <= 4_000_000
    assert json.loads((ENCODER / "config.json").read_text())["embed_dim"] == 64
    with safe_open(str(ENCODER / "weights.safetensors"), "pt") as weights:
        assert all(torch.isfinite(weights.get_tensor(name)).all() for name in weights.keys())  # noqa: SIM118


@pytest.mark.whole
def test_the_encoder_shows_each_prop_and_saying_linearly():
    """In the product: three props of every place and three sayings of every slot, on memes that the probe has not seen."""
    towers = load_towers("crowded-encoder")
    assert towers.d_embed == 64
    drawn, captions, pictures = [], [], []
    for i in range(600):
        rng = np.random.default_rng([987_654, i])
        meme = crowded(aligned_factors(rng), rng.integers(3, size=4).tolist(), rng.integers(3, size=4).tolist())
        captions.append(write_caption(meme, rng).text)
        pictures.append(towers.preprocess(draw_picture(meme, captions[-1], rng)))
        drawn.append(meme)
    with torch.no_grad():
        image = towers.model.encode_image(torch.stack(pictures), normalize=True)
        text = towers.model.encode_text(towers.tokenize(captions), normalize=True)
    fused = (image * text).numpy()
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    scores = []
    for name in (name for rows in (PROPS, SAYINGS) for row in rows for name in row[:3]):
        true = np.array([name in (*meme.prop, *meme.phrase) for meme in drawn])
        scores.append(roc_auc_score(true[400:], probe.fit(fused[:400], true[:400]).decision_function(fused[400:])))
    assert np.mean(scores) > 0.95
    assert min(scores) > 0.75


# the recipe


def test_the_recipe_asks_for_what_the_world_has():
    recipe = read_yaml("crowded.yaml")
    assert PlantedOptions.from_mapping(recipe["corpus"]["planted"]).world == "crowded"
    assert recipe["embed"]["model"] == "crowded-encoder"
    load_train_config("crowded.yaml")
    assert recipe["train"]["sae"]["d_sae"] > json.loads((ENCODER / "config.json").read_text())["embed_dim"]
    asked = EvaluateOptions.from_mapping({**recipe["evaluate"], "answer_key": "key", "attribution": "attribution"})
    assert asked.names()[0] == "contest"
    concepts = {(concept.label, str(concept)) for concept in map(Concept.parse, asked.concepts or ())}
    assert len(concepts) == sum(map(len, LEVELS.values()))


@pytest.mark.slow
def test_the_sae_leads_where_the_page_says_so(tmp_path: Path):
    run("crowded.yaml", out=tmp_path / "out")
    results = json.loads((tmp_path / "out" / "evaluation" / "evaluation.json").read_text())["results"]
    numbers = results["contest"]["numbers"]
    rivals = [f"{units}{k}" for units in ("neurons", "pca", "ica", "random") for k in ("", "_k")] + ["shuffled_data"]
    assert all(numbers["planted/mcc/sae"] > 3 * numbers[f"planted/mcc/{rival}"] for rival in rivals)
    assert all(numbers[f"planted/auroc/sae_minus_{rival}_low"] > 0 for rival in rivals)
    assert (tmp_path / "out" / "report" / "report.html").is_file()
