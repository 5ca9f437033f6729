"""Confounder pairs: planted ones whose label only both sides together decide, naive recounts, and what is left out."""

# pyright: reportOptionalMemberAccess=false, reportArgumentType=false, reportOptionalOperand=false, reportOperatorIssue=false
from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pandas as pd
import pytest
import torch
from arrays import anisotropic, make_embeddings
from datasets import Dataset
from sae_lens import TopKSAE, TopKSAEConfig
from tiny_sae import tiny_sae

from sae_lens_meme.embed import embed_arrays
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import BadTableError, ConfigError, DataError, StorageError
from sae_lens_meme.evaluators import EvaluateOptions, Latents, Unavailable, encode, evaluate
from sae_lens_meme.evaluators.confounders import CAPTION, GIVEN, PICTURE, Confounders, find_pairs, flip_null
from sae_lens_meme.evaluators.context import Context

D, N_FACTORS = 24, 32
BOTH = 0
"""The factor, and the latent, of what only picture and caption together show."""


def quads(
    n: int, seed: int = 0, d: int = D, columns: tuple[str, ...] = ("text", "image_sha256")
) -> tuple[Embeddings, np.ndarray]:
    """`n` times two pictures x two captions; `hate` is whether face and mood contradict each other. And the dictionary.

    Within a pair that shares its picture the other mood is hateful as often as the one, so that neither side tells.
    """
    rng = np.random.default_rng(seed)
    dictionary = rng.standard_normal((N_FACTORS, d))
    dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
    quad, picture, caption = np.repeat(np.arange(n), 4), np.tile([0, 0, 1, 1], n), np.tile([0, 1, 0, 1], n)
    turn = rng.integers(0, 2, (n, 2))
    face, mood = picture ^ turn[quad, 0], caption ^ turn[quad, 1]
    hate = face ^ mood
    image, text = rng.standard_normal((2, 2 * n, d))
    image, text = image[2 * quad + picture], text[2 * quad + caption]
    image[:, 0], text[:, 0] = 3.0 * face, 3.0 * mood
    factors = (rng.random((4 * n, N_FACTORS)) < 0.1) * rng.exponential(1.0, (4 * n, N_FACTORS))
    factors[:, BOTH] = hate * rng.uniform(1.0, 2.0, 4 * n)
    fused = factors @ dictionary + 0.02 * rng.standard_normal((4 * n, d))
    splits = np.array(["train", "train", "validation", "test", "test"])[quad % 5]
    hooks = {"hook_image_embed": image, "hook_text_embed": text, "hook_fused": fused}
    labels = {"hate": hate.tolist()}
    texts = [f"Caption {q} of {c}" for q, c in zip(quad, caption, strict=True)] if "text" in columns else None
    made = make_embeddings(hooks, labels=labels, splits=splits.tolist(), texts=texts)
    if "image_sha256" in columns:
        hashes = [f"{q}-{p}" for q, p in zip(quad, picture, strict=True)]
        made = Embeddings.from_dataset(made.dataset.add_column("image_sha256", hashes))  # pyright: ignore[reportCallIssue]
    return made, dictionary


def oracle(dictionary: np.ndarray) -> TopKSAE:
    """An SAE whose latents are the planted factors, as well as one linear layer reads them."""
    n, d = dictionary.shape
    sae = TopKSAE(TopKSAEConfig(d_in=d, d_sae=n, k=6, apply_b_dec_to_input=False, rescale_acts_by_decoder_norm=False))
    sae.cfg.metadata.hook_name = "hook_fused"
    with torch.no_grad():
        sae.W_enc.copy_(torch.from_numpy(dictionary.T))
        sae.W_dec.copy_(torch.from_numpy(dictionary))
        sae.b_enc.zero_()
        sae.b_dec.zero_()
    return sae.eval()


@pytest.fixture(scope="module")
def planted() -> tuple[Embeddings, TopKSAE, Any]:
    embeddings, dictionary = quads(300)
    sae = oracle(dictionary)
    return embeddings, sae, Confounders(embeddings).evaluate(sae)


@pytest.mark.parametrize("shared", [PICTURE, CAPTION])
def test_a_latent_of_both_sides_together_orders_the_pairs_and_no_single_side_does(planted, shared):
    numbers, table = planted[2].numbers, planted[2].table.set_index("shared")
    assert numbers[f"hate=1/{shared}/ordered"] >= 0.9
    assert numbers[f"hate=1/{shared}/ordered_low"] >= 0.9
    assert table.loc[shared, "latent"] == BOTH
    assert table.loc[shared, "sign"] == 1
    assert numbers[f"hate=1/{shared}/ordered_permuted"] == pytest.approx(0.5, abs=0.03)
    assert 0.5 < numbers[f"hate=1/{shared}/flips_95"] < 0.65
    assert numbers[f"hate=1/{shared}/q"] < 1e-6
    own = {PICTURE: "image_only", CAPTION: "text_only"}[shared]
    assert numbers[f"hate=1/{shared}/ordered_{own}"] == 0.5, "the side that a pair shares cannot order it"
    for side in ("image_only", "text_only"):
        assert numbers[f"hate=1/{shared}/ordered_{side}"] == pytest.approx(0.5, abs=0.12)
    assert numbers[f"hate=1/{shared}/n_pairs"] == 240


def test_the_verdict_and_the_rows_say_what_to_conclude(planted):
    result = planted[2]
    assert result.verdict.startswith("One latent tells confounder pairs apart better than chance in 2 of 2 sets")
    assert "image only 0.5" in result.verdict
    assert [row["measure"] for row in result.rows()] == [
        "hate=1, same picture (240 pairs)",
        "hate=1, same caption (240 pairs)",
    ]
    assert set(result.rows()[0]["controls"]) >= {"neuron", "random k", "probe", "image only", "text only", "flips 95%"}
    assert ".5 by construction" in result.explain["hate=1/picture/ordered_image_only"]


def test_shares_agree_with_a_loop_over_the_pairs(planted):
    embeddings, sae, result = planted
    acts = encode(sae, embeddings).csr().toarray()
    hashes, texts, hate = embeddings.dataset["image_sha256"][:], embeddings.texts, embeddings.label("hate").values
    for shared, side in ((PICTURE, hashes), (CAPTION, texts)):
        pairs = [
            (i, j)
            for i, j in itertools.permutations(range(len(embeddings)), 2)
            if abs(i - j) < 4 and side[i] == side[j] and hate[i] == 1 and hate[j] == 0
        ]
        d = np.array([acts[i] - acts[j] for i, j in pairs if embeddings.splits[i] != "test"])
        t = d.sum(0) / np.sqrt((d**2).sum(0) + 1e-30)
        unit = int(np.abs(t).argmax())
        held_out = [(acts[i] - acts[j])[unit] * np.sign(t[unit]) for i, j in pairs if embeddings.splits[i] == "test"]
        expected = np.mean([0.5 if x == 0 else float(x > 0) for x in held_out])
        assert result.numbers[f"hate=1/{shared}/ordered"] == pytest.approx(expected, abs=1e-9)
        assert result.numbers[f"hate=1/{shared}/n_tied"] == sum(x == 0 for x in held_out)


@pytest.mark.parametrize("totals", [[1, 1, -1, 1], [2, -1, 0, 3, 1, 1], [4, 4, -2], []])
def test_the_null_of_flips_is_the_enumeration_of_all_signs(totals):
    totals = np.array(totals, dtype=np.int64)
    found, most = flip_null(totals), int(np.abs(totals).sum())
    sums = [int(np.dot(signs, totals)) for signs in itertools.product((-1, 1), repeat=len(totals))]
    expected = [np.mean([total == value for total in sums]) for value in range(-most, most + 1)]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_flips_are_calibrated_where_latents_know_nothing_and_groups_are_large():
    """Pairs that share a meme count as one: as independent ones they would be significant far too often."""
    small = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        n, picture = 400, np.repeat(np.arange(40), 10)  # ten captions a picture, one of them hateful
        hate = (np.arange(n) % 10 == 0).astype(int)
        fused = anisotropic(n, 12, rng)
        splits = np.where(picture % 2, "train", "test").tolist()
        made = make_embeddings({"hook_fused": fused}, labels={"hate": hate.tolist()}, splits=splits)
        made = Embeddings.from_dataset(made.dataset.add_column("image_sha256", picture.astype(str).tolist()))  # pyright: ignore[reportCallIssue]
        found = Confounders(made, n_bootstrap=0, n_permutations=0).evaluate(tiny_sae(fused, d_sae=16, k=4, seed=seed))
        small += found.numbers["hate=1/picture/p"] < 0.1
    assert small <= 12, "a tenth of 60, and four standard deviations"


def test_few_components_give_no_bootstrap_of_the_difference_to_neurons():
    embeddings, dictionary = quads(40)
    result = Confounders(embeddings).evaluate(oracle(dictionary))
    numbers = result.numbers
    assert numbers["hate=1/picture/n_components"] == 16
    assert numbers["hate=1/picture/ordered_low"] is not None, "Wilson's"
    for key in ("hate=1/picture/sae_minus_neurons", "mean_ordered"):
        assert numbers[f"{key}_low"] is None
        assert "components; a bootstrap needs 20" in result.reasons[f"{key}_low"]


def test_a_missing_label_makes_no_pair(planted):
    embeddings, sae, _ = planted
    hate = embeddings.label("hate").values
    hidden = [None if i % 3 == 0 else int(v) for i, v in enumerate(hate)]
    dataset = embeddings.dataset.remove_columns("hate").add_column("hate", hidden)  # pyright: ignore[reportCallIssue]
    result = Confounders(Embeddings.from_dataset(dataset)).evaluate(sae)
    known = np.array([v is not None for v in hidden])
    test = embeddings.splits == "test"
    pairs = [(q, q + 1) for q in range(0, len(hate), 2)]  # the two captions of a picture
    expected = sum(known[i] and known[j] and test[i] for i, j in pairs)
    assert result.numbers["hate=1/picture/n_pairs"] == expected


def test_without_columns_pairs_are_found_by_equal_embeddings(planted):
    with_columns, sae, expected = planted
    bare = Embeddings.from_dataset(with_columns.dataset.remove_columns(["text", "image_sha256"]))
    found = find_pairs(bare)
    assert found.how[PICTURE] == "hook_image_embed equal bit for bit"
    result = Confounders(bare).evaluate(sae)
    assert result.numbers == expected.numbers


def test_embeddings_of_one_picture_that_differ_by_rounding_are_tied():
    embeddings, dictionary = quads(100)
    rng = np.random.default_rng(1)
    image = embeddings.take("hook_image_embed", np.arange(len(embeddings)))
    image = image * (1 + 1e-7 * rng.standard_normal(image.shape)).astype(np.float32)
    columns = {name: embeddings.dataset[name][:] for name in embeddings.dataset.column_names}
    dataset = Dataset.from_dict(columns | {"hook_image_embed": image[:, None, :]}, features=embeddings.dataset.features)
    numbers = Confounders(Embeddings.from_dataset(dataset)).evaluate(oracle(dictionary)).numbers
    assert numbers["hate=1/picture/ordered_image_only"] == 0.5


def test_pairs_across_splits_and_copies_are_counted_and_left_out(planted):
    embeddings, sae, _ = planted
    splits = embeddings.splits.copy()
    splits[:20:2] = "validation"  # one caption of each picture of five quads of which four are of other splits
    columns = {name: embeddings.dataset[name][:] for name in embeddings.dataset.column_names}
    dataset = Dataset.from_dict(columns | {"split": splits.tolist()}, features=embeddings.dataset.features)
    moved = Embeddings.from_dataset(dataset)
    result = Confounders(moved).evaluate(sae)
    pairs = [(q, q + 1) for q in range(0, len(splits), 2)] + [
        (q + c, q + 2 + c) for q in range(0, len(splits), 4) for c in (0, 1)
    ]
    assert result.numbers["n_pairs_across_splits"] == sum(splits[i] != splits[j] for i, j in pairs) > 0
    copies = embeddings.dataset.select([0, 1, 2, 3]).map(lambda row: {"id": f"again {row['id']}"})
    doubled = Embeddings.from_dataset(Dataset.from_dict(
        {name: [*embeddings.dataset[name][:], *copies[name][:]] for name in columns}, features=embeddings.dataset.features
    ))  # fmt: skip
    assert find_pairs(doubled).copies == 4


def test_a_caption_on_very_many_memes_makes_no_pairs():
    n = 120
    rng = np.random.default_rng(0)
    hooks = {"hook_fused": anisotropic(n, 8, rng)}
    texts = [" LOL" if i < 60 else f"caption {i // 2}" for i in range(n)]
    made = make_embeddings(hooks, labels={"hate": [i % 2 for i in range(n)]}, texts=texts)
    found = find_pairs(made)
    assert (len(found.first), found.crowded) == (30, 60)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_pairs_of_a_file(planted, tmp_path: Path, suffix):
    embeddings, sae, _ = planted
    ids = embeddings.ids
    pairs = pd.DataFrame({"one": [*ids[0::2], "elsewhere"], "other": [*ids[1::2], ids[0]]})
    file = tmp_path / f"pairs.{suffix}"
    _ = pairs.to_csv(file, index=False) if suffix == "csv" else pairs.to_parquet(file)
    result = Confounders(embeddings, pairs=file).evaluate(sae)
    assert result.numbers["hate=1/picture/n_pairs"] == 240, "what they share is known"
    assert result.numbers["n_unknown"] == 1
    assert "hate=1/caption/n_pairs" not in result.numbers
    bare = Embeddings.from_dataset(
        embeddings.dataset.remove_columns(["text", "image_sha256", "hook_image_embed", "hook_text_embed"])
    )
    assert set(find_pairs(bare, file).kind) == {GIVEN}
    numbers = Confounders(bare, pairs=file).evaluate(sae)
    assert numbers.numbers["hate=1/given/ordered"] >= 0.9
    assert numbers.reasons["hate=1/given/ordered_image_only"] == "these embeddings lack hook_image_embed"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "pairs.csv: no such file; give a CSV or Parquet file"),
        ("one\na\n", r"pairs.csv: has 1 column\(s\); two columns of ids"),
        ("one,other\na,b\n", "pairs.csv: names no pair of two memes of these embeddings"),
        ("", "pairs.csv: cannot be read"),
    ],
)
def test_a_file_of_pairs_that_is_none(planted, tmp_path: Path, content, message):
    file = tmp_path / "pairs.csv"
    if content is not None:
        file.write_text(content)
    with pytest.raises(BadTableError, match=message):
        Confounders(planted[0], pairs=file).evaluate(planted[1])


def test_no_pairs_is_unavailable_and_says_why():
    rng = np.random.default_rng(0)
    x = anisotropic(60, 8, rng)
    alone = make_embeddings({"hook_fused": x}, labels={"hate": [i % 2 for i in range(60)]})
    few = make_embeddings(
        {"hook_fused": x}, labels={"hate": [i % 2 for i in range(60)]}, texts=[f"caption {i // 2}" for i in range(60)]
    )
    for embeddings, message in (
        (alone, "no two memes share a picture or a caption"),
        (few, r"differ in a label: it needs 5 such pairs of train and validation memes.*\(24 choose, 3 score\)"),
    ):
        sae = tiny_sae(x, d_sae=12, k=3)
        context = Context(sae, embeddings, encode(sae, embeddings), EvaluateOptions(evaluators={}))
        with pytest.raises(Unavailable, match=message):
            Confounders.from_context(context)
        with pytest.raises(DataError, match=message):
            Confounders(embeddings).evaluate(sae)


def test_evaluate_takes_the_file_from_recipes_and_knows_it_by_its_content(planted, tmp_path: Path):
    embeddings, sae, _ = planted
    columns = ["id", "split", "text", "hate", "image_sha256"]
    embeddings.dataset.select_columns(columns).to_csv(tmp_path / "rows.csv")
    arrays = {}
    for side in ("image", "text", "fused"):
        np.save(
            tmp_path / f"{side}.npy",
            embeddings.take(f"hook_{side}_embed".replace("fused_embed", "fused"), np.arange(1200)),
        )
        arrays[f"{side}_embeds"] = tmp_path / f"{side}.npy"
    embed_arrays(tmp_path / "E", table=tmp_path / "rows.csv", **arrays)
    sae.save_model(tmp_path / "S")
    file, n_pairs = tmp_path / "pairs.csv", []
    for n in (1200, 600):
        pd.DataFrame({"one": embeddings.ids[0:n:2], "other": embeddings.ids[1:n:2]}).to_csv(file, index=False)
        found = evaluate(
            *(tmp_path / "S", tmp_path / "E"),
            EvaluateOptions(only=["confounders"], evaluators={"confounders": {"pairs": file}}),
            out=tmp_path / f"V{n}",
            progress=False,
        )
        n_pairs.append(found["results"]["confounders"]["numbers"]["hate=1/picture/n_pairs"])
    assert n_pairs == [240, 120]
    with pytest.raises(StorageError, match="V1200"):
        evaluate(
            *(tmp_path / "S", tmp_path / "E"),
            EvaluateOptions(only=["confounders"], evaluators={"confounders": {"pairs": file}}),
            out=tmp_path / "V1200",
            progress=False,
        )
    wrong = EvaluateOptions(only=["confounders"], evaluators={"confounders": {"pairs": str(tmp_path / "none.csv")}})
    with pytest.raises(ConfigError, match=r"confounders\.pairs is .*none.csv, which is not a file"):
        evaluate(tmp_path / "S", tmp_path / "E", wrong, out=tmp_path / "W", progress=False)


@pytest.mark.parametrize("case", hostile.CASES)
def test_hostile_memes(case):
    hostile.check(lambda embeddings: Confounders(embeddings, n_bootstrap=5, n_permutations=3), case)


@pytest.mark.slow
def test_ten_thousand_memes_take_less_than_five_seconds():
    n, d, d_sae, k = 10_000, 768, 4_096, 64
    embeddings, _ = quads(n // 4, d=d)
    rng = np.random.default_rng(0)
    indices = np.sort(rng.integers(0, d_sae - k, (n, k)), axis=1).astype(np.int32) + np.arange(k, dtype=np.int32)
    latents = Latents(indices, rng.exponential(1, (n, k)).astype(np.float32), d_sae)
    sae = tiny_sae(embeddings.take("hook_fused", np.arange(100)), d_sae=d_sae, k=k)
    start = time.process_time()
    Confounders(embeddings).evaluate(sae, latents=latents)
    assert time.process_time() - start < 10, "5 s on two cores"
