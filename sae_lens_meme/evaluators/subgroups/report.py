"""The measures, the table and the verdict of an audit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from sae_lens_meme.evaluators.probes.compute import ends
from sae_lens_meme.evaluators.result import Interval, Measure, Section
from sae_lens_meme.evaluators.subgroups.audits import CARRIERS, AuditedSubgroup, CarrierAblation, Null
from sae_lens_meme.evaluators.subgroups.quantities import (
    CLOSED,
    CLOSED_MATCHED,
    CLOSED_MATCHED_95,
    COLUMNS,
    COUNTS,
    GAP_AFTER,
    LOST,
    LOST_MATCHED,
    LOST_MATCHED_95,
    N_GAPS,
    N_GAPS_PERMUTED,
    N_LEFT_OUT,
    N_PAIRS,
    NO_SAMPLES,
    PERMUTED,
    SAMPLES,
    VALUES,
    WITHIN,
    Q,
)
from sae_lens_meme.metrics.ranking import auroc_of_scores

PRINTED = 8
FIRST = Section("Subgroups: gaps in false positives", "permuted: membership permuted within source")
GAPS = Section(
    "Subgroups: false positives in the subgroup minus outside",
    "of each class the subgroup with the largest gap on train and validation memes, measured on test memes; in subgroup, "
    "outside: the two false-positive rates; within source: the gap among memes of one source, which is what is tested; permuted: "
    "|gap| where membership is permuted within source",
    "false-positive rate and its gap, test memes",
)
RANKING = Section(
    "Subgroups: AUROC in the subgroup and across its border",
    "the same pairs; BPSN: AUROC of background positives against subgroup negatives, low where the subgroup is flagged too "
    "often; BNSP: of subgroup positives against background negatives, low where it is flagged too rarely",
    "AUROC, test memes",
)
TEXT = ("question", "subgroup", "column", "split", "latents", "reason")


class SubgroupReport:
    """What to print of an audit, and every number that it holds."""

    def __init__(
        self,
        found: Sequence[AuditedSubgroup],
        q: np.ndarray,
        null: Null,
        effects: Mapping[AuditedSubgroup, list[CarrierAblation]],
        ns: Sequence[int],
        given: Any,
    ):
        self.found, self.q, self.null, self.effects, self.ns, self.given = found, q, null, effects, ns, given
        self.printed = list(effects)[:PRINTED]
        self.middle = min(ns, key=lambda n: abs(n - 5))

    @cached_property
    def counted(self) -> np.ndarray:
        """Which pairs do not repeat another."""
        return np.array([not f.repeats for f in self.found], dtype=bool)

    @cached_property
    def n_pairs(self) -> int:
        measured = np.array(["fpr_gap" not in f.audit.reasons for f in self.found], dtype=bool)
        return int((measured & self.counted).sum())

    @cached_property
    def n_gaps(self) -> int:
        return int(((self.q < self.given.alpha) & self.counted).sum())

    @cached_property
    def n_gaps_permuted(self) -> float | None:
        return float(self.null.significant.mean()) if len(self.null.significant) else None

    def measures(self) -> Iterator[Measure]:
        """The counts, then pair by pair: of each question the worst, and those with a gap; the others are in the table."""
        rows = f"alpha = {self.given.alpha:g}, at least {self.given.min_support} memes on each side"
        n = N_PAIRS(self.n_pairs, rows=rows)
        null = N_GAPS_PERMUTED(self.n_gaps_permuted, rows=f"{self.given.n_permutations} draws (seed {self.given.seed})")
        label = f"pairs with a gap in false positives, q < {self.given.alpha:g} (of {n.value})"
        yield N_GAPS(self.n_gaps, rows=rows).row(label, null.control("permuted"))
        yield from (n, null, N_LEFT_OUT(int(self.counted.sum()) - self.n_pairs, rows=rows))
        for i, found in enumerate(self.found):
            if found in self.effects or self.q[i] < self.given.alpha:
                yield from self._of_pair(i, found)
        for found, effects in self.effects.items():
            yield from self._of_effects(found, effects)

    def _of_pair(self, i: int, found: AuditedSubgroup) -> Iterator[Measure]:
        group, audit = f"{found.question.name}/{found.subgroup.name}", found.audit
        made: dict[str, Measure] = {}
        for key, quantity in VALUES.items():
            draws, reason = audit.values[key], audit.reasons.get(key)
            made[key] = quantity(draws[0], group, interval=_interval(draws, reason), reason=reason)
        too_few = audit.reasons.get("fpr_gap")
        permuted = PERMUTED(self.null.gap[i], group, reason=too_few)
        within = WITHIN(found.within, group, reason=too_few)
        if found in self.printed:
            rates = {"fpr_subgroup": "in subgroup", "fpr_background": "outside"}
            beside = [made[key].control(heading) for key, heading in rates.items()]
            pair = f"{found.question.name}, {found.subgroup.name}"
            label = f"{pair} ({audit.n_subgroup_negative} negatives)"
            beside = [permuted.control("permuted"), within.control("within source"), *beside]
            made["fpr_gap"] = made["fpr_gap"].row(label, *beside, section=GAPS)
            across = [
                made[key].control(heading) for key, heading in {"bpsn_auroc": "BPSN", "bnsp_auroc": "BNSP"}.items()
            ]
            label = f"{pair} ({audit.n_subgroup_positive} positives, {audit.n_subgroup_negative} negatives)"
            made["subgroup_auroc"] = made["subgroup_auroc"].row(label, *across, section=RANKING)
        yield from made.values()
        yield from (permuted, within, Q(self.q[i], group, reason=too_few))

    def _of_effects(self, found: AuditedSubgroup, effects: list[CarrierAblation]) -> Iterator[Measure]:
        by_n = {effect.n: effect for effect in effects}
        for n in self.ns:
            effect, group = by_n.get(n), f"{found.question.name}/{found.subgroup.name}/ablate_{n}"
            if effect is None:
                yield from (quantity(None, group) for quantity in (CLOSED, LOST, GAP_AFTER))
                continue
            which = f"latents {', '.join(map(str, effect.latents))}"
            draws = f"{self.given.n_matched} draws (seed {self.given.seed})"
            matched, matched_95 = (
                quantity(_of_draws(effect.closed_matched, share), group, rows=draws)
                for quantity, share in ((CLOSED_MATCHED, None), (CLOSED_MATCHED_95, 0.95))
            )
            lost_matched, lost_95 = (
                quantity(_of_draws(effect.auroc_lost_matched, share), group, rows=draws)
                for quantity, share in ((LOST_MATCHED, None), (LOST_MATCHED_95, 0.95))
            )
            lost = LOST(effect.auroc_lost, group, rows=which)
            closed = CLOSED(effect.closed[0], group, rows=which, interval=_interval(effect.closed, None))
            if n == self.middle and found in self.printed:
                beside = [matched.control("matched"), matched_95.control("matched, 95 %")]
                pair = f"{found.question.name}, {found.subgroup.name}"
                label = f"{pair}: of {abs(found.audit.values['fpr_gap'][0]):.3f}"
                closed = closed.row(label, *beside, section=self._closed)
                beside = [lost_matched.control("matched"), lost_95.control("matched, 95 %")]
                lost = lost.row(pair, *beside, section=self._lost)
            yield closed
            yield from (matched, matched_95, lost, lost_matched, lost_95, GAP_AFTER(effect.gap[0], group, rows=which))

    @property
    def _taken(self) -> str:
        return f"{self.middle} latent{'s' * (self.middle != 1)} set to zero"

    @property
    def _closed(self) -> Section:
        return Section(
            f"Subgroups: how much of the gap closes with {self._taken}",
            "latents chosen on train and validation memes, gap on test memes, with as many memes flagged as before; matched: as "
            f"many latents of similar firing rate ({self.given.n_matched} draws)",
            "fall of the gap in false-positive rate, test memes",
        )

    @property
    def _lost(self) -> Section:
        return Section(
            f"Subgroups: AUROC lost with {self._taken}",
            "the same latents, AUROC of the probe on all its test memes; matched: as above",
            "fall of the AUROC, test memes",
        )

    def table(self) -> pd.DataFrame:
        """One row per pair, and one for each number of latents set to zero."""
        rows = [row for i, found in enumerate(self.found) for row in self._rows(i, found)]
        table = pd.DataFrame(rows, columns=list(COLUMNS)).replace({np.nan: None})
        kinds = dict.fromkeys(TEXT, "string") | dict.fromkeys(("n_ablated", *COUNTS), "Int64") | {"chosen": "bool"}
        return table.astype({name: kinds.get(name, "Float64") for name in COLUMNS})

    def _rows(self, i: int, found: AuditedSubgroup) -> Iterator[dict[str, Any]]:
        audit, question = found.audit, found.question
        names = {"question": question.name, "subgroup": found.subgroup.name, "column": found.subgroup.column}
        row = {**names, "n_ablated": 0, "chosen": found in self.effects, "split": question.task.split}
        row |= {name: getattr(audit, name) for name in COUNTS}
        for key, draws in audit.values.items():
            low, high = ends(draws)
            row |= {key: draws[0], f"{key}_low": low, f"{key}_high": high}
        row |= {WITHIN.key: found.within, PERMUTED.key: self.null.gap[i], "p": np.exp(found.log_p), "q": self.q[i]}
        row |= {"selection_gap": found.selection_gap, "auroc": self._auroc[question.name]}
        carriers = zip(found.carriers[:CARRIERS], found.carried[:CARRIERS], strict=True)
        row["latents"] = ", ".join(f"{latent} ({value:+.3f})" for latent, value in carriers)
        row["reason"] = "; ".join(dict.fromkeys(audit.reasons.values())) or None
        yield row
        for effect in self.effects.get(found, ()):
            low, high = ends(effect.closed)
            after = dict(zip(("fpr_gap_low", "fpr_gap_high"), ends(effect.gap), strict=True))
            yield {
                **{name: row[name] for name in (*names, "chosen", "split", *COUNTS)},
                **{"n_ablated": effect.n, "fpr_gap": effect.gap[0], **after, "auroc": effect.auroc},
                "latents": ", ".join(map(str, effect.latents)),
                **{CLOSED.key: effect.closed[0], "closed_low": low, "closed_high": high},
                **{LOST.key: effect.auroc_lost},
                CLOSED_MATCHED.key: _of_draws(effect.closed_matched),
                CLOSED_MATCHED_95.key: _of_draws(effect.closed_matched, 0.95),
                LOST_MATCHED.key: _of_draws(effect.auroc_lost_matched),
                LOST_MATCHED_95.key: _of_draws(effect.auroc_lost_matched, 0.95),
            }

    @cached_property
    def _auroc(self) -> dict[str, float]:
        """Of each question on all its test memes."""
        found = {}
        for q in dict.fromkeys(f.question for f in self.found):
            found[q.name] = float(auroc_of_scores(q.logits[q.test], q.true[q.test], np.zeros(len(q.test), np.int64))[0])
        return found

    def verdict(self) -> str | None:
        if not self.found:
            return None
        if not self.n_pairs:
            return f"No subgroup and background have {self.given.min_support} negative test memes each: nothing can be said about bias."
        null = "" if self.n_gaps_permuted is None else f"; permuted: {self.n_gaps_permuted:.1f}"
        sentence = (
            f"{self.n_gaps} of {self.n_pairs} classifier x subgroup pairs differ in false positives "
            f"(q < {self.given.alpha:g}{null})"
        )
        if not self.printed:
            return f"{sentence}."
        worst = self.printed[0]
        rates = [worst.audit.values[key][0] for key in ("fpr_subgroup", "fpr_background")]
        name, subgroup = (_short(name) for name in (worst.question.name, worst.subgroup.name))
        sentence += f"; worst: {name} wrongly said of {rates[0]:.0%} in {subgroup}, {rates[1]:.0%} outside"
        if not np.isnan(worst.within):
            sentence += f" (within source {worst.within:+.2f})"
        effect = next((e for e in self.effects[worst] if e.n == self.middle), None)
        if effect is None or effect.closed_matched is None:
            return f"{sentence}."
        closed, matched = (
            round(value, 2) + 0.0 for value in (effect.closed[0], effect.closed_matched.mean())
        )  # no -0.00
        which = "1 latent closes" if len(effect.latents) == 1 else f"{len(effect.latents)} latents close"
        gap = abs(worst.audit.values["fpr_gap"][0])
        return f"{sentence}; {which} {closed:.2f} of the gap of {gap:.2f} (matched: {matched:.2f})."


def _interval(draws: np.ndarray, reason: str | None) -> Interval | None:
    return Interval(*ends(draws), what=SAMPLES, reason=reason or NO_SAMPLES) if len(draws) > 1 else None


def _of_draws(draws: np.ndarray | None, share: float | None = None) -> float | None:
    if draws is None:
        return None
    return float(draws.mean() if share is None else np.quantile(draws, share))


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"
