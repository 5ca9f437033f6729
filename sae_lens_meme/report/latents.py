"""What a latent is: whether its memes look alike, what it is called, whether it comes again."""

from __future__ import annotations

from typing import Any

from sae_lens_meme.report.section import Row, Section, numbers, row

_REFERENCES = {
    "hook_image_embed": "image embeddings",
    "hook_text_embed": "text embeddings",
    "cross_modal": "image to text",
}


def _monosemanticity(title: str, evaluation: dict[str, Any]) -> list[Row]:
    n = numbers(evaluation, "monosemanticity")
    rows = []
    for reference in (key.removesuffix("/sae/mean") for key in n if key.endswith("/sae/mean")):
        what, sae = _REFERENCES.get(reference, reference), f"{reference}/sae"
        beside = {"chance": n[f"{reference}/chance"], **_of_controls(n, reference, "mean")}
        rows.append(
            row(title, f"{what}: mean", n[f"{sae}/mean"], beside, n.get(f"{sae}/mean_low"), n.get(f"{sae}/mean_high"))
        )
        shares = _of_controls(n, reference, "share_significant")
        rows.append(row(title, f"{what}: share of latents with q < .05", n.get(f"{sae}/share_significant"), shares))
        best = f"{what}: best, {latent(n.get(f'{sae}/best_latent'))}"
        ends = (n.get(f"{sae}/best_low"), n.get(f"{sae}/best_high"))
        rows.append(row(title, best, n.get(f"{sae}/best"), _of_controls(n, reference, "best"), *ends))
    if "uniqueness/share_overlapping" in n:
        beside = {"permuted": n["uniqueness/share_overlapping_permuted"]}
        rows.append(row(title, "pairs of latents that share a top-16 meme", n["uniqueness/share_overlapping"], beside))
    return rows


def _of_controls(n: dict[str, Any], reference: str, key: str) -> dict[str, Any]:
    return {
        who: n.get(f"{reference}/{who}/{key}") for who in ("permuted", "neurons") if f"{reference}/{who}/{key}" in n
    }


def _names(title: str, evaluation: dict[str, Any]) -> list[Row]:
    n = numbers(evaluation, "naming")
    if not n:
        return []
    kinds = ", ".join(f"{n[f'names/n_{kind}']} by a {kind}" for kind in ("word", "concept") if f"names/n_{kind}" in n)
    shown = (
        (f"latents with a name ({kinds})", "names/n_named"),
        ("names that hold on held-out memes, q < .05", "names/n_hold"),
        ("AUROC of firing by the best word, held-out, mean", "word/mean_auroc"),
        ("AUROC of firing by the best concept, held-out, mean", "concept/mean_auroc"),
    )
    return [
        row(title, measure, n[key], {"permuted": n.get(f"permuted/{key}")}, n.get(f"{key}_low"), n.get(f"{key}_high"))
        for measure, key in shown
        if key in n
    ]


def _stability(title: str, evaluation: dict[str, Any]) -> list[Row]:
    n = numbers(evaluation, "stability")
    if not n:
        return []
    shares = {"random": "mean/share_above_0.7_random", "shuffled": "shuffled_data/share_above_0.7"}
    cosines = {"random": "mean/mean_cosine_random", "shuffled": "shuffled_data/mean_cosine"}
    shown = [
        (f"stable latents, of {n['n_alive']}: cosine of .7 or more", "mean/share_above_0.7", shares),
        ("mean cosine with the matched latent", "mean/mean_cosine", cosines),
        ("correlation of activations with the matched latent", "mean/mean_correlation", {"permuted": "mean/mean_correlation_permuted"}),
        ("stable latents among the significant ones", "significance/share_stable_significant", {"others": "significance/share_stable_other"}),
        ("odds ratio of stable, significant against others", "significance/odds_ratio", {"others": 1}),
        ("the same among latents of like firing rate", "significance/within_rate/odds_ratio", {"others": 1}),
    ]  # fmt: skip
    return [
        row(
            title,
            measure,
            n[key],
            {label: n.get(str(name), name) for label, name in beside.items() if name in n or name == 1},
            n.get(f"{key}_low"),
            n.get(f"{key}_high"),
        )
        for measure, key, beside in shown
        if key in n
    ]


def latent(number: int | None) -> str:
    return "no latent" if number is None else f"latent {number}"


MONOSEMANTICITY = Section(
    "Monosemanticity: cosine of memes that fire the same latent, held-out memes",
    "chance: all pairs of memes; permuted: activations handed to other memes of the same source (best: of every draw the "
    "best latent, mean); neurons: raw dimensions, both signs, equal L0. Latents with too few memes are left out",
    _monosemanticity,
)
STABILITY = Section(
    "Stability: latents matched with those of SAEs trained with other seeds",
    "matched one to one by decoder cosine, dimensions divided by their standard deviation; random: directions with the mean "
    "and covariance of the other SAE's; shuffled: SAE trained on data shuffled per dimension; significant: q < .05 over all "
    "latents and concepts, corrected protocol",
    _stability,
)
NAMES = Section(
    "Names of latents, from words of captions and from concepts",
    "chosen on train and validation memes, measured on held-out memes; permuted: each latent's activations handed to other "
    "memes of the same source",
    _names,
)
