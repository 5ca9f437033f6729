# pyright: reportOptionalSubscript=false, reportArgumentType=false, reportOptionalMemberAccess=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportOptionalOperand=false, reportOperatorIssue=false, reportOptionalIterable=false
from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from itertools import permutations, product
from typing import Any

import hostile
import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
import torch
from arrays import anisotropic, make_embeddings
from hypothesis import given, settings
from hypothesis import strategies as st
from sae_lens import TopKSAE, TopKSAEConfig
from scipy import sparse
from statsmodels.stats.anova import anova_lm
from tiny_sae import tiny_sae

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError, NonFiniteError
from sae_lens_meme.evaluators import Unavailable
from sae_lens_meme.evaluators.latents import Latents, encode
from sae_lens_meme.evaluators.question_set import (
    CLASSES,
    Cells,
    QuestionSet,
    TwoByTwo,
    cells_of,
    class_codes,
    concentration,
    concept_items,
    effects,
    fused_items,
    permuted_within_items,
    random_items,
    table_of,
    variance_shares,
)
from sae_lens_meme.evaluators.question_set.evaluator import _verdict
from sae_lens_meme.evaluators.result import Measure
from sae_lens_meme.hooks.memeclip import MemeCLIPHeads, fuse
from sae_lens_meme.metrics.resampling import bootstrap_weights

Z = Callable[[np.ndarray, np.ndarray], np.ndarray]


def cells(dense: np.ndarray) -> Cells:
    """Of activations [4, items, d_sae]."""
    return Cells(*(Latents.from_csr(sparse.csr_matrix(z)) for z in dense))


def random_cells(seed: int, items: int = 40, d_sae: int = 12) -> np.ndarray:
    """Activations with a visual, a textual and an interacting part; latent 3 is silent, latent 4 always the same."""
    rng = np.random.default_rng(seed)
    image, text = rng.exponential(size=(2, 2, items, d_sae)) * (rng.random((2, 2, items, d_sae)) < 0.4)
    both = rng.exponential(size=(4, items, d_sae)) * (rng.random((4, items, d_sae)) < 0.2)
    mix = rng.dirichlet((0.3, 0.3, 0.3), d_sae).T
    z = np.stack([mix[0] * image[i] + mix[1] * text[t] for i in (0, 1) for t in (0, 1)]) + mix[2] * both
    z[..., 3], z[..., 4] = 0, 0.5
    return z.astype(np.float32).astype(np.float64)


def every_item(z: Z) -> np.ndarray:
    """One latent under the 16 equally likely items of a fair visual a and a fair textual b, [4, 16, 1]."""
    a, a2, b, b2 = np.array(list(product((0, 1), repeat=4))).T
    return np.stack([z(x, y) for x in (a, a2) for y in (b, b2)])[..., None].astype(float)


# -- the core against independent computations


def test_effects_and_squares_equal_a_loop_over_items():
    z = random_cells(0)
    found = effects(cells(z), min_items=0, n_bootstrap=0)
    assert found.latents.tolist() == list(range(12))
    for latent in range(12):
        image, text, interaction, active = [], [], [], 0
        for item in range(40):
            aa, ab, ba, bb = z[:, item, latent]
            image.append((aa + ab) / 2 - (ba + bb) / 2)
            text.append((aa + ba) / 2 - (ab + bb) / 2)
            interaction.append(((aa - ab) - (ba - bb)) / 2)
            active += any(v > 0 for v in (aa, ab, ba, bb))
        np.testing.assert_allclose(found.effects[:, latent], np.mean([image, text, interaction], axis=1), atol=1e-12)
        np.testing.assert_allclose(
            found.squares[:, latent], np.mean(np.square([image, text, interaction]), axis=1), atol=1e-12
        )
        np.testing.assert_allclose(found.means[:, latent], z[:, :, latent].mean(axis=1), atol=1e-12)
        assert found.n_active[latent] == active
    assert found.n_fired == 11


@pytest.mark.filterwarnings("ignore")  # a 2x2 table has no residual, so no F
def test_squares_are_the_sums_of_squares_of_each_items_analysis_of_variance():
    z = random_cells(1, items=6)
    found = effects(cells(z), min_items=0, n_bootstrap=0)
    for latent in (0, 5, 7):
        sums = np.zeros(3)
        for item in range(6):
            frame = pd.DataFrame({"z": z[:, item, latent], "image": list("aabb"), "text": list("abab")})
            sums += anova_lm(smf.ols("z ~ image * text", frame).fit(), typ=1)["sum_sq"][:3].to_numpy()
        np.testing.assert_allclose(found.squares[:, latent], sums / 6, atol=1e-12)


def test_variances_are_the_anova_estimators_of_the_whole_factorial():
    """Over all pairs of pictures x all pairs of texts the shares are those of the classical two-way components."""
    f = np.random.default_rng(2).exponential(size=(7, 5)) + np.arange(7)[:, None] + np.arange(5)
    quadruples = [(i, j, s, t) for i, j in permutations(range(7), 2) for s, t in permutations(range(5), 2)]
    i, j, s, t = np.array(quadruples).T
    z = np.stack([f[i, s], f[i, t], f[j, s], f[j, t]])[..., None]
    frame = pd.DataFrame({"z": f.ravel(), "i": np.repeat(range(7), 5), "t": np.tile(range(5), 7)})
    table = anova_lm(smf.ols("z ~ C(i) + C(t)", frame).fit())
    ms_image, ms_text, ms_both = table["sum_sq"] / table["df"]
    expected = np.array([(ms_image - ms_both) / 5, (ms_text - ms_both) / 7, ms_both])
    assert expected.min() > 0
    squares = np.mean((np.array([[1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]) / 2 @ z[..., 0]) ** 2, axis=1)
    np.testing.assert_allclose(variance_shares(squares), expected / expected.sum(), rtol=1e-10)


def test_two_fixed_prompts_are_not_taken_for_draws():
    """Pictures drawn, texts two fixed conditions: variances over pictures x {A, B}, unbiased."""
    f = np.random.default_rng(3).exponential(size=(30, 2)) + np.array([0, 2])
    i, j = np.array(list(permutations(range(30), 2))).T
    z = np.stack([f[i, 0], f[i, 1], f[j, 0], f[j, 1]])[..., None]
    half = (f[:, 0] - f[:, 1]) / 2
    picture, both = f.mean(axis=1).var(ddof=1), half.var(ddof=1)
    expected = np.array([picture, half.mean() ** 2 - both / 30, both])
    found = effects(cells(z.astype(np.float32)), drawn=("image",), n_bootstrap=0)
    np.testing.assert_allclose(found.shares[:, 0], expected / expected.sum(), rtol=1e-5)
    whole = picture * 29 / 30 + half.mean() ** 2 + both * 29 / 30
    assert whole == pytest.approx(f.var()), "the three are the variance of all 30 x 2 activations"


def test_of_fixed_conditions_the_shares_are_the_sums_of_squares():
    found = effects(cells(random_cells(4)), drawn=(), min_items=0, n_bootstrap=0)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(found.shares, found.squares / found.squares.sum(axis=0))


@pytest.mark.parametrize("groups", [None, np.maximum(np.arange(40) - 12, 0)])
def test_intervals_equal_a_loop_over_resamples(groups: Any):
    z = random_cells(5)
    strata = np.repeat([0, 1], [15, 25])
    found = effects(cells(z), n_bootstrap=30, strata=strata, groups=groups, seed=7, min_items=1)
    signed, shares = [], []
    for weight in bootstrap_weights(strata, 30, 7, groups):
        rows = np.repeat(np.arange(40), weight)
        again = effects(cells(z[:, rows]), n_bootstrap=0, min_items=0)
        signed.append(again.effects[:, found.latents])
        shares.append(again.shares[:, found.latents])
    np.testing.assert_allclose(found.effects_interval, np.percentile(signed, [2.5, 97.5], axis=0), atol=1e-12)
    shares = np.where(np.isnan(shares), found.shares, shares)  # a resample in which the latent never differs
    np.testing.assert_allclose(found.shares_interval, np.percentile(shares, [2.5, 97.5], axis=0), atol=1e-12)
    counts = []
    for replicate in shares:
        moved = found.shares_interval + (replicate - found.shares)
        codes = [naive_class(*moved[:, :2, k].T.ravel()) for k in range(len(found.latents))]
        counts.append([codes.count(c) for c in (*CLASSES, None)])
    spread = np.percentile(counts - np.median(counts, axis=0), [2.5, 97.5], axis=0)
    expected = np.clip(found.counts + spread, 0, len(found.latents))
    np.testing.assert_allclose(found.counts_interval, expected, atol=1e-9)


def naive_class(image_low: float, image_high: float, text_low: float, text_high: float) -> str | None:
    if image_low > 0.5:
        return "visual"
    if text_low > 0.5:
        return "textual"
    return "cross-modal" if image_high < 0.5 and text_high < 0.5 else None


def test_blocks_of_latents_change_nothing():
    z = cells(random_cells(6))
    whole, parts = effects(z, n_bootstrap=20), effects(z, n_bootstrap=20, block=5)
    for name, value in vars(whole).items():
        np.testing.assert_array_equal(value, getattr(parts, name), err_msg=name)


def test_intervals_cover_the_true_share():
    """z = a AND b at fair odds, 300 items, 400 times: a third each, in the 95 % interval about as often as it says."""
    rng = np.random.default_rng(8)
    a, a2, b, b2 = rng.random((4, 300, 400)) < 0.5
    found = effects(cells(np.stack([x & y for x in (a, a2) for y in (b, b2)]).astype(float)))
    low, high = found.shares_interval
    covered = ((low <= 1 / 3) & (high >= 1 / 3)).mean(axis=1)
    assert ((covered > 0.91) & (covered < 0.98)).all(), covered
    assert set(found.classes) <= {CLASSES.index("cross-modal"), len(CLASSES)}
    assert (found.classes == CLASSES.index("cross-modal")).mean() > 0.9


def test_shares_of_rare_latents_are_marked_because_their_intervals_are_too_short():
    """The same latents, firing in some 25 items: the intervals hold the truth less often than they say."""
    rng, p = np.random.default_rng(8), 0.15
    a, a2, b, b2 = rng.random((4, 300, 400)) < p
    found = effects(cells(np.stack([x & y for x in (a, a2) for y in (b, b2)]).astype(float)), min_items=1)
    assert 20 < np.median(found.n_active) < 30
    table = table_of(found)
    assert table["rare"].mean() > 0.99
    assert (table["rare"] == (table["n_active"] < 50)).all()
    low, high = found.shares_interval
    true = np.array([p, p, 1 - p]) / (1 + p)
    covered = ((low <= true[:, None]) & (high >= true[:, None])).mean(axis=1)
    assert covered.min() < 0.92, "if this holds no more, the mark may go"


# -- what the shares and classes mean


@pytest.mark.parametrize(
    ("name", "z", "shares", "expected"),
    [
        ("picture alone", lambda a, b: a, (1, 0, 0), "visual"),
        ("caption alone", lambda a, b: b, (0, 1, 0), "textual"),
        ("both together", lambda a, b: a & b, (1 / 3, 1 / 3, 1 / 3), "cross-modal"),
        ("either", lambda a, b: a | b, (1 / 3, 1 / 3, 1 / 3), "cross-modal"),
        ("picture without the caption's word", lambda a, b: a & (1 - b), (1 / 3, 1 / 3, 1 / 3), "cross-modal"),
        ("one of them, not both", lambda a, b: a ^ b, (0, 0, 1), "cross-modal"),
        ("a picture that the caption makes stronger", lambda a, b: a * (1 + b), (9 / 11, 1 / 11, 1 / 11), "visual"),
        ("a sum, the picture more", lambda a, b: 3 * a + b, (0.9, 0.1, 0), "visual"),
        ("an equal sum", lambda a, b: a + b, (0.5, 0.5, 0), None),
        ("always the same", lambda a, b: 1 + 0 * a, (np.nan, np.nan, np.nan), None),
    ],
)
def test_shares_of_fair_factors(name: str, z: Z, shares: tuple[float, ...], expected: str | None):
    found = effects(cells(every_item(z)), n_bootstrap=0, min_items=1)
    np.testing.assert_allclose(found.shares[:, 0], shares, atol=1e-12)
    row = table_of(found).iloc[0]
    assert (row["class"] if pd.notna(row["class"]) else None) == expected
    assert pd.isna(row["reason"]) == (expected is not None)


def test_sums_of_squares_alone_would_hide_a_pure_interaction():
    """Why `variance_shares` is not the plain share: of random pairs, XOR has a third of its squares in each term."""
    found = effects(cells(every_item(lambda a, b: a ^ b)), n_bootstrap=0, min_items=1)
    np.testing.assert_allclose(found.squares[:, 0] / found.squares[:, 0].sum(), 1 / 3)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_a_sum_of_both_sides_is_never_cross_modal(seed: int):
    rng = np.random.default_rng(seed)
    image, text = rng.exponential(size=(2, 2, 30, 8)) * rng.random((2, 1, 1, 8))
    found = effects(cells(np.stack([image[i] + text[t] for i in (0, 1) for t in (0, 1)])), n_bootstrap=20, min_items=1)
    assert found.shares[2].max() < 1e-9
    assert CLASSES.index("cross-modal") not in found.classes


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_class_rule(ends: list[float]):
    (image_low, image_high), (text_low, text_high) = np.sort(np.reshape(ends, (2, 2)), axis=1)
    text_high = min(text_high, 1 - image_low)  # shares add up to 1
    text_low = min(text_low, text_high)
    code = class_codes(np.array([[image_low], [text_low]]), np.array([[image_high], [text_high]]))[0]
    assert (None if code == len(CLASSES) else CLASSES[code]) == naive_class(image_low, image_high, text_low, text_high)


def by_class(found: TwoByTwo) -> list[int]:
    return found.classes.tolist()


def assert_same(left: TwoByTwo, right: TwoByTwo, fields: tuple[str, ...]) -> None:
    for name in fields:
        np.testing.assert_allclose(getattr(left, name), getattr(right, name), rtol=1e-9, atol=1e-12, err_msg=name)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_the_order_of_items_changes_nothing(seed: int):
    z = random_cells(seed)
    shuffled = z[:, np.random.default_rng(seed).permutation(z.shape[1])]
    one, other = (effects(cells(x), n_bootstrap=0, min_items=1) for x in (z, shuffled))
    assert_same(one, other, ("means", "effects", "squares", "shares", "classes", "counts", "n_active"))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_names_of_a_and_b_only_turn_signs(seed: int):
    z = random_cells(seed)
    found, turned = (effects(cells(x), n_bootstrap=10, min_items=1) for x in (z, z[[3, 2, 1, 0]]))
    assert_same(found, turned, ("squares", "shares", "shares_interval", "classes", "counts_interval"))
    np.testing.assert_allclose(turned.effects, found.effects * [[-1], [-1], [1]], atol=1e-12)
    only_image = effects(cells(z[[2, 3, 0, 1]]), n_bootstrap=10, min_items=1)
    assert_same(found, only_image, ("squares", "shares", "shares_interval", "classes"))
    np.testing.assert_allclose(only_image.effects, found.effects * [[-1], [1], [-1]], atol=1e-12)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_swapping_pictures_and_texts_swaps_visual_and_textual(seed: int):
    z = random_cells(seed)
    found, swapped = (effects(cells(x), n_bootstrap=10, min_items=1) for x in (z, z[[0, 2, 1, 3]]))
    for name in ("effects", "squares", "shares"):
        np.testing.assert_allclose(getattr(swapped, name), getattr(found, name)[[1, 0, 2]], atol=1e-12)
    np.testing.assert_allclose(swapped.shares_interval, found.shares_interval[:, [1, 0, 2]], atol=1e-12)
    assert [[1, 0, 2, 3][c] for c in by_class(found)] == by_class(swapped)
    assert swapped.counts.tolist() == found.counts[[1, 0, 2, 3]].tolist()


@given(st.integers(0, 2**32 - 1), st.integers(-4, 4))
@settings(max_examples=15, deadline=None)
def test_scaling_a_latent_scales_its_effects_alone(seed: int, power: int):
    z, scale = random_cells(seed), 2.0**power
    found, scaled = (effects(cells(x), n_bootstrap=10, min_items=1) for x in (z, z * scale))
    assert_same(found, scaled, ("shares", "shares_interval", "classes", "counts"))
    np.testing.assert_allclose(scaled.effects_interval, found.effects_interval * scale, rtol=1e-9)
    np.testing.assert_allclose(scaled.effects, found.effects * scale, rtol=1e-9)


def test_a_silent_latent_is_left_out_or_null():
    z = cells(random_cells(9))
    assert 3 not in effects(z, n_bootstrap=5, min_items=1).latents
    table = table_of(effects(z, n_bootstrap=5, min_items=0))
    silent, constant = table.iloc[3], table.iloc[4]
    assert silent["reason"] == "fires in no item"
    assert constant["reason"] == "is equally active in all four cells of every item"
    for row in (silent, constant):
        assert row[["image_share", "text_share_low", "interaction_share_high", "class"]].isna().all()
        assert row[["image_effect", "text_effect_low"]].tolist() == [0, 0]


def test_permuted_cells_keep_each_items_activations():
    z = random_cells(10)
    stacked = Latents.concatenate(cells(z))
    control = np.stack([c.csr().toarray() for c in cells_of(permuted_within_items(stacked, 0))])
    np.testing.assert_array_equal(np.sort(control, axis=0), np.sort(z.astype(np.float32), axis=0))
    moved = (control != z.astype(np.float32)).any(axis=(0, 2))
    assert moved.mean() > 0.8
    item = int(np.flatnonzero(moved)[0])
    orders = [
        p for p in permutations(range(4)) if np.array_equal(control[:, item], z[list(p), item].astype(np.float32))
    ]
    assert orders, "all latents of an item are permuted alike"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"cells": (0, 1, 2, 2)}, DataError, r"aa \[40, 12\], ab \[40, 12\], ba \[39, 12\], bb \[39, 12\]"),
        ({"items": 1}, DataError, "1 items; effects and intervals need two"),
        ({"drawn": ("picture",)}, ConfigError, "drawn='picture'"),
        ({"min_items": -1}, ConfigError, "min_items -1"),
        ({"n_bootstrap": -2}, ConfigError, "n_bootstrap -2"),
    ],
)
def test_bad_cells_are_refused(change: dict, error: type[Exception], message: str):
    z = random_cells(0)
    given_cells = cells(z[:, : change.pop("items", 40)])
    if change.pop("cells", None):
        short = cells(z[:, :39])
        given_cells = Cells(given_cells.aa, given_cells.ab, short.ba, short.bb)
    with pytest.raises(error, match=message):
        effects(given_cells, **change)


# -- binding: what a product makes of anything, and what it does not


def tables_of(*kernels: np.ndarray) -> Latents:
    """Of activations [pictures, texts, d_sae], table by table."""
    return Latents.from_csr(sparse.csr_matrix(np.concatenate([k.reshape(-1, k.shape[-1]) for k in kernels])))


def test_concentration_equals_a_loop_over_rectangles():
    rng = np.random.default_rng(0)
    kernels = [rng.exponential(size=(n, t, 3)) * (rng.random((n, t, 3)) < 0.7) for n, t in ((7, 6), (5, 8))]
    found = concentration(tables_of(*kernels), [(7, 6), (5, 8)])
    for latent in range(3):
        products, squares = 0.0, 0.0
        for kernel in kernels:
            z = kernel[:, :, latent].astype(np.float32).astype(float)
            i = z - z.mean(0) - z.mean(1)[:, None] + z.mean()
            for (a, c), (b, d) in product(permutations(range(len(z)), 2), permutations(range(z.shape[1]), 2)):
                products += i[a, b] * i[c, d] * i[a, d] * i[c, b]
                squares += i[a, b] ** 2 * i[c, d] ** 2
        assert found.value[latent] == pytest.approx(products / squares, abs=1e-9)


def test_concentration_is_of_the_singular_values_and_its_interval_covers():
    """400 draws of 40 pictures and 40 texts: s = 3, 2, 1 gives (81 + 16 + 1) / 14^2 = .5."""
    rng = np.random.default_rng(0)
    u, w = rng.choice([-1, 1], (2, 400, 40, 3))
    z = np.einsum("rak,k,rbk->abr", u, [3, 2, 1], w) + 7
    found = concentration(tables_of(z.astype(float)), [(40, 40)])
    assert found.value.mean() == pytest.approx(0.5, abs=0.02)
    assert 0.92 < ((found.low < 0.5) & (found.high > 0.5)).mean() <= 1


def test_one_picture_here_and_one_text_there_are_no_binding():
    """Each is a single product, of so few memes that it says nothing."""
    kernels = np.zeros((2, 20, 20, 1))
    kernels[0, 3, :6], kernels[1, :6, 4] = 1, 1
    assert np.isnan(concentration(tables_of(*kernels), [(20, 20)] * 2).value[0])


def kernels_of(a: np.ndarray, b: np.ndarray, v: np.ndarray, t: np.ndarray) -> dict[str, np.ndarray]:
    a, b = a[:, None], b[None]
    return {
        "AND": a & b,
        "OR": a | b,
        "XOR": a ^ b,
        "two ANDs": a[..., :1] & b[..., :1] | a[..., 1:] & b[..., 1:],
        "noise": np.maximum(v @ t.T - 4, 0)[..., None],
        "sum": 0.3 * a + 0.1 * b,
        "one picture": ((np.arange(60) == 7)[:, None] & (np.arange(60) % 9 == 0))[..., None],
    }


def test_concentration_tells_a_feature_of_each_from_a_product_of_noise():
    rng = np.random.default_rng(1)
    a, b = rng.random((2, 60, 2)) < 0.3
    v, t = rng.standard_normal((2, 60, 32))
    found = {
        name: concentration(tables_of(np.asarray(kernel, float)[..., :1]), [(60, 60)])
        for name, kernel in kernels_of(a, b, v, t).items()
    }
    for name in ("AND", "OR", "XOR"):
        assert found[name].low[0] == pytest.approx(1)
    assert 0.3 < found["two ANDs"].value[0] < 0.8
    assert found["noise"].high[0] < 0.1
    assert np.isnan(found["sum"].value[0]), "there is no interaction, only rounding"
    assert np.isnan(found["one picture"].value[0]), "one picture with a few texts is one product by chance"


def memes_of(image: np.ndarray, text: np.ndarray) -> Embeddings:
    image, text = image.astype(np.float32), text.astype(np.float32)
    return make_embeddings({"hook_image_embed": image, "hook_text_embed": text, "hook_fused": fuse(image, text)})


def nearest(centres: np.ndarray) -> TopKSAE:
    """A latent for each centre, which fires where that is the nearest."""
    d_sae, d_in = centres.shape
    sae = TopKSAE(
        TopKSAEConfig(d_in=d_in, d_sae=d_sae, k=1, apply_b_dec_to_input=False, rescale_acts_by_decoder_norm=False)
    )
    sae.cfg.metadata.hook_name = "hook_fused"
    with torch.no_grad():
        sae.W_enc.copy_(torch.from_numpy(centres.T))
        sae.b_enc.copy_(torch.from_numpy(-(centres**2).sum(axis=1) / 2))
    return sae.eval()


def asked(embeddings: Embeddings, sae: TopKSAE):
    return QuestionSet(embeddings, rows="all", n_crossed=2500, n_bootstrap=50).evaluate(sae)


@pytest.mark.parametrize("mean", [0.0, 1.0])
def test_of_pure_noise_the_verdict_says_that_nothing_is_shown(mean: float):
    rng = np.random.default_rng(2)
    embeddings = memes_of(*(mean + rng.standard_normal((2, 800, 32))))
    result = asked(embeddings, tiny_sae(embeddings.take("hook_fused", np.arange(800))))
    numbers = result.numbers
    assert numbers["share_cross_modal"] > 0.9
    assert numbers["random/share_cross_modal"] > 0.9, "the noise floor"
    assert numbers["n_binding"] == numbers["n_copying"] == 0
    assert result.verdict.startswith(f"No cross-modal latents are shown: {numbers['n_cross_modal']} of ")
    (row,) = [row for row in result.rows() if row["measure"].startswith("cross-modal (")]
    assert row["controls"]["random"] == numbers["random/share_cross_modal"]


def test_dimensions_of_noise_are_copies_and_bind_nothing():
    """What a dictionary finds in enough noise: the dimensions, along which products are sparse."""
    rng = np.random.default_rng(3)
    embeddings = memes_of(*rng.standard_normal((2, 1500, 4)))
    sae = known_sae(d_in=4, k=2)
    result = asked(embeddings, sae)
    assert result.numbers["n_copying"] >= 3
    assert result.numbers["n_binding"] == 0
    assert result.table["dimension_share"].min() > 0.9
    assert "No cross-modal latents are shown" in result.verdict
    assert f"{result.numbers['n_copying']} copy one dimension" in result.verdict


def test_planted_pairs_of_a_picture_and_a_caption_are_found():
    """Four kinds of pictures x four kinds of captions, spread over all dimensions; a latent for each pair."""
    rng = np.random.default_rng(4)
    kinds = rng.standard_normal((2, 4, 64))
    which = rng.integers(0, 4, (2, 800))
    image, text = (kinds[i][which[i]] + 0.3 * rng.standard_normal((800, 64)) for i in (0, 1))
    pairs = np.array(list(product(range(4), range(4))))
    result = asked(memes_of(image, text), nearest(fuse(*(kinds[i][pairs[:, i]] for i in (0, 1)))))
    assert result.numbers["n_binding"] == 16
    assert result.numbers["random/share_binding"] < 0.1
    assert result.verdict.startswith("16 of 16 latents bind a feature of the picture to one of the caption (random")
    assert result.table["concentration_low"].min() > 0.8


@pytest.mark.parametrize(
    ("cross_modal", "chance", "said"),
    [
        (10, {}, "10 of 100 latents need picture and caption together and 0 bind a feature of each; how many random"),
        (10, {"share_cross_modal": 0.3, "share_binding": 0.01}, "10 of 100 need both sides, but so do 30% of random"),
        (40, {"share_cross_modal": 0.3, "share_binding": 0.01}, "40 of 100 need both sides (random directions 30%); 0"),
    ],
)
def test_random_directions_are_said_to_do_what_they_do(cross_modal: int, chance: dict[str, float], said: str):
    counts = {f"n_{name}": 0 for name in ("visual", "textual", "binding", "copying")}
    counts |= {"n_cross_modal": cross_modal, "n_undecided": 100 - cross_modal}
    random = counts | {"n_binding": 0 if chance else None, "share_cross_modal": None, "share_binding": None} | chance
    groups = ({key: Measure(key, value, "what", reason="why") for key, value in of.items()} for of in (counts, random))
    assert said in (_verdict(dict(zip(("", "random"), groups, strict=True)), 100) or "")


def test_latents_of_one_side_are_not_called_cross_modal():
    rng = np.random.default_rng(5)
    kinds = 3 * rng.standard_normal((4, 32))
    image = kinds[rng.integers(0, 4, 800)] + 0.1 * rng.standard_normal((800, 32))
    text = 1 + 0.1 * rng.standard_normal((800, 32))
    result = asked(memes_of(image, text), nearest(fuse(kinds, np.ones((4, 32)))))
    assert result.verdict == "4 of 4 latents follow the picture, 0 the caption, and none needs both together."


def as_product(case: Embeddings) -> Embeddings:
    """Hostile memes whose fused vectors are the product of their two sides."""
    hooks = {hook: case.take(hook, np.arange(len(case))) for hook in ("hook_image_embed", "hook_text_embed")}
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = [x.astype(float) / np.linalg.norm(x.astype(float), axis=1, keepdims=True) for x in hooks.values()]
    return make_embeddings(
        hooks | {"hook_fused": unit[0] * unit[1]}, sources=case.sources.tolist(), splits=case.splits.tolist()
    )


UNFUSED = {"all zero": "norm 0", "a row of zeros": "norm 0", "NaN": "holds nan", "infinity": "holds inf"}


@pytest.mark.parametrize("case", hostile.CASES)
def test_hostile_memes(case: str):
    found = hostile.check(
        lambda e: QuestionSet(as_product(e), rows="all", n_crossed=500, n_bootstrap=5, min_items=2), case
    )
    if case in UNFUSED:
        assert re.search(f"{UNFUSED[case]}|nan", str(found))
    elif case == "a source a row":
        assert isinstance(found, Unavailable)
    else:
        assert found.numbers["n_items"] > 40
        assert not found.verdict or "bind a feature of the picture" not in found.verdict


# -- fused memes whose latents are known

LATENTS = ("a", "not a", "b", "not b", "a AND b", "neither", "a XNOR b", "always", "3a + b", "silent")
TRUTH = dict(
    zip(LATENTS, ("visual",) * 2 + ("textual",) * 2 + ("cross-modal",) * 3 + (None, "visual", None), strict=True)
)


def known_memes(n: int = 1200, noise: float = 0.0, seed: int = 0) -> tuple[Embeddings, np.ndarray]:
    """Pictures with a fair a, captions with a fair b, as vectors of norm sqrt(6): `known_sae` reads their products."""
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, n)) < 0.5
    one = np.ones(n)
    image = np.stack([a, ~a, one, one, a, ~a, 2.0 * a - 1, one], axis=1).astype(float)
    text = np.stack([one, one, b, ~b, b, ~b, 2.0 * b - 1, one], axis=1).astype(float)
    image, text = (x * (1 + noise * rng.standard_normal(x.shape)) for x in (image, text))
    image, text = image.astype(np.float32), text.astype(np.float32)
    labels = {"shows": [int(v) if i % 7 else None for i, v in enumerate(a)], "one_class": [1] * n}
    hooks = {"hook_image_embed": image, "hook_text_embed": text, "hook_fused": fuse(image, text)}
    return make_embeddings(hooks, labels=labels, sources=["x", "y", "y"] * (n // 3)), np.stack([a, b])


def known_sae(d_in: int = 8, k: int = 10) -> TopKSAE:
    """Latents 0 to 7 are the dimensions of `known_memes`, 8 is 3a + b, 9 never fires; all may fire at once."""
    cfg = TopKSAEConfig(d_in=d_in, d_sae=10, k=k, apply_b_dec_to_input=False, rescale_acts_by_decoder_norm=False)
    sae = TopKSAE(cfg)
    sae.cfg.metadata.hook_name = "hook_fused"
    weights = 6 * torch.eye(8, 10)
    weights[0, 8], weights[2, 8] = 18, 6
    weights = weights[:d_in]
    with torch.no_grad():
        sae.W_enc.copy_(weights)
        sae.b_enc.copy_(torch.tensor([0.0] * 9 + [-1]))
    return sae.eval()


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_known_latents_are_classed_right(noise: float):
    embeddings, _ = known_memes(noise=noise)
    result = QuestionSet(embeddings, rows="all", n_crossed=1000).evaluate(known_sae())
    assert result.numbers["n_items"] == 600
    assert result.numbers["n_latents_fired"] == 9
    found = dict(zip(result.table["latent"], result.table["class"], strict=True))
    judged = [i for i in range(9) if noise == 0 or LATENTS[i] != "always"]  # noise of both sides is not "always"
    assert [None if pd.isna(found[i]) else found[i] for i in judged] == [TRUTH[LATENTS[i]] for i in judged]
    if noise == 0:
        counts = {name: result.numbers[f"n_{name}"] for name in ("visual", "textual", "cross_modal", "undecided")}
        assert counts == {"visual": 3, "textual": 2, "cross_modal": 3, "undecided": 1}
        assert result.table.loc[7, "reason"] == "is equally active in all four cells of every item"
    assert result.numbers["permuted/n_visual"] == result.numbers["permuted/n_textual"] == 0


def test_numbers_follow_from_the_table():
    embeddings, _ = known_memes(noise=0.1)
    result = QuestionSet(embeddings, rows="all", n_crossed=1000).evaluate(known_sae())
    table, numbers = result.table, result.numbers
    for name, label in (("visual", "visual"), ("textual", "textual"), ("cross_modal", "cross-modal")):
        count = int((table["class"] == label).sum())
        assert numbers[f"n_{name}"] == count
        assert numbers[f"share_{name}"] == pytest.approx(count / len(table))
        assert numbers[f"n_{name}_low"] <= count <= numbers[f"n_{name}_high"]
        assert numbers[f"share_{name}_low"] == pytest.approx(numbers[f"n_{name}_low"] / len(table))
    for term in ("image", "text", "interaction"):
        assert numbers[f"median_{term}_share"] == pytest.approx(table[f"{term}_share"].median())
    assert numbers["n_latents"] == len(table)
    assert numbers["n_rare"] == table["rare"].sum() == (table["n_active"] < 50).sum()
    rows = [row["measure"] for row in result.rows()]
    assert rows[-1] == f"of which rare, firing in fewer than 50 items ({numbers['n_rare']} of {len(table)} latents)"
    np.testing.assert_allclose(table[[f"{t}_share" for t in ("image", "text", "interaction")]].sum(axis=1), 1)
    assert numbers["n_binding"] == table["binds"].sum()
    assert numbers["median_concentration"] == pytest.approx(table["concentration"].median())
    assert list(result.columns) == list(table.columns)


def test_cells_of_fused_memes_equal_a_loop():
    embeddings, _ = known_memes(n=300, noise=0.2)
    sae, items = known_sae(), random_items(embeddings, np.arange(300), 40)
    image, text = (embeddings.take(f"hook_{side}_embed", np.arange(300)) for side in ("image", "text"))
    table = (
        QuestionSet(embeddings, items=items, drawn=("image", "text"), n_bootstrap=0, min_items=0).evaluate(sae).table
    )
    for cell, (i, t) in {"aa": (0, 0), "ab": (0, 1), "ba": (1, 0), "bb": (1, 1)}.items():
        z = []
        for rows in zip(*items, strict=True):
            v, w = image[rows[i]], text[rows[t]]
            fused = v / np.linalg.norm(v) * (w / np.linalg.norm(w))
            with torch.no_grad():
                z.append(sae.encode(torch.from_numpy(fused)[None])[0].numpy())
        np.testing.assert_allclose(table[f"mean_{cell}"], np.mean(z, axis=0), rtol=1e-5, atol=1e-6)


def test_neurons_are_classed_beside_the_latents():
    """The control is every dimension, both signs; here the dimensions are what the latents read."""
    embeddings, _ = known_memes()
    sae = known_sae()
    with torch.no_grad():
        sae.b_enc.fill_(10)  # every latent fires on every meme, so that every neuron does
    numbers = QuestionSet(embeddings, rows="all", n_crossed=1000).evaluate(sae).numbers
    # a, not a: the part above and the part below the mean, all visual; likewise the others; the constant one never fires
    assert numbers["neurons/n_visual"] == numbers["neurons/n_textual"] == 4
    assert numbers["neurons/n_cross_modal"] == 6


def test_memeclips_fusion_goes_through_its_heads():
    rng = np.random.default_rng(0)
    image, text = anisotropic(200, 12, rng), anisotropic(200, 10, rng)
    torch.manual_seed(0)
    heads = MemeCLIPHeads(12, 10, 2, d_map=16).train()
    through = partial(fuse, heads=heads)
    fused = through(image, text)
    assert heads.training, "the heads were left in another mode"
    with torch.no_grad():
        np.testing.assert_array_equal(fused, heads.eval().fuse(torch.from_numpy(image), torch.from_numpy(text)).numpy())
    plain = make_embeddings({"hook_image_embed": image, "hook_text_embed": text, "hook_fused": fused})
    embeddings = Embeddings.from_dataset(plain.dataset, fusion="memeclip")
    sae = tiny_sae(fused)
    with pytest.raises(Unavailable, match="fusion memeclip needs its heads"):
        QuestionSet(embeddings, rows="all", n_crossed=1000).evaluate(sae)
    found = QuestionSet(embeddings, rows="all", fuse=through, n_crossed=500).evaluate(sae)
    assert found.numbers["n_items"] == 100


def test_a_fusion_that_does_not_give_the_stored_vectors_is_refused():
    embeddings, _ = known_memes(n=60)
    stored = embeddings.take("hook_fused", np.arange(60))
    columns = {hook: embeddings.take(hook, np.arange(60)) for hook in embeddings.hooks}
    stored[20, 3] += 0.25
    wrong = make_embeddings(columns | {"hook_fused": stored})
    with pytest.raises(Unavailable, match=r"differ by up to 0\.25 \(id 'meme-20'\)"):
        QuestionSet(wrong, rows="all", n_bootstrap=2).evaluate(known_sae())
    with pytest.raises(DataError, match=r"differ by up to 0\.25 \(id 'meme-20'\)"):
        QuestionSet(wrong, rows="all", n_bootstrap=2, fuse=fuse).evaluate(known_sae())
    with pytest.raises(DataError, match="fuse gives 3 dimensions, the stored hook_fused 8"):
        QuestionSet(embeddings, rows="all", fuse=lambda v, t: fuse(v, t)[:, :3]).evaluate(known_sae())


def test_vectors_that_cannot_be_fused_are_named():
    embeddings, _ = known_memes(n=60)
    columns = {hook: embeddings.take(hook, np.arange(60)) for hook in embeddings.hooks}
    for value in (0.0, np.nan):
        columns["hook_text_embed"][33] = value
        with pytest.raises(NonFiniteError, match=r"row 33 \(id 'meme-33'\)"):
            QuestionSet(make_embeddings(columns), rows="all", n_crossed=1000).evaluate(known_sae())


@pytest.mark.parametrize(
    ("hooks", "sae_hook", "reason"),
    [
        (("hook_fused",), "hook_fused", "have no hook_image_embed, hook_text_embed"),
        (("hook_fused", "hook_image_embed"), "hook_fused", "have no hook_text_embed"),
        (("hook_image_embed", "hook_text_embed"), "hook_image_embed", "the SAE reads hook_image_embed"),
    ],
)
def test_without_what_it_needs_it_is_unavailable_with_the_reason(hooks: tuple[str, ...], sae_hook: str, reason: str):
    whole, _ = known_memes(n=60)
    embeddings = make_embeddings({hook: whole.take(hook, np.arange(60)) for hook in hooks})
    with pytest.raises(Unavailable, match=reason):
        QuestionSet(embeddings, hook=sae_hook).evaluate(known_sae())


def test_too_few_pairs_or_too_rare_latents_are_null_with_the_reason():
    embeddings, _ = known_memes(n=60)
    alone = make_embeddings({h: embeddings.take(h, np.arange(3)) for h in embeddings.hooks}, sources=list("xyz"))
    with pytest.raises(Unavailable, match="there are 0 pairs"):
        QuestionSet(alone).evaluate(known_sae())
    rare = QuestionSet(embeddings, rows="all", min_items=100).evaluate(known_sae())
    assert rare.numbers["n_latents"] == 0
    assert rare.numbers["share_visual"] is None
    assert "at least 100 items" in rare.reasons["share_visual"]
    assert len(rare.table) == 0
    assert rare.verdict is None


# -- items


def test_random_items_are_disjoint_held_out_pairs_of_one_source():
    embeddings, _ = known_memes()
    test_rows = embeddings.rows("test")
    a, b = random_items(embeddings, test_rows, 1000)
    assert len(a) == len(b) == 90  # of 180 test memes, 60 and 120 of each source
    assert len(np.unique(np.concatenate([a, b]))) == 180
    assert np.isin(np.concatenate([a, b]), test_rows).all()
    assert (embeddings.sources[a] == embeddings.sources[b]).all()
    assert len(random_items(embeddings, test_rows, 20)[0]) == 20
    across = random_items(embeddings, test_rows, 1000, within_source=False)
    assert (embeddings.sources[across[0]] != embeddings.sources[across[1]]).any()
    assert QuestionSet(embeddings).evaluate(known_sae()).numbers["n_items"] == 90


def test_the_items_do_not_depend_on_the_order_of_the_memes():
    embeddings, _ = known_memes(n=300)
    order = np.random.default_rng(0).permutation(300)
    shuffled = Embeddings.from_dataset(embeddings.dataset.select(order))
    pairs = [
        set(zip(*(e.ids[rows].tolist() for rows in random_items(e, np.arange(300), 50)), strict=True))
        for e in (embeddings, shuffled)
    ]
    assert pairs[0] == pairs[1]


def test_with_items_of_a_concept_the_signs_mean_something():
    embeddings, (a, _) = known_memes()
    items = concept_items(embeddings, "shows=1", rows=np.arange(1200))
    known = embeddings.label("shows").known
    assert known[np.concatenate(items)].all()
    assert a[items[0]].all()
    assert not a[items[1]].any()
    assert (embeddings.sources[items[0]] == embeddings.sources[items[1]]).all()
    found = QuestionSet(embeddings, items=items, drawn=("text",)).evaluate(known_sae())
    table = found.table.set_index("latent")
    assert table.loc[0, ["image_effect", "image_effect_low", "image_effect_high"]].tolist() == pytest.approx([1, 1, 1])
    assert table.loc[1, "image_effect"] == pytest.approx(-1)
    assert abs(table.loc[2, "text_effect"]) < 0.15
    assert table.loc[0, "class"] == "visual"
    assert table.loc[2, "class"] == "textual"
    assert table.loc[4, "class"] == "cross-modal"


def test_bad_items_are_refused():
    embeddings, _ = known_memes(n=60)
    sae = known_sae()
    for items, message in (
        (([0, 1], [2]), "2 memes A and 1 memes B"),
        (([0, 1], [2, 60]), "row 60 is not one of the 60 memes"),
        (([0, 5], [2, 5]), "row 5 is paired with itself"),
    ):
        with pytest.raises(DataError, match=message):
            QuestionSet(embeddings, items=items).evaluate(sae)
    with pytest.raises(DataError, match="no source has both true and false memes"):
        concept_items(embeddings, "one_class=1")
    with pytest.raises(ConfigError, match=r"question_set\.rows is 'test', it must be 'held_out' or 'all'"):
        QuestionSet(embeddings, rows="test")
    with pytest.raises(ConfigError, match=r"question_set\.n_items is 1, it must be"):
        QuestionSet(embeddings, n_items=1)


def test_fused_items_keep_the_embeddings_facts_and_name_both_memes():
    embeddings, _ = known_memes(n=60)
    fused = fused_items(embeddings, (np.array([4, 5]), np.array([6, 7])), fuse)
    assert fused.ids.tolist()[2:4] == ["picture of meme-4, text of meme-6", "picture of meme-5, text of meme-7"]
    assert encode(known_sae(), fused, "hook_fused").n_samples == 8
