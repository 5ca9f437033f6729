# pyright: reportOptionalSubscript=false, reportOptionalMemberAccess=false, reportArgumentType=false, reportOperatorIssue=false, reportOptionalOperand=false, reportIndexIssue=false, reportCallIssue=false, reportAttributeAccessIssue=false
"""The comparison of patch filters on planted tokens, where the right patches and what each filter can see are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.cross_modal import (
    compare_patch_filters,
    keep_patches,
    kept_right,
    patch_cosines,
    patch_scores,
    still_classified,
    token_omega,
)
from sae_lens_meme.hooks.patches import boxes_of_grid

GRID, ITEMS, WORDS, CONCEPTS, CLUTTER, D = 6, 60, 8, 6, 20, 24
TEXT, IMAGE = 1, 2


@pytest.fixture(scope="module")
def planted():
    """Each picture shows one concept on 6 of 36 patches, and each text says it in 2 of 8 words.

    A concept's latent fires on both, and their hidden states point one way. Clutter fires more latents on the other patches
    than the concept on its own, so that L0 keeps the wrong ones; six words of each text point where clutter does.
    """
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((D, D)))[0]
    cells = np.arange(GRID**2)
    right = np.zeros((ITEMS, GRID, GRID), bool)
    z, modality, item, boxes, h = [], [], [], [], []
    for i in range(ITEMS):
        concept, shown = rng.integers(CONCEPTS), rng.choice(cells, 6, replace=False)
        right[i].ravel()[shown] = True
        for kind, n, hits in ((IMAGE, GRID**2, shown), (TEXT, WORDS, np.arange(2))):
            active = np.zeros((n, CONCEPTS + 2 * CLUTTER))
            vectors = 0.3 * rng.standard_normal((n, D))
            for t in range(n):
                if t in hits:
                    active[t, concept] = rng.uniform(2, 3)
                    vectors[t] += 2 * axes[concept]
                else:
                    own = CONCEPTS + rng.choice(CLUTTER, 4, replace=False) + (0 if kind == IMAGE else CLUTTER)
                    active[t, own] = rng.uniform(1, 2, 4)
                    vectors[t] += 2 * axes[CONCEPTS + t % 3]
            z.append(active)
            h.append(vectors)
            modality += [kind] * n
            item += [i] * n
            boxes.append(boxes_of_grid(cells, GRID, GRID) if kind == IMAGE else np.full((n, 4), np.nan))
    z, h = sparse.csr_matrix(np.concatenate(z)), np.concatenate(h)
    modality, item = np.array(modality), np.array(item)
    omega = token_omega(z, modality, lambda rows: h[rows], rule="paper")
    of = (modality, item, np.concatenate(boxes))
    scores = {
        "SAE-V": patch_scores(z, *of, kind="omega", omega=omega, grid=GRID),
        "co-occurrence": patch_scores(z, *of, kind="cooccurrence", grid=GRID),
        "CLIP score": patch_cosines(h, *of, grid=GRID),
        "L0": patch_scores(z, *of, kind="l0", grid=GRID),
    }
    return scores, right, omega


def test_weights_are_of_the_concepts_alone(planted):
    _, _, omega = planted
    assert (omega[:CONCEPTS] > 0.5).all()
    assert np.isnan(omega[CONCEPTS:]).all()  # clutter fires on one modality


def test_the_filter_keeps_the_right_patches_and_l0_the_wrong_ones(planted):
    scores, right, _ = planted
    result = compare_patch_filters(scores, kept_right(right), shares=[0.25])
    numbers = result.numbers
    assert numbers["keep_0.25/SAE-V/outcome"] == 1
    assert numbers["keep_0.25/L0/outcome"] == 0
    assert numbers["whole_picture/outcome"] == 1
    assert numbers["keep_0.25/random/outcome"] == pytest.approx(0.25, abs=0.05)
    assert numbers["keep_0.25/SAE-V/minus_random_low"] > 0.7
    assert numbers["keep_0.25/L0/minus_random_high"] < 0
    assert numbers["keep_0.25/SAE-V/minus_CLIP_score_low"] > 0
    assert result.verdict is not None
    assert "SAE-V: against random patches 1 times better, 0 worse of 1; against CLIP score" in result.verdict
    rows = {row["measure"]: row["controls"] for row in result.rows()}
    assert set(rows["SAE-V, best 25%"]) == {"filter", "random", "CLIP score", "L0", "whole picture"}


def test_a_score_that_knows_nothing_does_not_beat_random_patches(planted):
    """Its interval holds 0 in about 95 % of draws."""
    _, right, _ = planted
    held = []
    for seed in range(60):
        noise = {"noise": np.random.default_rng(100 + seed).random(right.shape)}
        found = compare_patch_filters(noise, kept_right(right), shares=[0.25], seed=seed, n_bootstrap=100)
        low, high = (found.numbers[f"keep_0.25/noise/minus_random_{end}"] for end in ("low", "high"))
        held.append(low is not None and high is not None and low <= 0 <= high)
    assert 0.87 <= np.mean(held) <= 1


def test_means_and_differences_are_those_of_a_loop(planted):
    scores, right, _ = planted
    result = compare_patch_filters(scores, kept_right(right), shares=[0.5], n_random=3)
    table = result.table
    assert table is not None
    keep = keep_patches(scores["SAE-V"], 0.5, np.random.default_rng(0))
    for i in range(0, ITEMS, 7):
        mine = table[(table["item"] == i) & (table["filter"] == "SAE-V")]["outcome"].item()
        assert mine == pytest.approx(
            sum(bool(k and r) for k, r in zip(keep[i].ravel(), right[i].ravel(), strict=True)) / 6
        )
    by_filter = table.groupby("filter")["outcome"].mean()
    difference = by_filter["SAE-V"] - by_filter["random"]
    assert result.numbers["keep_0.5/SAE-V/minus_random"] == pytest.approx(difference)


def test_copies_of_an_item_do_not_narrow_the_interval(planted):
    scores, right, _ = planted
    noise = {"half": scores["SAE-V"] + np.random.default_rng(0).normal(0, 1.5, right.shape)}
    four = {name: np.tile(values, (4, 1, 1)) for name, values in noise.items()}
    once = compare_patch_filters(noise, kept_right(right), shares=[0.25])
    copies = compare_patch_filters(
        four, kept_right(np.tile(right, (4, 1, 1))), shares=[0.25], groups=np.tile(np.arange(ITEMS), 4)
    )
    widths = [
        r.numbers["keep_0.25/half/minus_random_high"] - r.numbers["keep_0.25/half/minus_random_low"]
        for r in (once, copies)
    ]
    assert widths[1] > 0.8 * widths[0]


def test_a_classifier_that_needs_the_right_patches(planted):
    """It answers by the brightest colour among the pixels that are left."""
    scores, right, _ = planted
    labels = np.random.default_rng(1).integers(0, 3, ITEMS)
    pixels = np.zeros((ITEMS, 3, 2 * GRID, 2 * GRID))
    for i, label in enumerate(labels):
        pixels[i, label] = np.kron(right[i], np.ones((2, 2)))

    def classify(shown: np.ndarray) -> np.ndarray:
        return np.where(shown.any(axis=(1, 2, 3)), shown.sum(axis=(2, 3)).argmax(axis=1), -1)

    outcome = still_classified(classify, pixels, labels)
    numbers = compare_patch_filters(scores, outcome, shares=[0.25], what="answers that stay right").numbers
    assert numbers["whole_picture/outcome"] == numbers["keep_0.25/SAE-V/outcome"] == 1
    assert numbers["keep_0.25/L0/outcome"] == 0
    assert numbers["keep_0.25/SAE-V/minus_random_low"] > 0


def test_what_cannot_be_compared_is_refused(planted):
    scores, right, _ = planted
    with pytest.raises(ConfigError, match="give scores, shares and n_random"):
        compare_patch_filters({}, kept_right(right))
    with pytest.raises(DataError, match="not all"):
        compare_patch_filters({**scores, "L0": scores["L0"][:3]}, kept_right(right))
    with pytest.raises(ConfigError, match="share is 2"):
        compare_patch_filters(scores, kept_right(right), shares=[2])
    with pytest.raises(DataError, match=r"\(3,\) answers for \(60,\) labels"):
        compare_patch_filters(
            scores, still_classified(lambda x: x[:3, 0, 0, 0], np.zeros((ITEMS, 1, 6, 6)), np.zeros(ITEMS))
        )
    nothing = compare_patch_filters({"L0": scores["L0"]}, kept_right(right & False), shares=[0.5], n_bootstrap=0)
    assert nothing.numbers["keep_0.5/L0/minus_random"] is None
    assert nothing.reasons["keep_0.5/L0/minus_random"] == "no item has this outcome"
