"""Monosemanticity: do the memes that fire a latent resemble each other, in the eyes of a reference encoder?

MS (Pach et al. 2025) is exact in linear time; chance, chance within source, support, intervals and permutation
tests accompany it, with raw neurons and permuted latents as controls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from typing_extensions import Self

from sae_lens_meme.embeddings import Embeddings, Label
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.base import Evaluator, require_embeddings
from sae_lens_meme.evaluators.controls import directions
from sae_lens_meme.evaluators.latents import Latents, encode, hook_of
from sae_lens_meme.evaluators.monosemanticity.compute import Measurement
from sae_lens_meme.evaluators.monosemanticity.hierarchy import (
    hierarchy,
    matryoshka_widths,
    tree_of_names,
    tree_paths,
)
from sae_lens_meme.evaluators.monosemanticity.panel import CROSS_MODAL, Panel, PanelUnits, cross_modal_problem
from sae_lens_meme.evaluators.monosemanticity.quantities import (
    CHANCE,
    COLUMNS,
    DICTIONARIES,
    Judge,
    OfReference,
    measures_of,
    measures_of_draws,
)
from sae_lens_meme.evaluators.monosemanticity.uniqueness import TOP, uniqueness
from sae_lens_meme.evaluators.result import Measure, Result, Section
from sae_lens_meme.evaluators.rows import measured_rows
from sae_lens_meme.hooks.names import IMAGE_EMBED, TEXT_EMBED
from sae_lens_meme.options import Count, Options

if TYPE_CHECKING:
    from sae_lens_meme.evaluators.context import Context

SIDES = (IMAGE_EMBED, TEXT_EMBED)


class Monosemanticity(Evaluator):
    """MS of every latent under each reference, the uniqueness of latents, and controls.

    Memes with a zero vector at a reference hook are left out and counted.

    Args:
        reference: embeddings of the same memes (and others, in any order) by an encoder that the SAE has never seen.
            Default the memes' own embeddings, whose encoder the SAE reads: then MS is not independent evidence.
    """

    name = "monosemanticity"
    question = "whether the memes that fire a latent look alike to another encoder (sae-for-vlm, in linear time)"
    control = "chance within source, permutations, raw neurons"

    class Options(Options):
        reference_hooks: Sequence[str] | None = None
        """Hooks whose embeddings say how alike memes are. Default: image and text embedding, else the SAE's hook."""
        rows: Literal["held_out", "all"] = "held_out"
        """held_out (test rows, else validation rows, else all) or all, as published."""
        min_support: Annotated[float, Field(ge=2)] = 10.0
        """Least effective support (sum a)^2 / sum a^2 of latents that are summed up and tested. A latent that fires on a few memes has a high MS by chance."""
        n_permutations: Count = 199
        """Draws of the test, 0 for none. No p is below 1 / (1 + draws). Each costs what the scores cost; all hold the unit vectors of the rows in float32."""
        neurons: bool = True
        """Measure raw neurons at equal L0 too (without permutations)."""
        both_sides: bool = False
        """For an SAE that reads either modality: encode picture and caption apart, and weigh each side's embeddings by its own activations."""
        top: Annotated[int, Field(ge=1)] = TOP
        """Size of the top sets whose overlap is the uniqueness."""
        hierarchy: str | None = None
        """For Matryoshka SAEs: a label, of which the top memes of later latents should share more."""
        tree: Mapping[str | int, str | int] | None = None
        """Child -> parent over the values of that label; default all values below one root."""
        separator: str | None = None
        """The separator of the parts of that label's values, where these are paths such as Animalia_Chordata_Aves: the tree is read from them."""
        widths: Sequence[Annotated[int, Field(ge=1)]] | None = None
        """Where the groups of latents end; default what the metadata of the SAE say."""
        seed: Count = 0
        """Seed of the permutations."""

    options: Monosemanticity.Options

    def __init__(
        self, embeddings: Embeddings, *, reference: Embeddings | None = None, hook: str | None = None, **options: Any
    ):
        super().__init__(embeddings, hook=hook, **options)
        self.reference = None if reference is None else require_embeddings(reference)
        if (label := self.options.hierarchy) is not None:
            tree_paths(self._tree(embeddings), embeddings.label(label).classes)

    @classmethod
    def from_context(cls, context: Context) -> Self:
        return cls(context.embeddings, reference=context.reference, **context.options_of(cls))

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        hook, judge = hook_of(sae, embeddings, self.hook), Judge.of(embeddings, self.reference)
        rows, which = measured_rows(embeddings, self.options.rows)
        hooks = self._reference_hooks(embeddings if self.reference is None else self.reference, hook)
        panel = Panel.of(embeddings, rows, self.reference, hooks)
        found = self._measurements(sae, embeddings, {hook: latents}, panel)
        of = [self._of_reference(name, found, judge, which) for name in panel.pairs]
        measures = [
            Measure("n", len(panel), f"{which} that are measured"),
            Measure("n_zero_norm", panel.n_zero_norm, "memes left out: a reference embedding is the zero vector"),
            judge.independent,
            *(measure for reference in of for measure in reference.measures(latents.d_sae)),
        ]
        if problem := cross_modal_problem(panel.reference, hooks):
            what = "MS across sides needs image and text embeddings of one width among the reference hooks"
            measures.append(Measure(CROSS_MODAL, None, what, reason=problem))
        table, columns = found["sae"].table(), dict(COLUMNS)
        for part in self._parts(sae, embeddings, latents, panel):
            measures += [measure.under(part.name) for measure in part.measures]
            table, columns = table.merge(part.table, on="latent", how="left"), {**part.columns, **columns}  # type: ignore[arg-type]
        section = self._section(which, judge)
        return Result(self.name, section, tuple(measures), table, columns, of[0].verdict(latents.d_sae, judge))

    def _measurements(
        self, sae: Any, embeddings: Embeddings, latents: dict[str, Latents], panel: Panel
    ) -> dict[str, Measurement]:
        """Of the SAE and of raw neurons.

        Args:
            latents: of the hook that the SAE reads.
        """
        o = self.options
        if o.both_sides:
            latents = {side: encode(sae, embeddings, side) for side in SIDES}

        def measured(read: dict[str, Latents], n_draws: int) -> Measurement:
            units = PanelUnits.of(*(active.rows(panel.rows) for active in read.values()))
            return Measurement.of(units, panel, o.min_support, n_draws, o.seed, (0, 1) if o.both_sides else None)

        found = {"sae": measured(latents, o.n_permutations)}
        if o.neurons:
            neurons = {h: directions(embeddings, h, active.l0, "neurons", o.seed) for h, active in latents.items()}
            found["neurons"] = measured(neurons, 0)
        return found

    def _of_reference(self, name: str, found: dict[str, Measurement], judge: Judge, which: str) -> OfReference:
        sae, n_draws = found["sae"], self.options.n_permutations
        memes = (
            f"{judge.reference(name)}; {len(sae.panel)} memes ({which}); enough effective support: "
            f"at least {self.options.min_support:g}"
        )
        return OfReference(
            name,
            CHANCE(sae.panel.mean_cosine(name), name, rows=memes),
            {
                who: measures_of(one, name, f"{name}/{who}", f"{DICTIONARIES[who]}; {memes}", n_draws)
                for who, one in found.items()
            },
            measures_of_draws(sae, name, f"{name}/permuted", f"{DICTIONARIES['permuted']}; {memes}", n_draws),
            n_draws,
        )

    def _parts(self, sae: Any, embeddings: Embeddings, latents: Latents, panel: Panel) -> Iterator[Result]:
        """What the top memes of each latent say: uniqueness, and hierarchy on request."""
        o, active = self.options, latents.rows(panel.rows)
        yield uniqueness(active, panel.ids, panel.strata, top=o.top)
        if o.hierarchy is not None:
            label, rows = embeddings.label(o.hierarchy), panel.rows
            yield hierarchy(
                *(active, Label(label.name, label.known[rows], label.values[rows]), self._tree(embeddings)),
                list(o.widths) if o.widths else matryoshka_widths(sae),
                **{
                    "sources": panel.strata,
                    "ids": panel.ids,
                    "families": panel.groups,
                    "top": max(o.top, 2),
                    "seed": o.seed,
                },
            )

    def _tree(self, embeddings: Embeddings) -> Mapping[Any, Any]:
        """The given tree; else the one that the label's values spell out; else all of them below one root.

        Raises:
            ConfigError: both are given, or the values are not paths.
        """
        o = self.options
        if o.tree and o.separator:
            raise ConfigError("monosemanticity: tree and separator both define the tree; give one")
        classes = embeddings.label(str(o.hierarchy)).classes
        if o.separator:
            return tree_of_names(classes, o.separator, (o.hierarchy,))
        return o.tree or dict.fromkeys(classes, (o.hierarchy,))

    def _section(self, which: str, judge: Judge) -> Section:
        o = self.options
        legend = ["chance: all pairs of memes"]
        if o.n_permutations:
            legend.append(
                "permuted: activations given to other memes of the same source (best: mean over draws of each draw's best)"
            )
        if o.neurons:
            legend.append("neurons: raw dimensions, both signs, equal L0")
        return Section(
            f"Monosemanticity: cosine of memes that fire the same latent, {which}",
            f"{'; '.join(legend)}. Latents with an effective support below {o.min_support:g} memes are left out; {judge.said}",
        )

    def _reference_hooks(self, reference: Embeddings, hook: str) -> tuple[str, ...]:
        """Which embeddings memes are compared by.

        Raises:
            DataError: the reference has no such hook, or the two sides cannot be compared.
            ConfigError: hooks are given twice, or with both sides.
        """
        wanted = self.options.reference_hooks
        if self.options.both_sides:
            if wanted is not None:
                raise ConfigError(
                    f"monosemanticity: both_sides compares {' and '.join(SIDES)}; leave reference_hooks out"
                )
            if problem := cross_modal_problem(reference, reference.hooks):
                raise DataError(f"monosemanticity, both_sides: {problem}")
            return SIDES
        if wanted is None:
            wanted = [name for name in SIDES if name in reference.hooks] or [hook]
        for name in wanted:
            reference.d_in(name)
        if not wanted or len(set(wanted)) != len(wanted):
            raise ConfigError(f"monosemanticity: reference_hooks {list(wanted)} must name at least one hook, each once")
        return tuple(wanted)
