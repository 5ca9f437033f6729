"""One cell of `benchmarks.recovery`: a dictionary on planted vectors, and what it recovers of them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from sae_lens.synthetic import compute_classification_metrics, feature_uniqueness, mean_correlation_coefficient

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.concept_alignment import ConceptAlignment
from sae_lens_meme.evaluators.contest.compute import LABELS, PLANTED, Arena, ablate, read
from sae_lens_meme.evaluators.contest.probing import linear_probes
from sae_lens_meme.evaluators.contest.targets import Key, Rows, targets_of
from sae_lens_meme.evaluators.contest.units import KINDS, Units, of_dictionary, of_directions
from sae_lens_meme.evaluators.latents import Latents, encode
from sae_lens_meme.evaluators.reconstruction import Reconstruction
from sae_lens_meme.hooks.names import FUSED
from sae_lens_meme.planted import PlantedVectors, planted_vectors, true_dictionary, true_matching_pursuit
from sae_lens_meme.standardize import train_moments
from sae_lens_meme.train import train

HELD_OUT = {"validation": 500, "test": 1_500}
SAMPLES = 120_000
"""Vectors that pass through training, at every N: 30 epochs of 4,000."""
TUNED: dict[str, dict[str, Any]] = {
    "meme_topk": {"init": "tied"},
    "topk": {},
    "batchtopk": {"topk_threshold_lr": 0.05},
    "matryoshka_batchtopk": {"topk_threshold_lr": 0.05},
    "standard": {"l1_coefficient": 1.0},
    "jumprelu": {"l0_coefficient": 3.0},
    "matching_pursuit": {},
}
"""Options of the section `sae`, and the learning rate, found on a world of another seed than those that are scored."""
LR = 4.0e-3

ORACLES = {"oracle": true_dictionary, "oracle_matching_pursuit": true_matching_pursuit}


@dataclass(frozen=True)
class World:
    """Vectors of one seed: the test memes are the same for every N."""

    seed: int = 0
    n_train: int = 4_000
    outlier_share: float = 0.64
    most: int = 16_000
    n_factors: int = 128
    d_in: int = 64
    active: int = 4


@dataclass(frozen=True)
class Cell:
    """How a dictionary is made: the oracles have the true directions, `shuffled` sees vectors shuffled per dimension."""

    architecture: str = "meme_topk"
    d_sae: int = 128
    k: int = 4
    standardize: bool = True
    rescale: bool = False
    """Divide all dimensions by one number, so that the mean norm is sqrt(d_in) (SAELens' expected_average_only_in)."""
    lr: float = LR
    penalty: float | None = None
    """Of the L1 or L0 term, where the architecture has one and no k."""
    samples: int = SAMPLES

    @property
    def recipe(self) -> dict[str, Any]:
        """The section `train`."""
        architecture = "meme_topk" if self.architecture == "shuffled" else self.architecture
        sae = {"architecture": architecture, "d_sae": self.d_sae, **TUNED[architecture]}
        if architecture == "matching_pursuit":
            sae["max_iterations"] = self.k
        elif not set(sae) & {"l1_coefficient", "l0_coefficient"}:
            sae["k"] = self.k
        elif self.penalty is not None:
            sae |= {key: self.penalty for key in sae if key.endswith("_coefficient")}
        if self.rescale:
            sae["normalize_activations"] = "expected_average_only_in"
        if architecture == "matryoshka_batchtopk":
            sae["matryoshka_widths"] = [self.d_sae // 4, self.d_sae // 2, self.d_sae]
        return {
            "training_tokens": self.samples,
            "train_batch_size_tokens": 256,
            "standardize": self.standardize and architecture != "matching_pursuit",  # it gets z-scored vectors
            "lr": self.lr,
            "n_checkpoints": 0,
            "sae": sae,
        }


@dataclass(frozen=True, eq=False)
class Stage:
    """A world, and what is the same for all dictionaries on it."""

    world: World
    vectors: PlantedVectors
    embeddings: Embeddings

    @classmethod
    def of(cls, world: World) -> Stage:
        n = world.most + sum(HELD_OUT.values())
        known = {name: getattr(world, name) for name in ("seed", "outlier_share", "n_factors", "d_in", "active")}
        drawn = planted_vectors(n_samples=n, **known)
        held_out = np.repeat(list(HELD_OUT), list(HELD_OUT.values())).tolist()
        rows = np.r_[: len(held_out) + world.n_train]
        columns: dict[str, Any] = {
            name: values[: len(rows)] if isinstance(values, np.ndarray) else list(values[: len(rows)])
            for name, values in drawn.columns.items()
        }
        columns["split"] = held_out + ["train"] * world.n_train
        kept = replace(drawn, columns=columns, truth=drawn.truth[rows], activations=drawn.activations[rows])
        return cls(world, kept, kept.embeddings)

    @cached_property
    def moments(self) -> Any:
        return train_moments(self.embeddings, FUSED)

    @cached_property
    def zscored(self) -> Embeddings:
        """For a dictionary into which no standardisation can be folded."""
        x = (self.vectors.columns[FUSED] - self.moments.mean) / self.moments.std
        return replace(self.vectors, columns={**self.vectors.columns, FUSED: x.astype(np.float32)}).embeddings

    @cached_property
    def directions(self) -> torch.Tensor:
        """Of the factors, in z-scored space."""
        return torch.from_numpy((self.vectors.directions / self.moments.std).astype(np.float32))

    @cached_property
    def arena(self) -> Arena:
        """Of the contest, without what is not asked for here: bootstrap samples, SCR, special cases."""
        key, rows = self.vectors.answer_key, Rows.of(self.embeddings)
        concepts = [f"{name}=1" for name in self.vectors.causes]
        targets, left_out = targets_of(self.embeddings, rows, concepts, Key(key.factors, key.kinds))
        x = self.embeddings.take(FUSED, np.arange(len(self.embeddings)))
        z = ((x - self.moments.mean) / self.moments.std).astype(np.float32)
        probes = linear_probes(z, targets, rows, 20_000, 0)
        once = np.ones((len(rows.test), 1), np.uint8)
        nothing: dict[str, list[Any]] = {LABELS: [], PLANTED: []}
        logits = probes.logits(z[rows.test])
        return Arena(targets, left_out, rows, once, logits, probes, z, nothing, None, (1, 10), (5,))


@lru_cache(maxsize=1)
def stage_of(world: World) -> Stage:
    return Stage.of(world)


def scores(world: World, cell: Cell) -> dict[str, Any]:
    """The row of a dictionary."""
    stage, started = stage_of(world), time.perf_counter()
    embeddings = stage.zscored if "matching_pursuit" in cell.architecture else stage.embeddings
    if cell.architecture in ORACLES:
        sae = ORACLES[cell.architecture](stage.vectors, cell.k)
    else:
        recipe, shuffled = {"seed": world.seed, **cell.recipe}, cell.architecture == "shuffled"
        with tempfile.TemporaryDirectory() as folder:
            sae = train(recipe, out=folder, embeddings=embeddings, shuffled=shuffled, progress=False)
    seconds = time.perf_counter() - started
    latents = encode(sae, embeddings, FUSED)
    units = of_dictionary(cell.architecture, sae, latents, train_moments(embeddings, FUSED))
    concepts = [f"{name}=1" for name in stage.vectors.causes]
    pairs = ConceptAlignment(embeddings, concepts=concepts, protocol="corrected", n_bootstrap=0)
    given_back = Reconstruction(embeddings).evaluate(sae, latents=latents).numbers
    counted = pairs.evaluate(sae, latents=latents).numbers
    return {
        **_recovered(units, stage, seconds),
        **_directions(units, latents, stage),
        "pairs": counted["corrected/n_significant_global"],
        "latents_with_pairs": counted["corrected/n_latents_global"],
        "explained_variance": given_back["held_out/explained_variance_zscored"],
        "explained_variance_raw": given_back["held_out/explained_variance"],
        "l0": given_back["held_out/l0"],
        "dead_share": given_back["train/dead_share"],
    }


def control_scores(world: World) -> Iterator[tuple[str, dict[str, Any]]]:
    """Directions, dense and with as many units on each meme as factors are true of one."""
    stage = stage_of(world)
    fire = encode(true_dictionary(stage.vectors, world.active), stage.embeddings, FUSED)
    for kind in KINDS:
        started = time.perf_counter()
        for units in of_directions(kind, stage.embeddings, FUSED, fire, stage.moments, world.seed):
            yield units.name, _recovered(units, stage, time.perf_counter() - started)


def _recovered(units: Units, stage: Stage, seconds: float) -> dict[str, Any]:
    """The contest's estimators, by key; means over targets."""
    found = {**read(units, stage.arena), **ablate(units, stage.arena)}
    means = {event.key.replace("/", "_"): _mean(draws[0]) for event, draws in found.items()}
    return {"seconds": round(seconds, 1), "n_factors_scored": len(stage.arena.targets.columns(PLANTED)), **means}


def _mean(values: np.ndarray) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmean(values))


def _directions(units: Units, latents: Latents, stage: Stage) -> dict[str, Any]:
    """SAELens' own scores: of decoder rows against true directions, and of latents as classifiers."""
    assert units.decoder is not None
    decoder, test = torch.from_numpy(units.decoder.astype(np.float32)), stage.arena.rows.test
    acts = torch.from_numpy(np.asarray(latents.csr()[test].todense(), np.float32))
    truth = torch.from_numpy(stage.vectors.activations[test].astype(np.float32))
    return {
        "saelens_mcc": mean_correlation_coefficient(decoder, stage.directions),
        "saelens_uniqueness": feature_uniqueness(decoder, stage.directions),
        "saelens_f1": compute_classification_metrics(acts, truth, decoder, stage.directions).f1_score,
    }
