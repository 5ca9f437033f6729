"""The latents of the report: an index column for everything that is searched or filtered, and the page of each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from sae_lens_meme.attribute.options import AttributeOptions
from sae_lens_meme.dashboard import sentences
from sae_lens_meme.dashboard.choices import Choices
from sae_lens_meme.dashboard.inputs import ReportInputs
from sae_lens_meme.dashboard.nearest import nearest
from sae_lens_meme.dashboard.numbers import short, shorts
from sae_lens_meme.dashboard.options import DashboardOptions
from sae_lens_meme.dashboard.tables import ByLatent, generic_columns
from sae_lens_meme.dashboard.verdicts import Verdict, of_name, use_of
from sae_lens_meme.dashboard.words import Words
from sae_lens_meme.metrics.directions import unit_rows
from sae_lens_meme.projection import FEWEST_FOR_UMAP, project

ALPHA = 0.05
BINS = 30
NEIGHBOURS = 10
CONCEPT_COLUMNS = (
    *("odds_ratio", "odds_ratio_low", "odds_ratio_high", "firing_rate_difference", "q_global", "auroc", "auroc_low"),
    *("auroc_high", "f1_test", "f1_always_on", "f1_validation", "n_test"),
)
EFFECT_COLUMNS = (
    *("task", "class", "kind", "multiplier", "head", "n", "delta_all", "delta_all_low", "delta_all_high"),
    *("delta_random", "delta_matched", "largest_random"),
)
"""The page gets `beats` beside them: whether the classifier of the label uses the latent."""


class LatentPages:
    """Everything of the report that is about one latent."""

    def __init__(self, inputs: ReportInputs, options: DashboardOptions):
        self.inputs, self.options = inputs, options
        self.d_sae = inputs.latents.d_sae
        found = {name: ByLatent.of(table, self.d_sae) for name, table in inputs.tables.items()}
        self.tables = {name: table for name, table in found.items() if table is not None}
        self.generic = generic_columns(inputs.evaluation, self.tables)
        self.firing = np.diff(inputs.latents.csc().indptr)
        self.words = Words(inputs.memes)

    @cached_property
    def concepts(self) -> ByLatent | None:
        return ByLatent.of(self.inputs.alignment, self.d_sae)

    @cached_property
    def concept_names(self) -> list[str]:
        return [] if self.concepts is None else list(dict.fromkeys(self.concepts.table["concept"].astype(str)))

    @cached_property
    def effects(self) -> ByLatent | None:
        """One row per latent, task, edit and head: InterVLM's choice of class, with all controls."""
        table = self.inputs.table("influence")
        if table is None:
            return None
        if "delta_random" in table:
            edits = table.groupby(["task", "class", "kind", "multiplier", "route", "head"])
            table = table.assign(largest_random=edits["delta_random"].transform("max"))
        return ByLatent.of(table.loc[table["published"].astype(bool), :], self.d_sae)

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """Of each latent's name."""
        named = self.tables.get("naming")
        rows = [None if named is None else named.first(latent) for latent in range(self.d_sae)]
        return [of_name(row, self._named_concept(latent, row), self.words) for latent, row in enumerate(rows)]

    def _named_concept(self, latent: int, naming: dict[str, Any] | None) -> dict[str, Any] | None:
        if self.concepts is None or naming is None or naming.get("kind") != "concept":
            return None
        return next((row for row in self.concepts.rows(latent) if str(row["concept"]) == naming["name"]), None)

    @cached_property
    def choices(self) -> Choices:
        """The memes of each latent."""
        o = self.options
        options = AttributeOptions(top=o.top, intervals=o.intervals, per_interval=o.per_interval, seed=o.seed)
        return Choices(self.inputs.latents, self.inputs.memes, self.inputs.attribution, options)

    def index(self) -> dict[str, list[Any]]:
        """Columns of length d_sae."""
        named = self.tables.get("naming")
        column = lambda table, name: [None] * self.d_sae if table is None else table.column(name)  # noqa: E731
        largest = np.asarray(self.inputs.latents.csc().max(axis=0).todense()).ravel()
        points = self._points()
        return {
            "name": column(named, "name"),
            "name_kind": column(named, "kind"),
            "holds": column(named, "holds"),
            "verdict": [verdict.word for verdict in self.verdicts],
            "auroc": column(named, "auroc"),
            "fires": [short(share) for share in self.firing / max(1, self.inputs.latents.n_samples)],
            "largest": shorts(largest),
            "decided_by": column(self.tables.get("question_set"), "class"),
            "stable": column(self.tables.get("stability"), "stable"),
            "concepts": self._significant(),
            "x": [None if point is None else short(point[0]) for point in points],
            "y": [None if point is None else short(point[1]) for point in points],
        }

    def page(self, latent: int, place: dict[int, int]) -> dict[str, Any]:
        """The page of one latent; `place` is where a row of the embeddings is among the memes that are shown."""
        memes = {"at": [place[int(row)] for row in self.choices.rows(latent)], **self.choices.of(latent)}
        effects = [] if self.effects is None else self.effects.rows(latent)
        return {
            "answers": self.answers(latent, effects),
            "histogram": self._histogram(latent),
            "concepts": self._concepts(latent),
            "effects": [[*(row.get(name) for name in EFFECT_COLUMNS), _beats(row)] for row in effects],
            "memes": memes,
            "neighbours": self._neighbours(latent),
            "tables": {
                name: [
                    [row[column] for column in table.table.columns if column != "latent"] for row in table.rows(latent)
                ]
                for name, table in self.tables.items()
                if name in self.generic
            },
        }

    def answers(self, latent: int, effects: Sequence[dict[str, Any]]) -> list[sentences.Answer]:
        """What the tables say about a latent, question by question."""
        first = lambda name: None if name not in self.tables else self.tables[name].first(latent)  # noqa: E731
        alike = self.tables["monosemanticity"].rows(latent) if "monosemanticity" in self.tables else []
        matrix = self.inputs.latents.csc()
        values = matrix.data[matrix.indptr[latent] : matrix.indptr[latent + 1]]
        said = [
            sentences.about(first("naming"), self.verdicts[latent], self.words),
            sentences.frequency(len(values), self.inputs.latents.n_samples, float(values.max(initial=0.0))),
            sentences.drives(first("question_set")),
            sentences.used(list(effects), self.words),
            sentences.again(first("stability")),
            sentences.alike(alike),
        ]
        kind = self.words.kind
        return [answer._replace(question=kind.said(answer.question), text=kind.said(answer.text)) for answer in said]

    def _concepts(self, latent: int) -> list[list[Any]]:
        """A row per concept, in the order of `concept_names`."""
        if self.concepts is None:
            return []
        found = {str(row["concept"]): row for row in self.concepts.rows(latent)}
        return [[found.get(name, {}).get(column) for column in CONCEPT_COLUMNS] for name in self.concept_names]

    def _significant(self) -> list[list[int]]:
        """Of each latent the concepts that it is tied to, the smallest q first."""
        if self.concepts is None:
            return [[] for _ in range(self.d_sae)]
        place = {name: i for i, name in enumerate(self.concept_names)}
        found = []
        for latent in range(self.d_sae):
            rows = [row for row in self.concepts.rows(latent) if row.get("q_global") is not None]
            rows = sorted((row for row in rows if row["q_global"] < ALPHA), key=lambda row: row["q_global"])
            found.append([place[str(row["concept"])] for row in rows])
        return found

    def _histogram(self, latent: int) -> list[int]:
        """Counts of the activations above 0 in equal bins up to the largest."""
        matrix = self.inputs.latents.csc()
        values = matrix.data[matrix.indptr[latent] : matrix.indptr[latent + 1]]
        if not len(values):
            return []
        return np.histogram(values, bins=BINS, range=(0, float(values.max())))[0].tolist()

    @cached_property
    def _unit(self) -> np.ndarray:
        return unit_rows(self.inputs.decoder)

    def _neighbours(self, latent: int) -> list[list[Any]]:
        """The latents whose decoder rows point most nearly the same way, with the cosine."""
        return [[int(other), short(c)] for other, c in zip(*(part[latent] for part in self._nearest), strict=True)]

    @cached_property
    def _nearest(self) -> tuple[np.ndarray, np.ndarray]:
        return nearest(lambda latents: self._unit[latents], self.d_sae, NEIGHBOURS)

    def _points(self) -> list[Any]:
        """Decoders of the latents that fire, on a plane."""
        alive = np.flatnonzero((self.firing > 0) & (np.abs(self._unit).sum(axis=1) > 0))
        points: list[Any] = [None] * self.d_sae
        if len(alive):
            layout = project if self.options.map == "umap" else tsne
            for latent, point in zip(alive, layout(self._unit[alive], seed=self.options.seed), strict=True):
                points[latent] = point
        return points


def _beats(row: dict[str, Any]) -> bool | None:
    return None if row.get("delta_all") is None else use_of(row).beats


def tsne(x: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """t-SNE by cosine, float [n, 2]; as `project` where there are too few points for it."""
    if len(x) < FEWEST_FOR_UMAP:
        return project(x, seed=seed)
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(x) - 1) / 3)
    return TSNE(metric="cosine", perplexity=perplexity, init="random", random_state=seed).fit_transform(x)
