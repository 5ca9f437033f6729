"""SAE-V's cross-modal weights and item scores, and the weights again on resampled memes."""

from __future__ import annotations

import numpy as np
from datasets import Array2D, Dataset, Features, Value

from benchmarks import kindest
from benchmarks import naive_cross_modal as naive
from benchmarks.data import Shape, make_latents
from benchmarks.measure import Row, median_time, require_close, timed
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.cross_modal import ItemScores, MemePairs, Weights, cross_modal_weights, item_scores
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.hooks.names import IMAGE_EMBED, TEXT_EMBED
from sae_lens_meme.metrics.resampling import bootstrap_weights

TOP, RESAMPLES, GOAL_RATIO = 5, 200, 1_000


def run(quick: bool) -> list[Row]:
    shape = Shape.of(quick)
    latents, embeddings = make_latents(shape), _embeddings(shape)
    latents.csr()  # made once, shared by all evaluators
    part = np.linspace(0, latents.d_sae - 1, 16 if quick else 64).astype(int)
    return [_weights_row(latents, embeddings, part, quick), _resamples_row(latents, embeddings, part, quick)]


def _weights_row(latents: Latents, embeddings: Embeddings, part: np.ndarray, quick: bool) -> Row:
    warm_up, _ = timed(lambda: _ours(latents, embeddings))
    ours_s, (weights, scores) = median_time(lambda: _ours(latents, embeddings), 1 if quick else 5)
    z, image, text = _plain(latents, embeddings)
    weights_s, found = timed(lambda: naive.weights(z, image, text, part, TOP))
    active = [row[values > 0].tolist() for row, values in zip(latents.indices, latents.values, strict=True)]
    known = {i: float(omega) for i, omega in enumerate(weights.omega) if not np.isnan(omega)}
    scores_s, sums = timed(lambda: naive.item_scores(active, known))
    same = require_close("weights", *_filled(weights.omega, found, part), atol=1e-6)
    same += ", " + require_close("scores", scores.sum, sums, atol=1e-9)
    naive_s = weights_s * latents.d_sae / len(part) + scores_s
    kindest_s, omega = median_time(lambda: _kindest(latents, embeddings), 1 if quick else 3)
    require_close(
        "weights of the kindest rival", *(np.nan_to_num(w, nan=-9) for w in (weights.omega, omega)), atol=1e-6
    )
    return Row(
        f"cross-modal weights + item scores, {latents.n_samples:,} memes, {latents.d_sae:,} latents",
        *(naive_s, ours_s, "-", None),
        same,
        f"{len(part)} of {latents.d_sae:,} latents, all items",
        "ours also finds what chance gives, and the CLIP scores; reading the vectors is most of it",
        warm_up,
        kindest_s,
        "one sort and batched products in numpy, a sparse product for the scores",
    )


def _resamples_row(latents: Latents, embeddings: Embeddings, part: np.ndarray, quick: bool) -> Row:
    resamples = 20 if quick else RESAMPLES
    warm_up, pairs = timed(lambda: MemePairs.of(embeddings))
    ours_s, weights = median_time(
        lambda: cross_modal_weights(embeddings, latents, top=TOP, n_bootstrap=resamples, pairs=pairs), 1 if quick else 3
    )
    z, image, text = _plain(latents, embeddings)
    draws = next(bootstrap_weights(pairs.sources, 1, seed=0))
    naive_s, found = timed(lambda: naive.weights(z, image, text, part, TOP, draws))
    same = require_close("weights of the first resample", *_filled(weights.replicates[0], found, part), atol=1e-6)
    naive_s *= resamples * latents.d_sae / len(part)
    return Row(
        f"cross-modal weights of {resamples} resamples, {latents.n_samples:,} memes, {latents.d_sae:,} latents",
        *(naive_s, ours_s, f"≥ {GOAL_RATIO:,}x"),
        naive_s / ours_s >= GOAL_RATIO,
        same,
        f"{len(part)} of {latents.d_sae:,} latents, 1 of {resamples} resamples",
        warm_up_s=warm_up,
    )


def _ours(latents: Latents, embeddings: Embeddings) -> tuple[Weights, ItemScores]:
    pairs = MemePairs.of(embeddings)
    weights = cross_modal_weights(embeddings, latents, top=TOP, n_bootstrap=0, pairs=pairs)
    return weights, item_scores(embeddings, latents, weights, pairs=pairs)


def _kindest(latents: Latents, embeddings: Embeddings) -> np.ndarray:
    rows, active = np.arange(latents.n_samples), latents.csc()
    image, text = (embeddings.take(hook, rows) for hook in (IMAGE_EMBED, TEXT_EMBED))
    omega = kindest.cross_modal_weights(active, image, text, TOP)
    _ = (active > 0) @ np.nan_to_num(omega)
    return omega


def _filled(ours: np.ndarray, found: dict[int, float], part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A latent without a weight must be without one on both sides: -9 stands for none."""
    return np.nan_to_num(ours[part], nan=-9), np.nan_to_num([found.get(i, np.nan) for i in part], nan=-9)


def _embeddings(shape: Shape) -> Embeddings:
    """Image and text vectors of train memes, which share some of what is in them; ids in the order of the rows."""
    rng = np.random.default_rng(4)
    shared = rng.standard_normal((shape.n, shape.d_in))
    columns = {"id": [f"{i:08}" for i in range(shape.n)], "split": ["train"] * shape.n}
    hooks = {hook: shared + 2 * rng.standard_normal(shared.shape) for hook in (IMAGE_EMBED, TEXT_EMBED)}
    features = Features(
        {name: Value("string") for name in columns} | {hook: Array2D((1, shape.d_in), "float32") for hook in hooks}
    )
    arrays = {hook: x[:, None, :].astype(np.float32) for hook, x in hooks.items()}
    return Embeddings.from_dataset(Dataset.from_dict(columns | arrays, features=features))


def _plain(latents: Latents, embeddings: Embeddings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = np.arange(latents.n_samples)
    return latents.csr().toarray(), embeddings.take(IMAGE_EMBED, rows), embeddings.take(TEXT_EMBED, rows)
