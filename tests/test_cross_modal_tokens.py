# pyright: reportOptionalSubscript=false, reportOptionalMemberAccess=false, reportArgumentType=false, reportOperatorIssue=false, reportOptionalOperand=false, reportIndexIssue=false, reportCallIssue=false, reportAttributeAccessIssue=false
"""SAE-V on tokens, each function against a loop over what its paper or its released code says."""

from __future__ import annotations

from collections import defaultdict
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_vlms
import torch
from command_line import run_here
from datasets import load_from_disk
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sae_lens import SAE, StandardSAE, StandardSAEConfig
from scipy import sparse
from scipy.stats import spearmanr

from sae_lens_meme.corpus import build_corpus
from sae_lens_meme.embed import embed_arrays
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError, ModelError
from sae_lens_meme.evaluators import Unavailable, encode
from sae_lens_meme.evaluators.cross_modal import (
    CrossModal,
    anyres_boxes,
    blank,
    keep_patches,
    patch_cosines,
    patch_scores,
    token_chance,
    token_item_scores,
    token_omega,
)
from sae_lens_meme.evaluators.cross_modal.token_weights import TrainTokens, permuted_pictures
from sae_lens_meme.hooks import HookedVLM
from sae_lens_meme.select import select_memes

TEXT, IMAGE, SPECIAL = 1, 2, 3
N, D_SAE, D = 240, 14, 7


def tokens(seed: int, whole: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Activations [N, D_SAE] with many ties where `whole`, modality, item and hidden states; one token is a zero vector."""
    rng = np.random.default_rng(seed)
    z = (rng.random((N, D_SAE)) < rng.uniform(0.05, 0.6, D_SAE)) * rng.exponential(2, (N, D_SAE))
    z = np.ceil(z) if whole else z
    z[:, 3] = 0
    h = rng.standard_normal((N, D))
    h[5] = 0
    return z, rng.choice([TEXT, IMAGE, SPECIAL], N, p=[0.4, 0.5, 0.1]), rng.integers(0, 12, N), h


def naive_omega(
    z: np.ndarray, modality: np.ndarray, h: np.ndarray, rule: str, top: int, side: int, per_token: int | None
):
    z = z * np.isin(modality, (TEXT, IMAGE))[:, None]
    if per_token is not None:
        kept = np.zeros_like(z)
        for t in range(len(z)):
            for f in sorted(range(z.shape[1]), key=lambda f: (-z[t, f], f))[:per_token]:
                kept[t, f] = z[t, f]
        z = kept
    found = np.full(z.shape[1], np.nan)
    for f in range(z.shape[1]):
        order = [t for t in sorted(range(len(z)), key=lambda t: (-z[t, f], t)) if z[t, f] > 0]
        order = order[:top] if rule == "code" else order
        text, image = ([t for t in order if modality[t] == code][:side] for code in (TEXT, IMAGE))
        if len(text) == len(image) == side:
            cosines = []
            for a, b in product(text, image):
                length = np.linalg.norm(h[a]) * np.linalg.norm(h[b])
                cosines.append(h[a] @ h[b] / length if length else 0.0)
            found[f] = np.mean(cosines)
    return found


@given(seed=st.integers(0, 10_000), rule=st.sampled_from(["code", "paper"]), per_token=st.sampled_from([3, 50, None]))
@settings(max_examples=15, deadline=None)
def test_omega_is_the_loop_over_pairs_of_tokens(seed: int, rule: str, per_token: int | None):
    z, modality, _, h = tokens(seed, whole=bool(seed % 2))
    read: list[int] = []

    def take(rows: np.ndarray) -> np.ndarray:
        read.extend(rows.tolist())
        return h[rows]

    found = token_omega(sparse.csr_matrix(z), modality, take, rule=rule, top=20, side=4, per_token=per_token)  # type: ignore[arg-type]
    expected = naive_omega(z, modality, h, rule, 20, 4, per_token)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert np.isnan(found[3])
    assert len(read) == len(set(read))
    assert set(modality[read].tolist()) <= {TEXT, IMAGE}


def test_the_two_rules_differ_where_one_modality_fires_a_latent_more():
    """30 image tokens fire it most, text tokens weakly: the released code has no weight, the paper's rule has one."""
    z = np.concatenate([np.linspace(9, 8, 40), np.linspace(2, 1, 40)])[:, None]
    modality = np.repeat([IMAGE, TEXT], 40)
    h = np.random.default_rng(0).standard_normal((80, 5))
    omega = {rule: token_omega(z, modality, lambda rows: h[rows], rule=rule)[0] for rule in ("code", "paper")}
    assert np.isnan(omega["code"])
    assert omega["paper"] == pytest.approx(naive_omega(z, modality, h, "paper", 30, 5, None)[0])


def test_chance_is_the_mean_over_all_pairs_of_a_text_and_an_image_token():
    _, modality, _, h = tokens(1)
    unit = np.divide(h, np.linalg.norm(h, axis=1, keepdims=True), out=np.zeros_like(h), where=h.any(1, keepdims=True))
    pairs = [unit[a] @ unit[b] for a in np.flatnonzero(modality == TEXT) for b in np.flatnonzero(modality == IMAGE)]
    assert token_chance(modality, lambda rows: h[rows]) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert np.isnan(token_chance(np.full(3, TEXT), lambda rows: h[rows]))
    source = np.arange(len(h)) % 2
    pairs = [
        [
            unit[a] @ unit[b]
            for a in np.flatnonzero(modality == TEXT)
            for b in np.flatnonzero(modality == IMAGE)
            if source[a] == source[b]
        ]
    ]
    assert token_chance(modality, lambda rows: h[rows], source) == pytest.approx(np.mean(pairs), abs=1e-12)


def train_tokens(z: np.ndarray, kind: np.ndarray, item: np.ndarray, source: np.ndarray, h: np.ndarray) -> TrainTokens:
    return TrainTokens(
        sparse.csr_matrix(z), kind, item, source, np.unique(item, return_inverse=True)[1], lambda r: h[r]
    )


def above_permuted(tokens: TrainTokens) -> int:
    """Of 20 permutations those whose median weight is below the observed one."""
    medians = [
        np.nanmedian(token_omega(tokens.z[order], tokens.kind, tokens.take)) for order in permuted_pictures(tokens, 0)
    ]
    return int((np.array(medians) < np.nanmedian(token_omega(tokens.z, tokens.kind, tokens.take))).sum())


@pytest.mark.parametrize("knows", ["source", "picture"])
def test_knowing_the_source_or_the_picture_alone_is_not_above_permuted_pictures(knows: str):
    """Each latent fires on random tokens of one source, or on all tokens of a few pictures of it."""
    rng = np.random.default_rng(0)
    items, per, d = 60, 10, 8
    item, kind = np.arange(items).repeat(per), np.tile([TEXT, IMAGE], items * per // 2)
    source = item % 2
    h = (
        rng.standard_normal((2, d))[source]
        + rng.standard_normal((items, d))[item]
        + rng.standard_normal((len(item), d))
    )
    z = np.zeros((len(item), 20))
    for f in range(20):
        own = np.flatnonzero(source == f % 2)
        fires = np.isin(item, rng.choice(item[own], 5)) if knows == "picture" else rng.choice(own, 100, replace=False)
        z[fires, f] = 1 + rng.random(len(z[fires]))
    assert above_permuted(train_tokens(z, kind, item, source, h)) < 20


def test_pictures_are_permuted_whole_within_source():
    """Some have more tokens than others: theirs are given twice or left out, in their order."""
    rng = np.random.default_rng(1)
    n = rng.integers(1, 9, 40)
    item = np.arange(40).repeat(n)
    source, kind = item % 2, rng.choice([TEXT, IMAGE], len(item))
    tokens = train_tokens(np.zeros((len(item), 1)), kind, item, source, np.zeros((len(item), 1)))
    for order in permuted_pictures(tokens, 0):
        np.testing.assert_array_equal(kind[order], kind)
        np.testing.assert_array_equal(source[order], source)
        giver = pd.DataFrame({"to": item, "of": item[order], "kind": kind, "row": order})
        assert giver.groupby("to")["of"].nunique().max() == 1
        assert all(rows.is_monotonic_increasing for _, rows in giver.groupby(["to", "kind"])["row"])


@given(seed=st.integers(0, 10_000), rule=st.sampled_from(["cooccurrence", "any"]), delta=st.sampled_from([0.0, 1.0]))
@settings(max_examples=15, deadline=None)
def test_item_scores_are_the_loop_over_items(seed: int, rule: str, delta: float):
    z, modality, item, _ = tokens(seed)
    omega = np.random.default_rng(seed).uniform(-1, 1, D_SAE)
    omega[::4] = np.nan
    names = np.array([f"meme {i:02}" for i in item])
    found = token_item_scores(sparse.csr_matrix(z), modality, names, omega, rule=rule, delta=delta)  # type: ignore[arg-type]
    sets: dict[tuple[str, int], set[int]] = defaultdict(set)
    for t in range(N):
        sets[names[t], modality[t]] |= set(np.flatnonzero(z[t] > delta).tolist())
    assert found.items.tolist() == sorted(set(names.tolist()))
    for i, name in enumerate(found.items):
        text, image = sets[name, TEXT], sets[name, IMAGE]
        mine = text & image if rule == "cooccurrence" else text | image
        weights = [omega[f] for f in mine if not np.isnan(omega[f])]
        assert found.l0[i] == len(mine)
        assert found.count[i] == len(weights)
        assert found.sum[i] == pytest.approx(sum(weights), abs=1e-12)
        assert found.mean[i] == pytest.approx(np.mean(weights) if weights else np.nan, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("kind", ["l0", "l1", "cooccurrence", "omega", "cosine"])
def test_patch_scores_are_the_loop_over_cells(kind: str):
    z, modality, item, h = tokens(2)
    rng, grid = np.random.default_rng(3), 6
    corner = rng.uniform(0, 0.7, (N, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.1, 0.5, (N, 2))], axis=1)
    boxes[rng.random(N) < 0.1] = np.nan
    boxes[item == 7] = np.nan
    omega = rng.uniform(-1, 1, D_SAE)
    omega[2] = np.nan
    if kind == "cosine":
        found = patch_cosines(h, modality, item, boxes, grid=grid)
    else:
        given_omega = omega if kind == "omega" else None
        found = patch_scores(z, modality, item, boxes, kind=kind, omega=given_omega, grid=grid)  # type: ignore[arg-type]
    unit = np.divide(h, np.linalg.norm(h, axis=1, keepdims=True), out=np.zeros_like(h), where=h.any(1, keepdims=True))
    for i in range(12):
        text = np.flatnonzero((item == i) & (modality == TEXT))
        with_text = (z[text] > 0).any(axis=0)
        mean = unit[text].sum(axis=0)
        value = {
            "l0": (z > 0).sum(1),
            "l1": z.sum(1),
            "cooccurrence": ((z > 0) & with_text).sum(1),
            "omega": (z > 0) @ np.nan_to_num(omega),
            "cosine": unit @ mean / max(np.linalg.norm(mean), 1e-300),
        }[kind]
        for y, x in product(range(grid), range(grid)):
            cy, cx = (y + 0.5) / grid, (x + 0.5) / grid
            over = [
                value[t]
                for t in np.flatnonzero((item == i) & (modality == IMAGE))
                if boxes[t, 0] <= cy < boxes[t, 2] and boxes[t, 1] <= cx < boxes[t, 3]
            ]
            expected = np.mean(over) if over else np.nan
            np.testing.assert_allclose(found[i, y, x], expected, rtol=0, atol=1e-12)
    assert np.isnan(found[7]).all()


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 1.0])
def test_exactly_the_share_is_kept_and_ties_are_drawn(share: float):
    scores = np.zeros((200, 4, 4))
    scores[:, 0, 0], scores[:, 3, 3] = 1, np.nan
    keep = keep_patches(scores, share, np.random.default_rng(0))
    assert (keep.sum(axis=(1, 2)) == max(1, round(share * 16))).all()
    assert keep[:, 0, 0].all()
    assert not keep[:, 3, 3].any() or share == 1
    if share == 0.5:
        drawn = keep.mean(axis=0).ravel()[1:-1]
        assert drawn.min() > 0.35
        assert drawn.max() < 0.65


def test_blanked_pixels_are_those_of_the_cells_that_are_not_kept():
    keep = np.array([[[True, False], [False, True]], [[False, False], [True, True]]])
    pixels = np.arange(1, 2 * 3 * 4 * 6 + 1, dtype=np.float32).reshape(2, 3, 4, 6)
    expected = pixels.copy()
    for i, y, x in product(range(2), range(4), range(6)):
        if not keep[i, y // 2, x // 3]:
            expected[i, :, y, x] = -1
    np.testing.assert_array_equal(blank(pixels, keep, -1), expected)
    assert torch.equal(blank(torch.from_numpy(pixels), keep, -1), torch.from_numpy(expected))
    np.testing.assert_array_equal(blank(pixels[0], keep[0], -1), expected[0])


def llava_next():
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextConfig
    from transformers.models.llava_next.modeling_llava_next import LlavaNextModel

    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**small, image_size=336, patch_size=14),
        text_config=LlamaConfig(**small, vocab_size=32, num_key_value_heads=1),
    )
    with torch.device("meta"):
        return LlavaNextModel(config)


@pytest.mark.parametrize(
    ("size", "n"), [((336, 336), 1176), ((480, 640), 2340), ((600, 600), 2928)], ids=lambda value: str(value)
)
def test_boxes_of_any_resolution_and_the_ends_of_its_rows(size: tuple[int, int], n: int):
    patches, boxes = anyres_boxes(llava_next(), size)
    ends = np.flatnonzero(patches == -1)
    assert len(patches) == n
    assert np.isnan(boxes[ends]).all()
    assert not np.isnan(np.delete(boxes, ends, axis=0)).any()
    if n == 1176:
        assert ends.tolist() == [600 + 25 * row for row in range(24)]
        np.testing.assert_allclose(
            boxes[576:600], boxes[:24]
        )  # the first row of the tile covers what that of the whole does
    places = np.delete(np.arange(n), ends)[576:]
    area = (boxes[places, 2] - boxes[places, 0]) * (boxes[places, 3] - boxes[places, 1])
    assert area.sum() == pytest.approx(1)  # the tiles cover the picture once
    assert (np.diff(boxes[places, 0]) >= 0).all()  # row by row


def test_a_hooked_model_has_a_box_or_a_row_end_for_each_image_token():
    hf, rows = tiny_vlms.made(tiny_vlms.llava_next)
    patches, _ = anyres_boxes(HookedVLM(hf), (32, 64), rows.columns["pixel_values"].shape[1])
    assert len(patches) == int((rows.tags[0] == IMAGE).sum())
    assert (patches == -1).sum() == 4


def test_what_packs_otherwise_is_refused():
    with pytest.raises(ModelError, match="Linear has no pack_image_features"):
        anyres_boxes(torch.nn.Linear(1, 1), (336, 336))
    with pytest.raises(ConfigError, match="a picture of 336 x 336 does not give 4 tiles here"):
        anyres_boxes(llava_next(), (336, 336), 4)


def test_wrong_tokens_are_refused():
    z, modality, item, h = tokens(0)
    with pytest.raises(DataError, match="3 modalities for 240 tokens"):
        token_omega(z, modality[:3], lambda rows: h[rows])
    with pytest.raises(DataError, match=r"activation -1\.0 is negative"):
        token_omega(-np.ones((2, 2)), modality[:2], lambda rows: h[rows])
    with pytest.raises(ConfigError, match="rule is 'both'"):
        token_omega(z, modality, lambda rows: h[rows], rule="both")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="its hidden state is NaN"):
        token_omega(z, modality, lambda rows: h[rows] * np.nan)
    with pytest.raises(DataError, match="3 weights do not fit latents of d_sae 14"):
        token_item_scores(z, modality, item, np.zeros(3))
    with pytest.raises(ConfigError, match="needs omega="):
        patch_scores(z, modality, item, np.zeros((N, 4)), kind="omega")
    with pytest.raises(DataError, match=r"give \[tokens, 4\]"):
        patch_scores(z, modality, item, np.zeros((3, 4)))


def made_token_rows(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Token rows and an SAE: half of the items fire latent 0 in text and image tokens, the others 1 in one kind and 2 in the other.

    Returns:
        Which items are of the first half, and the split of each.
    """
    rng = np.random.default_rng(0)
    n, each = 40, 6
    x = np.zeros((n * each, 8), np.float32)
    good = rng.permutation(n) < n // 2
    for i, t in product(range(n), range(each)):
        side = t % 2
        x[i * each + t, 0 if good[i] else 1 + side] = 2 + rng.random()
        x[i * each + t, 4:] = 0.1 * rng.standard_normal(4)
    splits = np.array(["train" if i % 4 else "test" for i in range(n)])
    rows = {"id": [f"m{i:02}@{t}" for i, t in product(range(n), range(each))], "split": splits.repeat(each)}
    rows |= {
        "item": [f"pictures/{name[:3]}" for name in rows["id"]],
        "modality": np.tile(["image", "text"], n * each // 2),
    }
    pd.DataFrame(rows).to_csv(folder / "rows.csv", index=False)
    np.save(folder / "x.npy", x)
    embed_arrays(folder / "tokens", table=folder / "rows.csv", fused_embeds=folder / "x.npy")
    sae = StandardSAE(StandardSAEConfig(d_in=8, d_sae=3, apply_b_dec_to_input=False))
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(8)[:, :3])
        sae.W_dec.copy_(torch.eye(8)[:3])
    sae.cfg.metadata.hook_name = "hook_fused"
    sae.save_model(folder / "sae")
    return good, splits


def test_evaluate_weighs_the_latents_of_token_rows(tmp_path):
    good, splits = made_token_rows(tmp_path)
    memes, sae = Embeddings.load(tmp_path / "tokens"), SAE.load_from_disk(tmp_path / "sae")
    found = CrossModal(memes).evaluate(sae)
    z, (item, modality) = encode(sae, memes).csr(), (np.array(memes.dataset[name]) for name in ("item", "modality"))
    train = np.flatnonzero(memes.splits == "train")
    kind = np.where(modality[train] == "text", TEXT, IMAGE)
    omega = token_omega(z[train], kind, lambda rows: memes.take("hook_fused", train[rows]))
    np.testing.assert_allclose(found.table["omega"].astype(float), omega)
    assert np.isnan(omega[1:]).all(), "these fire on one kind"
    n_good = int((good & (splits == "train")).sum())
    assert found.table["text_tokens"].tolist() == [3 * n_good, 0, 3 * (30 - n_good)]
    assert [found.numbers[f"latents/{key}"] for key in ("with_weight", "one_kind", "silent")] == [1, 2, 0]
    assert found.numbers["omega/median"] == pytest.approx(omega[0])
    assert found.numbers["omega/median"] > 0.9 > found.numbers["omega/median_permuted"] > 0
    unit = memes.take("hook_fused", train) / np.linalg.norm(memes.take("hook_fused", train), axis=1, keepdims=True)
    assert found.numbers["omega/median_chance"] == pytest.approx(
        np.mean(unit[kind == TEXT] @ unit[kind == IMAGE].T), abs=1e-6
    )
    scores = token_item_scores(z[train], kind, item[train], omega, delta=0.0)
    assert found.numbers["score/spearman_l0"] == pytest.approx(spearmanr(scores.sum, scores.l0).statistic)
    assert "defined for 1 of 3 latents" in found.verdict
    pictures = Embeddings(memes.dataset.select(np.flatnonzero(modality == "image")), memes.facts)
    with pytest.raises(Unavailable, match="the train tokens are: image"):
        CrossModal(pictures).evaluate(sae)


def test_select_filters_token_rows_by_item(tmp_path):
    """Each item has text and image tokens; half of the items fire a shared latent in both, and these are kept."""
    good, splits = made_token_rows(tmp_path)
    rng, n, each = np.random.default_rng(1), len(good), 6
    share = good[splits == "train"].mean()
    kept = select_memes(tmp_path / "sae", tmp_path / "tokens", out=tmp_path / "out", share=share, delta=1.0)
    expected = {f"pictures/m{i:02}" for i in range(n) if good[i] or splits[i] == "test"}
    assert set(kept["item"]) == expected
    assert len(kept) == each * len(expected)
    assert all(
        (score > 0) == good[int(item[-2:])] for item, score in zip(kept["item"], kept["cross_modal_score"], strict=True)
    )
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(n):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(pictures / f"m{i:02}.png")
    table = pd.DataFrame(
        {"image": [f"m{i:02}.png" for i in range(n)], "id": [f"m{i:02}" for i in range(n)], "split": splits}
    )
    table.to_csv(pictures / "metadata.csv", index=False)
    build_corpus(tmp_path / "corpus", folder=pictures, progress=False)
    ran = run_here(
        *("select", "--sae", tmp_path / "sae", "--embeddings", tmp_path / "tokens", "--corpus", tmp_path / "corpus"),
        *("--share", share, "--delta", 1, "--out", tmp_path / "memes"),
    )
    assert ran.returncode == 0, ran.stderr
    memes = load_from_disk(str(tmp_path / "memes"))
    assert {name for part in memes.values() for name in part["id"]} == expected, "items choose the pictures of a corpus"
    assert memes["train"]["image"][0].size == (8, 8)
    with pytest.raises(ConfigError, match="token rows have hidden states, no CLIP embeddings"):
        select_memes(tmp_path / "sae", tmp_path / "tokens", out=tmp_path / "other", by="clip")
