"""How a picture becomes a square: chosen by embed, recorded, and used by all that look into the embeddings."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from PIL import ImageDraw, ImageFont
from seen_memes import EMBED, save_sae

from sae_lens_meme.attribute import attribute
from sae_lens_meme.attributions import covered
from sae_lens_meme.corpus import build_corpus
from sae_lens_meme.embed import EmbedOptions, embed_corpus
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, ModelError, StorageError
from sae_lens_meme.export.multimodal import box_of
from sae_lens_meme.hooks import load_towers
from sae_lens_meme.hooks.names import IMAGE_EMBED
from sae_lens_meme.read import MemeReader

WAYS = {"crop": "centre", "squash": "whole", "pad": "padded"}
TALL = ("top", "bottom", "none")
"""Where the caption is drawn on a tall picture: outside its central square."""


def tall(where: str) -> PIL.Image.Image:
    picture = PIL.Image.new("RGB", (60, 180), (90, 140, 200))
    if where != "none":
        draw = ImageDraw.Draw(picture)
        draw.text((3, 8 if where == "top" else 150), "WORDS", fill="black", font=ImageFont.load_default(18))
    return picture


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tall")
    (folder / "memes").mkdir()
    with open(folder / "memes" / "metadata.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "text", "split", "hate"])
        for i, where in enumerate(TALL):
            tall(where).save(folder / "memes" / f"{where}.png")
            writer.writerow([f"{where}.png", "words", "train", i % 2])
        for i in range(5):  # that vectors differ
            noise = np.random.default_rng(i).integers(0, 255, (40, 50, 3), dtype=np.uint8)
            PIL.Image.fromarray(noise).save(folder / "memes" / f"noise{i}.png")
            writer.writerow([f"noise{i}.png", f"other words {i}", "train", i % 2])
    build_corpus(folder / "corpus", folder=folder / "memes", progress=False)
    return folder / "corpus"


@pytest.fixture(scope="module")
def embedded(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Embeddings]:
    folder = tmp_path_factory.mktemp("embedded")
    return {way: embed_corpus(corpus, folder / way, resize=way, **EMBED) for way in WAYS}


def vectors(embeddings: Embeddings) -> dict[str, np.ndarray]:
    taken = embeddings.take(IMAGE_EMBED, range(len(embeddings)))
    return {id.removeprefix("memes/").removesuffix(".png"): x for id, x in zip(embeddings.ids, taken, strict=True)}


def test_only_a_crop_is_blind_to_text_at_the_edges(embedded: dict[str, Embeddings]):
    seen = {way: vectors(embeddings) for way, embeddings in embedded.items()}
    for where in ("top", "bottom"):
        np.testing.assert_array_equal(seen["crop"][where], seen["crop"]["none"])
        for way in ("squash", "pad"):
            assert np.abs(seen[way][where] - seen[way]["none"]).max() > 1e-3
    assert np.abs(seen["squash"]["none"] - seen["pad"]["none"]).max() > 1e-3


def test_the_way_is_recorded_and_makes_another_result(corpus: Path, embedded: dict[str, Embeddings]):
    assert {way: embeddings.facts["resize"] for way, embeddings in embedded.items()} == {way: way for way in WAYS}
    assert len({embeddings.fingerprint for embeddings in embedded.values()}) == 3
    path = embedded["pad"].path
    assert path is not None
    with pytest.raises(StorageError, match="holds a different result"):
        embed_corpus(corpus, path, resize="squash", **EMBED)


def test_the_default_is_that_of_the_model(corpus: Path, tmp_path: Path):
    way = load_towers("demo-encoder").resized
    assert embed_corpus(corpus, tmp_path / "e", **EMBED).facts["resize"] == way
    assert load_towers("ViT-B-32/random").resized == "crop"
    assert load_towers("demo-encoder", "memeclip").resized == "squash"


@pytest.mark.parametrize("way", WAYS)
def test_read_and_attribute_see_what_was_embedded(
    corpus: Path, embedded: dict[str, Embeddings], tmp_path: Path, way: str
):
    embeddings: Any = embedded[way]
    save_sae(tmp_path / "sae", embeddings)
    reader = MemeReader(tmp_path / "sae", embeddings, device="cpu", n_swaps=2, n_random=2)
    mine = reader.vectors(tall("top"), "words")
    np.testing.assert_array_equal(mine[IMAGE_EMBED][0], vectors(embeddings)["top"])
    assert reader.read(corpus.parent / "memes" / "top.png", "words").view == WAYS[way]
    folders = (tmp_path / "sae", embeddings.path, corpus)
    found = attribute(*folders, out=tmp_path / "a", device="cpu", latents=None, top=1, intervals=1, progress=False)
    assert found.facts["view"] == WAYS[way]


def test_a_way_that_there_is_not():
    with pytest.raises(ConfigError, match=r"embed\.resize is 'stretch', it must be 'crop', 'squash' or 'pad'"):
        EmbedOptions(resize="stretch")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="resize is 'stretch', it must be one of crop, squash, pad"):
        load_towers("demo-encoder").resize("stretch")


def test_what_the_patches_cover():
    assert covered("whole", (60, 180)) == (0, 0, 60, 180)
    assert covered("centre", (60, 180)) == (0, 60, 60, 60)
    assert covered("padded", (60, 180)) == (-60, 0, 180, 180)
    assert box_of("padded", (60, 180)) == [-1, 0, 2, 1]
    assert box_of("centre", (60, 180)) == [0, 0.3333, 1, 0.6667]
