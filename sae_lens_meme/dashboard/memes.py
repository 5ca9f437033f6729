"""The memes that the report shows: their order on disk, the text that is searched, and of each its page with its reading."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from sae_lens_meme.dashboard.choices import Choices
from sae_lens_meme.dashboard.inputs import ReportInputs
from sae_lens_meme.dashboard.nearest import nearest
from sae_lens_meme.dashboard.numbers import clean, short, shorts
from sae_lens_meme.dashboard.options import DashboardOptions
from sae_lens_meme.dashboard.tokens import Tokens
from sae_lens_meme.dashboard.words import Words
from sae_lens_meme.hooks.names import IMAGE_EMBED, TEXT_EMBED
from sae_lens_meme.read.names import Measured
from sae_lens_meme.read.options import ReadOptions
from sae_lens_meme.read.reading import ActiveLatent, Decision
from sae_lens_meme.read.vectors import VectorReader
from sae_lens_meme.row_kind import TOKEN


class MemePages:
    """Everything of the report that is about one meme.

    Args:
        choices: the memes of each latent. Memes that share a latent lie together, so that few parts hold the
            pictures of one page.
    """

    def __init__(self, inputs: ReportInputs, choices: Choices, words: Words, options: DashboardOptions):
        self.inputs, self._words, self._nearest = inputs, words, options.nearest
        self.rows = np.array(list(dict.fromkeys(choices.rows().tolist())), dtype=np.int64)
        self._choices = choices
        self.place = {int(row): i for i, row in enumerate(self.rows)}
        self._labels = {name: inputs.memes.label(name) for name in inputs.memes.label_names}
        self.readings = Readings(inputs, words)
        self._of_tokens = inputs.memes.row_kind == TOKEN
        self._read = set(choices.strongest(options.readings)) if self.readings.possible else set()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def n_read(self) -> int:
        """Memes whose page says what `read` says."""
        return len(self._read)

    @cached_property
    def pictures(self) -> list[int | None]:
        """The rows of the corpus that hold the pictures: one a meme, and of tokens each picture once."""
        rows = [self.inputs.picture_rows[row] for row in self.rows]
        return list(dict.fromkeys(rows)) if self._of_tokens else rows

    def search(self) -> dict[str, list[Any]]:
        """Ids, captions and labels, and the memes of each latent: what a search looks through."""
        captions, ids = self.inputs.captions, self.inputs.memes.ids
        return {
            "id": [clean(str(ids[row])) for row in self.rows],
            "caption": [None if captions[row] is None else clean(str(captions[row])) for row in self.rows],
            **self._searched_labels(),
            **(self._searched_tokens() if self._of_tokens else {}),
            "of": [
                [self.place[int(row)] for row in self._choices.rows(latent)]
                for latent in range(self.inputs.latents.d_sae)
            ],
        }

    def _searched_tokens(self) -> dict[str, list[Any]]:
        """The place of each token's picture, and what stands on its card."""
        place = {row: i for i, row in enumerate(self.pictures)}
        return {
            "picture": [place[self.inputs.picture_rows[row]] for row in self.rows],
            "token": Tokens(self.inputs).cards(self.rows),
        }

    def _searched_labels(self) -> dict[str, list[Any]]:
        """Each level of a label, by key and as it is shown, and of each meme the places of its levels."""
        place: dict[str, int] = {}
        has = []
        for row in self.rows:
            known = [f"{name}={label.values[row]}" for name, label in self._labels.items() if label.known[row]]
            has.append([place.setdefault(level, len(place)) for level in known])
        keys = [clean(level) for level in place]
        return {
            "level": [[key, clean(self._words.shown(level))] for key, level in zip(keys, place, strict=True)],
            "has": has,
        }

    def pages(self, places: range) -> list[dict[str, Any]]:
        """The pages of some memes."""
        rows, memes = self.rows[places.start : places.stop], self.inputs.memes
        neighbours = self._neighbours(places)
        return [
            {
                "split": str(memes.splits[row]),
                "source": clean(str(memes.sources[row])),
                "labels": [[clean(name), self._level(name, label, row)] for name, label in self._labels.items()],
                "reading": self.readings.of(int(row)) if int(row) in self._read else None,
                "latents": self._latents(row),
                "nearest": near,
            }
            for row, near in zip(rows, neighbours, strict=True)
        ]

    def _latents(self, row: int) -> list[list[Any]]:
        """Active latents, the strongest first."""
        latents = self.inputs.latents
        active = np.flatnonzero(latents.values[row])
        order = active[np.argsort(-latents.values[row][active], kind="stable")]
        return [[int(latents.indices[row, i]), short(latents.values[row, i])] for i in order]

    def _level(self, name: str, label: Any, row: int) -> str | None:
        """What the value is called; None where it is missing."""
        return clean(self._words.level(name, label.values[row])) if label.known[row] else None

    def _neighbours(self, places: range) -> list[list[list[Any]]]:
        """Of the memes that are shown, the nearest by cosine at the SAE's hook."""
        return [
            [[int(i), short(c)] for i, c in zip(*found, strict=True)]
            for found in zip(*(part[places.start : places.stop] for part in self._nearest_memes), strict=True)
        ]

    @cached_property
    def _nearest_memes(self) -> tuple[np.ndarray, np.ndarray]:
        """Of all memes at once: part by part the embeddings would be read again for each."""
        hook, memes = self.inputs.evaluation["sae"]["hook"], self.inputs.memes
        return nearest(lambda places: memes.take(hook, self.rows[places]), len(self.rows), self._nearest)


class Readings:
    """Of memes by their rows in the embeddings. Nothing is read where there is no SAE or no train meme."""

    def __init__(self, inputs: ReportInputs, words: Words):
        self._memes, self._latents, self._words = inputs.memes, inputs.latents, words
        self._labels = {name: inputs.memes.label(name) for name in inputs.memes.label_names}
        self._reader = None
        if inputs.sae is not None and len(inputs.memes.rows("train")):
            measured = Measured.of_tables(inputs.table("naming"), inputs.table("probes"), inputs.evaluation)
            self._reader = VectorReader(
                inputs.sae, inputs.memes, inputs.latents, measured, ReadOptions(), heads=inputs.heads
            )

    @property
    def possible(self) -> bool:
        return self._reader is not None

    @property
    def no_sides(self) -> str | None:
        """Why it is not known which side decides a latent; None where it is known."""
        if self._reader is None or self._reader.exchange is not None:
            return None
        return self._reader.no_exchange

    def of(self, row: int) -> dict[str, Any] | None:
        """Columns and rows of plain values."""
        if self._reader is None:
            return None
        mine = self._latents.rows(np.array([row]))
        sides = [side for side in (IMAGE_EMBED, TEXT_EMBED) if side in self._memes.hooks]
        vectors = {side: self._memes.take(side, np.array([row])) for side in sides}
        return {
            "latents": [self._latent(found) for found in self._reader.active(mine, vectors)],
            "decisions": [self._decision(found, row) for found in self._reader.decisions(mine)],
        }

    def _latent(self, found: ActiveLatent) -> dict[str, Any]:
        sides = found.sides
        return {
            "latent": found.latent,
            "decided_by": sides.decided_by,
            "kept": None if sides.other_captions is None else shorts([sides.other_captions, sides.other_pictures]),
            "evidence": clean(found.name.evidence),
            "stronger_than": short(found.stronger_than),
        }

    def _decision(self, found: Decision, row: int) -> dict[str, Any]:
        label = self._labels[found.label]
        return {
            "label": clean(found.label),
            "decided": clean(self._words.level(found.label, found.decided)),
            "right": bool(label.values[row] == found.decided) if label.known[row] else None,
            "probability": short(found.probability),
            "prevalence": short(found.prevalence),
            "evidence": clean(found.evidence),
            "carriers": [[carrier.latent, short(carrier.contribution)] for carrier in found.carriers],
            "without": short(found.without),
            "random": shorts(found.without_random),
        }
