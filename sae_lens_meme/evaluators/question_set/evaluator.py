"""The Standard Question Set on fused memes: pairs of memes with swapped captions, every latent classed.

A latent is visual, textual or cross-modal by what decides its activation when pictures and captions are recombined.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Int
from pydantic import Field
from scipy.stats import fisher_exact
from typing_extensions import Self

from sae_lens_meme import options
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.base import Evaluator, Unavailable
from sae_lens_meme.evaluators.controls import activations, fit_directions
from sae_lens_meme.evaluators.latents import Latents, encode, hook_of
from sae_lens_meme.evaluators.question_set.binding import Binding, Crossed, binding_of
from sae_lens_meme.evaluators.question_set.compute import TERMS, Cells, TwoByTwo, effects
from sae_lens_meme.evaluators.question_set.items import (
    Fuse,
    Items,
    Rows,
    crossed_tables,
    fused_items,
    fusion_of,
    random_items,
    recombined,
    require_items,
)
from sae_lens_meme.evaluators.question_set.quantities import (
    CLASS_WHAT,
    CONTROLS,
    COUNTS,
    HEADINGS,
    LABELS,
    MEDIAN_CONCENTRATION,
    MEDIANS,
    N_RARE,
    RARE,
    SHARE_RARE,
    SIZES,
    explained,
    table_of,
)
from sae_lens_meme.evaluators.result import Interval, Measure, Result, Section, of_known
from sae_lens_meme.evaluators.rows import measured_rows
from sae_lens_meme.hooks.checkpoint import read_memeclip_checkpoint
from sae_lens_meme.hooks.memeclip import fuse
from sae_lens_meme.hooks.names import FUSED
from sae_lens_meme.options import Count

if TYPE_CHECKING:
    from sae_lens_meme.evaluators.context import Context

RANDOM_UNITS = 512
"""At least this many random directions, each active as often as a latent is on average: few say nothing of a share near 0."""


class QuestionSet(Evaluator):
    """Effects of picture, text and interaction on every latent, from captions swapped between pairs of memes.

    Cells aa and bb are the memes as they are, ab and ba have the other's caption. Where captions of memes depend on
    their pictures, the interaction therefore also holds what a latent says about a caption that fits its picture;
    a latent that is a sum of a function of the picture and one of the caption has none.

    A fused vector is a product of both sides, so that almost any direction of it is cross-modal by these shares, also of
    noise. Two things say what was found beyond that: the same shares of random directions (the noise floor), and the
    `concentration` of the interaction on one feature of each side, which noise does not reach (see `binding`).

    Args:
        items: rows of memes A and rows of memes B in place of random pairs (see `concept_items`).
        fuse: (image embeddings, text embeddings) to fused vectors, where the fusion is not clip's;
            `functools.partial(sae_lens_meme.hooks.memeclip.fuse, heads=heads)` for MemeCLIP's.
    """

    name = "question_set"
    question = (
        "whether picture, caption or both decide a latent, and whether it binds a feature of one to one of the other"
    )
    control = "random directions (the noise floor), raw dimensions, swaps permuted"

    class Options(options.Options):
        n_items: Annotated[int, Field(ge=2)] = 1000
        """Pairs of memes at most; a meme is in one pair only, so that there are at most half as many as memes."""
        n_crossed: Annotated[int, Field(ge=100)] = 8000
        """Cells at most in which all pictures meet all captions, for the concentration."""
        drawn: Annotated[tuple[Literal["image", "text"], ...], Field(strict=False)] = ("image", "text")
        """The sides of which A and B are exchangeable draws. Of the others no interaction is subtracted: leave out a
        side only where A and B are two fixed conditions of it."""
        rows: Literal["held_out", "all"] = "held_out"
        """held_out (test rows, else validation rows, else all) or all, for random pairs."""
        within_source: bool = True
        """Random pairs of one source, so that the source is not the contrast."""
        min_items: Count = 10
        """A latent that fires in fewer items is neither classed nor in the table."""
        n_bootstrap: Count = 200
        """Resamples of the items for the 95 % intervals; 0 for none."""
        seed: Count = 0

    def __init__(
        self,
        embeddings: Embeddings,
        *,
        hook: str | None = None,
        items: tuple[Rows, Rows] | None = None,
        fuse: Fuse | None = None,
        **options: Any,
    ):
        super().__init__(embeddings, hook=hook, **options)
        self.items, self.fuse = items, fuse

    @classmethod
    def from_context(cls, context: Context) -> Self:
        heads = context.heads and read_memeclip_checkpoint(context.heads).heads
        fused = partial(fuse, heads=heads) if heads else None
        return cls(context.embeddings, fuse=fused, **context.options_of(cls))

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        fusion = fusion_of(embeddings, hook_of(sae, embeddings, self.hook), self.fuse)
        items, which = self._items(embeddings)
        fused = self._fused(embeddings, items, fusion)
        swapped = encode(sae, fused, FUSED, rows=np.arange(len(items[0]), 3 * len(items[0])))
        cells = Latents.concatenate([latents.rows(items[0]), swapped, latents.rows(items[1])])
        strata = _strata(embeddings, items)
        pairs, shapes = crossed_tables(items, strata, self.options.n_crossed)
        crossed = recombined(embeddings, *pairs, fusion)
        tables = encode(sae, crossed, FUSED)

        def control(kind: str, times: int = 1) -> list[Latents]:
            """In the items and in the tables, each unit active as often as a latent is on average."""
            units = fit_directions(fused, FUSED, kind, self.options.seed, times * cells.d_sae)
            return [activations(units, at, FUSED, times * of.l0) for at, of in ((fused, cells), (crossed, tables))]

        read = crossed.take(FUSED, np.arange(len(crossed)))
        random, random_tables = control("random_topk", ceil(RANDOM_UNITS / cells.d_sae))
        found = {
            "": self._found(cells, strata, Crossed(tables, shapes, read)),
            "permuted": self._found(permuted_within_items(cells, self.options.seed), strata),
            "neurons": self._found(control("neurons")[0], strata),
            "random": self._found(random, strata, Crossed(random_tables, shapes, read)),
        }
        return self._result(found, which)

    def _items(self, embeddings: Embeddings) -> tuple[Items, str]:
        options = self.options
        if self.items is not None:
            items, which = require_items(self.items, len(embeddings)), "the pairs that were given"
        else:
            rows, split = measured_rows(embeddings, options.rows)
            within = options.within_source
            items = random_items(embeddings, rows, options.n_items, within_source=within, seed=options.seed)
            which = f"{split}, one per group, paired at random{' within source' if within else ''}"
        if len(items[0]) < 2:
            raise Unavailable(f"there are {len(items[0])} pairs of {which}; two are needed")
        return items, which

    def _fused(self, embeddings: Embeddings, items: Items, fusion: Fuse) -> Embeddings:
        try:
            return fused_items(embeddings, items, fusion)
        except DataError as error:
            if self.fuse is not None:
                raise
            raise Unavailable(str(error)) from None  # vectors from elsewhere need not be the product of the two

    def _found(self, units: Latents, strata: np.ndarray, crossed: Crossed | None = None) -> Found:
        o = self.options
        two_by_two = effects(
            cells_of(units), drawn=o.drawn, min_items=o.min_items, n_bootstrap=o.n_bootstrap, strata=strata, seed=o.seed
        )
        return Found(two_by_two, crossed and binding_of(crossed, two_by_two))

    def _result(self, found: dict[str, Found], which: str) -> Result:
        o, effects = self.options, found[""].effects
        m, items = len(effects.latents), f"{effects.n_items} pairs of {which}"
        if set(o.drawn) != set(TERMS[:2]):
            items += f" (A and B are draws of {o.drawn[0]} alone)" if o.drawn else " (A and B are two fixed conditions)"
        resampled = f"95 % percentile bootstrap over items within source, {o.n_bootstrap} resamples"
        too_rare = f"no unit fires in at least {o.min_items} items"
        of = {name: _counted(part, name, items, resampled, too_rare) for name, part in found.items()}
        measures = [q(n, rows=items) for q, n in zip(SIZES, (effects.n_items, effects.n_fired, m), strict=True)]
        rare = int((effects.n_active < RARE).sum())
        share_rare = SHARE_RARE(_over(rare, m), rows=items, reason=too_rare)
        if m:
            share_rare = share_rare.row(f"of which rare, firing in fewer than {RARE} items ({rare} of {m} latents)")
        for term, shares in zip(TERMS, effects.shares, strict=True):
            measures.append(MEDIANS[term](of_known(np.median, shares), rows=items))
        section = Section(
            f"Standard Question Set: share of {m} latents that the picture decides, the caption, or only both together",
            f"captions swapped between {items}; random: random directions of the fused embedding, the noise floor of a "
            "product; neurons: its dimensions; swaps permuted: nothing tells picture from caption; binding: one feature of "
            "the picture times one of the caption makes most of the interaction",
        )
        table = table_of(*found[""])
        columns = explained(list(table.columns), resampled)
        measures = (*measures, *_with_rows(of, m), N_RARE(rare, rows=items), share_rare)
        return Result(self.name, section, measures, table, columns, _verdict(of, m))


class Found(NamedTuple):
    """What the design says about some units."""

    effects: TwoByTwo
    binding: Binding | None


def cells_of(recombined: Latents) -> Cells:
    """The cells of latents that come cell by cell (aa, ab, ba, bb)."""
    return Cells(*(recombined.rows(rows) for rows in np.split(np.arange(recombined.n_samples), len(Cells._fields))))


def permuted_within_items(recombined: Latents, seed: int) -> Latents:
    """Each item's four cells in a random order, the same for all latents."""
    rows = np.arange(recombined.n_samples).reshape(len(Cells._fields), -1)
    return recombined.rows(np.random.default_rng(seed).permuted(rows, axis=0).ravel())


def _strata(embeddings: Embeddings, items: Items) -> Int[np.ndarray, " items"]:
    """Items of the same two sources."""
    sources = np.stack([embeddings.strata[rows] for rows in items], axis=1)
    return np.unique(sources, axis=0, return_inverse=True)[1].ravel()


def _counted(found: Found, group: str, items: str, resampled: str, too_rare: str) -> dict[str, Measure]:
    """Counts and shares of the units by key, without the group; with intervals for the SAE."""
    e, m = found.effects, len(found.effects.latents)
    rows = f"{CONTROLS[group]}; {items}" if group else items
    moved = f"{resampled}: the spread of the count as each latent's interval moves with its resampled share"
    measures = []
    for i, name in enumerate(CLASS_WHAT):
        ends = None if group or e.counts_interval is None else e.counts_interval[:, i]
        count, share = COUNTS[name]
        measures.append(count(e.counts[i], group, rows=rows, interval=_interval(ends, 1, moved)))
        interval = _interval(ends, m, moved)
        measures.append(share(_over(e.counts[i], m), group, rows=rows, interval=interval, reason=too_rare))
    if found.binding is not None:
        known = not np.isnan(found.binding.concentration.value).all()
        for name, mask in (("binding", found.binding.binds), ("copying", found.binding.copies)):
            n = mask.sum() if known else np.nan
            for quantity, number in zip(COUNTS[name], (n, _over(n, m)), strict=True):
                measures.append(quantity(number, group, rows=rows))
        measures.append(MEDIAN_CONCENTRATION(of_known(np.median, found.binding.concentration.value), group, rows=rows))
    return {measure.key.removeprefix(f"{group}/"): measure for measure in measures}


def _with_rows(of: dict[str, dict[str, Measure]], m: int) -> Iterator[Measure]:
    """All measures; the SAE's shares beside those of the controls are rows."""
    for name, label in LABELS.items():
        key, n = f"share_{name}", of[""][f"n_{name}"].value
        # with permuted swaps neither side decides, and all that is left is called cross-modal: no control of that class
        guards = [guard for guard in HEADINGS if guard != "permuted" or name in ("visual", "textual")]
        controls = [of[guard][key].control(HEADINGS[guard]) for guard in guards if key in of[guard]]
        if n is not None and m:
            of[""][key] = of[""][key].row(f"{label} ({n} of {m} latents)", *controls)
    for measures in of.values():
        yield from measures.values()


def _verdict(of: dict[str, dict[str, Measure]], m: int) -> str | None:
    """Cross-modal latents are claimed where more of them bind than of random directions (Fisher's exact test)."""
    here, random = of[""], of["random"]
    visual, textual, both = (here[f"n_{name}"].value for name in ("visual", "textual", "cross_modal"))
    if not m:
        return None
    if not both:
        return f"{visual} of {m} latents follow the picture, {textual} the caption, and none needs both together."
    n, copies = here["n_binding"].value, here["n_copying"].value
    if n is None:
        return f"{both} of {m} latents need picture and caption together; whether they bind a feature of each is not known."
    chance, beside = random["share_binding"].value, random["share_cross_modal"].value
    if chance is None or beside is None:
        return (
            f"{both} of {m} latents need picture and caption together and {n} bind a feature of each; "
            "how many random directions do is not known."
        )
    if _more(here, random):
        return (
            f"{n} of {m} latents bind a feature of the picture to one of the caption (random directions "
            f"{chance:.0%}); {visual} follow the picture, {textual} the caption."
        )
    so_do = (
        f", but so do {beside:.0%} of random directions" if beside >= both / m else f" (random directions {beside:.0%})"
    )
    return (
        f"No cross-modal latents are shown: {both} of {m} need both sides{so_do}; {n} bind a feature of each "
        f"(random directions {chance:.0%}){f', {copies} copy one dimension' if copies else ''}."
    )


def _more(here: dict[str, Measure], random: dict[str, Measure]) -> bool:
    """Whether more latents bind than random directions, p < .05."""
    table = []
    for part in (here, random):
        binding: Any = part["n_binding"].value
        table.append([binding, sum(part[f"n_{name}"].value or 0 for name in CLASS_WHAT) - binding])
    test: Any = fisher_exact(table, alternative="greater")
    return bool(test.pvalue < 0.05)


def _interval(ends: np.ndarray | None, whole: int, what: str) -> Interval | None:
    if ends is None:
        return None
    low, high = _over(ends, whole)
    return Interval(low, high, what)


def _over(part: Any, whole: int) -> Any:
    return part / whole if whole else np.full_like(part, np.nan, dtype=float)
