"""One function an evaluator: what of the evaluation's context and options it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluate.context import Context
from sae_lens_meme.evaluate.others import CONTROL, Unavailable, train_control, train_seed
from sae_lens_meme.evaluators.answer_key import AnswerKeyScores
from sae_lens_meme.evaluators.concept_alignment import ConceptAlignment
from sae_lens_meme.evaluators.concept_alignment.baselines import Baselines
from sae_lens_meme.evaluators.cross_modal import CrossModal
from sae_lens_meme.evaluators.influence import Influence
from sae_lens_meme.evaluators.monosemanticity import Monosemanticity
from sae_lens_meme.evaluators.naming import Naming
from sae_lens_meme.evaluators.probes import Probes
from sae_lens_meme.evaluators.question_set import QuestionSet, fuse_through, score_classes, with_conjunctions
from sae_lens_meme.evaluators.reconstruction import Reconstruction
from sae_lens_meme.evaluators.result import Result
from sae_lens_meme.evaluators.stability import Stability
from sae_lens_meme.evaluators.stock import StockEvals
from sae_lens_meme.hooks.checkpoint import read_memeclip_checkpoint

SHUFFLED = "shuffled_data"


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
    evaluator = StockEvals(c.embeddings, tasks=c.options.tasks, fitted=c.embedding_probes)
    return evaluator.evaluate(c.sae, latents=c.latents)


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
    try:
        c.controls[SHUFFLED] = train_control(c.sae_path, c.embeddings, c.folder / CONTROL)
    except Unavailable as error:
        c.skipped[f"baselines/{SHUFFLED}"] = str(error)
    evaluator = Baselines(c.embeddings, c.options.concepts, others=c.controls, seed=c.options.seed)
    return evaluator.evaluate(c.sae, latents=c.latents)


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


def _monosemanticity(c: Context) -> Result:
    evaluator = Monosemanticity(c.embeddings, reference=c.reference, seed=c.options.seed)
    return evaluator.evaluate(c.sae, latents=c.latents)


def _cross_modal(c: Context) -> Result:
    evaluator = CrossModal(
        c.embeddings,
        tasks=c.options.tasks,
        shares=(c.options.share,),
        n_bootstrap=c.options.bootstrap,
        seed=c.options.seed,
    )
    return evaluator.evaluate(c.sae, latents=c.latents)


def _naming(c: Context) -> Result:
    options = c.options
    evaluator = Naming(c.embeddings, concepts=options.concepts, n_bootstrap=options.bootstrap, seed=options.seed)
    return evaluator.evaluate(c.sae, latents=c.latents)


def _stability(c: Context) -> Result:
    others = dict(c.other_saes)
    for i in range(1, c.options.stability_seeds + 1):
        others[f"seed_{i}"] = train_seed(c.sae_path, c.embeddings, c.folder / f"seed_{i}", i)
    if not others:
        raise Unavailable("there is no SAE with another seed; pass --other-sae FOLDER or --stability-seeds 1")
    corrected = c.options.protocol != "published"
    evaluator = Stability(
        c.embeddings,
        others | c.controls,
        c.options.concepts,
        controls=list(c.controls),
        alignment=c.results.get("concept_alignment") if corrected else None,
        zscored=True,  # a few dimensions hold most of the variance: cosines of raw directions compare these alone
        n_bootstrap=c.options.bootstrap,
        seed=c.options.seed,
    )
    return evaluator.evaluate(c.sae, latents=c.latents)


def _question_set(c: Context) -> Result:
    fuse = fuse_through(read_memeclip_checkpoint(c.heads).heads) if c.heads else None
    evaluator = QuestionSet(c.embeddings, fuse=fuse, n_bootstrap=c.options.bootstrap, seed=c.options.seed)
    try:
        return evaluator.evaluate(c.sae, latents=c.latents)
    except DataError as error:  # fused vectors from elsewhere need not be the product of the two
        raise Unavailable(str(error)) from None


def _answer_key(c: Context) -> Result:
    assert c.answer_key is not None
    key = c.answer_key
    scores = AnswerKeyScores(c.embeddings, key.factors, key.kinds, seed=c.options.seed)
    found = scores.evaluate(c.sae, latents=c.latents)
    classed = c.results.get("question_set")
    if classed is None or classed.table is None or found.table is None:
        return found
    # latents of a fused space often stand for a picture's factor together with a caption's
    factors, kinds = with_conjunctions(key.factors, key.kinds)
    pairs = AnswerKeyScores(c.embeddings, factors, kinds, seed=c.options.seed).evaluate(c.sae, latents=c.latents)
    assert pairs.table is not None
    return found.joined("question_set", score_classes(classed.table, pairs.table))


STEPS: dict[str, Step] = {
    "reconstruction": Step(_reconstruction),
    "stock_evals": Step(_stock_evals, needs_labels=True),
    "concept_alignment": Step(_concept_alignment, needs_labels=True),
    "baselines": Step(_baselines, needs_labels=True),
    "probes": Step(_probes, needs_labels=True),
    "influence": Step(_influence, needs_labels=True),
    "monosemanticity": Step(_monosemanticity),
    "cross_modal": Step(_cross_modal),
    "question_set": Step(_question_set),
    "naming": Step(_naming),
    "stability": Step(_stability),
    "answer_key": Step(_answer_key),
}
