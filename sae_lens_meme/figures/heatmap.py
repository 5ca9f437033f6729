"""Concepts against latents."""

from __future__ import annotations

from typing import Any

import numpy as np

from sae_lens_meme.figures.inputs import Inputs, by_evidence
from sae_lens_meme.figures.style import DIVERGING, INK, titled, wrapped

TITLE = "Concepts against latents"
ALPHA = 0.05


def draw(axes: Any, inputs: Inputs, *, per_concept: int = 3) -> None:
    """AUROC within source of the strongest latents of each concept; a dot where q over all pairs is below .05.

    The latents are chosen by F1 on validation memes, without any by p over all known memes, and shown on test memes.
    """
    table, flattering = by_evidence(inputs)
    first = table.groupby("concept", sort=False).head(per_concept).sort_values("concept", kind="stable")
    chosen = list(dict.fromkeys(first["latent"]))
    auroc = table.pivot(index="concept", columns="latent", values="auroc")[chosen]
    q = table.pivot(index="concept", columns="latent", values="q_global")[chosen]
    image = axes.imshow(auroc.to_numpy(float), cmap=DIVERGING, vmin=0, vmax=1, aspect="auto")
    y, x = np.nonzero(q.to_numpy(float) < ALPHA)
    axes.plot(x, y, ".", color=INK, ms=3, ls="")
    axes.set_xticks(range(len(chosen)), [str(latent) for latent in chosen], rotation=90)
    axes.set_yticks(range(len(auroc)), [wrapped(concept) for concept in auroc.index])
    axes.figure.colorbar(image, ax=axes, label="AUROC, test memes", shrink=0.8)
    titled(axes, f"Each concept's {per_concept} strongest latents (dot: q < {ALPHA}){flattering}", "latent")
