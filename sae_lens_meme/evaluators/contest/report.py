"""The measures of a contest: what is printed, in sections, and what is only kept."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sae_lens_meme.evaluators.contest.compute import Event
from sae_lens_meme.evaluators.contest.quantities import (
    BOOTSTRAP,
    COUNTS,
    ESTIMATORS,
    FEW_TARGETS,
    HEADINGS,
    NAMES,
    NO_BOOTSTRAP,
    PRINTED,
    SAE,
    SEEDS,
    WILCOXON,
)
from sae_lens_meme.evaluators.contest.standings import Mean, Standings
from sae_lens_meme.evaluators.contest.targets import CROSS_MODAL, FEWEST, LABELS, PLANTED
from sae_lens_meme.evaluators.evidence import tracking
from sae_lens_meme.evaluators.result import Interval, Measure, Section

LABEL_AUROC, PLANTED_AUROC, CROSS_AUROC = (Event(group, "auroc") for group in (LABELS, PLANTED, CROSS_MODAL))
LABEL_ONE, PLANTED_ONE, MCC = Event(LABELS, "k_sparse", 1), Event(PLANTED, "k_sparse", 1), Event(PLANTED, "mcc")
GROUP_NAMES = {LABELS: "labels", PLANTED: "planted values", CROSS_MODAL: "cross-modal planted values"}
PRINTED_K = {LABELS: (1, 2, 5, 20), PLANTED: (1, 2)}
SPARSITY = (
    "Neurons, PCA, ICA: dense; k: as many fire on each meme as latents; shuffled: an SAE of shuffled data; probe: on the "
    "whole embedding, the ceiling; permuted: labels within source. All rivals: contest.parquet."
)


class ContestReport:
    """What to print of the standings, and every number that they hold."""

    def __init__(self, standings: Standings):
        self.standings = standings
        tpp = [standings.middle("tpp", group) for group in (LABELS, PLANTED)]
        compared = (LABEL_AUROC, LABEL_ONE, PLANTED_AUROC, PLANTED_ONE, MCC, *tpp)
        self.compared = [event for event in compared if event in standings.events]

    def verdict(self) -> str | None:
        event = LABEL_AUROC if LABEL_AUROC in self.standings.events else PLANTED_AUROC
        n = self._n(event)
        targets = f"these {n} {GROUP_NAMES[event.group]}" if n > 1 else f"this {GROUP_NAMES[event.group][:-1]}"
        return self.standings.verdict(event, targets)

    def measures(self) -> tuple[Measure, ...]:
        """Those that are printed, then all others."""
        shown = [*self._labels(), *self._probes(), *self._planted(), *self._ablation()]
        shown += [*self._hierarchy(), *self._nearest()]
        printed = {measure.key for measure in shown}
        names = self.standings.scores
        rest = [measure for event in self.standings.events for name in names for measure in self._of(event, name)]
        rest += [
            *self._left_out(),
            *self._counts(),
            *(measure for event in self.compared for measure in self._differences(event)),
        ]
        return (*shown, *(measure for measure in rest if measure.key not in printed))

    @property
    def _doubts(self) -> str:
        """Sentences on rivals that were not fitted to the end: a comparison with them flatters the SAE."""
        return "".join(f"{doubt}. " for doubt in self.standings.doubts)

    # the printed sections, in their order

    def _labels(self) -> Iterator[Measure]:
        if LABEL_AUROC not in self.standings.events:
            return
        sentence = self.standings.sentence(LABEL_AUROC, "best-unit AUROC")
        if rivals := self.standings.rivals_of(LABEL_AUROC):
            sentence += f" Furthest ahead (or least behind), furthest behind: of {NAMES[rivals[0]]}."
        note = f"{sentence} {self._doubts}{SPARSITY} {tracking('labels_auroc', 'The AUROC of the best unit for a label')}".strip()
        section = Section("Best unit for a label", note, "AUROC of the best unit, test memes")
        yield from self._row(LABEL_AUROC, f"mean of {self._n(LABEL_AUROC)} labels", section)
        yield from self._extremes(section)

    def _extremes(self, section: Section) -> Iterator[Measure]:
        """The labels on which the SAE is furthest ahead of the first rival, and furthest behind."""
        rivals, names = self.standings.rivals_of(LABEL_AUROC), self.standings.names(LABEL_AUROC)
        if not rivals or len(names) < 2:
            return
        scores = {name: found[LABEL_AUROC] for name, found in self.standings.scores.items() if LABEL_AUROC in found}
        apart = np.nan_to_num(scores[SAE][0] - scores[rivals[0]][0])
        for key, place in (("ahead", int(apart.argmax())), ("behind", int(apart.argmin()))):
            found = Mean.of(scores[SAE][:, [place]])
            what = f"{ESTIMATORS['auroc'].what}; of the label on which the SAE is furthest {key}, of {NAMES[rivals[0]]}"
            beside = {
                name: Measure(
                    f"labels/auroc_furthest_{key}_{name}", scores[name][0, place], NAMES[name], reason="undefined"
                )
                for name in PRINTED
                if name in scores
            }
            yield Measure(
                f"labels/auroc_furthest_{key}", found.value, what, self._interval(found), reason="undefined"
            ).row(
                f"{names[place]} ({_apart(key, apart[place])})",
                *(measure.control(HEADINGS[name]) for name, measure in beside.items()),
                section=section,
            )
            yield from beside.values()

    def _probes(self) -> Iterator[Measure]:
        sentence = self.standings.sentence(LABEL_ONE, "probes on one unit")
        note = f"{sentence} Units by mean difference. {tracking('labels_k_sparse_1', 'A probe on one unit')}".strip()
        section = Section("k-sparse probes of the labels", note, "AUROC, test memes")
        for event in self._with_k(LABELS):
            yield from self._row(event, f"{_units(event.k)}, {self._n(event)} labels", section)

    def _planted(self) -> Iterator[Measure]:
        if PLANTED_AUROC not in self.standings.events:
            return
        sentence = self.standings.sentence(MCC, "one-to-one recovery (MCC)")
        note = f"{sentence} {self._doubts}{self.standings.sentence(CROSS_AUROC, 'cross-modal values')}".strip()
        section = Section("Recovery of planted values", note, "score, test memes")
        n = self._n(PLANTED_AUROC)
        yield from self._row(MCC, f"one to one: MCC, {n} values", section)
        for event, least in ((Event(PLANTED, "matched_f1"), 0.8), (PLANTED_AUROC, 0.9)):
            reached = f"{self._reached(event, least)} of {n} at {least:g} or more"
            label = "one to one: F1" if event != PLANTED_AUROC else "best unit: AUROC"
            yield from self._row(event, f"{label} ({reached})", section)
        yield from self._row(CROSS_AUROC, f"best unit: AUROC, {self._n(CROSS_AUROC)} cross-modal", section)
        for event in self._with_k(PLANTED):
            yield from self._row(event, f"{_units(event.k)}: AUROC of a probe", section)

    def _ablation(self) -> Iterator[Measure]:
        first = self.standings.middle("tpp", PLANTED)
        first = first if first in self.standings.events else self.standings.middle("tpp", LABELS)
        sentence = self.standings.sentence(first, f"TPP with {_units(first.k)}")
        note = f"{sentence} Random latents: as many of the SAE's latents, drawn at random. {tracking(f'{first.group}_tpp_5', 'TPP')}".strip()
        section = Section("Units taken out", note)
        for estimator, label in (("tpp", "TPP"), ("tpp_auroc", "TPP in AUROC"), ("scr", "SCR")):
            for group in (LABELS, PLANTED):
                event = self.standings.middle(estimator, group)
                if event in self.standings.events and (estimator != "tpp_auroc" or group == PLANTED):
                    what = f"{self._n(event)} {'ties of ' * (estimator == 'scr')}{GROUP_NAMES[group]}"
                    yield from self._row(event, f"{label}, {_units(event.k)}, {what}", section)

    def _hierarchy(self) -> Iterator[Measure]:
        """Absorption: of directions that are dense nothing is ever silent."""
        absorbed, elsewhere = (Event(PLANTED, f"absorbed{which}") for which in ("", "_elsewhere"))
        note = (
            "Of memes on which a special case's own latent fires; elsewhere: on the other memes of the general value."
        )
        section = Section("Absorption on the planted hierarchy", note)
        for measure in self._row(absorbed, f"general latent silent, {self._n(absorbed)} special cases", section):
            other = [found.control("elsewhere") for found in self._of(elsewhere)]
            yield measure.row(measure.shown or "", *other, *measure.controls, section=section)

    def _nearest(self) -> Iterator[Measure]:
        note = "The best dense rival and the best sparse one. p: signed-rank test over targets, opposite ones counted once."
        if self.standings.others:
            note += f" Seeds sd: standard deviation of the SAE's value over {len(self.standings.others) + 1} training seeds."
        section = Section("The SAE minus its nearest rivals", note)
        for event, label in (
            (LABEL_AUROC, "labels, best unit"),
            (LABEL_ONE, "labels, one-unit probe"),
            (MCC, "planted, MCC"),
        ):
            for rival in self.standings.nearest(event) if event in self.compared else ():
                difference, p, *sd = self._differences(event, [rival])
                beside = [p.control("p"), *(found.control("seeds sd") for found in sd)]
                yield difference.row(f"{label}, minus {NAMES[rival]}", *beside, section=section)

    # one measure each

    def _row(self, event: Event, label: str, section: Section) -> Iterator[Measure]:
        """The SAE, and everything else beside it."""
        for measure in self._of(event):
            beside = [(name, found) for name in PRINTED for found in self._of(event, name)]
            yield measure.row(label, *(found.control(HEADINGS[name]) for name, found in beside), section=section)

    def _of(self, event: Event, units: str = SAE) -> Iterator[Measure]:
        if event not in self.standings.scores.get(units, {}):
            return
        found, quantity = self.standings.mean(event, units), ESTIMATORS[event.estimator]
        tasks = "tasks" if event.estimator == "scr" else GROUP_NAMES[event.group]
        what = f"{quantity.what}; {self._n(event)} {tasks}; {NAMES[units]}"
        interval = self._interval(found) if units == SAE else None
        yield Measure(f"{event.key}/{units}", found.value, what, interval, reason=quantity.undefined)

    def _left_out(self) -> Iterator[Measure]:
        names, unfit = self.standings.arena.left_out, self.standings.unfit
        what = f"targets with fewer than {FEWEST} true or false memes in train or in every source of the test memes"
        yield Measure("n_targets_left_out", len(names), f"{what}: {', '.join(names) or 'none'}")
        why = "; ".join(f"{name}: {reason}" for name, reason in unfit.items()) or "none"
        yield Measure("n_rivals_left_out", len(unfit), f"kinds of directions that cannot be fitted: {why}")

    def _counts(self) -> Iterator[Measure]:
        for (estimator, least), quantity in COUNTS.items():
            for event in (event for event in self.standings.events if event.estimator == estimator):
                for name, scores in self.standings.scores.items():
                    if event in scores:
                        n = self._reached(event, least, name)
                        what = f"{quantity.what}; of {self._n(event)}; {NAMES[name]}"
                        yield Measure(f"{event.group}/{quantity.key}/{name}", n, what)

    def _reached(self, event: Event, least: float, units: str = SAE) -> int:
        return int((self.standings.scores[units][event][0] >= least).sum())

    def _differences(self, event: Event, rivals: list[str] | None = None) -> Iterator[Measure]:
        """Of each rival the paired difference and a rank test; then the spread over seeds, if there are any."""
        quantity = ESTIMATORS[event.estimator]
        for rival in rivals or self.standings.rivals_of(event):
            found, p = self.standings.difference(event, rival), self.standings.wilcoxon_p(event, rival)
            what = f"{quantity.what}; the SAE minus {NAMES[rival]}, on the same memes"
            interval = self._interval(found)
            yield Measure(f"{event.key}/sae_minus_{rival}", found.value, what, interval, reason=quantity.undefined)
            what = f"{WILCOXON}; the SAE against {NAMES[rival]}; {quantity.what}"
            yield Measure(f"{event.key}/wilcoxon_p_{rival}", p, what, reason=FEW_TARGETS)
        if self.standings.others:
            what = f"{SEEDS}; {quantity.what}"
            yield Measure(f"{event.key}/seeds_sd", self.standings.seeds_sd(event), what, reason=quantity.undefined)

    def _interval(self, found: Mean) -> Interval:
        return Interval(found.low, found.high, BOOTSTRAP, NO_BOOTSTRAP)

    def _with_k(self, group: str) -> list[Event]:
        return [e for e in self.standings.events if e[:2] == (group, "k_sparse") and e.k in PRINTED_K[group]]

    def _n(self, event: Event) -> int:
        return self.standings.scores[SAE][event].shape[1] if event in self.standings.scores[SAE] else 0


def _apart(key: str, difference: float) -> str:
    """Of a label: how the SAE stands to its first rival."""
    if key == "ahead":
        return "furthest ahead" if difference > 0 else "least behind"
    return "furthest behind" if difference < 0 else "least ahead"


def _units(n: int | None) -> str:
    return "one unit" if n == 1 else f"{n} units"
