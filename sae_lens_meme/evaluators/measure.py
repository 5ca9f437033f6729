"""An evaluation in memory: an SAE and embeddings in, a result that a notebook shows out. Nothing is written."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from sae_lens_meme.embed.in_memory import save_embeddings
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.evaluators.cautions import cautions
from sae_lens_meme.evaluators.content import LATENTS, content_of
from sae_lens_meme.evaluators.context import Context
from sae_lens_meme.evaluators.latents import encode
from sae_lens_meme.evaluators.opened import (
    hook_of,
    load_others,
    memes_of,
    require_concepts_of,
    require_other_seeds,
    require_same_memes,
    sae_of,
    sae_weights,
)
from sae_lens_meme.evaluators.options import EvaluateOptions
from sae_lens_meme.evaluators.result import Result
from sae_lens_meme.evaluators.run import run_evaluators, write_results
from sae_lens_meme.evaluators.stock_evals import reads
from sae_lens_meme.planted import read_answer_key
from sae_lens_meme.report import draw_figure, figure_of, report_fragment, report_text
from sae_lens_meme.storage import StepFolder

if TYPE_CHECKING:
    from sae_lens_meme.evaluators.latent_table import LatentTable


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was found. A notebook shows it as tables; `print` shows them as text."""

    content: dict[str, Any]
    """As in `evaluation.json`."""
    results: Mapping[str, Result]
    """By evaluator: `numbers`, `explain`, `table`, `verdict`."""
    sae: Any = None
    embeddings: Any = None
    latents: Any = None
    """The `Latents` of every meme."""
    options: EvaluateOptions | None = None

    def __getitem__(self, evaluator: str) -> Result:
        if evaluator not in self.results:
            reason = self.content["skipped"].get(evaluator, f"it has {', '.join(self.results) or 'none'}")
            raise ConfigError(f"there is no result of {evaluator!r}: {reason}")
        return self.results[evaluator]

    @property
    def rows(self) -> pd.DataFrame:
        """The printed tables as one: section, measure, value, low, high, and a column a control."""
        rows = [
            {**{k: v for k, v in row.items() if k != "controls"}, **row["controls"]} for row in self.content["table"]
        ]
        return pd.DataFrame(rows)

    def figure(self, path: str | Path | None = None) -> Any:
        """The figure of an evaluation: written as a PNG, of which the path comes back, or as a matplotlib `Figure`.

        Raises:
            ConfigError: none of these evaluators is drawn.
        """
        drawn = figure_of(self.content) if path is None else draw_figure(self.content, Path(path))
        if not drawn:
            raise ConfigError(f"{', '.join(self.results) or 'this evaluation'}: has no figure; evaluate contest too")
        return drawn if path is None else Path(path)

    def latent_table(self, corpus: Any = None, *, n: int = 50) -> LatentTable:
        """The latents that fire on most held-out memes, a row each; in a notebook with pictures of their whole range.

        Args:
            corpus: a `datasets.DatasetDict` or `Dataset` with `id` and `image`, or the folder of a corpus.
            n: rows.
        """
        from sae_lens_meme.evaluators.latent_table import latent_table

        return latent_table(self, corpus, n)

    def save(self, out: str | Path, *, overwrite: bool = False) -> Path:
        """Write the folders `sae`, `embeddings` and `evaluation`, which every command and `export` read.

        Raises:
            StorageError: another evaluation is there.
        """
        folder, hook = Path(out), self.content["sae"]["hook"]
        memes = save_embeddings(self.embeddings, folder / "embeddings", overwrite=overwrite)
        for weights in self.sae.parameters():  # safetensors writes no transposed view, such as of tied weights
            weights.data = weights.data.contiguous()
        with reads(self.sae, hook):
            self.sae.save_model(folder / "sae")
        made = {
            **{"sae": sae_weights(folder / "sae"), "embeddings": memes.fingerprint, "hook": hook},
            **{"options": {} if self.options is None else self.options.recorded()},
            **{"reference": None, "other_saes": {}, "answer_key": None},
        }
        with StepFolder(folder / "evaluation", "evaluate", made, overwrite=overwrite) as step:
            if not step.complete:
                step.write(LATENTS, self.latents.save)
                write_results(step, self.content, self.results)
        return folder

    def __str__(self) -> str:
        return report_text(self.content)

    def _repr_html_(self) -> str:
        return report_fragment(self.content)


def measure(
    sae: Any,
    embeddings: Embeddings | str | Path,
    *,
    reference: Embeddings | str | Path | None = None,
    other_saes: Mapping[str, Any] | Collection[str | Path] = (),
    progress: bool = True,
    **options: Any,
) -> Evaluation:
    """Evaluate an SAE in memory, with the evaluators and options of `evaluate`.

    Args:
        sae: any SAELens SAE, or its folder.
        embeddings: see `as_embeddings`, or the folder that `embed` wrote.
        reference: the same memes by another encoder, for monosemanticity.
        other_saes: SAEs of the same recipe with other seeds, by name, or their folders, for stability and the contest.
        options: other fields of `EvaluateOptions`, such as `only=["contest"]` and `hook="hook_fused"`.

    Raises:
        ConfigError: a wrong option, an SAE that names no hook while none is given, or one that is compared with itself.
        DataError: from an evaluator that runs alone.
    """
    memes, other = memes_of(embeddings), None if reference is None else memes_of(reference)
    chosen = EvaluateOptions(**options)
    chosen.check()
    if chosen.engine != "local":
        raise ConfigError("measure has what is in this process' memory; `evaluate` runs on a cluster, on folders")
    memes = memes.without_contaminated() if chosen.exclude_leaks else memes
    dictionary = sae_of(sae, chosen.hook, chosen.converter)
    require_concepts_of(chosen, memes)
    require_same_memes(memes, other)
    hook = hook_of(dictionary, memes, chosen.hook)
    others = _named(other_saes, hook)
    require_other_seeds(dictionary, others)
    with reads(dictionary, hook):
        context = Context(
            *(dictionary, memes, encode(dictionary, memes, hook), chosen),
            reference=other,
            other_saes=others,
            answer_key=read_answer_key(chosen.answer_key) if chosen.answer_key else None,
            warnings=cautions(dictionary, memes),
        )
        run_evaluators(context, chosen.names(), progress)
        return Evaluation(content_of(context), context.results, dictionary, memes, context.latents, chosen)


def _named(saes: Mapping[str, Any] | Collection[str | Path], hook: str) -> dict[str, Any]:
    if isinstance(saes, Mapping):
        return {str(name): sae for name, sae in saes.items()}
    return {name: sae for name, (_, sae) in load_others(saes, hook).items()}
