"""SAELens' own `run_evals` on held-out memes: what splicing the SAE in does to a classifier on the same embeddings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, get_args

import torch

from sae_lens_meme import options
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.base import Evaluator
from sae_lens_meme.evaluators.classifiers import ReadsProbes, SharedProbes, Task, tasks_of
from sae_lens_meme.evaluators.latents import Latents, hook_of
from sae_lens_meme.evaluators.result import Control, Measure, Quantity, Result, Section
from sae_lens_meme.hooks.names import EMBEDDING_HOOKS, FUSED
from sae_lens_meme.metrics import LEAST_GAIN
from sae_lens_meme.options import Count

MAX_BATCH = 2048
NOT_FINITE = "it is not finite: the classifier or these embeddings are too large or too small for float32"
_LOSS = "cross-entropy of the classifier in nats, mean over rows"
_KL = "KL divergence in nats of the classifier's probabilities from those on the embedding, mean over rows"
QUANTITIES = (
    Quantity("ce_loss_without_sae", f"{_LOSS}, on the embedding", NOT_FINITE),
    Quantity("ce_loss_with_sae", f"{_LOSS}, on its reconstruction", NOT_FINITE),
    Quantity("ce_loss_with_ablation", f"control: {_LOSS}, on zeros", NOT_FINITE),
    Quantity("kl_div_with_sae", f"{_KL}, on its reconstruction", NOT_FINITE),
    Quantity("kl_div_with_ablation", f"control: {_KL}, on zeros", NOT_FINITE),
)
N = Quantity("n", "rows that are measured; fewer than one per batch of 2,048 are left out, so that batches are equal")
CE_SCORE = Quantity(
    "ce_loss_score",
    "share of what the classifier gains over zeros in place of the embedding (cross-entropy) that is kept with the "
    "reconstruction in its place; 1: nothing is lost, 0: as bad as zeros",
)
KL_SCORE = Quantity("kl_div_score", "the same share of the KL divergence that zeros cause")
SECTION = Section(
    "SAELens' run_evals: share of a linear classifier's gain over zeros that splicing the SAE in keeps",
    "1: nothing lost by replacing the embedding with its reconstruction; zeros: the embedding replaced by zeros, a weak "
    "rival; loss: cross-entropy on the embedding, with SAE: on its reconstruction, with zeros: on zeros",
)


class StockEvals(ReadsProbes, Evaluator):
    """`stock_evals` with a linear classifier for each label, fitted on the embedding.

    Args:
        fitted: the probes; give other evaluators the same ones and they are fitted once.
        options: fields of `Options`.
    """

    name = "stock_evals"
    question = "SAELens' own `run_evals`: cross-entropy and KL divergence of a classifier after splicing the SAE in"
    control = "zeros in place of the embedding"
    needs_labels = True

    class Options(options.Options):
        tasks: Sequence[str] | None = None
        """Labels; default every label with 2 to 20 classes."""
        seed: Count = 0
        """Draws the rows of probes that are fitted on a part of them."""

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        tasks, skipped = tasks_of(embeddings, self.options.tasks)
        hook = hook_of(sae, embeddings, self.hook)
        with reads(sae, hook):
            return stock_evals(sae, classifiers(embeddings, tasks, self.fitted, hook), skipped)


def stock_evals(sae: Any, models: Iterable[Any], skipped: Mapping[str, str] | None = None) -> Result:
    """`sae_lens.evals.run_evals`, unmodified, on the test rows of each model's task (validation rows where it has none).

    Args:
        sae: an SAE whose metadata names a hook of the models.
        models: `HookedMemeCLIP`s with a source of rows and a classifier, one per task.
        skipped: labels without a model -> why.
    """
    found = {model.task: _measured(sae, model) for model in models}
    found |= {task: _undefined(task, reason) for task, reason in (skipped or {}).items()}
    measures = tuple(measure for of_task in found.values() for measure in of_task.values())
    return Result("stock_evals", SECTION, measures, verdict=_verdict(found))


def _measured(sae: Any, model: Any) -> dict[str, Measure]:
    """By key; the score alone, undefined, where nothing can be measured."""
    try:
        split, rows = _labelled(model)
        metrics = _run(sae, model, rows)
    except DataError as error:
        return _undefined(model.task, f"label {model.task!r}: {error}")
    except ZeroDivisionError:
        return _undefined(model.task, f"label {model.task!r}: {_too_little(0.0)}")
    what = f"{len(rows)} known {split} rows; the classifier is fitted on known train rows"
    found = {q.key: q(metrics[q.key], model.task, rows=what) for q in QUANTITIES}
    losses = found["ce_loss_with_ablation"].value, found["ce_loss_without_sae"].value
    gain = None if None in losses else losses[0] - losses[1]  # type: ignore[operator]
    for score, lost in ((CE_SCORE, gain), (KL_SCORE, found["kl_div_with_ablation"].value)):
        reason = _too_little(lost) if lost is not None and lost < LEAST_GAIN else None
        found[score.key] = score(
            None if reason else metrics[score.key], model.task, rows=what, reason=reason or NOT_FINITE
        )
    found[N.key] = N(len(rows), model.task, rows=f"known {split} rows")
    if losses[1] is not None:
        found[CE_SCORE.key] = found[CE_SCORE.key].row(
            f"{model.task} ({len(rows)} {split} memes)",
            Control("zeros", 0, "zeros in place of the embedding keep nothing"),
            found["ce_loss_without_sae"].control("loss"),
            found["ce_loss_with_sae"].control("with SAE"),
            found["ce_loss_with_ablation"].control("with zeros"),
        )
    return found


def _undefined(task: str, reason: str) -> dict[str, Measure]:
    return {CE_SCORE.key: CE_SCORE(None, task, reason=reason)}


def _too_little(lost: float) -> str:
    return (
        f"zeros in place of the embedding cost the classifier {lost:.2g} nats; below {LEAST_GAIN} no share is defined"
    )


def _verdict(found: dict[str, dict[str, Measure]]) -> str | None:
    if not any(N.key in measures for measures in found.values()):
        return None
    scores: dict[str, Any] = {task: measures[CE_SCORE.key].value for task, measures in found.items()}
    rows = sorted((score, task) for task, score in scores.items() if score is not None)
    if not rows:
        return "No classifier loses anything to zeros in place of the embedding, so nothing says what splicing costs."
    (worst, task), (best, _) = rows[0], rows[-1]
    kept = f"{worst:.0%} ({task})" if len(rows) == 1 else f"{worst:.0%} ({task}) to {best:.0%}"
    return (
        f"Splicing the SAE in keeps {kept} of what linear classifiers gain over zeros, a weak rival "
        f"({len(rows)} of {len(found)} labels)."
    )


def classifiers(
    embeddings: Embeddings, tasks: Sequence[Task], probes: SharedProbes, hook: str = FUSED
) -> Iterator[Any]:
    """A `HookedMemeCLIP` per task with this hook, its head the shared probe on `hook_fused`.

    The head is refitted where there is no such column.

    Raises:
        DataError: the classifier does not read what is at `hook`, or no model fuses as these vectors were.
    """
    from sae_lens_meme.hooks import HookedMemeCLIP
    from sae_lens_meme.hooks.towers import Fusion

    if not any(name in embeddings.hooks for name in EMBEDDING_HOOKS):
        raise DataError(f"no classifier reads {hook}: these are rows of single tokens, not of whole pictures")
    if (fusion := embeddings.facts.get("fusion")) not in {None, *get_args(Fusion)}:
        raise DataError(f"no model makes these vectors (fusion {fusion!r}), so there is none to splice the SAE into")
    shared = FUSED in embeddings.hooks
    if shared:
        embeddings.require_finite(FUSED)
        probes.prepare(tasks, embeddings, FUSED)
    for task in tasks:
        model = HookedMemeCLIP.from_embeddings(embeddings, task.name, fit_head=not shared)
        if hook not in model.hook_dict or (shared and model.as_stored and hook != FUSED):
            raise DataError(f"{hook} is not read by a classifier on {FUSED}; give an SAE at {FUSED}, or leave this out")
        if shared:
            probe = probes.of(task, embeddings, FUSED)
            model.set_head(probe.coef, probe.intercept, task.name, probe.classes)
        yield model


@contextmanager
def reads(sae: Any, hook: str) -> Iterator[None]:
    """Name the hook in the SAE's metadata, where SAELens looks for it, and leave them as they were found."""
    metadata = sae.cfg.metadata
    before, metadata.hook_name = metadata.hook_name, hook
    try:
        yield
    finally:
        metadata.hook_name = before


def _labelled(model: Any) -> tuple[str, Any]:
    """The split and rows that measure the model's task, in whole batches of equal size."""
    try:
        split, rows = "test", model.token_dataset("test")
    except DataError as error:
        try:
            split, rows = "validation", model.token_dataset("validation")
        except DataError:
            raise error from None
    # run_evals goes on where it stopped and would count the first rows twice
    n_batches = max(1, math.ceil(len(rows) / MAX_BATCH))
    return split, rows.select(range(len(rows) // n_batches * n_batches))


@torch.no_grad()
def _run(sae: Any, model: Any, rows: Any) -> dict[str, float]:
    from sae_lens import ActivationsStore
    from sae_lens.evals import EvalConfig, run_evals
    from sae_lens.training.activation_scaler import ActivationScaler

    n_batches = max(1, math.ceil(len(rows) / MAX_BATCH))
    batch = len(rows) // n_batches
    # not `from_sae`: it asks for metadata of language models, which an SAE made elsewhere need not have
    store = ActivationsStore(
        model,
        rows,
        streaming=False,
        hook_name=sae.cfg.metadata.hook_name,
        hook_head_index=None,
        context_size=1,
        d_in=sae.cfg.d_in,
        n_batches_in_buffer=n_batches,
        total_training_tokens=len(rows),
        store_batch_size_prompts=batch,
        train_batch_size_tokens=batch,
        prepend_bos=False,
        normalize_activations="none",
        device=sae.device,
        dtype="float32",
    )
    rows.reset_format()  # the store asks for a tensor a row, which takes longer than all that follows
    config = EvalConfig(
        batch_size_prompts=batch,
        n_eval_reconstruction_batches=n_batches,
        compute_kl=True,
        compute_ce_loss=True,
    )
    groups = run_evals(sae, store, model, ActivationScaler(), config)[0]
    return groups["model_performance_preservation"] | groups["model_behavior_preservation"]
