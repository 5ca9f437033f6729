"""The page of a concept: its latents, ranked by numbers other than those shown, with their controls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sae_lens_meme.dashboard.latents import CONCEPT_COLUMNS, LatentPages
from sae_lens_meme.dashboard.numbers import clean, short
from sae_lens_meme.dashboard.sentences import chance
from sae_lens_meme.dashboard.verdicts import (
    CLEARLY,
    GOOD,
    NONE_FOUND,
    NOT_MEASURED,
    WEAKLY,
    Use,
    beats_always_on,
    of_concept,
    uses,
)
from sae_lens_meme.dashboard.words import Words, listed, several
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.evaluators.concepts import Concept
from sae_lens_meme.report.blocks import number, visible

MOST_LATENTS = 40


def concept_pages(latents: LatentPages) -> list[dict[str, Any]]:
    """A page per concept, in the order of `LatentPages.concept_names`."""
    if latents.concepts is None:
        return []
    table = latents.concepts.table
    groups = dict(iter(table.groupby(table["concept"].astype(str), sort=False)))
    return [_page(latents, name, groups[name]) for name in latents.concept_names]


def _page(latents: LatentPages, name: str, rows: Any) -> dict[str, Any]:
    """Ranked by F1 on the memes that choose; without any, by q. `chosen` is their split."""
    chosen = next(iter(rows["threshold_split"][rows["f1_validation"].notna()].astype(str)), None)
    order = ["f1_validation", "q_global"] if chosen else ["q_global"]
    ranked = rows.sort_values([*order, "latent"], ascending=[False, True, True][-len(order) - 1 :], kind="stable")
    shown = ranked.head(MOST_LATENTS if latents.firing[ranked["latent"].iloc[0]] else 0)  # none where all are dead
    records = [{key: short(row[key]) for key in ("latent", *CONCEPT_COLUMNS)} for row in shown.to_dict("records")]
    significant = int((rows["q_global"] < 0.05).sum())
    return {
        "name": clean(name),
        "latents": [record["latent"] for record in records],
        "rows": [[record[column] for column in CONCEPT_COLUMNS] for record in records],
        "significant": significant,
        "chosen": chosen,
        "sentence": latents.words.kind.said(_sentence(name, records[0], chosen, latents.words)) if records else None,
        "rivals": _rivals(latents, name),
    }


def _sentence(name: str, best: dict[str, Any], chosen: str | None, words: Words) -> str:
    how = f"by its F1 on the {chosen} memes" if chosen else "by q, as there are only test memes, which flatters it"
    sure, _ = of_concept(best)
    return (
        f"Latent {best['latent']} is most about {words(name)} ({sure}): it was chosen {how}. On "
        f"{several(best['n_test'] or 0, 'test meme')} its F1 is {number(best['f1_test'])}, where always saying yes gives "
        f"{number(best['f1_always_on'])}; from the latent to the concept its AUROC within source is {number(best['auroc'])} "
        f"(95 %: {number(best['auroc_low'])} to {number(best['auroc_high'])}), where guessing gives 0.5. Over all "
        f"memes whose label is known, q {chance(best['q_global'])}."
    )


def _rivals(latents: LatentPages, name: str) -> list[list[Any]]:
    """Best-unit AUROC of the SAE and of everything that it is compared with, for this concept."""
    table = latents.inputs.table("contest")
    needed = {"targets", "estimator", "units", "target", "value"}
    if table is None or not needed <= set(table.columns):
        return []
    mine = table[(table["targets"] == "labels") & (table["estimator"] == "auroc") & (table["target"] == name)]
    return [[clean(str(units)), short(value)] for units, value in zip(mine["units"], mine["value"], strict=True)]


def choice(pages: list[dict[str, Any]]) -> str:
    """Which memes chose the latents of the table, and whether the numbers are of others."""
    chosen = [page["chosen"] for page in pages if page["latents"]]
    splits, by_q = list(dict.fromkeys(filter(None, chosen))), chosen.count(None)
    said = f"Each latent was chosen on {listed(splits)} memes; all numbers are of test memes, which had no part in the choice."
    flattered = "chosen by q over memes with the test memes among them, which flatters its numbers."
    if not splits:
        return f"Each latent was {flattered}"
    return f"{said} Not so for {several(by_q, 'concept')}: there it was {flattered}" if by_q else said


def glance(latents: LatentPages, pages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each concept the latent that is most about it, and in words: how sure, what drives it, is it used."""
    return [_glance(latents, page) for page in pages if page["latents"]]


def _glance(latents: LatentPages, page: dict[str, Any]) -> dict[str, Any]:
    latent = page["latents"][0]
    best = dict(zip(CONCEPT_COLUMNS, page["rows"][0], strict=True))
    effects = [] if latents.effects is None else latents.effects.rows(latent)
    asked = latents.tables.get("question_set")
    decided = (asked.first(latent) or {}).get("class") if asked else None
    sure, tone = of_concept(best)
    return {
        "key": page["name"],
        "concept": latents.words(page["name"]),
        "latent": latent,
        "sure": sure,
        "tone": tone,
        "auroc": f"{number(best['auroc'])} ({number(best['auroc_low'])} to {number(best['auroc_high'])})",
        "f1": number(best["f1_test"]),
        "always": number(best["f1_always_on"]),
        "beats": beats_always_on(best),
        "found": sure in (CLEARLY, WEAKLY),
        "driven": {"visual": "the picture", "textual": "the caption", "cross-modal": "both together"}.get(
            str(decided), "not known"
        ),
        "used": used_for(page["name"], effects, latents.words),
        "uses": None if (own := own_use(page["name"], effects)) is None else own.beats,
    }


def used_for(concept: str, effects: list[dict[str, Any]], words: Words) -> str:
    """Whether the classifier of the concept's own label uses the latent, and which others do."""
    label, mine = label_of(concept), own_use(concept, effects)
    others = [visible(use.label) for use in uses(effects) if use.beats and use.label != label]
    also = f"; {'also ' if mine and mine.beats else ''}used by {listed(others)}" if others else ""
    if mine is None:
        return f"{visible(label)}: not measured{also}"
    verdict = "yes" if mine.beats else "no"
    return f"{visible(label)}: {verdict} ({words(f'{label}={mine.level}')} {mine.measured}){also}"


def own_use(concept: str, effects: list[dict[str, Any]]) -> Use | None:
    """What taking the latent out does to the classifier of the concept's label; None where it was not measured."""
    return next((use for use in uses(effects) if use.label == label_of(concept)), None)


def label_of(concept: str) -> str:
    """A concept that is not a predicate on a label stands for itself."""
    try:
        return Concept.parse(concept).label
    except ConfigError:
        return concept


def found(lines: list[dict[str, Any]], latents: LatentPages) -> list[str]:
    """What the run found, in plain sentences with their counts."""
    return [*_told(lines), *_driven([line for line in lines if line["found"]]), *_named(latents)]


def _told(lines: list[dict[str, Any]]) -> Iterator[str]:
    if lines:
        said = [line["sure"] for line in lines]
        unmeasured = said.count(NOT_MEASURED)
        rest = f"; {unmeasured} {'has' if unmeasured == 1 else 'have'} too few test memes to say" if unmeasured else ""
        yield (
            f"Of {several(len(lines), 'concept')}, a latent tells {said.count(CLEARLY)} clearly and {said.count(WEAKLY)} weakly; "
            f"for {said.count(NONE_FOUND)} none was found{rest}."
        )


def _driven(told: list[dict[str, Any]]) -> Iterator[str]:
    """Of the latents that tell a concept: what drives them, and whether they are used."""
    sides = {"the picture": "drives", "the caption": "drives", "both together": "drive"}
    driven = {side: sum(line["driven"] == side for line in told) for side in sides}
    if any(driven.values()):
        each = [f"{side} {sides[side]} {n}" for side, n in driven.items()]
        yield f"Of {several(len(told), 'such latent')}, {listed(each)}."
    asked = [line["uses"] for line in told if line["uses"] is not None]
    if asked:
        yield f"The classifier of the concept's own label uses {sum(asked)} of {several(len(asked), 'such latent')}."


def _named(latents: LatentPages) -> Iterator[str]:
    if "naming" in latents.tables:
        alive = [verdict.word for verdict, fires in zip(latents.verdicts, latents.firing, strict=True) if fires]
        good = alive.count(GOOD)
        if not alive:
            return
        yield f"{good:,} of {several(len(alive), 'latent')} that fire {'has' if good == 1 else 'have'} a {GOOD}."
