"""SAELens' own `run_evals` on held-out memes: what splicing the SAE in does to a classifier on the same embeddings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.base import Evaluator
from sae_lens_meme.evaluators.classifiers import SharedProbes, Task, tasks_of
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.result import Number, Result, defined
from sae_lens_meme.hooks.names import FUSED

MAX_BATCH = 2048
KEYS = {
    "model_performance_preservation": (
        "ce_loss_score",
        "ce_loss_with_sae",
        "ce_loss_without_sae",
        "ce_loss_with_ablation",
    ),
    "model_behavior_preservation": ("kl_div_score", "kl_div_with_sae", "kl_div_with_ablation"),
}
EXPLAIN = {
    "*/ce_loss_*": "share of the classifier's cross-entropy that is kept when the embedding is replaced by its "
    "reconstruction (1: nothing lost); control: the embedding replaced by zeros (0)",
    "*/kl_div_*": "the same of the KL divergence from the unchanged classifier's probabilities",
    "*": "test rows with a known label (fewer than one a batch of 2,048 left out, so that batches are equal); the classifier is fitted on known train rows",
}


class StockEvals(Evaluator):
    """`stock_evals` with a linear classifier for each label, fitted on the embedding.

    Args:
        tasks: labels, default every label with 2 to 20 classes.
        fitted: the probes; give other evaluators the same ones and they are fitted once.
    """

    name = "stock_evals"

    def __init__(
        self,
        embeddings: Embeddings,
        *,
        tasks: Sequence[str] | None = None,
        fitted: SharedProbes | None = None,
        seed: int = 0,
        hook: str | None = None,
    ):
        super().__init__(embeddings, hook=hook)
        self.tasks, self.fitted = tasks, fitted or SharedProbes(seed=seed)

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        tasks, _ = tasks_of(embeddings, self.tasks)
        return stock_evals(sae, classifiers(embeddings, tasks, self.fitted))


def stock_evals(sae: Any, models: Iterable[Any]) -> Result:
    """`sae_lens.evals.run_evals`, unmodified, on the test rows of each model's task.

    Args:
        sae: an SAE whose metadata names a hook of the models.
        models: `HookedMemeCLIP`s with a source of rows and a classifier, one a task.
    """
    numbers: dict[str, Number] = {}
    reasons: dict[str, str] = {}
    for model in models:
        try:
            metrics = _run(sae, model)
        except DataError as error:
            numbers[f"{model.task}/ce_loss_score"], reasons[f"{model.task}/ce_loss_score"] = None, str(error)
            continue
        for group, keys in KEYS.items():
            numbers |= {f"{model.task}/{key}": defined(metrics[group][key]) for key in keys}
    reasons |= {
        key: "zeros in place of the embedding change nothing"
        for key, v in numbers.items()
        if v is None and key not in reasons
    }
    return Result("stock_evals", numbers, reasons, explain=dict(EXPLAIN))


def classifiers(embeddings: Embeddings, tasks: Sequence[Task], probes: SharedProbes) -> Iterator[Any]:
    """A `HookedMemeCLIP` a task, its head the shared probe on `hook_fused` (fitted anew where there is no such column)."""
    from sae_lens_meme.hooks import HookedMemeCLIP

    if FUSED not in embeddings.hooks:
        yield from (HookedMemeCLIP.from_embeddings(embeddings, task.name) for task in tasks)
        return
    probes.prepare(tasks, embeddings, FUSED)
    for task in tasks:
        probe, model = probes.of(task, embeddings, FUSED), HookedMemeCLIP.from_embeddings(embeddings, fit_head=False)
        yield model.set_head(probe.coef, probe.intercept, task.name, probe.classes)


@torch.no_grad()
def _run(sae: Any, model: Any) -> dict[str, dict[str, float]]:
    from sae_lens import ActivationsStore
    from sae_lens.evals import EvalConfig, run_evals
    from sae_lens.training.activation_scaler import ActivationScaler

    rows = model.token_dataset("test")
    n_batches = max(1, math.ceil(len(rows) / MAX_BATCH))
    batch = len(rows) // n_batches
    # whole batches of equal size: run_evals goes on where it stopped and would count the first rows twice
    rows = rows.select(range(n_batches * batch))
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
    return run_evals(sae, store, model, ActivationScaler(), config)[0]
