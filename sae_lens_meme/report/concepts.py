"""Latents and labelled concepts, and the factors of planted memes."""

from __future__ import annotations

from typing import Any

from sae_lens_meme.report.latents import latent
from sae_lens_meme.report.section import Row, Section, numbers, row


def _concepts(title: str, evaluation: dict[str, Any]) -> list[Row]:
    found, controls = numbers(evaluation, "concept_alignment"), numbers(evaluation, "baselines")
    names = {
        "permuted_labels": "permuted",
        "shuffled_data": "shuffled",
        "neurons": "neurons",
        "pca": "PCA",
        "ica": "ICA",
        "random_topk": "random TopK",
    }
    rows = []
    for protocol, family, what in (
        ("corrected", "global", "corrected protocol"),
        ("corrected", "concept", "corrected protocol, q within each concept"),
        ("published", "concept", "published protocol"),
    ):
        key = f"{protocol}/n_significant_{family}"
        if key not in found:
            continue
        beside = {label: controls.get(f"{protocol}/{name}/n_significant_{family}") for name, label in names.items()}
        shown = {label: value for label, value in beside.items() if value is not None}
        rows.append(row(title, what, found[key], shown, found.get(f"{key}_low"), found.get(f"{key}_high")))
    for protocol in ("corrected", "published"):
        key = f"{protocol}/n_f1_above_0.35"
        if key in found:
            beside = {label: controls.get(f"{protocol}/{name}/n_f1_above_0.35") for name, label in names.items()}
            shown = {label: value for label, value in beside.items() if value is not None}
            rows.append(row(title, f"pairs with F1 above .35, {protocol}", found[key], shown))
    for protocol, family in (("corrected", "global"), ("published", "concept")):
        shares = {name: controls.get(f"{protocol}/{name}/share_of_latents_{family}") for name in ("sae", *names)}
        if shares["sae"] is not None:
            shown = {label: shares[name] for name, label in names.items() if shares[name] is not None}
            rows.append(row(title, f"share of units with a pair, {protocol}", shares["sae"], shown))
    return rows


def _best(title: str, evaluation: dict[str, Any]) -> list[Row]:
    n = numbers(evaluation, "concept_alignment")
    suffix = "/best_f1_test"
    keys = [key.removesuffix(suffix) for key in n if key.startswith("corrected/") and key.endswith(suffix)]
    return [
        row(
            title,
            f"{key.removeprefix('corrected/')} ({latent(n[f'{key}/best_latent'])})",
            n[f"{key}{suffix}"],
            {
                "always on": n[f"{key}/best_f1_always_on"],
                "source only": n.get(f"{key}/f1_source_only"),
                "chosen": n[f"{key}/best_f1_validation"],
                "AUROC": n[f"{key}/best_auroc"],
            },
            n.get(f"{key}{suffix}_low"),
            n.get(f"{key}{suffix}_high"),
        )
        for key in keys
    ]


def _answers(title: str, evaluation: dict[str, Any]) -> list[Row]:
    n = numbers(evaluation, "answer_key")
    factors = [key.removesuffix("/auroc") for key in n if key.endswith("/auroc")]
    kinds = evaluation.get("answer_key", {})
    return [
        row(
            title,
            f"{factor} ({kinds.get(factor, '?')})",
            n[f"{factor}/auroc"],
            {
                "permuted": n[f"{factor}/auroc_permuted"],
                "F1": n[f"{factor}/f1"],
                "F1 always on": n[f"{factor}/f1_always_on"],
            },
        )
        for factor in factors
    ]


CONCEPTS = Section(
    "Concepts: latent x concept pairs with q < .05",
    "permuted: labels permuted within source, mean of 3 draws; shuffled: SAE trained on data shuffled per "
    "dimension; neurons, PCA, ICA: directions of the embedding, both signs, random TopK: random directions, all at equal L0; 95 %: delete-d jackknife over memes",
    _concepts,
)
BEST = Section(
    "Concepts: F1 on test memes of the latent that was best on validation memes",
    "always on: a latent that fires on every meme; source only: the best rule that reads nothing but the source; "
    "chosen: F1 on the rows that chose latent and threshold; AUROC: within source",
    _best,
)
ANSWERS = Section(
    "Answer key: AUROC on test memes of the best latent for each planted factor",
    "permuted: the factor permuted within source",
    _answers,
)
