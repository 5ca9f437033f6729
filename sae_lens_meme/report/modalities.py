"""Picture and caption: what decides a latent, and which latents bind the two."""

from __future__ import annotations

from typing import Any

from sae_lens_meme.report.section import Row, Section, numbers, row

_SCORE = "auroc_within_source"


def _question_set(title: str, evaluation: dict[str, Any]) -> list[Row]:
    n = numbers(evaluation, "question_set")
    if n.get("n_latents") is None:
        return []
    rows = [
        row(
            title,
            f"{kind.replace('_', '-')} ({n[f'n_{kind}']} latents)",
            n[f"share_{kind}"],
            # with permuted swaps neither side decides, and all that is left is called cross-modal: no control of that class
            ({} if kind in ("cross_modal", "undecided") else {"swaps permuted": n[f"permuted/share_{kind}"]})
            | {"neurons": n.get(f"neurons/share_{kind}")},
            n.get(f"share_{kind}_low"),
            n.get(f"share_{kind}_high"),
        )
        for kind in ("visual", "textual", "cross_modal", "undecided")
    ]
    key = numbers(evaluation, "answer_key")
    if key.get("question_set/agreement") is not None:
        chance = {"swaps permuted": key["question_set/agreement_permuted"]}
        decided = key["question_set/n_values"] - key["question_set/n_undecided"]
        measure = f"agreement with the planted kind ({decided} latents)"
        rows.append(row(title, measure, key["question_set/agreement"], chance))
    return rows


def _cross_modal(title: str, evaluation: dict[str, Any]) -> list[Row]:
    n = numbers(evaluation, "cross_modal")
    if n.get("omega/median") is None:
        return []
    chance = {"permuted": n["omega/median_permuted"], "chance": n["omega/median_chance"]}
    rows = [
        row(title, f"median weight of {n['latents/with_weight']} latents", n["omega/median"], chance),
        row(
            title,
            "share of latents above chance",
            n["omega/above_chance"],
            {"permuted": n["omega/above_chance_permuted"]},
        ),
    ]
    for key in (key for key in n if key.endswith("/sum/kept_again")):
        share = key.split("/")[1].removeprefix("keep_")
        measure = f"memes kept again by a bootstrap of the weights, best {float(share):.0%}"
        rows.append(
            row(title, measure, n[key], {"chance": n[f"{key}_random"]}, n.get(f"{key}_low"), n.get(f"{key}_high"))
        )
    return rows


def _filter(title: str, evaluation: dict[str, Any]) -> list[Row]:
    n = numbers(evaluation, "cross_modal")
    groups = [key.removesuffix("/sum/auroc") for key in n if key.endswith("/sum/auroc")]
    return [
        row(
            title,
            f"{group.split('/')[0]}, best {float(group.split('keep_')[1]):.0%}",
            n[f"{group}/sum/{_SCORE}_minus_random"],
            {
                "sum": n[f"{group}/sum/{_SCORE}"],
                "normalised": n[f"{group}/mean/{_SCORE}"],
                "random": n[f"{group}/random/{_SCORE}"],
                "CLIP score": n[f"{group}/clip/{_SCORE}"],
                "L0": n[f"{group}/l0/{_SCORE}"],
                "all memes": n[f"{group.split('/')[0]}/all/{_SCORE}"],
            },
            n.get(f"{group}/sum/{_SCORE}_minus_random_low"),
            n.get(f"{group}/sum/{_SCORE}_minus_random_high"),
        )
        for group in groups
    ]


CROSS_MODAL = Section(
    "SAE-V: cosine of pictures and captions of the memes that fire a latent, train memes",
    "chance: any two memes of the same sources; permuted: activations handed to other memes of the same source",
    _cross_modal,
)
FILTER = Section(
    "SAE-V's filter: AUROC within source of a probe trained on the best memes minus one trained on as many random memes",
    "AUROC within source on held-out memes of probes trained on: the best by the sum of weights, by their mean (normalised), random memes, "
    "the best by CLIP score, by L0, and all memes",
    _filter,
)
QUESTION_SET = Section(
    "Standard Question Set: share of latents decided by the picture, by the caption, or by both together",
    "captions swapped between pairs of held-out memes; swaps permuted: nothing distinguishes picture from caption (of the "
    "agreement: classes dealt out at random); neurons: dimensions of the embedding",
    _question_set,
)
