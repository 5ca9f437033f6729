"""What a probe learns from the memes that a score keeps, compared with the same number of random ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float64, Int
from pydantic import Field

from sae_lens_meme.evaluators.classifiers import Probe, Task, fit_latent_probe, thinned
from sae_lens_meme.evaluators.cross_modal.selection import CRITERIA, ItemScores, best
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.metrics.ranking import auroc_of_scores
from sae_lens_meme.metrics.resampling import bootstrap_weights
from sae_lens_meme.options import Count, Options

Aurocs = Float64[np.ndarray, "2 resamples"]
"""Pooled and within source; on the held-out memes themselves, then on each resample of them."""


class FilterOptions(Options):
    """What is compared, and how."""

    shares: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(strict=False)] = (0.5,)
    """Of the train memes to keep."""
    within_source: bool = False
    """Keep these shares of each source."""
    n_random: Count = 8
    """Random selections beside the filters; 2 or more for intervals, which their spread is part of."""
    max_rows: Annotated[int, Field(ge=2)] = 5_000
    """Train memes of a task that the compared probes choose from, drawn by seed where there are more."""
    n_bootstrap: Count = 200
    """Resamples of the memes for intervals and stability; 0 leaves both out."""
    seed: Count = 0


@dataclass(frozen=True, eq=False)
class Comparison:
    """AUROCs of one task: all memes, and the kept ones by share and criterion."""

    n_train: int
    """Known train memes that were chosen from."""
    everything: Aurocs
    n_kept: dict[float, int]
    by_score: dict[tuple[float, str], Aurocs | str]
    """Or why there is none."""
    random: dict[float, Float64[np.ndarray, "draws 2 resamples"]]
    mean_is_sum: dict[float, bool]
    """Whether the mean of the weights keeps the memes that their sum keeps, as it does where all have one L0."""


def compare(task: Task, latents: Latents, scores: ItemScores, options: FilterOptions) -> Comparison:
    """Fit the probe of `Probes` on the latents of what each score keeps.

    Each score keeps the same number of known train memes, and is measured on the same held-out memes. At most `max_rows`
    train memes, drawn by seed, are chosen from.
    """
    by_id = np.argsort(np.argsort(scores.ids, kind="stable"), kind="stable")
    train, held_out = (rows[np.argsort(by_id[rows])] for rows in (task.train, task.held_out))
    train = thinned(train, task.label.values, options.max_rows, options.seed)
    groups = scores.sources[train] if options.within_source else None
    probe = _OnPart(task, latents, train)
    measured = _Measured(task, latents, held_out, scores.sources[held_out], scores.groups[held_out], options)
    everything = measured.aurocs(probe.on(np.arange(len(train))))
    n_kept, by_score, random, mean_is_sum = {}, {}, {}, {}
    for share in options.shares:
        n_kept[share] = len(best(np.zeros(len(train)), share, groups))
        for criterion in CRITERIA:
            fit = probe.on_best(scores.by(criterion)[train], share, groups)
            by_score[share, criterion] = measured.aurocs(fit) if isinstance(fit, Probe) else fit
        kept = [set(best(scores.by(by)[train], share, groups)) for by in ("sum", "mean")]
        mean_is_sum[share] = kept[0] == kept[1]
        fits = [probe.on(kept) for kept in _random(len(train), share, groups, options)]
        draws = [measured.aurocs(fit) for fit in fits if isinstance(fit, Probe)]
        random[share] = np.array(draws).reshape(-1, *everything.shape)
    return Comparison(len(train), everything, n_kept, by_score, random, mean_is_sum)


class _OnPart:
    """The probe of one task on parts of its train memes."""

    def __init__(self, task: Task, latents: Latents, train: Int[np.ndarray, " n"]):
        self.task, self.z, self.y = task.name, latents.csr()[train], task.label.values[train]

    def on(self, kept: Int[np.ndarray, " kept"]) -> Any:
        """The probe on these places, or why there is none."""
        lost = np.setdiff1d(self.y, self.y[kept])
        if len(lost):
            return f"no meme of class {lost[0]} is among the {len(kept)} kept ones"
        return fit_latent_probe(self.task, self.z[kept], self.y[kept])

    def on_best(self, values: Float64[np.ndarray, " n"], share: float, groups: np.ndarray | None) -> Any:
        """The probe on the places with the largest values, or why there is none."""
        known = values[~np.isnan(values)]
        if not len(known) or (known == known[0]).all():
            return f"the score is the same for all {len(values)} train memes: it has no best share"
        return self.on(best(values, share, groups))


class _Measured:
    """The held-out memes of a task, and their resamples within source, groups whole."""

    def __init__(
        self,
        task: Task,
        latents: Latents,
        held_out: np.ndarray,
        sources: np.ndarray,
        groups: np.ndarray,
        options: FilterOptions,
    ):
        self.z, self.y = latents.csr()[held_out], task.label.values[held_out]
        self.sources = np.unique(sources, return_inverse=True)[1]
        resamples = bootstrap_weights(self.sources, options.n_bootstrap, options.seed, groups)
        # a group is drawn about once: 255 times is out of reach
        self.weights = np.stack([np.ones(len(held_out), np.int64), *resamples], axis=1).astype(np.uint8)

    def aurocs(self, probe: Probe) -> Aurocs:
        """Of the second of two classes, else the mean of one class against the rest, as `Probes` has it."""
        if not len(self.y):
            return np.full((2, self.weights.shape[1]), np.nan)
        found = probe.predict_proba(self.z)
        columns = range(1 if len(probe.classes) == 2 else 0, len(probe.classes))
        each = np.array([self._aurocs_of(found[:, c], self.y == probe.classes[c]) for c in columns])
        defined = ~np.isnan(each)
        total, count = np.where(defined, each, 0).sum(0), defined.sum(0)
        return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)

    def _aurocs_of(self, score: np.ndarray, true: np.ndarray) -> Aurocs:
        strata = (np.zeros_like(self.sources), self.sources)
        return np.array([auroc_of_scores(score, true, stratum, self.weights) for stratum in strata])


def _random(n: int, share: float, groups: np.ndarray | None, options: FilterOptions) -> Iterator[np.ndarray]:
    rng = np.random.default_rng([options.seed, 3])
    for _ in range(options.n_random):
        yield best(rng.random(n), share, groups)
