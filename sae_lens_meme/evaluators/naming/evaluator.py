"""Naming: automatic labels for latents from caption words and from concepts, each with a score on held-out memes.

An honest "no name" is part of the answer, and every number comes with that of the same procedure on permuted latents.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from sae_lens_meme import options
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.base import Evaluator
from sae_lens_meme.evaluators.concepts import Concept, Concepts, concepts_of
from sae_lens_meme.evaluators.latents import Latents, require_latents_of
from sae_lens_meme.evaluators.naming.compute import (
    GOOD_AUROC,
    KINDS,
    LEAST_AUROC,
    Candidates,
    Names,
    NamingRule,
    find_names,
    hold_interval,
)
from sae_lens_meme.evaluators.naming.quantities import (
    CANDIDATES,
    HELD_OUT,
    JACKKNIFE,
    MEANS,
    N_HELD_OUT,
    N_SELECTION,
    N_STATEMENTS,
    NAMES,
    NO_NAME,
    PERMUTED,
    SELECTION,
    WHOLE,
    columns_of,
)
from sae_lens_meme.evaluators.naming.statements import NamingMemes, permuted_within_source
from sae_lens_meme.evaluators.result import Interval, Measure, Number, Quantity, Result, Section, nullable, of_known


class Naming(Evaluator):
    """Names latents by caption words and concepts, and scores each name on memes that did not choose it.

    1. On the memes that are not held out, take for each latent the word with the largest z (log-odds with informative
       Dirichlet prior, within source) and the concept with the smallest exact p (within source).
    2. Multiply its p by the number of words or concepts, and of kinds, that it was chosen from; keep it if
       Benjamini-Hochberg over the latents gives q < alpha.
    3. Of a word and a concept that are both kept, the name is the one whose truth correlates more with firing.
    4. Measure the names on the held-out memes. A latent without one has a reason.

    Args:
        embeddings: the memes; captions, labels or both.
        concepts: such as `["hate=1"]`; default `concepts.default_concepts`.

    Raises:
        ConfigError: an option is wrong, or a concept is not known.
    """

    name = "naming"
    question = "a name from captions and concepts, scored on memes that did not choose it"
    control = "permuted latents"

    class Options(options.Options):
        concepts: Concepts = None
        """Concepts such as hate=1; default InterVLM's 13, and every class of any other label."""
        alpha: options.Share = 0.05
        """False-discovery rate of choosing a name and of holding."""
        alpha_0: Annotated[float, Field(gt=0)] = 500.0
        """Size of the prior of the log-odds, in words."""
        min_df: options.Positive = 5
        """A word must occur in this many captions of the memes that choose."""
        min_support: options.Count = 5
        """A latent must fire on this many of the memes that choose."""
        stop_words: Literal["english"] | Annotated[tuple[str, ...], Field(strict=False)] | None = None
        """Words left out of the vocabulary, or english; default none, since a latent may stand for "when"."""
        n_words: options.Positive = 5
        """How many candidate words a latent keeps."""
        n_bootstrap: options.Count = 100
        """Resamples of the memes for the interval of the names that hold; 0 leaves it out."""
        seed: options.Count = 0
        """Seed of permutations and resamples."""

    def __init__(self, embeddings: Embeddings, concepts: Iterable[str | Concept] | None = None, **given: Any):
        super().__init__(embeddings, concepts=concepts, **given)
        self.concepts = None if concepts is None else concepts_of(embeddings, self.options.concepts)

    @property
    def _rule(self) -> NamingRule:
        given = self.options
        return NamingRule(given.alpha, given.alpha_0, given.min_support, given.n_words)

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        return self.measure_latents(embeddings, latents)

    def measure_latents(self, embeddings: Embeddings, latents: Latents) -> Result:
        """The same for any units that come as `Latents`."""
        require_latents_of(latents, embeddings)
        memes, given = self._memes(embeddings), self.options
        names = find_names(latents, memes, self._rule)
        permuted = find_names(permuted_within_source(latents, embeddings, given.seed), memes, self._rule)
        ends = hold_interval(names, latents, memes, given.alpha, given.n_bootstrap, given.seed)
        measures = {m.key: m for m in (*_of_memes(memes), *_measures(names, memes, given.alpha, ends))}
        control = {m.key: m for m in _measures(permuted, memes, given.alpha, control=PERMUTED)}
        alive = int((names.fires > 0).sum())
        for key, label in _labels(measures, alive, memes.split, given.alpha).items():
            measures[key] = measures[key].row(label, control[key].control("permuted"))
        section = Section(
            "Names of latents, from words of captions and from concepts",
            f"chosen on the {len(memes.selection):,} memes that are not held out, measured on {_measured_on(memes)}; permuted: "
            "each latent's activations given to other memes of the same source",
        )
        table = names_table(names, memes, self._rule)
        verdict = _verdict(measures, control, alive, memes.split)
        every = (*measures.values(), *(m.under("permuted") for m in control.values()))
        return Result(self.name, section, every, table, columns_of(table.columns), verdict)

    def _memes(self, embeddings: Embeddings) -> NamingMemes:
        return NamingMemes.of(embeddings, self.concepts, self.options.min_df, self.options.stop_words)


def _measured_on(memes: NamingMemes) -> str:
    return f"the {len(memes.held_out):,} {memes.split} memes" if memes.split else "none (no memes are held out)"


def _of_memes(memes: NamingMemes) -> Iterator[Measure]:
    yield N_SELECTION(len(memes.selection))
    yield N_HELD_OUT(len(memes.held_out))
    for kind in KINDS:
        if (family := memes.families.get(kind)) is None:
            yield N_STATEMENTS(None, kind, reason=memes.reasons[kind])
        else:
            yield N_STATEMENTS(len(family.names), kind)
            yield N_SELECTION(len(family.selection.rows), kind)
            yield N_HELD_OUT(len(family.held_out.rows), kind)


def _measures(
    names: Names, memes: NamingMemes, alpha: float, ends: tuple[float, float] | None = None, control: str = ""
) -> Iterator[Measure]:
    """Of the candidates of each kind, and of the names."""
    rows = f"chosen on the {len(memes.selection)} memes that are not held out, measured on {_measured_on(memes)}"
    rows = f"{control}; {rows}" if control else rows

    def made(quantity: Quantity, value: Number, group: str, what: str, interval: Interval | None = None) -> Measure:
        reason = f"this is defined for no {what} on {_measured_on(memes)}"
        if quantity.key.endswith("_selection"):
            reason = f"no latent has a {what}"
        elif quantity.key == "share_named":
            reason = "no latent fires on a selection meme"
        elif memes.split is None:
            reason = "there are no held-out rows (test or validation)"
        return quantity(value, group, rows=rows, interval=interval, reason=reason)

    for key, value in _of_names(names, alpha, memes.split).items():
        interval = None
        if key == "n_hold" and ends is not None:
            low, high = ends if any(ends) else (None, None)
            interval = Interval(
                low, high, JACKKNIFE, "every subset of four fifths of the memes gives 0: its spread is not known"
            )
        yield made(NAMES[key], value, "names", "name", interval)
    for kind, found in names.candidates.items():
        for key, value in _of_candidates(found, alpha).items():
            yield made(CANDIDATES[key], value, kind, "candidate")


def _of_candidates(found: Candidates, alpha: float) -> dict[str, Number]:
    return {
        "n_candidates": int((found.chosen >= 0).sum()),
        "n_significant_selection": int((found.q_selection < alpha).sum()),
        "n_significant": _count(found.q, alpha, found.chosen >= 0),
        "mean_auroc_selection": of_known(np.mean, found.selection["auroc"]),
        **{f"mean_{score}": of_known(np.mean, found.held_out[score]) for score in MEANS},
    }


def _of_names(names: Names, alpha: float, split: str | None) -> dict[str, Number]:
    alive, n_named = int((names.fires > 0).sum()), int((names.kind >= 0).sum())
    n_hold = _count(names.q, alpha, names.kind >= 0) if split else None
    auroc = names.held_out["auroc"]
    hold = auroc[names.holds(alpha)]
    known = bool(split) and not (n_named and np.isnan(auroc).all())
    return {
        "n_named": n_named,
        **{f"n_{kind}": int((names.kind == k).sum()) for k, kind in enumerate(KINDS)},
        "n_hold": n_hold,
        "median_auroc_hold": None if np.isnan(hold).all() else float(np.nanmedian(hold)),
        "least_auroc_hold": None if np.isnan(hold).all() else float(np.nanmin(hold)),
        "n_good": int((hold >= GOOD_AUROC).sum()) if known else None,
        "n_printed": int((auroc >= LEAST_AUROC).sum()) if known else None,
        "share_named": n_named / alive if alive else None,
        "share_hold": n_hold / n_named if n_named and n_hold is not None else None,
        "mean_auroc_selection": of_known(np.mean, names.selection["auroc"]),
        **{f"mean_{score}": of_known(np.mean, names.held_out[score]) for score in MEANS},
    }


def _count(q: np.ndarray, alpha: float, tried: np.ndarray) -> int | None:
    """None where there was something to test and no test could be done."""
    return None if tried.any() and np.isnan(q).all() else int((q < alpha).sum())


def _labels(measures: Mapping[str, Measure], alive: int, split: str | None, alpha: float) -> dict[str, str]:
    """Key -> label of the rows that are printed: those that are defined."""
    n = {key: measure.value for key, measure in measures.items()}
    kinds = ", ".join(f"{n[f'names/n_{kind}']} by a {kind}" for kind in KINDS)
    below = f"q < {alpha:g}"
    labels = {"names/n_named": f"latents with a name, of {alive} that fire ({kinds})"}
    if n["names/n_named"]:
        labels["names/n_hold"] = f"names that hold on {split} memes, {below} (of {n['names/n_named']})"
        labels["names/median_auroc_hold"] = f"AUROC of firing by a name that holds, {split} memes, median"
        labels["names/least_auroc_hold"] = "the same, least"
        labels["names/n_good"] = f"names that hold with {GOOD_AUROC:g} or more (of {n['names/n_hold']})"
        labels["names/n_printed"] = f"names with {LEAST_AUROC:g} or more; the others are printed as {NO_NAME!r}"
    for kind in KINDS:
        candidates = n.get(f"{kind}/n_candidates")
        labels[f"{kind}/mean_auroc"] = (
            f"AUROC of firing by the best {kind}, {split} memes, mean of {candidates} latents"
        )
    return {key: label for key, label in labels.items() if n.get(key) is not None}


def _verdict(
    measures: Mapping[str, Measure], control: Mapping[str, Measure], alive: int, split: str | None
) -> str | None:
    keys = ("n_named", "n_hold", "median_auroc_hold", "n_printed")
    named, hold, auroc, printed = (measures[f"names/{key}"].value for key in keys)
    permuted = control["names/n_named"].value
    if not alive or not any(f"{kind}/n_candidates" in measures for kind in KINDS):
        return None
    if not named:
        return f"Not one of {alive} latents has a name: no word and no concept is associated with its firing."
    first = f"{named} of {alive} latents have a name ({permuted} of permuted latents)"
    if hold is None:
        return f"{first}; no held-out memes test it."
    tells = "" if auroc is None else f", and predict firing with a median AUROC of {auroc:.2f}"
    weak = "" if printed is None else f"; {printed} reach {LEAST_AUROC:g}, the others are printed as {NO_NAME!r}"
    return f"{first}; {hold} of {named} names hold on {split} memes{tells}{weak}."


def names_table(names: Names, memes: NamingMemes, rule: NamingRule) -> pd.DataFrame:
    """Null where undefined; `reason` says why a latent has no name."""
    kind = [None if k < 0 else KINDS[k] for k in names.kind]
    chosen = {name: _chosen(found) for name, found in names.candidates.items()}
    given = [None if k is None else chosen[k][i] for i, k in enumerate(kind)]
    printed = [NO_NAME if name is None or weak else name for name, weak in zip(given, names.tells_nothing, strict=True)]
    columns: dict[str, Any] = {
        "latent": np.arange(len(kind)),
        "name": pd.array(given, dtype="string"),
        "printed": pd.array(printed, dtype="string"),
        "kind": pd.Categorical(kind, categories=list(KINDS)),
        "reason": pd.array(_reasons(names, memes, rule), dtype="string"),
        "fires_selection": names.fires,
        **_scores("", names.held_out, HELD_OUT),
        "p": nullable(np.exp(names.held_out["log_p"])),
        "log10_p": nullable(names.held_out["log_p"] / math.log(10)),
        "q": nullable(names.q),
        "holds": _holds(names, rule.alpha),
    }
    for name, found in names.candidates.items():
        columns[name] = pd.array(chosen[name], dtype="string")
        columns |= _word_columns(found) if found.odds is not None else {}
        columns[f"{name}_q_selection"] = nullable(found.q_selection)
        columns |= {f"{name}_{s}_selection": _column(s, found.selection[s]) for s in SELECTION}
        columns |= _scores(f"{name}_", found.held_out, HELD_OUT)
        columns[f"{name}_p"], columns[f"{name}_q"] = nullable(np.exp(found.held_out["log_p"])), nullable(found.q)
    return pd.DataFrame(columns)


def _word_columns(found: Candidates) -> dict[str, Any]:
    assert found.odds is not None
    none = found.chosen < 0
    names, best = found.family.names, found.odds.word
    words = [None if n else ", ".join(names[word[word >= 0]]) for n, word in zip(none, best, strict=True)]
    return {
        "words": pd.array(words, dtype="string"),
        "word_z": nullable(np.where(none, np.nan, found.odds.z[:, 0])),
        "word_log_odds": nullable(np.where(none, np.nan, found.odds.log_odds[:, 0])),
    }


def _chosen(found: Candidates) -> list[str | None]:
    return [None if c < 0 else str(found.family.names[c]) for c in found.chosen]


def _scores(prefix: str, found: dict[str, np.ndarray], which: tuple[str, ...]) -> dict[str, Any]:
    return {f"{prefix}{score}": _column(score, found[score]) for score in which}


def _column(score: str, values: np.ndarray) -> Any:
    column = nullable(values)
    return column.astype("Int64") if score in WHOLE else column


def _holds(names: Names, alpha: float) -> Any:
    return pd.arrays.BooleanArray(names.holds(alpha), np.isnan(names.q))


def _reasons(names: Names, memes: NamingMemes, rule: NamingRule) -> list[str | None]:
    tried = " or ".join(names.candidates) or "word or concept"
    nothing = f"no {tried} is associated with firing on the selection rows (q_selection >= {rule.alpha:g})"
    if not names.candidates:
        nothing = "; ".join(memes.reasons.values())
    few = f"fires on fewer than {rule.min_support} selection rows"
    return [
        None if kind >= 0 else "fires on no selection row" if n == 0 else few if n < rule.min_support else nothing
        for kind, n in zip(names.kind, names.fires, strict=True)
    ]
