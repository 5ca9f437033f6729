"""The demo encoder: its files are small and plain, and its two towers agree on planted memes it has never seen."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sae_lens_meme.hooks.towers import Towers, load_local_towers
from sae_lens_meme.planted import DEMO_ENCODER
from sae_lens_meme.planted.aligned import aligned_factors
from sae_lens_meme.planted.captions import write_caption
from sae_lens_meme.planted.factors import EXPRESSIONS, MOODS, OBJECTS, TOPICS, Factors
from sae_lens_meme.planted.pictures import draw_picture
from sae_lens_meme.planted.rows import PlantedMeme

pytestmark = pytest.mark.whole
N = 256


@pytest.fixture(scope="module")
def towers() -> Towers:
    return load_local_towers(DEMO_ENCODER)


@pytest.fixture(scope="module")
def fresh(towers: Towers) -> tuple[np.ndarray, np.ndarray, list[Factors]]:
    """Unit image and text embeddings of fresh memes whose captions agree with their pictures."""
    memes, captions, pictures = [], [], []
    for i in range(N):
        rng = np.random.default_rng([987_654, i])
        meme = aligned_factors(rng)
        memes.append(meme)
        captions.append(write_caption(meme, rng).text)
        pictures.append(towers.preprocess(draw_picture(meme, captions[-1], rng)))
    with torch.no_grad():
        image = towers.model.encode_image(torch.stack(pictures), normalize=True)
        text = towers.model.encode_text(towers.tokenize(captions), normalize=True)
    return image.numpy(), text.numpy(), memes


def test_the_files_are_small_and_say_what_they_are() -> None:
    files = {path.name: path.stat().st_size for path in DEMO_ENCODER.iterdir()}
    assert set(files) == {"README.md", "config.json", "merges.txt.gz", "weights.safetensors"}
    assert sum(files.values()) <= 4_000_000
    with safe_open(str(DEMO_ENCODER / "weights.safetensors"), "pt") as weights:
        assert all(torch.isfinite(weights.get_tensor(name)).all() for name in weights.keys())  # noqa: SIM118


def test_its_vocabulary_is_clip_s_bytes_and_its_own_merges(towers: Towers) -> None:
    text = gzip.decompress((DEMO_ENCODER / "merges.txt.gz").read_bytes()).decode()
    merges = text.split("\n")[1:]
    assert all(len(merge.split()) == 2 for merge in merges)
    config = json.loads((DEMO_ENCODER / "config.json").read_text())
    assert config["text_cfg"]["vocab_size"] == 512 + len(merges) + 2
    assert towers.tokenize(["my first coffee"]).count_nonzero() == 5  # a token a word, start and end


@settings(max_examples=100, deadline=None)
@given(caption=st.text(max_size=60))
def test_any_caption_encodes(towers: Towers, caption: str) -> None:
    tokens = towers.tokenize([caption])
    assert tokens.min() >= 0
    assert tokens.max() < json.loads((DEMO_ENCODER / "config.json").read_text())["text_cfg"]["vocab_size"]


def test_a_picture_finds_its_caption(fresh: tuple[np.ndarray, np.ndarray, list[Factors]]) -> None:
    """Top-5 of 256 by chance: 2 %."""
    image, text, _ = fresh
    rank = (-(image @ text.T)).argsort(axis=1).argsort(axis=1)
    assert (np.diag(rank) < 5).mean() > 0.9


@pytest.mark.parametrize(("visual", "textual"), [("object", "topic"), ("expression", "mood")])
def test_captions_that_say_what_is_shown_are_nearer(
    fresh: tuple[np.ndarray, np.ndarray, list[Factors]], visual: str, textual: str
) -> None:
    """For each picture, the caption whose other factors agree as well or not counts evenly on both sides."""
    image, text, memes = fresh
    shown = {"object": OBJECTS, "expression": EXPRESSIONS}[visual]
    said = {"topic": TOPICS, "mood": MOODS}[textual]
    a = np.array([shown.index(getattr(meme, visual)) for meme in memes])
    b = np.array([said.index(getattr(meme, textual)) for meme in memes])
    cosine, agree = image @ text.T, a[:, None] == b[None, :]
    wins = [(row[same][:, None] > row[~same][None, :]).mean() for row, same in zip(cosine, agree, strict=True)]
    assert np.mean(wins) > 0.7


def test_only_the_fused_embedding_shows_a_cross_modal_cause(towers: Towers) -> None:
    memes = [PlantedMeme(seed=11, stream="memotion", index=i) for i in range(800)]
    pictures = torch.stack([towers.preprocess(meme.draw()) for meme in memes])
    with torch.no_grad():
        image = towers.model.encode_image(pictures, normalize=True).numpy()
        text = towers.model.encode_text(towers.tokenize([m.caption for m in memes]), normalize=True).numpy()
    clash = np.array([meme.factors.clash for meme in memes])
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.02, max_iter=300))
    scores = {
        name: roc_auc_score(clash[500:], probe.fit(rows[:500], clash[:500]).decision_function(rows[500:]))
        for name, rows in {"image": image, "text": text, "fused": image * text}.items()
    }
    assert scores["fused"] > 0.95
    assert abs(scores["image"] - 0.5) < 0.12
    assert abs(scores["text"] - 0.5) < 0.12


def test_the_readme_names_the_command_that_makes_it() -> None:
    readme = (DEMO_ENCODER / "README.md").read_text()
    assert "scripts/train_demo_encoder.py" in readme
    assert (Path(__file__).parents[1] / "scripts" / "train_demo_encoder.py").is_file()
