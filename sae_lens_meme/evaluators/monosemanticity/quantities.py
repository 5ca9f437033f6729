"""What is measured under one reference: every number declared once, and its rows of the printed table."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.monosemanticity.compute import Measurement
from sae_lens_meme.evaluators.monosemanticity.panel import CROSS_MODAL
from sae_lens_meme.evaluators.result import Control, Interval, Measure, Number, Quantity, of_known
from sae_lens_meme.hooks.names import IMAGE_EMBED, TEXT_EMBED

ALPHA = 0.05
UNNAMED = (None, "arrays")
"""What embeddings call their model when the user did not name it; "arrays" is the default of `embed_arrays`."""
REFERENCES = {IMAGE_EMBED: "image embeddings", TEXT_EMBED: "text embeddings", CROSS_MODAL: "image to text"}

_ROOM = "chance is 1: the reference embeddings are one vector"
NO_DRAWS = "n_permutations is 0"
_NO_PAIR = "without one of the memes no pair is left"
_CORRECTED = "(MS - chance) / (1 - chance), chance being the mean cosine of all pairs"
_WITHIN = (
    "(MS - chance) / (1 - chance), chance being the expected MS when the activations are given to random memes of the "
    "same source (closed form): what the source alone gives is gone"
)
_ENOUGH = "over the latents with enough effective support"
_PUBLISHED = "over all latents for which MS is defined, as published: it rewards latents that fire on a few memes"

CHANCE = Quantity("chance", "mean cosine of all pairs of memes: the MS of a latent that fires at random")
N_LATENTS = Quantity("n_latents", "latents with enough effective support, which are summed up and tested")
N_UNFILTERED = Quantity("n_unfiltered", "latents for which MS is defined")
MEAN = Quantity("mean", f"mean MS {_ENOUGH}")
MEDIAN = Quantity("median", f"median MS {_ENOUGH}")
MEAN_CORRECTED = Quantity("mean_corrected", f"mean of {_CORRECTED}, {_ENOUGH}", _ROOM)
MEDIAN_CORRECTED = Quantity("median_corrected", f"median of {_CORRECTED}, {_ENOUGH}", _ROOM)
MEAN_WITHIN = Quantity("mean_corrected_within_source", f"mean of {_WITHIN}, {_ENOUGH}", _ROOM)
MEDIAN_WITHIN = Quantity("median_corrected_within_source", f"median of {_WITHIN}, {_ENOUGH}", _ROOM)
BEST = Quantity(
    "best",
    f"largest MS {_ENOUGH}; chosen and measured on the same memes, so that its fair controls are permuted/best and permuted/best_max",
)
BEST_LATENT = Quantity("best_latent", "which latent is best")
BEST_SUPPORT = Quantity("best_support", "memes on which the best latent fires")
BEST_EFFECTIVE = Quantity("best_effective_support", "(sum a)^2 / sum a^2 of the best latent")
MEAN_UNFILTERED = Quantity("mean_unfiltered", f"mean MS {_PUBLISHED}", "no latent fires on two memes")
BEST_UNFILTERED = Quantity("best_unfiltered", f"largest MS {_PUBLISHED}", "no latent fires on two memes")
SIGNIFICANT = Quantity("share_significant", "share of the tested latents with q < .05 (Benjamini-Hochberg)")
P_BEST = Quantity("p_best", "share of draws whose best latent reaches the best one: it counts the choice among all")

PERMUTED_MEAN = Quantity("mean", f"mean MS {_ENOUGH}, mean over the draws")
PERMUTED_MEDIAN = Quantity("median", f"median MS {_ENOUGH}, mean over the draws")
PERMUTED_SIGNIFICANT = Quantity(
    "share_significant", "of draws that are tested as if observed: what the test finds in nothing"
)
PERMUTED_BEST = Quantity("best", "MS of the best latent of each draw, mean over the draws")
PERMUTED_BEST_MAX = Quantity("best_max", "the largest MS of any latent in any draw")

DICTIONARIES = {
    "sae": "latents of the SAE, min-max scaled over the memes",
    "neurons": "control: raw dimensions of the embedding that the SAE reads, both signs, standardised on train rows, as many "
    "active on each meme as the SAE has latents",
    "permuted": "control: the SAE's latents, the activations of each meme given to a random meme of its source",
}
Found = dict[Quantity, Measure]

_INTERVAL = "95 % interval: delete-one jackknife over memes (exact) or, where memes have groups, over groups (first order), the min-max scaling held fixed"
COLUMNS = {
    "latent": "of the SAE; one row per latent and reference",
    "reference": "the hook whose embeddings say how alike two memes are, or cross_modal",
    "support": "memes on which the latent fires",
    "effective_support": "(sum a)^2 / sum a^2 of the scaled activations: as many equally weighted memes",
    "ms": "mean cosine of two memes, pairs weighted by the product of their activations (Pach et al. 2025)",
    "low": _INTERVAL,
    "high": _INTERVAL,
    "chance": CHANCE.what,
    "ms_corrected": _CORRECTED,
    "chance_within_source": "expected MS when the activations are given to random memes of the same source (closed form)",
    "ms_corrected_within_source": _WITHIN,
    "p": "one-sided, (1 + draws that reach MS) / (1 + draws); only latents with enough effective support",
    "q": "Benjamini-Hochberg over the latents that have a p",
    "reason": "why MS is null, or p",
}


class Judge(NamedTuple):
    """The encoder that says how alike two memes are."""

    independent: Measure
    """1 where it is another one than the SAE reads, 0 where it is the same, None where that is not known."""
    name: str
    said: str
    """In a few words, for sentences."""

    @classmethod
    def of(cls, embeddings: Embeddings, reference: Embeddings | None) -> Judge:
        key = "reference_is_independent"
        names = [part.facts.get("model") for part in (embeddings, embeddings if reference is None else reference)]
        name = str(names[1] or "an unnamed model")
        if reference is not None and any(model in UNNAMED for model in names):
            why = "the embeddings or the reference do not name their model"
            what = f"{why}: whether the reference is independent of the SAE's input is not known"
            return cls(Measure(key, None, what, reason=why), name, "whether the judge is independent is not known")
        if reference is not None and names[0] != names[1]:
            what = f"the reference is {names[1]}, the SAE reads {names[0]}"
            return cls(Measure(key, 1, what), name, f"the judge, {name}, is an encoder that the SAE does not read")
        what = (
            "0: the reference is the encoder that the SAE reads, so MS is NOT independent evidence: the SAE was trained on "
            "the geometry that judges it; give reference= embeddings of the same memes by another encoder"
        )
        return cls(Measure(key, 0, what), name, "the judge is the SAE's own encoder: no independent evidence")

    def reference(self, name: str) -> str:
        whose = {
            0: "the SAE's own encoder, NOT independent of it",
            1: "an encoder that the SAE does not read",
            None: "not known to be independent of the SAE",
        }[self.independent.value]  # type: ignore[index]
        what = "image side of one meme, text side of another" if name == CROSS_MODAL else f"embeddings at {name}"
        return f"reference: {what}, by {self.name} ({whose})"


def measures_of(found: Measurement, name: str, group: str, rows: str, n_draws: int) -> Found:
    """Of the latents of one dictionary under one reference.

    Args:
        group: what goes before the keys.
        rows: latents and memes in words.
        n_draws: that were asked for.
    """
    scores, best, draws = found.scores[name], found.best(name), found.draws.get(name)
    ms, every = scores.ms[found.counted], scores.ms[np.isfinite(scores.ms)]
    corrected, within = scores.corrected[found.counted], scores.corrected_within_source[found.counted]
    (low, high), units, few = scores.interval, found.units, _too_few(n_draws)

    def of_best(values: np.ndarray) -> Number:
        return None if best is None else values[best]

    values = {
        N_LATENTS: len(ms),
        N_UNFILTERED: len(every),
        MEAN: of_known(np.mean, ms),
        MEDIAN: of_known(np.median, ms),
        MEAN_CORRECTED: of_known(np.mean, corrected),
        MEDIAN_CORRECTED: of_known(np.median, corrected),
        MEAN_WITHIN: of_known(np.mean, within),
        MEDIAN_WITHIN: of_known(np.median, within),
        SIGNIFICANT: draws.share_significant(ALPHA) if draws and not few else None,
        P_BEST: draws.p_best if draws else None,
        BEST: of_best(scores.ms),
        BEST_LATENT: best,
        BEST_SUPPORT: of_best(units.support),
        BEST_EFFECTIVE: of_best(units.effective_support),
        MEAN_UNFILTERED: of_known(np.mean, every),
        BEST_UNFILTERED: every.max() if len(every) else None,
    }
    nothing = None if len(ms) else _nothing(found)
    intervals = {
        MEAN: Interval(
            *scores.mean_interval(found.counted),
            "delete-one jackknife over the memes, groups whole",
            nothing or _NO_PAIR,
        ),
        BEST: Interval(
            of_best(low), of_best(high), "jackknife of this latent, the choice not counted", nothing or _NO_PAIR
        ),
    }
    reasons = {
        **dict.fromkeys((MEAN_UNFILTERED, BEST_UNFILTERED), None),
        SIGNIFICANT: nothing or few,
        P_BEST: nothing or NO_DRAWS,
    }
    tests = {quantity: f"{rows}; {_test(n_draws)}" for quantity in (SIGNIFICANT, P_BEST)}
    return {
        q: q(v, group, rows=tests.get(q, rows), interval=intervals.get(q), reason=reasons.get(q, nothing))
        for q, v in values.items()
    }


def measures_of_draws(found: Measurement, name: str, group: str, rows: str, n_draws: int) -> Found:
    """The same of latents permuted within source."""
    draws, few = found.draws.get(name), _too_few(n_draws)
    best = np.empty(0) if draws is None else draws.permuted.max(axis=1)
    values = {
        PERMUTED_MEAN: draws and float(draws.permuted.mean(dtype=np.float64)),
        PERMUTED_MEDIAN: draws and float(np.median(draws.permuted, axis=1).mean()),
        PERMUTED_SIGNIFICANT: None if few or not draws else draws.null_share_significant(ALPHA),
        PERMUTED_BEST: draws and float(best.mean()),
        PERMUTED_BEST_MAX: draws and float(best.max()),
    }
    nothing = None if found.counted.any() else _nothing(found)
    reasons = {PERMUTED_SIGNIFICANT: nothing or few}
    rows = f"{rows}; {n_draws} draws"
    return {q: q(v, group, rows=rows, reason=reasons.get(q, nothing or NO_DRAWS)) for q, v in values.items()}


class OfReference(NamedTuple):
    """All measures under one reference."""

    name: str
    chance: Measure
    dictionaries: dict[str, Found]
    """`sae`, and `neurons` where they are measured."""
    permuted: Found
    n_draws: int
    """Of the test."""

    def measures(self, d_sae: int) -> list[Measure]:
        """Those of the printed table come with their controls."""
        sae, neurons = self.dictionaries["sae"], self.dictionaries.get("neurons", {})
        n, what = sae[N_LATENTS].value, REFERENCES.get(self.name, self.name)
        shown = {
            MEAN: (
                f"{what}: mean of {n} latents",
                {"chance": self.chance, "permuted": self.permuted[PERMUTED_MEAN], "neurons": neurons.get(MEAN)},
            ),
            SIGNIFICANT: (
                f"{what}: share of {n} (of {d_sae}) with q < .05",
                {"permuted": self.permuted[PERMUTED_SIGNIFICANT]},
            ),
            BEST: (
                f"{what}: best, latent {sae[BEST_LATENT].value}",
                {"permuted": self.permuted[PERMUTED_BEST], "neurons": neurons.get(BEST)},
            ),
        }
        rows = {
            q: sae[q].row(label, *_controls(beside)) for q, (label, beside) in shown.items() if sae[q].value is not None
        }
        others = [measure for name, found in self.dictionaries.items() if name != "sae" for measure in found.values()]
        return [self.chance, *(sae | rows).values(), *others, *self.permuted.values()]

    def verdict(self, d_sae: int, judge: Judge) -> str | None:
        """None where nothing is tested."""
        sae, neurons = self.dictionaries["sae"], self.dictionaries.get("neurons")
        share, n = sae[SIGNIFICANT].value, sae[N_LATENTS].value
        if share is None:
            return None
        rival = f", raw neurons {how}" if neurons and (how := _compared(neurons[MEAN], sae[MEAN])) else ""
        what = REFERENCES.get(self.name, self.name)
        least, hidden = least_share(self.n_draws), ""
        if not share and n and n * least >= 1:
            hidden = f" (with {self.n_draws} permutations a share under {least:.0%} shows as 0)"
        return f"{share:.0%} of {n} tested latents (of {d_sae}) fire on memes with similar {what}{hidden}{rival}; {judge.said}."


def _compared(one: Measure, other: Measure) -> str | None:
    """By their intervals; None where one is not known."""
    ends = [(found.interval.low, found.interval.high) for found in (one, other) if found.interval is not None]
    if len(ends) < 2 or any(end is None for pair in ends for end in pair):
        return None
    (low, high), (other_low, other_high) = ends
    return "less so" if high < other_low else "more so" if low > other_high else "no less so"  # type: ignore[operator]


def _controls(beside: dict[str, Measure | None]) -> list[Control]:
    return [
        measure.control(name) for name, measure in beside.items() if measure is not None and measure.value is not None
    ]


def _nothing(found: Measurement) -> str:
    return f"no latent has an effective support of {found.min_support:g} on these {len(found.panel)} memes"


def _too_few(n_draws: int) -> str | None:
    """Why no test can be significant."""
    if not n_draws:
        return NO_DRAWS
    return None if (n_draws + 1) * ALPHA > 1 else f"with {n_draws} permutations no p is below {ALPHA:g}"


def least_share(n_draws: int) -> float:
    """The share of the tested latents that must reach the least p for any q to be below alpha."""
    return 1 / ALPHA / (n_draws + 1)


def _test(n_draws: int) -> str:
    return (
        f"{n_draws} permutations of the activations within source, groups whole, so that no p is below 1/{n_draws + 1} and a share under "
        f"{least_share(n_draws):.0%} shows as 0"
    )
