"""Training on positions as the model makes them: SAELens' runner and its store, nothing patched.

For what is too large to keep: all positions of a chat model. There are no epochs; a killed run goes on where its last
checkpoint was, to the same weights. SAELens' store keeps its mixing buffer in a generator, of which nothing can be saved,
and counts rows of its dataset one behind what it has read: batches are mixed here, as it mixes them, with a state that a
checkpoint can hold.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from sae_lens import SAE, ActivationsStore, LanguageModelSAERunnerConfig, LanguageModelSAETrainingRunner, TrainingSAE
from sae_lens.constants import RUNNER_CFG_FILENAME
from sae_lens.evals import EvalConfig, run_evals
from sae_lens.training.activation_scaler import ActivationScaler
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError, ModelError
from sae_lens_meme.hooks import HookedModel, HookedVLM
from sae_lens_meme.hooks.names import IMAGE_RESID
from sae_lens_meme.metrics import LEAST_GAIN
from sae_lens_meme.provenance import describe_training_rows
from sae_lens_meme.storage import StepFolder, to_json
from sae_lens_meme.train.checkpoint import CHECKPOINTS, Checkpoints
from sae_lens_meme.train.config import TrainConfig
from sae_lens_meme.train.folder import training_folder
from sae_lens_meme.train.given import given_sha256, load_given
from sae_lens_meme.train.monitor import Monitor
from sae_lens_meme.train.saelens import quiet, refused_by_saelens, seeded, write_saved
from sae_lens_meme.train.session import Session, replaced

MOST_BATCHES, BATCH = 64, 4
"""Batches of validation rows that the trained SAE is measured on, and rows of each."""


class TokenSAETrainingRunner(LanguageModelSAETrainingRunner):
    """SAELens' runner on the positions of a model's rows.

    Args:
        cfg: its own config; `TrainConfig.runner_config(..., positions=N)` makes one.
        model: with a source attached.
        keep: the kinds of positions that are trained on: `text`, `image`, `special`.
        split: the rows that are.
        override_sae: weights to begin with.
        checkpoint_folder: where checkpoints go (default `cfg.checkpoint_path`), each with SAELens' mixing buffer; a
            complete one that lies there is resumed.

    Raises:
        ConfigError: batches are to be drawn ahead, which no checkpoint holds.
    """

    trainer: SAETrainer[Any, Any]

    def __init__(
        self,
        cfg: LanguageModelSAERunnerConfig[Any],
        model: HookedModel,
        *,
        keep: str | Collection[str] = ("text", "image"),
        split: str | None = "train",
        override_sae: TrainingSAE[Any] | None = None,
        checkpoint_folder: str | Path | None = None,
    ):
        folder = checkpoint_folder or cfg.checkpoint_path
        self._checkpoints = Checkpoints(folder) if folder else None
        if cfg.prefetch_llm_batches:
            raise ConfigError(
                "train.prefetch_llm_batches draws batches ahead of the step, which no checkpoint holds; leave it out"
            )
        rows = model.token_dataset(split, keep=keep, hook=cfg.hook_name, labelled=False)
        super().__init__(cfg, rows, model, override_sae)
        if cfg.logger.log_to_wandb:  # its evaluations draw rows, which are then not trained on
            self.evaluator.activations_store = ActivationsStore.from_config(model, cfg, rows)

    def run_trainer_with_interruption_handling(self, trainer: SAETrainer[Any, Any]) -> TrainingSAE[Any]:
        """As SAELens', with checkpoints that the rest of the run follows from."""
        self.trainer = trainer
        trainer.data_provider = batches = MixedPositions(self.activations_store)
        return Session({"": trainer}, trainer, batches, Monitor(), self._checkpoints).fit(trainer.fit)


def train_on_positions(
    config: TrainConfig,
    model: HookedModel,
    out: str | Path,
    *,
    memes: Embeddings | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> SAE[Any]:
    """Train on the kept positions of the train rows, or go on with a run that was interrupted; a finished one is only loaded.

    Args:
        config: its `keep` names the kinds of positions.
        model: with its memes attached.
        memes: their ids and splits, by which test memes are known to be new to the SAE.

    Raises:
        ConfigError: an option that needs epochs, or no `keep`.
        ModelError: the positions of the hook are not those of the rows (a tower inside a chat model).
    """
    recipe, hook = config.recipe, config.hooks.get("")
    if recipe.keep is None or hook is None:
        raise ConfigError("train: a model with many positions needs keep, such as keep: [text, image], and one hook")
    for key in ("standardize", "early_stopping_epochs"):
        if key in recipe.model_fields_set and getattr(recipe, key):
            raise ConfigError(f"train.{key} needs rows that can be read twice; leave it out, or train on token rows")
    if isinstance(model, HookedVLM) and model.rows_differ(hook):
        source: Any = model.source
        if (images := getattr(source, "images", None)) is None or not hook.startswith(IMAGE_RESID):
            raise ModelError(
                f"{hook}: its positions are not those of the rows; train on token rows, embed --hook {hook}"
            )
        how: Any = {"memes": memes, "overwrite": overwrite, "progress": progress}
        with closing(model.tower()) as tower:
            return train_on_positions(config, tower.attach_memes(images, None, splits=source.splits), out, **how)
    rows = model.token_dataset("train", keep=recipe.keep, hook=hook, labelled=False)
    tokens: Any = rows.with_format("numpy")["input_ids"][:]
    cfg = config.runner_config(model.d(hook), int((tokens > 0).sum()), hook, positions=tokens.shape[1])
    given = {name: given_sha256(path) for name, path in config.given.items()}
    fingerprint = {
        "model": model.fingerprint,
        "config": cfg.to_dict(),
        "keep": sorted(recipe.keep),
        "begun_with": given,
    }
    fingerprint |= {"rows": tokens.shape} | ({"memes": memes.fingerprint} if memes is not None else {})
    with training_folder(out, fingerprint, overwrite=overwrite) as folder:
        if not folder.complete:
            made = {**cfg.to_dict(), "sae_lens_meme": {"keep": list(recipe.keep)}}
            folder.write_text(RUNNER_CFG_FILENAME, to_json(made))
            begun = {name: load_given(path, cfg.sae, hook) for name, path in config.given.items()}
            with seeded(cfg.seed), quiet(progress), refused_by_saelens():
                how = {"keep": recipe.keep, "checkpoint_folder": folder.path / CHECKPOINTS}
                runner = TokenSAETrainingRunner(cfg, model, override_sae=begun.get(""), **how)
                runner.run()
            with quiet(False):
                _write(folder, runner, recipe.keep, memes)
    return SAE.load_from_disk(out)


def _write(folder: StepFolder, runner: TokenSAETrainingRunner, keep: Sequence[str], memes: Embeddings | None) -> None:
    beside = folder.path / ".inference"
    runner.sae.save_inference_model(beside)
    if memes is not None:
        saved = SAE.load_from_disk(beside)
        for key, value in describe_training_rows(saved, memes).items():
            saved.cfg.metadata[key] = value
        saved.save_model(beside)
    write_saved(folder, beside, runner.trainer.log_feature_sparsity)
    shutil.rmtree(beside)
    sae = SAE.load_from_disk(folder.path)
    facts = held_out(sae, runner.model, keep)  # type: ignore[arg-type]
    shutil.rmtree(folder.path / CHECKPOINTS, ignore_errors=True)
    steps = {"steps": runner.trainer.n_training_steps, "training_tokens": runner.trainer.n_training_samples}
    folder.finish(**facts, **steps, d_in=sae.cfg.d_in, d_sae=sae.cfg.d_sae)


def held_out(sae: SAE[Any], model: HookedModel, keep: str | Collection[str]) -> dict[str, Any]:
    """SAELens' `run_evals` on the kept positions of validation rows, of test rows where there are none."""
    for split in ("validation", "test"):
        try:
            rows = model.token_dataset(split, keep=keep, hook=sae.cfg.metadata.hook_name, labelled=False)
        except DataError:
            continue
        n_batches = min(MOST_BATCHES, math.ceil(len(rows) / BATCH))
        batch = min(BATCH, len(rows) // n_batches)
        rows = rows.select(range(n_batches * batch))  # of equal size: run_evals would begin again at the first
        return {"held_out_split": split, **_measured(sae, model, rows, batch, n_batches)}
    return {"validation_n": 0, "validation_explained_variance": None, "validation_reason": "no validation rows"}


@torch.no_grad()
def _measured(sae: SAE[Any], model: HookedModel, rows: Any, batch: int, n_batches: int) -> dict[str, Any]:
    positions = rows.with_format("numpy")["input_ids"][:]

    def evaluated(losses: bool) -> Any:
        store = ActivationsStore.from_sae(
            *(model, sae, rows),
            streaming=False,
            context_size=positions.shape[1],
            store_batch_size_prompts=batch,
            device=str(sae.device),
        )
        config = EvalConfig(
            batch_size_prompts=batch,
            n_eval_reconstruction_batches=n_batches,
            n_eval_sparsity_variance_batches=n_batches,
            compute_ce_loss=losses,
            compute_kl=losses,
            compute_sparsity_metrics=True,
            compute_variance_metrics=True,
            compute_featurewise_density_statistics=True,
        )
        return run_evals(sae, store, model, ActivationScaler(), config, exclude_special_tokens=[0])

    try:
        groups, by_latent = evaluated(model.writes)
    except ZeroDivisionError:  # SAELens divides by what zeros at the hook cost, which here is nothing at all
        groups, by_latent = evaluated(False)
    found = {key: value for group in groups.values() for key, value in group.items()}
    words = ("ce_loss_with_sae", "ce_loss_without_sae", "ce_loss_with_ablation", "kl_div_with_sae")
    kept = _kept(found) if model.writes else {}
    return {
        "validation_n": int((positions > 0).sum()),
        "validation_explained_variance": _finite(found["explained_variance"]),
        "validation_l0": found["l0"],
        "validation_never_fired": sum(density == 0 for density in by_latent["feature_density"]),
        **{f"validation_{key}": _finite(found[key]) for key in words if key in found},
        **{f"validation_ce_loss_{key}": value for key, value in kept.items()},
    }


def _kept(found: dict[str, Any]) -> dict[str, Any]:
    """The share of what the model gains over zeros that the reconstruction keeps, where it gains anything."""
    gain = found.get("ce_loss_with_ablation", 0.0) - found.get("ce_loss_without_sae", 0.0)
    if gain < LEAST_GAIN:
        return {
            "score": None,
            "reason": f"zeros at the hook cost the model {gain:.2g} nats; below {LEAST_GAIN} no share is defined",
        }
    return {"score": _finite(found["ce_loss_score"])}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


class MixedPositions(Iterator[Tensor]):
    """What `store.get_data_loader()` serves, batch for batch: a test compares them."""

    def __init__(self, store: ActivationsStore):
        self._store = store
        self._chunks = store._iterate_filtered_activations()
        self._n_chunks = 0
        empty = torch.empty(0, store.d_in, device=store.device)
        self._held, self._ready, self._latest = empty, empty, empty

    @torch.no_grad()
    def __next__(self) -> Float[Tensor, "batch d_in"]:
        n = self._store.train_batch_size_tokens
        while len(self._ready) < n:
            self._refill(n)
        self._latest, self._ready = self._ready[:n], self._ready[n:]
        return self._latest

    def take_back(self) -> None:
        """Serve the latest batch once more."""
        self._ready = torch.cat([self._latest, self._ready])

    def _refill(self, batch: int) -> None:
        """Read one chunk; mix and serve once the buffer is full, but for the share that is mixed with the next."""
        size = self._store.n_batches_in_buffer * self._store.training_context_size
        share = self._store.activations_mixing_fraction
        held = torch.cat([self._held, next(self._chunks)])
        self._n_chunks += 1
        if len(held) < size:
            self._held = held
            return
        if share > 0:
            held = held[torch.randperm(len(held))]
        n = max(1, (len(held) - int(size * share)) // batch) * batch
        self._ready, self._held = held[:n], held[n:]

    def state_dict(self) -> dict[str, Any]:
        """Copies: a file of tensors takes none that share memory."""
        return {"n_chunks": self._n_chunks, "held": self._held.clone(), "ready": self._ready.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Of a new object: the dataset is read on to where it was, without the model."""
        store, device = self._store, self._store.device

        def tokens(raise_on_epoch_end: bool = False) -> Tensor:
            return store.get_batch_tokens(raise_at_epoch_end=raise_on_epoch_end, move_to_model_device=False)

        with replaced(store, "get_filtered_llm_batch", tokens):
            while self._n_chunks < state["n_chunks"]:
                next(self._chunks)
                self._n_chunks += 1
        self._held, self._ready = state["held"].to(device), state["ready"].to(device)
