"""Ablation and steering of every latent at once: the exact change of each class's probability, with controls.

Latent route: z_f <- m z_f, the row normalised again, then the probe on latents. Embedding route:
h <- h + (m-1) z_f d_f with the SAE's error kept, then a probe on h or the model's own head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64
from scipy import sparse

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.base import Evaluator
from sae_lens_meme.evaluators.influence.effects import Effects, Resampling, effects_of, table_of
from sae_lens_meme.evaluators.influence.routes import (
    CosineHead,
    CosineRoute,
    Route,
    decoder_rows,
    embedding_route,
    latent_route,
)
from sae_lens_meme.evaluators.latents import Latents, hook_of
from sae_lens_meme.evaluators.probes.probe import Probe, SharedProbes
from sae_lens_meme.evaluators.probes.tasks import tasks_of
from sae_lens_meme.evaluators.result import Number, Result
from sae_lens_meme.evaluators.rows import measured_rows, require_which

ROUTES = ("latent", "embedding")


class Influence(Evaluator):
    """Effect of ablating and steering each latent, for each label.

    Args:
        tasks: labels, default every label with 2 to 20 classes.
        multipliers: 0 is ablation; any other is steering.
        routes: "latent", "embedding" or both.
        heads: further classifiers of the embedding: `CosineHead` for MemeCLIP's head, `Probe` for a linear one.
        rows: "held_out" (test rows, else validation rows, else all) or "all". Labels are not needed to be known.
        n_bootstrap: resamples of the memes for the 95 % intervals; 0 for none.
        n_random: random directions of the equal-norm control; 0 for none.
        fitted: the probes; give `Probes` the same ones and they are fitted once.
    """

    name = "influence"

    def __init__(
        self,
        embeddings: Embeddings,
        *,
        hook: str | None = None,
        tasks: Sequence[str] | None = None,
        multipliers: Sequence[float] = (0.0, 5.0),
        routes: Sequence[str] = ROUTES,
        heads: Sequence[CosineHead | Probe] = (),
        rows: str = "held_out",
        n_bootstrap: int = 200,
        n_random: int = 4,
        fitted: SharedProbes | None = None,
        seed: int = 0,
    ):
        super().__init__(embeddings, hook=hook)
        _require(routes, rows, multipliers)
        self.tasks, self.multipliers, self.routes, self.heads = tasks, tuple(multipliers), tuple(routes), tuple(heads)
        self.rows, self.n_bootstrap, self.n_random = rows, n_bootstrap, n_random
        self.fitted, self.seed = fitted or SharedProbes(seed=seed), seed

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        rows, which = measured_rows(embeddings, self.rows)
        z = sparse.csr_matrix(latents.rows(rows).csr(), dtype=np.float64)
        strata = np.unique(embeddings.sources[rows], return_inverse=True)[1]
        resampling = Resampling.of(z, strata, self.n_bootstrap, self.seed) if self.n_bootstrap else None
        numbers: dict[str, Number] = {"n": len(rows)}
        reasons: dict[str, str] = {}
        tables = []
        for head, route in self._all_routes(sae, embeddings, latents, rows, z, reasons):
            effects = effects_of(route, self.multipliers, resampling, self.n_random)
            tables.append(table_of(route, effects, self.multipliers, head))
            numbers |= _numbers(route, effects, self.multipliers, head)
        numbers |= dict.fromkeys(reasons)
        table = pd.concat(tables, ignore_index=True) if tables else None
        return Result(self.name, numbers, reasons, table, _explain(which, len(rows), self))

    def log_key(self, key: str) -> str:
        """`meme/ablation/...` and `meme/steering/...`."""
        return f"meme/{key}" if "/" in key else super().log_key(key)

    def _all_routes(
        self, sae: Any, embeddings: Embeddings, latents: Latents, rows: np.ndarray, z: Any, reasons: dict[str, str]
    ) -> Iterator[tuple[str, Route]]:
        hook = hook_of(sae, embeddings, self.hook)
        tasks, skipped = tasks_of(embeddings, self.tasks)
        reasons |= {f"ablation/latent/{name}": reason for name, reason in skipped.items()}
        rng = np.random.default_rng(self.seed)
        if "latent" in self.routes:
            directions = _unit_directions(rng, self.n_random, latents.d_sae)
            for task in tasks:
                yield "probe", latent_route(self.fitted.of_latents(task, embeddings, latents), z, directions)
        if "embedding" not in self.routes:
            return
        try:
            decoder = decoder_rows(sae)
        except DataError as error:
            reasons["ablation/embedding"] = str(error)
            return
        directions = _unit_directions(rng, self.n_random, decoder.shape[1])
        self.fitted.prepare(tasks, embeddings, hook)
        for task in tasks:
            probe = self.fitted.of(task, embeddings, hook)
            yield "probe", embedding_route(probe, z, embeddings, hook, rows, decoder, directions)
        for head in self.heads:
            make = CosineRoute if isinstance(head, CosineHead) else embedding_route
            yield "model", make(head, z, embeddings, hook, rows, decoder, directions)  # type: ignore[arg-type]


def published(table: pd.DataFrame) -> pd.DataFrame:
    """InterVLM's one number a latent, task and edit: columns latent, task, kind, multiplier, class, delta.

    Of a binary task the mean change of the positive class, of any other the signed entry of
    largest magnitude over the classes, on the latent route. Their rows are the test rows.
    """
    mine = table.loc[table["published"], ["latent", "task", "kind", "multiplier", "class", "delta_all"]]
    return mine.rename(columns={"delta_all": "delta"}).reset_index(drop=True)


def _require(routes: Sequence[str], rows: str, multipliers: Sequence[float]) -> None:
    if unknown := set(routes) - set(ROUTES):
        raise ConfigError(f"influence: route {min(unknown)!r} is none of {', '.join(ROUTES)}")
    require_which(rows)
    if not len(multipliers) or not np.isfinite(multipliers).all():
        raise ConfigError(f"influence: multipliers {list(multipliers)} must be finite numbers, at least one")


def _unit_directions(rng: np.random.Generator, n: int, d: int) -> Float64[np.ndarray, "n d"]:
    directions = rng.normal(size=(n, d))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def _numbers(route: Route, effects: Effects, multipliers: Sequence[float], head: str) -> dict[str, Number]:
    numbers: dict[str, Number] = {}
    where = f"{route.name}/{route.task}" if head == "probe" else f"{route.name}/{head}/{route.task}"
    for m, multiplier in enumerate(multipliers):
        group = f"ablation/{where}" if multiplier == 0 else f"steering/x{multiplier:g}/{where}"
        magnitude = np.abs(effects.delta_all[:, m]).max(1)
        top = int(magnitude.argmax())
        best = int(np.abs(effects.delta_all[top, m]).argmax())
        numbers[f"{group}/largest"] = float(magnitude[top])
        numbers[f"{group}/largest_signed"] = float(effects.delta_all[top, m, best])
        numbers[f"{group}/largest_latent"] = top
        if effects.delta_all_interval is not None:
            ends = [end[top, m, best] for end in effects.delta_all_interval]
            low, high = sorted(np.abs(ends)) if ends[0] * ends[1] > 0 else (0.0, np.abs(ends).max())
            numbers |= {f"{group}/largest_low": float(low), f"{group}/largest_high": float(high)}
        if effects.delta_random is not None:
            numbers[f"{group}/largest_random"] = float(effects.delta_random[top, m, best])
            numbers[f"{group}/random_maximum"] = float(effects.delta_random[:, m].max())
        if np.isfinite(matched := effects.delta_matched[top, m, best]):
            numbers[f"{group}/largest_matched"] = float(matched)
        numbers[f"{group}/attached_no_change"] = effects.attached_no_change
    numbers[f"ablation/{where}/all_latents"] = float(np.abs(route.all_ablated()).max())
    return numbers


def _explain(which: str, n: int, influence: Influence) -> dict[str, str]:
    intervals = f"percentile bootstrap over memes within source, {influence.n_bootstrap} resamples, 95 %"
    return {
        "*": f"effects are means over {n} {which}; probes are fitted on known train rows",
        "delta_all": f"mean over these {n} rows; intervals: {intervals if influence.n_bootstrap else 'not asked for'}",
        "delta_active": "mean over the rows where the latent fires; null where it fires on none",
        "delta_random": f"control: |mean change| for a step of equal norm on the same memes, mean over {influence.n_random} random directions",
        "published": "true for InterVLM's one number a latent and edit: the positive class of two, else the class of largest "
        "|delta_all|, probe on latents; their rows are the test rows",
        "delta_matched": "control: mean |delta_all| of the 20 other latents nearest in firing rate",
        "*/largest": "largest |delta_all| over latents and classes, of latent largest_latent: chosen and measured on the same "
        "rows, so that random_maximum is its fair control; largest_random and largest_matched are those of this one latent",
        "*/random_maximum": "control: the largest delta_random over latents and classes. A largest below it is no more than "
        "what some latent's step does in a random direction",
        **dict.fromkeys(
            ("*/largest_low", "*/largest_high"),
            f"the interval of delta_all of this latent and class ({intervals}); it does not count the choice",
        ),
        "*/largest_signed": "the same with its sign: what InterVLM publishes for this latent (`published` in the table)",
        "*/largest_latent": "the latent with the largest |delta_all| over classes",
        "*/largest_random": "control: |mean change| for a step of equal norm on the same memes",
        "*/largest_matched": "control: mean |delta_all| of the 20 other latents nearest in firing rate",
        "*/attached_no_change": "control: largest change of any probability of any meme under multiplier 1",
        "*/all_latents": "largest |mean change| over classes when every active latent is ablated (zeros are decoded)",
    }
