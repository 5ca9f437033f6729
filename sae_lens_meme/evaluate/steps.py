"""One function an evaluator: what of the evaluation's context and options it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluate.context import Context
from sae_lens_meme.evaluate.others import CONTROL, Unavailable, train_control
from sae_lens_meme.evaluators.answer_key import AnswerKeyScores
from sae_lens_meme.evaluators.concept_alignment import ConceptAlignment
from sae_lens_meme.evaluators.concept_alignment.baselines import baselines
from sae_lens_meme.evaluators.influence import Influence
from sae_lens_meme.evaluators.probes import Probes
from sae_lens_meme.evaluators.probes.tasks import tasks_of
from sae_lens_meme.evaluators.reconstruction import Reconstruction
from sae_lens_meme.evaluators.result import Result
from sae_lens_meme.evaluators.stock import stock_evals


@dataclass(frozen=True)
class Step:
    run: Callable[[Context], Result]
    needs_labels: bool = False


def labels_missing(embeddings: Embeddings) -> str | None:
    """Why evaluators of labels cannot run, or None."""
    if any(len(embeddings.label(name).classes) > 1 for name in embeddings.label_names):
        return None
    return "no label has two classes; add label columns to the corpus or to the table"


def _reconstruction(c: Context) -> Result:
    return Reconstruction(c.embeddings).evaluate(c.sae, latents=c.latents)


def _stock_evals(c: Context) -> Result:
    from sae_lens_meme.hooks import HookedMemeCLIP

    tasks, _ = tasks_of(c.embeddings, c.options.tasks)
    return stock_evals(c.sae, (HookedMemeCLIP.from_embeddings(c.embeddings, task.name) for task in tasks))


def _concept_alignment(c: Context) -> Result:
    options = c.options
    evaluator = ConceptAlignment(
        c.embeddings,
        options.concepts,
        protocol=options.protocol,
        n_bootstrap=options.bootstrap,
        seed=options.seed,
    )
    return evaluator.evaluate(c.sae, latents=c.latents)


def _baselines(c: Context) -> Result:
    others = {}
    try:
        others["shuffled_data"] = train_control(c.sae_path, c.embeddings, c.folder / CONTROL)
    except Unavailable as error:
        c.skipped["baselines/shuffled_data"] = str(error)
    return baselines(c.sae, c.embeddings, c.latents, concepts=c.options.concepts, others=others, seed=c.options.seed)


def _probes(c: Context) -> Result:
    evaluator = Probes(c.embeddings, tasks=c.options.tasks, seed=c.options.seed, fitted=c.embedding_probes)
    return evaluator.evaluate(c.sae, latents=c.latents)


def _influence(c: Context) -> Result:
    evaluator = Influence(
        c.embeddings,
        tasks=c.options.tasks,
        heads=c.model_heads,
        n_bootstrap=c.options.bootstrap,
        seed=c.options.seed,
        fitted=c.embedding_probes,
    )
    return evaluator.evaluate(c.sae, latents=c.latents)


def _answer_key(c: Context) -> Result:
    assert c.answer_key is not None
    key = c.answer_key
    return AnswerKeyScores(c.embeddings, key.factors, key.kinds, seed=c.options.seed).evaluate(c.sae, latents=c.latents)


STEPS: dict[str, Step] = {
    "reconstruction": Step(_reconstruction),
    "stock_evals": Step(_stock_evals, needs_labels=True),
    "concept_alignment": Step(_concept_alignment, needs_labels=True),
    "baselines": Step(_baselines, needs_labels=True),
    "probes": Step(_probes, needs_labels=True),
    "influence": Step(_influence, needs_labels=True),
    "answer_key": Step(_answer_key),
}
