"""Embeddings on disk and a stock SAE of the merged corpus' shape: three sources, eight labels, each known in some.

Sizes of the sources and frequencies of the labels are those of PrideMM, Hateful Memes and Memotion; vectors and
captions are drawn.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sae_lens import TopKSAE, TopKSAEConfig

from benchmarks.data import Shape
from sae_lens_meme.embed import embed_arrays
from sae_lens_meme.embeddings import Embeddings
from tests.arrays import anisotropic

SOURCES = {"pridemm": 5_063, "hmc": 8_772, "memotion": 6_992}
LABELS: dict[str, dict[str, dict[int, float]]] = {
    "hate": {"pridemm": {0: 0.51, 1: 0.49}, "hmc": {0: 0.64, 1: 0.36}},
    "target": {"pridemm": {0: 0.31, 1: 0.1, 2: 0.47, 3: 0.12}},  # of the hateful ones
    "stance": {"pridemm": {0: 0.29, 1: 0.38, 2: 0.33}},
    "humor": {"pridemm": {0: 0.32, 2: 0.68}, "memotion": {0: 0.24, 1: 0.35, 2: 0.32, 3: 0.09}},
    "offensive": {"memotion": {0: 0.39, 1: 0.37, 2: 0.21, 3: 0.03}},
    "sentiment": {"memotion": {-2: 0.02, -1: 0.07, 0: 0.31, 1: 0.45, 2: 0.15}},
    "motivational": {"memotion": {0: 0.65, 1: 0.35}},
    "sarcasm": {"memotion": {0: 0.22, 1: 0.5, 2: 0.22, 3: 0.06}},
}
"""Source: class: frequency."""
LABEL_SIGNAL, SOURCE_SIGNAL = 0.5, 0.4
"""Of a label in each side's embedding, its noise being 1; of a source in each dimension, its standard deviation being 1."""
N_FACTORS, VOCABULARY = 200, 20_000


def write_embeddings(folder: Path, shape: Shape, seed: int = 0) -> Embeddings:
    """`hook_image_embed`, `hook_text_embed` and `hook_fused` (their product) in the layout of `embed`."""
    rng = np.random.default_rng(seed)
    source = np.repeat(list(SOURCES), _sizes(shape.n))
    image, text = (_vectors(source, shape.d_in, rng) for _ in range(2))
    raw = folder / "arrays"
    raw.mkdir(parents=True, exist_ok=True)
    np.save(raw / "image.npy", image)
    np.save(raw / "text.npy", text)
    _table(source, image, text, rng).to_csv(raw / "rows.csv", index=False)
    return embed_arrays(
        out=folder / "embeddings",
        table=raw / "rows.csv",
        image_embeds=raw / "image.npy",
        text_embeds=raw / "text.npy",
    )


def write_sae(folder: Path, embeddings: Embeddings, shape: Shape, seed: int = 0) -> Path:
    """A stock TopK SAE with tied random directions on z-scored `hook_fused`; biases spread the firing rates."""
    sae = TopKSAE(
        TopKSAEConfig(
            d_in=shape.d_in,
            d_sae=shape.d_sae,
            k=shape.k,
            apply_b_dec_to_input=False,
            rescale_acts_by_decoder_norm=False,
        )
    )
    sae.cfg.metadata.hook_name = "hook_fused"
    x = torch.from_numpy(embeddings.take("hook_fused", np.arange(min(len(embeddings), 2_000))))
    mean, std = x.mean(0), x.std(0)
    generator = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(shape.d_in, shape.d_sae, generator=generator), dim=0)
    z = (x - mean) / std
    pre = z @ directions
    bias = 0.4 * pre.std() * torch.randn(shape.d_sae, generator=generator)
    top = (pre + bias).topk(shape.k)
    decoded = torch.zeros_like(pre).scatter(-1, top.indices, top.values.relu()) @ directions.T
    with torch.no_grad():
        sae.W_enc.copy_(directions / std[:, None])
        sae.b_enc.copy_(bias - (mean / std) @ directions)
        sae.W_dec.copy_(directions.T * std * (z * decoded).sum() / decoded.square().sum())
        sae.b_dec.copy_(mean)
    sae.save_model(folder)
    return folder


def _vectors(source: np.ndarray, d: int, rng: np.random.Generator) -> np.ndarray:
    x = anisotropic(len(source), d, rng, N_FACTORS)
    shifts = rng.standard_normal((len(SOURCES), d)) * SOURCE_SIGNAL * x.std(0)
    return x + shifts[[list(SOURCES).index(s) for s in source]].astype(np.float32)


def _table(source: np.ndarray, image: np.ndarray, text: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    n = len(source)
    rows = {
        "id": [f"{s}/{i}" for i, s in enumerate(source)],
        "source": source,
        "split": rng.choice(["train", "validation", "test"], n, p=[0.8, 0.1, 0.1]),
        "text": _captions(n, rng),
    }
    labels = {label: _label(label, source, image, text, rng) for label in LABELS}
    labels["target"] = labels["target"].where(labels["hate"] == 1)
    return pd.DataFrame(rows | labels)


def _sizes(n: int) -> list[int]:
    total = sum(SOURCES.values())
    ends = [n * end // total for end in np.cumsum(list(SOURCES.values()))]
    return np.diff([0, *ends]).tolist()


def _label(name: str, source: np.ndarray, image: np.ndarray, text: np.ndarray, rng: np.random.Generator) -> pd.Series:
    """Classes by the rank of a score, within each source that has the label; missing elsewhere."""
    score = rng.standard_normal(len(image))
    for side in (image, text):
        z = (side - side.mean(0)) / side.std(0)
        reading = z @ z[rng.integers(0, len(z), 4)].sum(0)  # along the directions that there are
        score += LABEL_SIGNAL * reading / reading.std()
    values = pd.Series(pd.NA, index=range(len(image)), dtype="Int64")
    for where, classes in LABELS[name].items():
        rows = np.flatnonzero(source == where)
        place = score[rows].argsort().argsort() / len(rows)
        ends = np.cumsum(list(classes.values()))
        values.iloc[rows] = np.array(list(classes))[np.searchsorted(ends[:-1], place, side="right")]
    return values


def _captions(n: int, rng: np.random.Generator) -> list[str]:
    """Words of a Zipf law, 14 on average; one caption in a hundred is missing."""
    share = 1 / np.arange(10, VOCABULARY + 10)
    lengths = rng.poisson(13, n) + 1
    words = rng.choice(VOCABULARY, lengths.sum(), p=share / share.sum())
    captions = [" ".join(f"w{word}" for word in part) for part in np.split(words, lengths.cumsum()[:-1])]
    return ["" if missing else caption for caption, missing in zip(captions, rng.random(n) < 0.01, strict=True)]
