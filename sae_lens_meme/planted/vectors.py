"""Planted vectors: more sparse factors than dimensions, with the true directions kept.

A meme is a sparse sum of unit directions, so that each dimension reads many factors at once (superposition: Elhage et al.
2022) and a dictionary has something to recover. Three outlier dimensions hold a share of the variance, as in fused CLIP
embeddings, and labels follow from factors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset, Value
from jaxtyping import Bool, Float64, Int
from safetensors.numpy import save

from sae_lens_meme.device import memory
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.hook_columns import embedding_features
from sae_lens_meme.hooks.names import FUSED, IMAGE_EMBED, TEXT_EMBED
from sae_lens_meme.metrics.directions import random_directions
from sae_lens_meme.planted.answer_key import CAUSES_FILE, FACTORS, AnswerKey
from sae_lens_meme.planted.options import VectorOptions
from sae_lens_meme.shards import write_dataset
from sae_lens_meme.storage import StepFolder, to_json

VERSION = 1  # a change of any number raises it
MODEL, FUSION = "planted vectors", "sum"
ANSWER_KEY, DIRECTIONS = "answer_key", "directions.safetensors"
"""The folder beside the embeddings, and in it the true directions."""
N_OUTLIERS, BLOCK, CAUSES_OF_A_LABEL = 3, 8, 3
SIDES = {"visual": (1.0, 0.0), "textual": (0.0, 1.0), "shared": (0.5, 0.5)}
"""How much of a factor of each kind the picture has, and how much the caption. A third of the factors is of each kind."""
SPLITS = {"train": 0.7, "validation": 0.15, "test": 0.15}
SHARD_SIZE = 4096


@dataclass(frozen=True, eq=False)
class PlantedVectors:
    """The vectors, and everything that is true of them."""

    options: VectorOptions
    columns: dict[str, Any]
    """As `embed` writes them: ids, sources, splits, groups, labels, and `hook_fused`, the sum of both sides."""
    truth: Bool[np.ndarray, "n n_factors"]
    activations: Float64[np.ndarray, "n n_factors"]
    """How strongly a factor is there, 1 on average; 0 where it is not true."""
    directions: Float64[np.ndarray, "n_factors d_in"]
    """`hook_fused` is `activations @ directions + origin`, and noise. Of norm 1 before outlier dimensions are scaled."""
    origin: Float64[np.ndarray, " d_in"]
    parents: Int[np.ndarray, " n_factors"]
    """The factor that must be true for this one, -1 where there is none."""
    kinds: dict[str, str]
    causes: dict[str, list[str]]
    """Of each label the factors of which any makes it true."""

    @cached_property
    def embeddings(self) -> Embeddings:
        """In memory."""
        dataset = Dataset.from_dict(self.columns, features=self.features)
        return Embeddings.from_dataset(dataset, model=MODEL, fusion=FUSION)

    @cached_property
    def features(self) -> Any:
        hooks = (IMAGE_EMBED, TEXT_EMBED, FUSED)
        described = {name: Value("int64" if name in self.causes else "string") for name in self.columns}
        return embedding_features(
            {name: kind for name, kind in described.items() if name not in hooks},
            dict.fromkeys(hooks, self.options.d_in),
        )

    @cached_property
    def answer_key(self) -> AnswerKey:
        described = pd.DataFrame({name: self.columns[name] for name in ("id", "source")})
        factors = pd.DataFrame(self.truth, columns=list(self.kinds))
        labels = {f"true_{name}": factors[causes].to_numpy().any(axis=1) * 1 for name, causes in self.causes.items()}
        how = {"kind": "any", "noise": self.options.label_noise}
        causes = {name: {**how, "factors": causes} for name, causes in self.causes.items()}
        return AnswerKey(pd.concat([described, factors, pd.DataFrame(labels)], axis=1), self.kinds, causes)


def write_planted_vectors(
    out: str | Path, options: VectorOptions | None = None, *, overwrite: bool = False, **given: Any
) -> Embeddings:
    """Write the vectors as `embed` writes embeddings, and below them the answer key with the true directions.

    Args:
        out: the result folder, which `train` and `evaluate` read; `answer_key_of(out)` is for `evaluate --answer-key`.
        options: see `VectorOptions`; or give them by keyword.

    Raises:
        ConfigError: as for `planted_vectors`.
        StorageError: `out` holds something else, or another process writes it.
    """
    options = VectorOptions.of(options, given)
    fingerprint = {"model": MODEL, "version": VERSION, "options": options.model_dump()}
    with StepFolder(out, "embed", fingerprint, overwrite=overwrite) as folder:
        if not folder.complete:
            _write(folder, planted_vectors(options))
    return Embeddings.load(out)


def answer_key_of(embeddings: str | Path) -> Path:
    """The answer key beside written vectors: `read_answer_key` takes it."""
    return Path(embeddings) / ANSWER_KEY


def planted_vectors(options: VectorOptions | None = None, **given: Any) -> PlantedVectors:
    """Draw the vectors; the same options give the same numbers.

    Raises:
        ConfigError: a wrong option, a factor that would be true of more than half of the memes, or vectors that cannot fit
            into the memory of this machine.
    """
    options = VectorOptions.of(options, given)
    _require_memory(options)
    rng = np.random.default_rng(options.seed)
    group = np.arange(options.n_samples) // options.group_size
    parents = _parents(options, rng)
    truth = _truth(options, parents, int(group[-1]) + 1, rng)
    activations = truth * rng.gamma(4.0, 0.25, truth.shape)
    directions = random_directions(options.n_factors, options.d_in, rng)
    truth, activations = truth[group], activations[group]
    kinds = {f"factor_{i}": list(SIDES)[i % len(SIDES)] for i in range(options.n_factors)}
    parts = [
        activations * side @ directions
        + options.noise / np.sqrt(len(SIDES["shared"])) * rng.normal(size=(options.n_samples, options.d_in))
        for side in np.array([SIDES[kind] for kind in kinds.values()]).T
    ]
    gain, shift = _outliers(options, parts[0] + parts[1], rng)
    image, text = (part * gain + shift / len(parts) for part in parts)
    causes, labels = _labels(options, truth, list(kinds), rng)
    vectors = {IMAGE_EMBED: image, TEXT_EMBED: text, FUSED: image + text}
    columns = {
        "id": [f"vector-{i:06d}" for i in range(options.n_samples)],
        **_dealt(group, rng),
        **labels,
        **{hook: x[:, None, :].astype(np.float32) for hook, x in vectors.items()},
    }
    return PlantedVectors(options, columns, truth, activations, directions * gain, shift, parents, kinds, causes)


def _require_memory(options: VectorOptions) -> None:
    """By arithmetic: a system that promises memory which it does not have would end this process, or another one."""
    n, d_in, n_factors = options.n_samples, options.d_in, options.n_factors
    needed = 8 * (n * (3 * n_factors + 5 * d_in + options.n_labels) + n_factors * d_in)  # some of what is held at once
    if needed > (there := memory()):
        sizes = {"n_samples": n, "n_factors": n_factors, "d_in": d_in, "n_labels": options.n_labels}
        raise ConfigError(
            f"{options.section}: {', '.join(f'{name} {size:,}' for name, size in sizes.items())} need {needed / 1e9:,.0f} GB "
            f"of memory, of which this machine has {there / 1e9:,.0f}; lower {max(sizes, key=sizes.__getitem__)}"
        )


def _parents(options: VectorOptions, rng: np.random.Generator) -> Int[np.ndarray, " n_factors"]:
    """The last factors have a parent among the others."""
    parents = np.full(options.n_factors, -1)
    first = options.n_factors - int(options.children * options.n_factors)
    parents[first:] = rng.integers(0, first, options.n_factors - first)
    return parents


def _rates(options: VectorOptions, parents: Int[np.ndarray, " n_factors"]) -> Float64[np.ndarray, " n_factors"]:
    """Share of the memes of which each factor is true: `active` in sum, of a child half of its parent's."""
    rates = (np.arange(options.n_factors) + 1.0) ** -options.zipf
    rates = np.where(parents >= 0, rates[parents] / 2, rates)
    rates *= options.active / rates.sum()
    if rates.max() > 0.5:
        raise ConfigError(
            f"{options.section}: a factor would be true of {rates.max():.0%} of the memes, which at most 50% may be; "
            f"lower active ({options.active:g}) or zipf ({options.zipf:g}), or raise n_factors ({options.n_factors})"
        )
    return rates


def _truth(
    options: VectorOptions, parents: Int[np.ndarray, " n_factors"], n: int, rng: np.random.Generator
) -> Bool[np.ndarray, "n n_factors"]:
    """Normal scores, correlated within blocks, of which the largest are true: as many as the rate says."""
    rates = _rates(options, parents)
    own = rng.normal(size=(n, options.n_factors))
    block = rng.normal(size=(n, -(-options.n_factors // BLOCK))).repeat(BLOCK, axis=1)[:, : options.n_factors]
    scores = np.sqrt(1 - options.correlated) * own + np.sqrt(options.correlated) * block
    n_true = np.maximum(np.round(rates * n), 1).astype(int)
    truth = np.argsort(np.argsort(-scores, axis=0), axis=0) < n_true
    child = parents >= 0
    truth[:, child] = truth[:, parents[child]] & (own[:, child] > 0)
    return truth


def _outliers(
    options: VectorOptions, x: Float64[np.ndarray, "n d_in"], rng: np.random.Generator
) -> tuple[Float64[np.ndarray, " d_in"], Float64[np.ndarray, " d_in"]]:
    """Gain and shift of each dimension: three have the share of the variance, and means of two standard deviations."""
    gain, shift = np.ones(options.d_in), np.zeros(options.d_in)
    columns = rng.choice(options.d_in, N_OUTLIERS, replace=False)
    variance, share = x.var(axis=0), options.outlier_share
    inside = variance[columns].sum()
    if share > 0 and inside > 0:
        gain[columns] = np.sqrt(share / (1 - share) * (variance.sum() - inside) / inside)
        shift[columns] = 2 * gain[columns] * np.sqrt(variance[columns])
    return gain, shift


def _labels(
    options: VectorOptions, truth: Bool[np.ndarray, "n n_factors"], names: list[str], rng: np.random.Generator
) -> tuple[dict[str, list[str]], dict[str, list[int | None]]]:
    """Causes and values of each label."""
    causes, labels = {}, {}
    for name in (f"label_{i}" for i in range(options.n_labels)):
        chosen = np.sort(rng.choice(len(names), min(CAUSES_OF_A_LABEL, len(names)), replace=False))
        values = truth[:, chosen].any(axis=1) ^ (rng.random(len(truth)) < options.label_noise)
        known = rng.random(len(truth)) >= options.missing
        causes[name] = [names[i] for i in chosen]
        labels[name] = [int(value) if there else None for value, there in zip(values, known, strict=True)]
    return causes, labels


def _dealt(group: Int[np.ndarray, " n"], rng: np.random.Generator) -> dict[str, list[str]]:
    """Source, split and name of each group: its memes stay together."""
    n = int(group[-1]) + 1
    ends = np.cumsum(list(SPLITS.values()))[:-1]
    splits = np.array(list(SPLITS))[np.searchsorted(ends, rng.random(n), side="right")]
    sources = np.array(["a", "b"])[rng.integers(0, 2, n)]
    return {
        "source": sources[group].tolist(),
        "split": splits[group].tolist(),
        "group": [f"group-{g:06d}" for g in group],
    }


def _write(folder: StepFolder, vectors: PlantedVectors) -> None:
    key, columns, n = vectors.answer_key, vectors.columns, vectors.options.n_samples
    told = {"labels": key.causes, "factors": key.kinds, "parents": _named(vectors.parents, list(key.kinds))}
    directions = {"directions": vectors.directions.astype(np.float32), "origin": vectors.origin.astype(np.float32)}
    folder.write_text(f"{ANSWER_KEY}/{CAUSES_FILE}", to_json(told))
    folder.write_table(f"{ANSWER_KEY}/{FACTORS}", key.factors)
    folder.write(f"{ANSWER_KEY}/{DIRECTIONS}", lambda path: path.write_bytes(save(directions, {"hook_name": FUSED})))
    shards = [partial(_rows, columns, slice(start, start + SHARD_SIZE)) for start in range(0, n, SHARD_SIZE)]
    write_dataset(folder, vectors.features, shards)
    hooks = (IMAGE_EMBED, TEXT_EMBED, FUSED)
    folder.finish(model=MODEL, fusion=FUSION, n_samples=n, d_in=dict.fromkeys(hooks, vectors.options.d_in))


def _rows(columns: dict[str, Any], part: slice) -> dict[str, Any]:
    return {name: values[part] for name, values in columns.items()}


def _named(parents: Int[np.ndarray, " n_factors"], names: list[str]) -> dict[str, str]:
    return {names[child]: names[parent] for child, parent in enumerate(parents) if parent >= 0}
