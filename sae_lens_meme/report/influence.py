"""What probes read from the latents, and what editing a latent does to them."""

from __future__ import annotations

from typing import Any

from sae_lens_meme.report.section import Row, Section, numbers, row


def _probes(title: str, evaluation: dict[str, Any]) -> list[Row]:
    n = numbers(evaluation, "probes")
    shown = {
        "permuted": "latents_permuted/auroc",
        "within source": "latents/auroc_within_source",
        "permuted, within source": "latents_permuted/auroc_within_source",
        "embedding": "embedding/auroc",
        "reconstruction": "reconstruction/auroc",
    }
    tasks = dict.fromkeys(key.split("/")[0] for key in n)
    return [
        row(
            title,
            task,
            n.get(f"{task}/latents/auroc"),
            {label: n.get(f"{task}/{key}") for label, key in shown.items()},
        )
        for task in tasks
    ]


def _influence(title: str, evaluation: dict[str, Any]) -> list[Row]:
    n = numbers(evaluation, "influence")
    groups = [key.removesuffix("/largest") for key in n if key.endswith("/largest") and "/latent/" in key]
    return [
        row(
            title,
            f"{_edit(group)}, latent {n[f'{group}/largest_latent']}",
            n[f"{group}/largest"],
            {
                "random maximum": n.get(f"{group}/random_maximum"),
                "random": n.get(f"{group}/largest_random"),
                "matched": n.get(f"{group}/largest_matched"),
                "attached": n.get(f"{group}/attached_no_change"),
            },
            n.get(f"{group}/largest_low"),
            n.get(f"{group}/largest_high"),
        )
        for group in groups
    ]


def _edit(group: str) -> str:
    parts = group.split("/")
    return f"{parts[-1]}: ablation" if parts[0] == "ablation" else f"{parts[-1]}: steering {parts[1]}"


PROBES = Section(
    "Linear probes on latents: AUROC, held-out memes",
    "permuted: train labels permuted within source, mean of 5 draws; above .5 is what the source alone tells, "
    "within source it is gone",
    _probes,
)
INFLUENCE = Section(
    "Influence: mean change of a class's probability by one latent, held-out memes",
    "of the latent that was largest on validation memes; random maximum: the largest change that any latent's step makes in a "
    "random direction of equal norm; random: the same of this latent, mean of 4; matched: 20 latents of equal firing rate; "
    "attached: nothing edited",
    _influence,
)
