"""The page of a concept: its latents in an order that the shown numbers had no part in, with their controls."""

from __future__ import annotations

from typing import Any

from sae_lens_meme.dashboard.latents import CONCEPT_COLUMNS, LatentPages
from sae_lens_meme.dashboard.numbers import clean, short
from sae_lens_meme.dashboard.sentences import chance, least_change, signed
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.evaluators.concepts import Concept
from sae_lens_meme.report.blocks import number, visible

MOST_LATENTS = 40


def concept_pages(latents: LatentPages) -> list[dict[str, Any]]:
    """A page a concept, in the order of `LatentPages.concept_names`."""
    if latents.concepts is None:
        return []
    table = latents.concepts.table
    groups = dict(iter(table.groupby(table["concept"].astype(str), sort=False)))
    return [_page(latents, name, groups[name]) for name in latents.concept_names]


def _page(latents: LatentPages, name: str, rows: Any) -> dict[str, Any]:
    """Ranked by F1 on validation memes; without any, by q."""
    by_validation = rows["f1_validation"].notna().any()
    order = ["f1_validation", "q_global"] if by_validation else ["q_global"]
    ranked = rows.sort_values([*order, "latent"], ascending=[False, True, True][-len(order) - 1 :], kind="stable")
    shown = ranked.head(MOST_LATENTS)
    records = [{key: short(row[key]) for key in ("latent", *CONCEPT_COLUMNS)} for row in shown.to_dict("records")]
    significant = int((rows["q_global"] < 0.05).sum())
    return {
        "name": clean(name),
        "latents": [record["latent"] for record in records],
        "rows": [[record[column] for column in CONCEPT_COLUMNS] for record in records],
        "significant": significant,
        "sentence": _sentence(name, records[0], by_validation) if records else None,
        "rivals": _rivals(latents, name),
    }


def _sentence(name: str, best: dict[str, Any], by_validation: bool) -> str:
    chosen = "by its F1 on the validation memes" if by_validation else "by q, for want of validation memes"
    return (
        f"Latent {best['latent']} is most about {visible(name)}: it was chosen {chosen}. On {number(best['n_test'])} test "
        f"memes its F1 is {number(best['f1_test'])}, where always saying yes gives {number(best['f1_always_on'])}; its AUROC "
        f"within source is {number(best['auroc'])} (95 %: {number(best['auroc_low'])} to {number(best['auroc_high'])}), where "
        f"guessing gives 0.5; q {chance(best['q_global'])}."
    )


def _rivals(latents: LatentPages, name: str) -> list[list[Any]]:
    """Best-unit AUROC of the SAE and of everything that it is compared with, for this concept."""
    table = latents.inputs.table("contest")
    needed = {"targets", "estimator", "units", "target", "value"}
    if table is None or not needed <= set(table.columns):
        return []
    mine = table[(table["targets"] == "labels") & (table["estimator"] == "auroc") & (table["target"] == name)]
    return [[clean(str(units)), short(value)] for units, value in zip(mine["units"], mine["value"], strict=True)]


def glance(latents: LatentPages, pages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each concept the latent that is most about it, and in words: how sure, what drives it, is it used."""
    return [_glance(latents, page) for page in pages if page["latents"]]


CHANCE = 0.5
"""AUROC of guessing: a latent whose interval holds it is not about the concept."""


def _glance(latents: LatentPages, page: dict[str, Any]) -> dict[str, Any]:
    latent = page["latents"][0]
    best = dict(zip(CONCEPT_COLUMNS, page["rows"][0], strict=True))
    effects = [] if latents.effects is None else latents.effects.rows(latent)
    asked = latents.tables.get("question_set")
    decided = (asked.first(latent) or {}).get("class") if asked else None
    sure = best["f1_test"] is not None and best["f1_always_on"] is not None and best["f1_test"] > best["f1_always_on"]
    return {
        "concept": visible(page["name"]),
        "latent": latent,
        "auroc": f"{number(best['auroc'])} ({number(best['auroc_low'])} to {number(best['auroc_high'])})",
        "f1": f"{number(best['f1_test'])} / {number(best['f1_always_on'])}",
        "beats": sure,
        "found": (best["auroc_low"] or 0) > CHANCE,
        "driven": {"visual": "the picture", "textual": "the caption", "cross-modal": "both together"}.get(
            str(decided), "not known"
        ),
        "used": used_for(page["name"], effects),
    }


def used_for(concept: str, effects: list[dict[str, Any]]) -> str:
    """Whether taking the latent out moves the concept's own label, beside the largest of its controls."""
    label = Concept.parse(concept).label if _is_plain(concept) else concept
    mine = [row for row in effects if row["kind"] == "ablation" and str(row["task"]) == label]
    if not mine or mine[0].get("delta_all") is None:
        return "not measured"
    row = mine[0]
    control = max(row.get("largest_random") or 0.0, row.get("delta_matched") or 0.0)
    verdict = "yes" if least_change(row) > control else "no"
    return f"{verdict}: {visible(label)}={visible(row['class'])} {signed(row['delta_all'])}, controls {number(control)}"


def _is_plain(concept: str) -> bool:
    try:
        Concept.parse(concept)
    except ConfigError:
        return False
    return True
