# pyright: reportOptionalSubscript=false, reportOptionalMemberAccess=false, reportArgumentType=false, reportOperatorIssue=false, reportOptionalOperand=false
"""Overlap of top sets and depth of their labels, each against a plain loop and closed forms against drawing."""

from __future__ import annotations

import json
import sys
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from arrays import make_embeddings
from hypothesis import given, settings
from hypothesis import strategies as st
from sae_lens import MatryoshkaBatchTopKTrainingSAE, MatryoshkaBatchTopKTrainingSAEConfig
from sae_lens.saes.sae import SAEMetadata
from scipy import sparse
from tiny_sae import tiny_sae

from sae_lens_meme.cli import main
from sae_lens_meme.embed import embed_arrays
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError, MemeError
from sae_lens_meme.evaluators import Latents, encode, load_sae
from sae_lens_meme.evaluators.monosemanticity import (
    Monosemanticity,
    hierarchy,
    matryoshka_widths,
    top_sets,
    uniqueness,
)
from sae_lens_meme.importers import import_sae

N, D_SAE, TOP = 120, 40, 5
STRATA = np.arange(N) % 3 // 2  # two of three memes in the first
IDS = np.array([f"m{i:03}" for i in range(N)])
TREE = {
    **{"cat": "mammal", "dog": "mammal", "frog": "amphibian", "mammal": "animal", "amphibian": "animal"},
    **{"oak": "plant", "rose": "plant", "animal": "life", "plant": "life"},
}
LEAVES = ("cat", "dog", "frog", "oak", "rose")


def sparse_latents(seed: int = 0, n: int = N, d_sae: int = D_SAE, rate: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    z = (rng.random((n, d_sae)) < rate * rng.uniform(0.2, 2, d_sae)) * rng.exponential(size=(n, d_sae))
    z[:, 1] = z[:, 0]  # a copy
    z[:, 2] = 0
    return z.astype(np.float32)


def latents_of(z: np.ndarray) -> Latents:
    return Latents.from_csr(sparse.csr_matrix(z))


def naive_sets(z: np.ndarray, top: int) -> dict[int, list[int]]:
    """As find_hai_indices.py, without latents whose last top meme does not fire them."""
    ordered = {f: sorted(range(len(z)), key=lambda i: (-z[i, f], i))[:top] for f in range(z.shape[1])}
    return {f: rows for f, rows in ordered.items() if len(rows) == top and z[rows[-1], f] > 0}


@given(seed=st.integers(0, 10_000), top=st.integers(1, 8))
@settings(max_examples=20, deadline=None)
def test_uniqueness_is_the_loop_over_pairs(seed, top):
    z = sparse_latents(seed)
    sets = {f: set(rows) for f, rows in naive_sets(z, top).items()}
    index = {(f, g): len(sets[f] & sets[g]) / len(sets[f] | sets[g]) for f, g in combinations(sets, 2)}
    result = uniqueness(latents_of(z), IDS, STRATA, top=top)
    numbers, values = result.numbers, np.array(list(index.values()))
    assert (numbers["n_latents"], numbers["n_pairs"]) == (len(sets), len(values))
    assert numbers["share_overlapping"] == pytest.approx((values > 0).mean())
    assert numbers["share_above_half"] == pytest.approx((values > 0.5).mean())
    assert numbers["mean_jaccard"] == pytest.approx(values.mean())
    assert numbers["max_jaccard"] == values.max()
    table = result.table.set_index("latent")
    for f in range(D_SAE):
        others = {g: index[min(f, g), max(f, g)] for g in sets if g != f} if f in sets else {}
        if not others:
            assert table.jaccard.isna()[f]
            continue
        assert table.jaccard[f] == pytest.approx(max(others.values()))
        if max(others.values()):
            assert table.nearest_latent[f] == min(g for g, v in others.items() if v == max(others.values()))
        else:
            assert table.nearest_latent.isna()[f]


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_the_order_of_memes_does_not_choose_the_top_set(seed):
    """Whole activations: most are ties, and the id decides. The control draws from sorted ids, so it is the same too."""
    rng = np.random.default_rng(seed)
    z, order = np.ceil(sparse_latents(seed, rate=0.3)), rng.permutation(N)
    one = uniqueness(latents_of(z), IDS, STRATA, top=TOP)
    other = uniqueness(latents_of(z[order]), IDS[order], STRATA[order], top=TOP)
    assert other.numbers == one.numbers
    assert other.table.equals(one.table)
    units, sets = top_sets(latents_of(z[order]), IDS[order], TOP)
    expected = naive_sets(z, TOP)
    assert {f: order[rows].tolist() for f, rows in zip(units, sets, strict=True)} == expected


@pytest.mark.parametrize("strata", [STRATA, np.zeros(N, int), np.minimum(np.arange(N) // 6, 14)])
def test_the_control_is_what_random_memes_of_the_same_sources_give(strata):
    """The closed form against 300 draws of random sets, each with as many memes of each source as the top set."""
    z = sparse_latents(rate=0.3)
    _, sets = top_sets(latents_of(z), IDS, TOP)
    counts, rng = [np.bincount(strata[s], minlength=strata.max() + 1) for s in sets], np.random.default_rng(0)
    members = [np.flatnonzero(strata == s) for s in range(strata.max() + 1)]
    drawn = []
    for _ in range(300):
        random = [
            {m for s in np.flatnonzero(count) for m in rng.choice(members[s], count[s], replace=False)}
            for count in counts
        ]
        index = np.array([len(a & b) / len(a | b) for a, b in combinations(random, 2)])
        drawn.append((index.mean(), (index > 0).mean(), (index > 0.5).mean(), index.max()))
    numbers = uniqueness(latents_of(z), IDS, strata, top=TOP).numbers
    keys = ("mean_jaccard", "share_overlapping", "share_above_half", "max_jaccard")
    error = np.std(drawn, axis=0) / len(drawn) ** 0.5
    for key, mean, sd in zip(keys, np.mean(drawn, axis=0), error, strict=True):
        assert numbers[f"{key}_permuted"] == pytest.approx(mean, abs=4 * sd + 1e-4), key


def test_one_meme_a_source_leaves_nothing_to_chance():
    """Each set can only be handed to its own memes."""
    numbers = uniqueness(latents_of(sparse_latents(rate=0.3)), IDS, np.arange(N), top=TOP).numbers
    for key in ("mean_jaccard", "share_overlapping", "share_above_half", "max_jaccard"):
        assert numbers[f"{key}_permuted"] == pytest.approx(numbers[key], rel=1e-9)


def test_copies_of_latents_stand_out_from_the_control():
    z = np.repeat(sparse_latents(rate=0.3)[:, 3:23], 2, axis=1)
    numbers = uniqueness(latents_of(z), IDS, STRATA, top=TOP).numbers
    assert numbers["max_jaccard"] == 1
    assert numbers["share_above_half"] >= 20 / (40 * 39 / 2) - 1e-12
    assert numbers["share_above_half_permuted"] < 0.01
    every = uniqueness(latents_of(np.ones((TOP, 4))), IDS[:TOP], STRATA[:TOP], top=TOP).numbers
    assert every["mean_jaccard"] == every["mean_jaccard_permuted"] == 1


def test_without_two_top_sets_uniqueness_is_null_with_a_reason():
    result = uniqueness(latents_of(np.eye(N)), IDS, STRATA, top=2)
    assert result.numbers["n_latents"] == result.numbers["n_pairs"] == 0
    assert result.numbers["mean_jaccard"] is result.numbers["share_overlapping_permuted"] is None
    assert result.reasons["mean_jaccard"] == "fewer than two latents fire on 2 of these 120 memes"
    assert all(result.explain[key] for key in result.numbers)
    with pytest.raises(ConfigError, match="top is 0"):
        uniqueness(latents_of(np.eye(N)), IDS, STRATA, top=0)
    with pytest.raises(DataError, match="120 rows of latents, 3 ids, 120 sources"):
        uniqueness(latents_of(np.eye(N)), IDS[:3], STRATA)


def path(label: str) -> list[str]:
    """From below the root down."""
    up = [label]
    while up[-1] in TREE:
        up.append(TREE[up[-1]])
    return up[-2::-1]


def common_depth(a: str, b: str) -> int:
    depth = 0
    for x, y in zip(path(a), path(b), strict=False):
        if x != y:
            break
        depth += 1
    return depth


def labels(seed: int = 0, n: int = N) -> list[str | None]:
    """One in ten is unknown, and one in ten is known only as an animal."""
    rng = np.random.default_rng(seed)
    known = [*LEAVES * 2, "animal", None]
    return [known[i] for i in rng.integers(0, len(known), n)]


@given(seed=st.integers(0, 10_000), top=st.integers(2, 6))
@settings(max_examples=15, deadline=None)
def test_hierarchy_is_the_loop_over_pairs(seed, top):
    z, leaves, edges = sparse_latents(seed, rate=0.2), labels(seed), [4, 15, 40]
    known = [i for i, leaf in enumerate(leaves) if leaf is not None]
    depths: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for f, rows in naive_sets(z[known], top).items():
        pairs = [common_depth(leaves[known[a]], leaves[known[b]]) for a, b in combinations(rows, 2)]
        depths[int(np.searchsorted(edges, f, side="right"))].append(float(np.mean(pairs)))
    result = hierarchy(latents_of(z), leaves, TREE, edges, top=top, n_halves=20)
    assert result.numbers["n"] == len(known)
    assert result.numbers["n_unlabelled"] == N - len(known)
    assert result.numbers["mean_label_depth"] == pytest.approx(np.mean([len(path(leaves[i])) for i in known]))
    for g, name in enumerate(("0-3", "4-14", "15-39")):
        assert result.numbers[f"{name}/n_latents"] == len(depths[g])
        if not depths[g]:
            assert result.numbers[f"{name}/depth"] is None
            assert "no latent of this group fires on" in result.reasons[f"{name}/depth_low"]
            continue
        assert result.numbers[f"{name}/depth"] == pytest.approx(np.mean(depths[g]))
        assert result.numbers[f"{name}/depth_published"] == pytest.approx(np.mean([round(d) for d in depths[g]]))
        mine = result.table[result.table.group == name]
        np.testing.assert_allclose(mine.depth.to_numpy(float), depths[g])
    assert all(result.explain[key] for key in result.numbers)


def test_random_memes_have_the_depth_of_a_drawn_pair():
    z, leaves = sparse_latents(rate=0.2), labels()
    known = np.array([i for i, leaf in enumerate(leaves) if leaf is not None])
    sources = np.array(["x", "y"])[STRATA]
    result = hierarchy(latents_of(z), leaves, TREE, [40], sources=sources, top=TOP)
    depth = np.array([[common_depth(leaves[a], leaves[b]) for b in known] for a in known])
    others = ~np.eye(len(known), dtype=bool)
    assert result.numbers["0-39/depth_random"] == pytest.approx(depth[others].mean(), abs=1e-12)
    rng, strata = np.random.default_rng(0), STRATA[known]
    f = result.table.latent[0]
    count = np.bincount(strata[naive_sets(z[known], TOP)[f]], minlength=2)
    drawn = []
    for _ in range(4000):
        rows = np.concatenate([rng.choice(np.flatnonzero(strata == s), count[s], replace=False) for s in (0, 1)])
        drawn.append(np.mean([depth[a, b] for a, b in combinations(rows, 2)]))
    expected = result.table.depth_random_within_source[0]
    assert np.mean(drawn) == pytest.approx(expected, abs=4 * np.std(drawn) / 4000**0.5)


def planted(seed: int, n: int = 600) -> tuple[Latents, list[str]]:
    """Latents 0-9 fire on animals, 10-29 each on one leaf."""
    rng = np.random.default_rng(seed)
    leaves = rng.choice(LEAVES, n)
    animal = np.isin(leaves, LEAVES[:3])
    fires = np.column_stack(
        [animal * (rng.random(n) < 0.3) for _ in range(10)]
        + [(leaves == LEAVES[f % 5]) * (rng.random(n) < 0.4) for f in range(20)]
    )
    return latents_of(fires * (0.1 + rng.random(fires.shape))), leaves.tolist()


def test_narrower_groups_are_deeper_and_the_interval_is_the_spread_over_memes():
    found = [hierarchy(*planted(seed), TREE, [10, 30]).numbers for seed in range(12)]
    for group in ("0-9", "10-29"):
        depth = np.array([numbers[f"{group}/depth"] for numbers in found])
        width = np.array([numbers[f"{group}/depth_high"] - numbers[f"{group}/depth_low"] for numbers in found])
        if group == "10-29":  # one leaf: always the depth of that leaf
            assert width.max() < 1e-12
        else:
            assert np.mean(width) / 3.92 == pytest.approx(depth.std(ddof=1), rel=0.6)
    for numbers in found:
        assert numbers["10-29/depth_low"] > numbers["0-9/depth_high"] > numbers["0-9/depth_low"]
        assert numbers["0-9/depth_low"] > numbers["0-9/depth_random"]
    none = hierarchy(*planted(0), TREE, [10, 30], n_halves=0)
    assert none.numbers["0-9/depth_low"] is None
    assert none.reasons["0-9/depth_low"] == "n_halves is 0"


def test_ids_decide_between_ties_so_that_the_order_of_memes_does_not():
    z, leaves = np.ceil(sparse_latents(rate=0.4)), labels()
    order = np.random.default_rng(0).permutation(N)
    one = hierarchy(latents_of(z), leaves, TREE, [40], ids=IDS, sources=STRATA, top=TOP)
    other = hierarchy(
        latents_of(z[order]), [leaves[i] for i in order], TREE, [40], ids=IDS[order], sources=STRATA[order], top=TOP
    )
    assert other.numbers == pytest.approx(one.numbers)


def test_a_label_column_is_taken_as_it_is():
    """Whole-number labels, some unknown."""
    tree = {0: "root", 1: "root", 2: 1}
    embeddings: Embeddings = make_embeddings({"hook": np.eye(30)}, labels={"kind": [0, 1, 2, None, 2] * 6})
    z = sparse_latents(n=30, rate=0.6)
    result = hierarchy(latents_of(z), embeddings.label("kind"), tree, [40], top=3)
    plain = hierarchy(latents_of(z), [0, 1, 2, None, 2] * 6, tree, [40], top=3)
    assert result.numbers == plain.numbers
    assert result.numbers["n_unlabelled"] == 6


@pytest.mark.parametrize(
    ("tree", "match"),
    [
        ({}, "there is no child with a parent"),
        ({"a": "b", "b": "c", "c": "a"}, "'a' -> 'b' -> 'c' -> 'a' is a cycle"),
        ({"a": "a"}, "'a' -> 'a' is a cycle"),
        ({"a": "b", "b": "a", "cat": "root"}, "is a cycle"),
        ({"cat": "animal", "oak": "plant"}, r"2 roots \('animal', 'plant'\); give them one parent"),
        ({"catt": "animal"}, "label 'cat' is not in it; did you mean 'catt'"),
        ({"zebra": "horse"}, "label 'cat' is not in it; it has zebra, "),
    ],
)
def test_a_broken_tree_is_refused(tree, match):
    with pytest.raises(ConfigError, match=match):
        hierarchy(latents_of(sparse_latents()), ["cat"] * N, tree, [40])


def test_a_root_may_be_written_with_no_parent():
    latents, leaves = planted(0)
    assert (
        hierarchy(latents, leaves, TREE | {"life": None}, [30]).numbers
        == hierarchy(latents, leaves, TREE, [30]).numbers
    )


@pytest.mark.parametrize("groups", [[], [10], [10, 10, 40], [40, 10], [0, 40], [10, 41]])
def test_groups_rise_and_end_at_the_width(groups):
    with pytest.raises(ConfigError, match=r"groups \[.*\] must rise and end at d_sae, 40"):
        hierarchy(latents_of(sparse_latents()), ["cat"] * N, TREE, groups)


def test_labels_must_be_there_one_a_meme():
    latents = latents_of(sparse_latents())
    with pytest.raises(ConfigError, match="top is 1 and n_halves 200"):
        hierarchy(latents, ["cat"] * N, TREE, [40], top=1)
    with pytest.raises(DataError, match="no meme has a known label"):
        hierarchy(latents, [None] * N, TREE, [40])
    with pytest.raises(DataError, match="3 labels for 120 memes"):
        hierarchy(latents, ["cat"] * 3, TREE, [40])
    with pytest.raises(DataError, match="2 sources for 120 memes"):
        hierarchy(latents, ["cat"] * N, TREE, [40], sources=["a", "b"])


def test_widths_come_from_a_training_sae_its_folder_or_its_metadata(tmp_path):
    cfg = MatryoshkaBatchTopKTrainingSAEConfig(d_in=8, d_sae=40, k=4, matryoshka_widths=[10, 40])
    trained = MatryoshkaBatchTopKTrainingSAE(cfg)
    assert matryoshka_widths(trained) == [10, 40]
    latents, leaves = latents_of(sparse_latents(rate=0.4)), labels()
    assert hierarchy(latents, leaves, TREE, trained).numbers == hierarchy(latents, leaves, TREE, [10, 40]).numbers
    (tmp_path / "runner_cfg.json").write_text(json.dumps({"sae": {"matryoshka_widths": [10, 40]}}))
    assert matryoshka_widths(tmp_path) == matryoshka_widths(str(tmp_path)) == [10, 40]
    named = SimpleNamespace(cfg=SimpleNamespace(metadata=SAEMetadata(matryoshka_widths=[10, 40])))
    assert matryoshka_widths(named) == [10, 40]
    saved = SimpleNamespace(cfg=SimpleNamespace(metadata=SAEMetadata()))  # as SAELens saves it: a JumpReLU SAE
    for without in (saved, tmp_path / "elsewhere"):
        with pytest.raises(
            ConfigError, match=r"names no matryoshka_widths; give the folder that training wrote .*option widths="
        ):
            matryoshka_widths(without)


def test_an_evaluation_measures_the_hierarchy_of_a_label():
    """As the function does, on the held-out memes; without a tree all values are below one root."""
    rng = np.random.default_rng(0)
    kind = [LEAVES[i] if i < 5 else None for i in rng.integers(0, 6, 400)]
    x = rng.standard_normal((400, 8)).astype(np.float32) + 2 * np.eye(8, dtype=np.float32)[rng.integers(0, 5, 400)]
    embeddings, sae = make_embeddings({"hook_fused": x}, labels={"kind": kind}), tiny_sae(x, d_sae=40, k=6)
    settings_ = {"n_permutations": 0, "neurons": False, "min_support": 3, "top": TOP, "hierarchy": "kind"}
    result = Monosemanticity(embeddings, tree=TREE, widths=[10, 40], **settings_).evaluate(sae)
    rows = embeddings.rows("test")
    of = (encode(sae, embeddings).rows(rows), [kind[i] for i in rows])
    expected = hierarchy(*of, TREE, [10, 40], ids=embeddings.ids[rows], top=TOP)
    assert {k: v for k, v in result.numbers.items() if k.startswith("hierarchy/")} == {
        f"hierarchy/{k}": v for k, v in expected.numbers.items()
    }
    assert {"group", "depth", "depth_random_within_source"} <= set(result.table.columns)
    shown = [row for row in result.rows() if row["section"].startswith("Hierarchy")]
    assert [row["value"] for row in shown] == [expected.numbers["0-9/depth"], expected.numbers["10-39/depth"]]
    assert set(shown[0]["controls"]) == {"random", "within source"}
    sae.cfg.metadata.matryoshka_widths = [10, 40]
    flat = Monosemanticity(embeddings, **settings_).evaluate(sae)
    below_one_root = dict.fromkeys(LEAVES, "any")
    assert (
        flat.numbers["hierarchy/10-39/depth"]
        == hierarchy(*of, below_one_root, [10, 40], ids=embeddings.ids[rows], top=TOP, n_halves=0).numbers[
            "10-39/depth"
        ]
    )


def test_the_command_line_knows_the_groups_that_training_wrote(tmp_path, capsys):
    """SAELens saves a Matryoshka SAE as a JumpReLU one: only runner_cfg.json has its groups."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    split = ["train", "validation", "test", "test"] * 100
    pd.DataFrame({"id": range(400), "split": split, "kind": rng.choice(LEAVES, 400)}).to_csv(
        tmp_path / "rows.csv", index=False
    )
    embed_arrays(tmp_path / "E", fused_embeds=tmp_path / "x.npy", table=tmp_path / "rows.csv")
    tiny_sae(x, d_sae=40, k=6).save_model(tmp_path / "S")
    (tmp_path / "S" / "runner_cfg.json").write_text(json.dumps({"sae": {"matryoshka_widths": [10, 40]}}))
    assert load_sae(tmp_path / "S").cfg.metadata.matryoshka_widths == [10, 40]
    given = {"n_permutations": 0, "neurons": False, "min_support": 3, "top": TOP, "hierarchy": "kind"}
    folders = ("--sae", tmp_path / "S", "--embeddings", tmp_path / "E", "--out", tmp_path / "V")
    options = [f"monosemanticity.{key}={str(value).lower()}" for key, value in given.items()]
    with pytest.MonkeyPatch.context() as patched:
        arguments = ["sae-lens-meme", "evaluate", *map(str, folders), "--only", "monosemanticity", *options]
        patched.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code, capsys.readouterr()
    numbers = json.loads((tmp_path / "V" / "evaluation.json").read_text())["results"]["monosemanticity"]["numbers"]
    assert numbers["hierarchy/10-39/n_latents"] > 0


@pytest.mark.parametrize("written", [[1], {"sae": [2]}, {"sae": {"matryoshka_widths": "10"}}, {}])
def test_a_runner_config_of_another_kind_names_no_groups(tmp_path, written):
    (tmp_path / "runner_cfg.json").write_text(json.dumps(written))
    with pytest.raises(ConfigError, match="names no matryoshka_widths"):
        matryoshka_widths(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"hierarchy": "kin"}, "label 'kin' is not in these embeddings"),
        ({"hierarchy": "kind", "tree": {"cat": "life"}}, "label 'dog' is not in it"),
        ({"hierarchy": "kind", "tree": {"cat": "dog", "dog": "cat"}}, "is a cycle"),
        ({"widths": [0]}, "monosemanticity.widths.0 is 0"),
    ],
)
def test_a_wrong_hierarchy_is_refused_before_anything_is_measured(wrong, match):
    embeddings = make_embeddings({"hook_fused": np.eye(30)}, labels={"kind": ["cat", "dog", None] * 10})
    with pytest.raises(MemeError, match=match):
        Monosemanticity(embeddings, **wrong)


def test_an_imported_sae_is_measured_as_the_released_code_does_it(tmp_path, capsys):
    """sae-for-vlm's own files: a Matryoshka SAE of dictionary_learning, and labels that are iNaturalist's folder names."""
    rng = np.random.default_rng(0)
    taxa = [f"{i:05}_{k}_{p}_{c}" for i, (k, p, c) in enumerate((k, p, c) for k in "AB" for p in "pq" for c in "xyz")]
    label = rng.integers(0, len(taxa), 300)
    x = (np.eye(12)[label] + 0.1 * rng.standard_normal((300, 12))).astype(np.float32)
    kingdom = np.stack([label < 6, label >= 6], axis=1)
    x = np.concatenate([x, kingdom], axis=1).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    pd.DataFrame({"id": range(300), "split": "test", "taxon": np.array(taxa)[label]}).to_csv(
        tmp_path / "rows.csv", index=False
    )
    embed_arrays(tmp_path / "E", fused_embeds=tmp_path / "x.npy", table=tmp_path / "rows.csv")
    state = {
        "W_enc": torch.zeros(14, 14),
        "b_enc": torch.full((14,), -0.3),
        "W_dec": torch.eye(14),
        "b_dec": torch.zeros(14),
    }
    state["W_enc"][12:, :2], state["W_enc"][:12, 2:] = torch.eye(2), torch.eye(12)
    state |= {"threshold": torch.tensor(0.1), "k": torch.tensor(2), "group_sizes": torch.tensor([2, 12])}
    torch.save(state, tmp_path / "ae.pt")
    import_sae(tmp_path / "ae.pt", tmp_path / "S", hook="hook_fused")
    given = {"n_permutations": 0, "neurons": False, "top": 8, "hierarchy": "taxon", "separator": "_"}
    options = [
        f"monosemanticity.{key}={str(value).lower() if isinstance(value, bool) else value}"
        for key, value in given.items()
    ]
    folders = ("--sae", tmp_path / "S", "--embeddings", tmp_path / "E", "--out", tmp_path / "V")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            sys, "argv", ["sae-lens-meme", "evaluate", *map(str, folders), "--only", "monosemanticity", *options]
        )
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code, capsys.readouterr()
    numbers = json.loads((tmp_path / "V" / "evaluation.json").read_text())["results"]["monosemanticity"]["numbers"]
    z = encode(load_sae(tmp_path / "S"), Embeddings.load(tmp_path / "E")).csr().toarray()
    ids = np.array([str(i) for i in range(300)])
    for group in ((0, 2), (2, 14)):
        depths = []
        for f in range(*group):
            top = sorted(range(300), key=lambda i: (-z[i, f], ids[i]))[:8]
            paths = [taxa[label[i]].split("_")[1:] for i in top]
            shared = [
                next((d for d, (a, b) in enumerate(zip(p, q, strict=True)) if a != b), 3)
                for p, q in combinations(paths, 2)
            ]
            depths.append(round(np.mean(shared)))
        name = f"hierarchy/{group[0]}-{group[1] - 1}/depth_published"
        assert numbers[name] == pytest.approx(np.mean(depths))
    assert numbers["hierarchy/2-13/depth"] == 3
    assert numbers["hierarchy/0-1/depth"] < 2.5


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"separator": "_", "tree": {"a": "b"}}, "give one"),
        ({"hierarchy": "part", "separator": "_"}, "'1_a' is also a part of another label's path"),
    ],
)
def test_names_that_are_no_tree_are_refused(given, match):
    rng = np.random.default_rng(0)
    labels = {"kind": rng.choice(LEAVES, 40).tolist(), "part": rng.choice(["1_a", "2_a_c"], 40).tolist()}
    memes = make_embeddings({"hook_fused": rng.standard_normal((40, 4))}, labels=labels)
    with pytest.raises(ConfigError, match=match):
        Monosemanticity(memes, **{"hierarchy": "kind", **given})
