"""What the SAE keeps of the embeddings, and of what a classifier does with them."""

from __future__ import annotations

from typing import Any

from sae_lens_meme.report.section import Row, Section, numbers, row


def _reconstruction(title: str, evaluation: dict[str, Any]) -> list[Row]:
    n = numbers(evaluation, "reconstruction")
    if not n:
        return []
    rows = [
        row(title, measure, n.get(f"held_out/{key}"), {"train memes": n.get(f"train/{key}"), **controls})
        for measure, key, controls in (
            ("explained variance, z-scored", "explained_variance_zscored", _mean(n, "explained_variance_zscored")),
            ("explained variance, raw", "explained_variance", _mean(n, "explained_variance")),
            (
                f"explained variance, outlier dimensions left out ({n['outlier_dimensions']})",
                "explained_variance_without_outliers",
                _mean(n, "explained_variance_without_outliers"),
            ),
            ("cosine of input and output", "cosine", _mean(n, "cosine")),
            ("L0", "l0", {}),
            (f"latents that never fire, of {evaluation['sae']['d_sae']}", "dead_latents", {}),
        )
    ]
    return rows


def _stock(title: str, evaluation: dict[str, Any]) -> list[Row]:
    n = numbers(evaluation, "stock_evals")
    tasks = dict.fromkeys(key.split("/")[0] for key in n)
    return [
        row(
            title,
            task,
            n[f"{task}/ce_loss_score"],
            {
                "zeros": 0,
                "loss": n.get(f"{task}/ce_loss_without_sae"),
                "with SAE": n.get(f"{task}/ce_loss_with_sae"),
                "with zeros": n.get(f"{task}/ce_loss_with_ablation"),
            },
        )
        for task in tasks
    ]


def _mean(numbers: dict[str, Any], key: str) -> dict[str, Any]:
    """The same score of the mean predictor."""
    return {"mean": numbers[f"held_out/{key}_mean_predictor"]} if f"held_out/{key}_mean_predictor" in numbers else {}


RECONSTRUCTION = Section(
    "Reconstruction, held-out memes",
    "mean: the mean of the train memes in place of the SAE",
    _reconstruction,
)
STOCK = Section(
    "SAELens' run_evals: cross-entropy of a linear classifier recovered, held-out memes",
    "1: nothing lost by replacing the embedding with its reconstruction; zeros: the embedding replaced by zeros",
    _stock,
)
