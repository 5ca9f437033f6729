"""What figures are drawn from: the folders of a run, opened when a figure asks for them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.content import EVALUATION, LATENTS, corrected, table_in
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.measure import Evaluation
from sae_lens_meme.provenance import require_attribution_of, require_evaluated
from sae_lens_meme.storage import fetched, open_dataset, read_finished, read_json

if TYPE_CHECKING:
    from sae_lens_meme.describe import Description


class NotDrawn(DataError):
    """Why a figure cannot be drawn from these folders."""


@dataclass
class Inputs:
    """The folders of one run, or what is in memory of it; only the evaluation is needed by all figures.

    Raises:
        StorageError: a folder is not the finished result of its step, or not of the SAE and memes of the evaluation.
    """

    evaluation: Evaluation | str | Path | None
    """What `measure` found, which brings its SAE and embeddings with it, or the result of `evaluate`; None for a figure
    of the corpus alone."""
    sae: Any = None
    """An SAE, or its folder."""
    embeddings: Embeddings | str | Path | None = None
    attribution: str | Path | None = None
    corpus: Any = None
    """A `datasets.DatasetDict` or `Dataset` with pictures, or the result of `corpus`."""
    reveal: bool = False
    """Show pictures; otherwise they are blurred."""
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.evaluation, Evaluation):
            self.sae = self.evaluation.sae if self.sae is None else self.sae
            self.embeddings = self.evaluation.embeddings if self.embeddings is None else self.embeddings
        elif self.evaluation is not None:
            read_finished(self.evaluation, "evaluate")
        for name in ("evaluation", "sae", "embeddings", "attribution", "corpus"):
            if isinstance(folder := getattr(self, name), (str, Path)):
                setattr(self, name, fetched(folder))
        if isinstance(self.evaluation, (str, Path)):
            self._require_one_run(self.evaluation)

    def _require_one_run(self, evaluation: str | Path) -> None:
        from sae_lens_meme.evaluators.opened import sae_weights

        if isinstance(self.sae, (str, Path)):
            require_evaluated(evaluation, "sae", sae_weights(self.sae), f"the SAE {self.sae}")
        if isinstance(self.embeddings, (str, Path)):
            require_evaluated(evaluation, "embeddings", self.memes.fingerprint, f"the embeddings {self.embeddings}")
        if isinstance(self.attribution, (str, Path)):
            require_attribution_of(evaluation, self.attribution)

    @classmethod
    def of_run(cls, folder: str | Path, sae: str = "", **options: Any) -> Inputs:
        """The folders that `demo` and `run` write below one; of several SAEs, name one."""
        base = Path(folder)
        folders = {"sae": base / "sae" / sae, "attribution": base / "attribution" / sae}
        folders |= {"embeddings": base / "embeddings", "corpus": base / "corpus"}
        return cls(base / "evaluation" / sae, **{k: v for k, v in folders.items() if v.is_dir()}, **options)

    @cached_property
    def content(self) -> dict[str, Any]:
        """`evaluation.json`."""
        if isinstance(self.evaluation, Evaluation):
            return self.evaluation.content
        return read_json(self._folder("evaluation") / EVALUATION)

    def table(self, evaluator: str) -> Any:
        """The Parquet table of an evaluator, a `pandas.DataFrame`."""
        table = self._stored(evaluator)
        if table is None:
            reason = self.content["skipped"].get(evaluator, "the evaluation skipped it")
            raise NotDrawn(f"there is no result of {evaluator} ({reason})")
        numeric = [name for name, kind in table.dtypes.items() if pd.api.types.is_numeric_dtype(kind)]
        return table.assign(**{str(name): _plain(table[name]) for name in numeric})

    def _stored(self, evaluator: str) -> Any:
        if isinstance(self.evaluation, Evaluation):
            result = self.evaluation.results.get(evaluator)
            return None if result is None else result.table
        return table_in(self._folder("evaluation"), evaluator)

    @cached_property
    def latents(self) -> Latents:
        if isinstance(self.evaluation, Evaluation):
            return self.evaluation.latents
        return Latents.load(self._folder("evaluation") / LATENTS)

    @cached_property
    def memes(self) -> Embeddings:
        """In the splits of the evaluation."""
        given = self.embeddings
        memes = given if isinstance(given, Embeddings) else Embeddings.load(self._folder("embeddings"))
        if not isinstance(self.evaluation, (str, Path)):
            return memes
        return memes.as_evaluated(read_finished(self.evaluation, "evaluate")["fingerprint"])

    @cached_property
    def dictionary(self) -> Any:
        """The SAE."""
        from sae_lens_meme.evaluators.opened import load_sae

        if hasattr(self.sae, "W_dec"):
            return self.sae
        return load_sae(self._folder("sae"), self.content["sae"]["hook"])

    @property
    def decoder(self) -> np.ndarray:
        """Decoder rows, float32 [d_sae, d_in]."""
        return self.dictionary.W_dec.detach().float().numpy()

    @cached_property
    def training_log(self) -> Any:
        """A row per epoch."""
        from sae_lens_meme.train.step import LOG, read_log

        if hasattr(self.sae, "W_dec"):
            raise NotDrawn("it needs the training log; give the folder of the SAE")
        if not (records := read_log(folder := self._folder("sae"))):
            raise NotDrawn(f"{folder} has no {LOG}: another tool trained this SAE")
        return pd.DataFrame(records)

    @cached_property
    def attributions(self) -> Any:
        """A row per latent and meme, as `attribute` wrote them."""
        return pd.DataFrame(open_dataset(self._folder("attribution")).with_format(None).to_pandas())

    @cached_property
    def view(self) -> str:
        """The part of a picture that the patches of the attribution divide, see `attributions.covered`."""
        return read_finished(self._folder("attribution"), "attribute")["facts"].get("view", "whole")

    @cached_property
    def description(self) -> Description:
        """What is in the corpus.

        Raises:
            NotDrawn: there is none, or it lacks a column.
        """
        from sae_lens_meme.describe import describe_corpus

        corpus = self._folder("corpus") if isinstance(self.corpus, (str, Path, NoneType)) else self.corpus
        try:
            return describe_corpus(corpus)
        except DataError as error:
            raise NotDrawn(str(error)) from None

    @cached_property
    def _pictures(self) -> tuple[Any, dict[str, int]]:
        from sae_lens_meme.corpus import all_rows

        rows = all_rows(self._folder("corpus") if isinstance(self.corpus, (str, Path, NoneType)) else self.corpus)
        return rows, {id: i for i, id in enumerate(rows["id"])}

    def picture(self, id: str) -> Any:
        """The picture of a meme, a `PIL.Image`."""
        rows, places = self._pictures
        if id not in places:
            raise NotDrawn(f"meme {id!r} is not in the corpus {self.corpus}")
        return rows[places[id]]["image"]

    @cached_property
    def names(self) -> dict[int, str]:
        """Latents with a name that holds on memes not used to choose it."""
        table = self.table("naming")
        held = table[table["holds"].fillna(False).astype(bool) & table["name"].notna()]
        return dict(zip(held["latent"].astype(int), held["name"], strict=True))

    def called(self, latent: int) -> str:
        """`latent 12 "cat"`, without the name where none holds."""
        try:
            name = self.names.get(latent)
        except NotDrawn:
            name = None
        return f"latent {latent}" + (f" “{name}”" if name else "")

    def _folder(self, which: str) -> Path:
        folder = getattr(self, which)
        if folder is None:
            raise NotDrawn(f"it needs the folder of {which}; give --{which}")
        return Path(folder)


def alignment(inputs: Inputs) -> Any:
    """The pairs of `concept_alignment` under the corrected protocol: the published one holds no rows out.

    Raises:
        NotDrawn: there are none.
    """
    table = corrected(inputs.table("concept_alignment"))
    if table is None:
        raise NotDrawn("no pair was tested under the corrected protocol; evaluate with concept_alignment.protocol=both")
    return table


def by_evidence(inputs: Inputs) -> tuple[Any, str]:
    """These, ordered by F1 on the memes that choose, without any by p over all known memes.

    Returns:
        The pairs, and what to add to a title: of pairs that test memes chose, that it flatters them.

    Raises:
        NotDrawn: no pair has an AUROC.
    """
    table = alignment(inputs)
    if table["auroc"].isna().all():
        raise NotDrawn("no pair has an AUROC on test memes")
    chosen = table["f1_validation"].notna().any()
    ordered = table.sort_values(["f1_validation", "log10_p"], ascending=[False, True], kind="stable")
    return ordered, "" if chosen else ", chosen on memes that include these: flattering"


def _plain(column: Any) -> np.ndarray:
    """As numpy types: integers and booleans where none is missing, else float64 with NaN."""
    if column.isna().any():
        return column.to_numpy(np.float64, na_value=np.nan)
    return column.to_numpy(bool if column.dtype == bool or str(column.dtype) == "boolean" else None)
