"""Monosemanticity: do the memes that fire a latent resemble each other, in the eyes of a reference encoder?

MS (Pach et al. 2025) is exact in linear time; chance, chance within source, support, intervals and permutation
tests stand beside it, and raw neurons and permuted latents as controls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.base import Evaluator
from sae_lens_meme.evaluators.controls import directions
from sae_lens_meme.evaluators.latents import Latents, hook_of
from sae_lens_meme.evaluators.monosemanticity.explain import explain, independent
from sae_lens_meme.evaluators.monosemanticity.measurement import Measurement, headline
from sae_lens_meme.evaluators.monosemanticity.panel import CROSS_MODAL, Panel, cross_modal_problem
from sae_lens_meme.evaluators.monosemanticity.uniqueness import TOP, uniqueness
from sae_lens_meme.evaluators.monosemanticity.units import Units
from sae_lens_meme.evaluators.result import Result
from sae_lens_meme.evaluators.rows import measured_rows, require_which
from sae_lens_meme.hooks.names import IMAGE_EMBED, TEXT_EMBED


class Monosemanticity(Evaluator):
    """MS of every latent under each reference, the uniqueness of latents, and controls.

    Memes with a zero vector at a reference hook are left out and counted.

    Args:
        embeddings: the memes.
        reference: embeddings of the same memes (and others, in any order) by an encoder that the SAE has never seen.
            Default the memes' own embeddings, whose encoder the SAE reads: then MS is not independent evidence.
        reference_hooks: default the image and the text embedding where the reference has them, else the SAE's hook.
        rows: "held_out" (test rows, else validation rows, else all) or "all", as published.
        min_support: the least effective support (sum a)^2 / sum a^2 of latents that are summed up and tested. A latent
            that hangs on a few memes has a high MS by chance.
        n_permutations: draws of the test; 0 for none. No p is below 1 / (1 + n_permutations). Each costs what the scores
            cost, and all hold the rows' unit vectors in float32: with rows="all" give fewer.
        neurons: measure raw neurons at equal L0 too (without permutations).
        top: size of the top sets whose overlap is the uniqueness.
    """

    name = "monosemanticity"

    def __init__(
        self,
        embeddings: Embeddings,
        *,
        hook: str | None = None,
        reference: Embeddings | None = None,
        reference_hooks: Sequence[str] | None = None,
        rows: str = "held_out",
        min_support: float = 10.0,
        n_permutations: int = 199,
        neurons: bool = True,
        top: int = TOP,
        seed: int = 0,
    ):
        super().__init__(embeddings, hook=hook)
        require_which(rows)
        if min_support < 2 or n_permutations < 0 or top < 1:
            raise ConfigError(
                f"monosemanticity: min_support={min_support}, n_permutations={n_permutations}, top={top}; "
                "they must be at least 2, 0 and 1"
            )
        self.reference, self.reference_hooks = reference, reference_hooks
        self.rows, self.min_support, self.n_permutations = rows, min_support, n_permutations
        self.neurons, self.top, self.seed = neurons, top, seed

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        hook = hook_of(sae, embeddings, self.hook)
        rows, which = measured_rows(embeddings, self.rows)
        hooks = reference_hooks(embeddings if self.reference is None else self.reference, hook, self.reference_hooks)
        panel = Panel.of(embeddings, rows, self.reference, hooks)
        measured = {"sae": self._measured(latents, panel, self.n_permutations)}
        if self.neurons:
            neurons = directions(embeddings, hook, latents.l0, "neurons", self.seed)
            measured["neurons"] = self._measured(neurons, panel, 0)
        numbers, reasons = headline(measured)
        numbers["reference_is_independent"], why = independent(embeddings, self.reference)
        reasons |= {"reference_is_independent": why} if why else {}
        if problem := cross_modal_problem(panel.reference, hooks):
            numbers, reasons = numbers | {CROSS_MODAL: None}, reasons | {CROSS_MODAL: problem}
        unique = uniqueness(latents.rows(panel.rows), panel.ids, panel.strata, top=self.top, seed=self.seed)
        numbers |= {f"uniqueness/{key}": value for key, value in unique.numbers.items()}
        reasons |= {f"uniqueness/{key}": reason for key, reason in unique.reasons.items()}
        table = measured["sae"].table().merge(unique.table, on="latent", how="left")  # type: ignore[arg-type]
        lines = explain(panel, which, embeddings, self.reference, self.min_support, self.n_permutations)
        lines |= {f"uniqueness/{key}": line for key, line in unique.explain.items()}
        return Result(self.name, numbers, reasons, table, lines)

    def _measured(self, latents: Latents, panel: Panel, n_permutations: int) -> Measurement:
        units = Units.of(latents.rows(panel.rows))
        return Measurement.of(units, panel, self.min_support, n_permutations, self.seed)


def cross_modal_monosemanticity(
    image_latents: Latents,
    text_latents: Latents,
    embeddings: Embeddings,
    *,
    min_support: float = 10.0,
    n_permutations: int = 199,
    seed: int = 0,
) -> Result:
    """MS of an SAE that reads both modalities: image-side activations weigh image embeddings, text-side ones text embeddings.

    Over pairs of different memes: sum a_n b_m cos(i_n, t_m) / sum a_n b_m, and each side's own MS beside it; each
    side is min-max scaled on its own. For a fused SAE, whose latents are the same on both sides, `Monosemanticity`
    gives it.

    Args:
        image_latents, text_latents: latents of the same SAE on the two sides of each meme, one row a meme.
        embeddings: the memes, with image and text embeddings; all of them are used.

    Raises:
        DataError: image and text embeddings cannot be compared, or the latents are not of these memes.
    """
    if problem := cross_modal_problem(embeddings, embeddings.hooks):
        raise DataError(f"cross_modal_monosemanticity: {problem}")
    if image_latents.n_samples != len(embeddings):
        raise DataError(
            f"cross_modal_monosemanticity: the latents are of {image_latents.n_samples} memes, the embeddings of {len(embeddings)}"
        )
    panel = Panel.of(embeddings, np.arange(len(embeddings)), None, (IMAGE_EMBED, TEXT_EMBED))
    units = Units.of(image_latents.rows(panel.rows), text_latents.rows(panel.rows))
    found = Measurement.of(units, panel, min_support, n_permutations, seed, side=(0, 1))
    numbers, reasons = headline({"sae": found})
    lines = explain(panel, "all rows", embeddings, None, min_support, n_permutations)
    return Result("cross_modal_monosemanticity", numbers, reasons, found.table(), lines)


def reference_hooks(reference: Embeddings, hook: str, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """Which embeddings to compare memes by.

    Raises:
        DataError: the reference has no such hook.
    """
    if wanted is None:
        wanted = [name for name in (IMAGE_EMBED, TEXT_EMBED) if name in reference.hooks] or [hook]
    for name in wanted:
        reference.d_in(name)
    if not wanted or len(set(wanted)) != len(wanted):
        raise ConfigError(f"monosemanticity: reference_hooks {list(wanted)} must name at least one hook, each once")
    return tuple(wanted)
