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

from sae_lens_meme.config import check_counts
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.base import Evaluator
from sae_lens_meme.evaluators.classifiers import Probe, SharedProbes, tasks_of
from sae_lens_meme.evaluators.influence.effects import Resampling, effects_of, table_of
from sae_lens_meme.evaluators.influence.numbers import explain, largest_numbers
from sae_lens_meme.evaluators.influence.routes import (
    CosineHead,
    CosineRoute,
    Route,
    decoder_rows,
    embedding_route,
    latent_route,
)
from sae_lens_meme.evaluators.latents import Latents, hook_of
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
        check_counts("influence", n_bootstrap=n_bootstrap, n_random=n_random, seed=seed)
        self.tasks, self.multipliers, self.routes, self.heads = tasks, tuple(multipliers), tuple(routes), tuple(heads)
        self.rows, self.n_bootstrap, self.n_random = rows, n_bootstrap, n_random
        self.fitted, self.seed = fitted or SharedProbes(seed=seed), seed

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        rows, which = measured_rows(embeddings, self.rows)
        choosing = self._choosing_rows(embeddings, rows)
        strata = np.unique(embeddings.sources[rows], return_inverse=True)[1]
        z = latents.rows(rows).csr()
        resampling = Resampling.of(z, strata, self.n_bootstrap, self.seed) if self.n_bootstrap else None
        numbers: dict[str, Number] = {"n": len(rows), "n_choosing": len(choosing)}
        reasons: dict[str, str] = {}
        tables = []
        for (head, route), (_, choice) in zip(
            self._all_routes(sae, embeddings, latents, rows, reasons),
            self._all_routes(sae, embeddings, latents, choosing, reasons),
            strict=True,
        ):
            effects = effects_of(route, self.multipliers, resampling, self.n_random)
            chosen = np.abs(effects_of(choice, self.multipliers, n_random=0).delta_all)
            tables.append(table_of(route, effects, self.multipliers, head))
            numbers |= largest_numbers(route, effects, chosen, self.multipliers, head)
        silent = "no latent fires on these rows, or none on the rows that choose it"
        reasons |= {key: silent for key, value in numbers.items() if value is None}
        numbers |= dict.fromkeys(reasons)
        table = pd.concat(tables, ignore_index=True) if tables else None
        return Result(self.name, numbers, reasons, table, explain(which, len(rows), len(choosing), self))

    def log_key(self, key: str) -> str:
        """`meme/ablation/...` and `meme/steering/...`."""
        return f"meme/{key}" if "/" in key else super().log_key(key)

    def _choosing_rows(self, embeddings: Embeddings, rows: np.ndarray) -> np.ndarray:
        """Validation rows choose the latents that are summed up, if others measure them; else the same rows do both."""
        validation = embeddings.rows("validation")
        apart = len(validation) > 0 and not np.isin(validation, rows).any()
        return validation if apart else rows

    def _all_routes(
        self, sae: Any, embeddings: Embeddings, latents: Latents, rows: np.ndarray, reasons: dict[str, str]
    ) -> Iterator[tuple[str, Route]]:
        z = sparse.csr_matrix(latents.rows(rows).csr(), dtype=np.float64)
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
    if not routes:
        raise ConfigError(f"influence: no route is given; give some of {', '.join(ROUTES)}")
    if unknown := set(routes) - set(ROUTES):
        raise ConfigError(f"influence: route {min(unknown)!r} is none of {', '.join(ROUTES)}")
    require_which(rows)
    if not len(multipliers) or not np.isfinite(multipliers).all():
        raise ConfigError(f"influence: multipliers {list(multipliers)} must be finite numbers, at least one")


def _unit_directions(rng: np.random.Generator, n: int, d: int) -> Float64[np.ndarray, "n d"]:
    directions = rng.normal(size=(n, d))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)
