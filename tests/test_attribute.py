"""Attribution: which memes, and what a word, a patch or both together do to a latent before TopK."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from arrays import anisotropic, make_embeddings
from command_line import run_here as run
from datasets import load_from_disk
from hypothesis import given
from hypothesis import strategies as st
from sae_lens import SAE
from seen_memes import EMBED, save_sae, write_memes
from tiny_sae import tiny_sae

from sae_lens_meme.attribute import AttributeOptions, attribute, step
from sae_lens_meme.attribute.attributor import patches, without_patches, without_words
from sae_lens_meme.attribute.choose import choose_latents, choose_memes
from sae_lens_meme.attributions import Attributions
from sae_lens_meme.corpus import build_corpus, load_rows
from sae_lens_meme.embed import embed_arrays, embed_corpus
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError, StorageError
from sae_lens_meme.evaluators import evaluate
from sae_lens_meme.evaluators.latents import encode
from sae_lens_meme.hooks import load_towers

pytestmark = pytest.mark.whole
FEW = {"top": 3, "intervals": 3, "per_interval": 1, "pairs": 2, "batch_size": 40, "device": "cpu", "progress": False}


@pytest.fixture(scope="module")
def memes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_memes(tmp_path_factory.mktemp("memes"))


@pytest.fixture(scope="module")
def found(memes: Path) -> Attributions:
    return attribute_in(memes, memes / "attribution")


def attribute_in(memes: Path, out: Path, sae: str = "sae", **given: Any) -> Attributions:
    return attribute(memes / sae, memes / "embeddings", memes / "corpus", out=out, **{**FEW, **given})


def contents(folder: Path) -> dict[str, bytes]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


class Independent:
    """f of a picture and a caption by open_clip's own methods and the SAE's weights."""

    def __init__(self, memes: Path):
        self.towers, self.sae = load_towers("demo-encoder"), SAE.load_from_disk(memes / "sae")
        embeddings = Embeddings.load(memes / "embeddings")
        train = np.flatnonzero(embeddings.splits == "train")
        self.means = [
            torch.from_numpy(embeddings.take(hook, train).mean(0)) for hook in ("hook_image_embed", "hook_text_embed")
        ]
        self.rows = {row["id"]: row for row in load_rows(memes / "corpus")}

    @torch.no_grad()
    def fused(self, pixels: torch.Tensor | None, caption: str | None) -> torch.Tensor:
        image = self.means[0] if pixels is None else self.towers.model.encode_image(pixels[None])[0]
        text = self.means[1] if caption is None else self.towers.model.encode_text(self.towers.tokenize([caption]))[0]
        return image / image.norm() * text / text.norm()

    @torch.no_grad()
    def f(self, latent: int, pixels: torch.Tensor | None, caption: str | None) -> float:
        return float((self.fused(pixels, caption) @ self.sae.W_enc + self.sae.b_enc)[latent])

    @torch.no_grad()
    def activation(self, latent: int, pixels: torch.Tensor | None, caption: str | None) -> float:
        return float(self.sae.encode(self.fused(pixels, caption)[None])[0, latent])


def hidden(pixels: torch.Tensor, patch: int) -> torch.Tensor:
    """The picture without one of 7 x 7 patches, pixel by pixel."""
    out, mean = pixels.clone(), pixels.mean(dim=(1, 2))
    _, height, width = pixels.shape
    for y in range(height):
        for x in range(width):
            if (7 * y // height, 7 * x // width) == divmod(patch, 7):
                out[:, y, x] = mean
    return out


def test_scores_agree_with_an_independent_computation(memes: Path, found: Attributions):
    model = Independent(memes)
    for row in found.dataset.select([0, len(found.dataset) // 2]).to_list():
        meme, latent = model.rows[row["id"]], row["latent"]
        pixels, caption = model.towers.preprocess(meme["image"].convert("RGB")), meme["text"]
        assert row["words"] == caption.split()
        full = model.f(latent, pixels, caption)
        assert row["pre_activation"] == pytest.approx(full, abs=1e-4)
        left_out = [" ".join(row["words"][:i] + row["words"][i + 1 :]) for i in range(len(row["words"]))]
        scores = [full - model.f(latent, pixels, words) for words in left_out]
        np.testing.assert_allclose(row["word_scores"], scores, atol=1e-4)
        regions = [full - model.f(latent, hidden(pixels, patch), caption) for patch in range(49)]
        np.testing.assert_allclose(row["patch_scores"], regions, atol=1e-4)
        assert {pair["word"] for pair in row["interactions"]} <= set(np.argsort(-np.abs(scores))[:2].tolist())
        assert len(row["interactions"]) == 4
        for pair in row["interactions"]:
            word, patch = pair["word"], pair["patch"]
            both = model.f(latent, hidden(pixels, patch), left_out[word])
            value = (
                full - model.f(latent, pixels, left_out[word]) - model.f(latent, hidden(pixels, patch), caption) + both
            )
            assert pair["value"] == pytest.approx(value, abs=1e-4)
        sizes = [abs(pair["value"]) for pair in row["interactions"]]
        assert sizes == sorted(sizes, reverse=True)
        assert row["caption_local"] == pytest.approx(model.activation(latent, None, caption), abs=1e-4)
        assert row["image_local"] == pytest.approx(model.activation(latent, pixels, None), abs=1e-4)
        assert row["meme_global"] == pytest.approx(model.activation(latent, pixels, caption), abs=1e-4)


def test_activations_are_those_of_the_batch_pipeline(memes: Path, found: Attributions):
    embeddings = Embeddings.load(memes / "embeddings")
    dense = encode(SAE.load_from_disk(memes / "sae"), embeddings).csr().toarray()
    row_of = {identity: row for row, identity in enumerate(embeddings.ids)}
    rows = found.dataset.to_list()
    assert [row["activation"] for row in rows] == [dense[row_of[row["id"]], row["latent"]] for row in rows]
    np.testing.assert_allclose([r["meme_global"] for r in rows], [r["activation"] for r in rows], atol=1e-4)


def test_each_latent_has_its_strongest_memes_and_some_of_every_interval(memes: Path, found: Attributions):
    embeddings = Embeddings.load(memes / "embeddings")
    dense = encode(SAE.load_from_disk(memes / "sae"), embeddings).csr().toarray()
    assert found.latents == np.flatnonzero(dense.any(axis=0)).tolist()
    for latent in found.latents:
        rows = found.rows_of(latent)
        assert len({row["id"] for row in rows}) == len(rows)
        top = [row["activation"] for row in rows if row["kind"] == "top"]
        active = np.sort(dense[:, latent][dense[:, latent] > 0])[::-1]
        assert top == active[:3].tolist()
        assert [row["rank"] for row in rows[: len(top)]] == list(range(len(top)))
        for row in rows[len(top) :]:
            assert row["kind"] == "quantile"
            assert row["interval_low"] <= row["activation"] <= row["interval_high"]
            inside = (active > row["interval_low"]) & (active <= row["interval_high"])
            assert row["interval_share"] == pytest.approx(inside.mean())


def test_a_killed_run_ends_with_the_same_bytes(
    memes: Path, found: Attributions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    columns, calls = step._columns, 0

    def killed(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return columns(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(step, "_columns", killed)
        with pytest.raises(KeyboardInterrupt):
            attribute_in(memes, tmp_path / "a")
    with pytest.raises(StorageError, match="the attribute step was interrupted"):
        Attributions.load(tmp_path / "a")
    first = next(p for p in (tmp_path / "a").iterdir() if p.name.startswith("data-00000"))
    written = first.stat().st_mtime_ns
    attribute_in(memes, tmp_path / "a")
    assert contents(tmp_path / "a") == contents(memes / "attribution")
    assert first.stat().st_mtime_ns == written, "the finished block was not made again"


def test_a_finished_result_is_a_dataset_and_is_not_made_again(
    memes: Path, found: Attributions, monkeypatch: pytest.MonkeyPatch
):
    assert load_from_disk(str(memes / "attribution")).to_list() == found.dataset.to_list()
    monkeypatch.setattr(step, "_columns", None)
    assert len(attribute_in(memes, memes / "attribution").dataset) == len(found.dataset)
    with pytest.raises(StorageError, match=r"options.top: 3 there, 4 now"):
        attribute_in(memes, memes / "attribution", top=4)


def test_other_latents_change_nothing_but_the_last_bits(memes: Path, found: Attributions, tmp_path: Path):
    alone = attribute_in(memes, tmp_path / "a", latents=[found.latents[2]])
    together = found.rows_of(found.latents[2])
    assert alone.latents == [found.latents[2]]
    assert [row["id"] for row in alone.rows_of(found.latents[2])] == [row["id"] for row in together]
    for one, other in zip(alone.rows_of(found.latents[2]), together, strict=True):
        np.testing.assert_allclose(one["patch_scores"], other["patch_scores"], atol=1e-4)
        np.testing.assert_allclose(one["word_scores"], other["word_scores"], atol=1e-4)


def test_an_sae_of_pictures_sees_no_captions(memes: Path, tmp_path: Path):
    row = attribute_in(memes, tmp_path / "a", "sae_image").dataset[0]
    assert (row["words"], row["word_scores"], row["interactions"], row["caption_local"]) == ([], [], [], None)
    assert len(row["patch_scores"]) == 49
    assert row["image_local"] == row["meme_global"] == pytest.approx(row["activation"], abs=1e-4)


def test_an_sae_of_captions_sees_no_pictures(memes: Path, tmp_path: Path):
    row = attribute_in(memes, tmp_path / "a", "sae_text").dataset[0]
    assert (row["patch_scores"], row["interactions"], row["image_local"]) == (None, [], None)
    assert len(row["words"]) == len(row["word_scores"]) > 3
    assert row["caption_local"] == row["meme_global"] == pytest.approx(row["activation"], abs=1e-4)


def test_memeclips_heads_fuse_what_is_left(memes: Path, tmp_path: Path):
    embeddings = embed_corpus(memes / "corpus", tmp_path / "e", fusion="memeclip", task="hate", **EMBED)
    save_sae(tmp_path / "sae", embeddings)
    found = attribute(tmp_path / "sae", tmp_path / "e", memes / "corpus", out=tmp_path / "a", **FEW, n_latents=4)
    rows = found.dataset.to_list()
    assert len(found.latents) == 4
    np.testing.assert_allclose([r["meme_global"] for r in rows], [r["activation"] for r in rows], atol=1e-3)
    assert all(np.abs(row["patch_scores"]).max() > 0 and np.abs(row["word_scores"]).max() > 0 for row in rows)


def test_memes_without_captions_have_no_words(memes: Path, tmp_path: Path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i, row in enumerate(load_rows(memes / "corpus").select(range(12))):
        row["image"].convert("RGB").save(pictures / f"{i}.png")
    lines = ["file_name,hate"] + [f"{i}.png,{i % 2}" for i in range(12)]
    (pictures / "metadata.csv").write_text("\n".join(lines))
    build_corpus(tmp_path / "corpus", folder=pictures, progress=False)
    embeddings = embed_corpus(tmp_path / "corpus", tmp_path / "e", **EMBED)
    save_sae(tmp_path / "sae", embeddings)
    found = attribute(tmp_path / "sae", tmp_path / "e", tmp_path / "corpus", out=tmp_path / "a", **FEW)
    assert all(row["words"] == row["word_scores"] == row["interactions"] == [] for row in found.dataset)
    assert all(len(row["patch_scores"]) == 49 for row in found.dataset)


def test_arrays_cannot_be_looked_into(memes: Path, tmp_path: Path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", anisotropic(20, 8, rng))
    pd.DataFrame({"id": [f"m{i}" for i in range(20)]}).to_csv(tmp_path / "t.csv", index=False)
    embeddings = embed_arrays(tmp_path / "e", table=tmp_path / "t.csv", fused_embeds=tmp_path / "x.npy")
    save_sae(tmp_path / "sae", embeddings)
    with pytest.raises(DataError, match="made from arrays, so there are no pictures and no model to run"):
        attribute(tmp_path / "sae", tmp_path / "e", memes / "corpus", out=tmp_path / "a", **FEW)


def test_another_corpus_is_refused(memes: Path, tmp_path: Path):
    other = write_memes(tmp_path / "other", scale=0.01)
    with pytest.raises(DataError, match=r"of the embeddings is not in it \(\d+ such memes\)"):
        attribute(memes / "sae", memes / "embeddings", other / "corpus", out=tmp_path / "a", **FEW)


def test_a_latent_that_the_sae_lacks_is_refused(memes: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"attribute.latents: 24 is not a latent of this SAE; it has 0..23"):
        attribute_in(memes, tmp_path / "a", latents=[3, 24])


@given(st.integers(7, 40), st.integers(7, 40))
def test_patches_cover_every_pixel_once(height: int, width: int):
    assert (patches(height, width).sum(0) == 1).all()


def test_a_picture_without_a_patch_differs_there_alone():
    pixels = torch.rand(3, 21, 28, generator=torch.Generator().manual_seed(0))
    variants = without_patches(pixels)
    assert torch.equal(variants[0], pixels)
    for patch in (0, 24, 48):
        assert torch.equal(variants[1 + patch], hidden(pixels, patch))


@given(st.lists(st.text("abc", min_size=1), max_size=12), st.integers(1, 8))
def test_only_words_that_the_tower_can_read_are_left_out(words: list[str], context: int):
    found = without_words(" ".join(words), context)
    assert found.words == words[:context]
    for i, without in enumerate(found.without):
        expected = words[:i] + words[i + 1 :]
        assert without.split()[:context] == expected[:context]


def test_no_caption_has_no_words():
    assert without_words(None, 8) == ([], [])


def test_copies_are_shown_once_and_rows_may_come_in_any_order():
    rng = np.random.default_rng(0)
    x = anisotropic(300, 16, rng)
    embeddings = make_embeddings({"hook_fused": x})
    grouped = embeddings.dataset.add_column("group", [f"g{i // 3}" for i in range(300)])
    options = AttributeOptions(top=5, per_interval=2)
    sae = tiny_sae(x, d_sae=12, k=3)

    def chosen(dataset: Any) -> pd.DataFrame:
        memes = Embeddings.from_dataset(dataset)
        latents = encode(sae, memes)
        rows = np.arange(len(memes))
        asked = choose_latents(latents, rows, options)
        return choose_memes(latents, memes, asked, rows, options).assign(
            id=lambda t: memes.ids[t["row"]], group=lambda t: memes.groups[t["row"]]
        )

    table = chosen(grouped)
    assert not table.duplicated(["latent", "group"]).any()
    moved = chosen(grouped.select(rng.permutation(300)))
    pd.testing.assert_frame_equal(table.drop(columns=["row", "group"]), moved.drop(columns=["row", "group"]))


@pytest.mark.slow
def test_a_recipe_attributes_before_it_evaluates_and_not_twice(tmp_path: Path):
    (tmp_path / "small.yaml").write_text(
        "corpus: {planted: {seed: 3, scale: 0.02}}\n"
        "embed: {model: demo-encoder, workers: 0, device: cpu}\n"
        "train: {hook_name: hook_fused, epochs: 1, train_batch_size_tokens: 32, sae: {architecture: meme_topk, d_sae: 16, k: 4}}\n"
        "attribute: {n_latents: 2, top: 2, per_interval: 0, device: cpu}\n"
        "evaluate: {bootstrap: 0, only: [reconstruction, attribution]}\n"
    )
    first = run("run", "small.yaml", "--out", "o", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert first.stdout.index("attribute ") < first.stdout.index("evaluate ")
    found = Attributions.load(tmp_path / "o" / "attribution")
    assert len(found.latents) == 2
    told = json.loads((tmp_path / "o" / "evaluation" / "evaluation.json").read_text())
    assert "attribution" in told["options"]["evaluators"]
    before = contents(tmp_path / "o" / "attribution")
    again = run("run", "small.yaml", "--out", "o", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert contents(tmp_path / "o" / "attribution") == before
    other = run("run", "small.yaml", "--out", "o", "attribute.latent=[1]", cwd=tmp_path)
    assert "attribute: unknown key 'latent'; did you mean 'latents'?" in other.stderr


def test_an_attribution_of_another_sae_is_not_evaluated(memes: Path, found: Attributions, tmp_path: Path):
    with pytest.raises(DataError, match="is of another SAE; run attribute again"):
        evaluate(
            *(memes / "sae_image", memes / "embeddings"),
            **{"out": tmp_path / "v", "attribution": memes / "attribution", "progress": False},
        )


def test_the_command_takes_latents_by_number(memes: Path, tmp_path: Path):
    common = ("--sae", "sae", "--embeddings", "embeddings", "--corpus", "corpus", "--out", str(tmp_path / "a"))
    done = run("attribute", *common, "--latent", "1", "--latent", "3", "--top", "1", "--per-interval", "0", cwd=memes)
    assert done.returncode == 0, done.stderr
    assert Attributions.load(tmp_path / "a").latents == [1, 3]


def test_a_recipe_of_arrays_has_nothing_to_attribute(tmp_path: Path):
    (tmp_path / "arrays.yaml").write_text("embed: {table: rows.csv, fused_embeds: A.npy}\nattribute: {top: 1}\n")
    done = run("run", "arrays.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "attribute: planted vectors have neither pictures nor a model; leave the section out" in done.stderr
