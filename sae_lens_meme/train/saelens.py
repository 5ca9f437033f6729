"""What SAELens refuses, prints, seeds and saves: its refusals become our errors, before the first step if possible."""

from __future__ import annotations

import copy
import json
import logging
import posixpath
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sae_lens import TrainingSAE
from sae_lens.config import SAETrainerConfig
from sae_lens.constants import SAE_CFG_FILENAME, SAE_WEIGHTS_FILENAME, SPARSITY_FILENAME
from sae_lens.saes.sae import TrainStepInput
from sae_lens.training import activation_scaler, multi_sae_trainer, sae_trainer
from sae_lens.training.sae_trainer import SAETrainer
from safetensors.torch import save_file
from torch import Tensor

from sae_lens_meme.errors import ConfigError, MemeError
from sae_lens_meme.progress import draws_bars
from sae_lens_meme.storage import StepFolder

_BATCH = 8


class CannotStandardizeError(ConfigError):
    """An SAE into which standardisation cannot be folded."""


def try_out(sae: TrainingSAE[Any], *, standardize: bool) -> None:
    """A forward and a backward pass on random rows with all latents dead, and the fold of standardised input, on a copy of the SAE.

    Raises:
        ConfigError: SAELens cannot train this SAE, or not on standardised input.
    """
    cfg, architecture = sae.cfg, sae.cfg.architecture()
    if standardize and cfg.normalize_activations != "none":
        raise ConfigError(
            f"train.sae.normalize_activations {cfg.normalize_activations!r} "
            "would normalise standardised input a second time; add standardize: false"
        )
    with seeded(0), quiet(False), refused_by_saelens(f"train.sae ({architecture})"):
        trial = copy.deepcopy(sae)
        trainer = SAETrainer(SAETrainerConfig(_BATCH, _BATCH, lr_end=0.0, device=str(sae.device)), trial, iter(()))
        output = trial.training_forward_pass(
            TrainStepInput(
                sae_in=torch.randn(_BATCH, cfg.d_in, dtype=sae.dtype, device=sae.device),
                coefficients=trainer.get_coefficients(),
                dead_neuron_mask=torch.ones(cfg.d_sae, dtype=torch.bool, device=sae.device),
                n_training_steps=0,
                is_logging_step=False,
            )
        )
        output.loss.backward()
        if standardize:
            identity = torch.eye(cfg.d_in, dtype=sae.dtype, device=sae.device)
            try:
                trial.fold_activation_whitening(torch.zeros_like(identity[0]), identity, identity)
            except NotImplementedError:
                raise CannotStandardizeError(
                    f"train.sae.architecture {architecture} cannot take standardised input; add standardize: false"
                ) from None


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's random state starts from `seed` and gradients are on; both are put back afterwards."""
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@contextmanager
def refused_by_saelens(where: str = "train") -> Iterator[None]:
    """What SAELens cannot do with a config is an error in the config, whatever it raises."""
    try:
        yield
    except (MemeError, OSError):
        raise
    except Exception as error:
        who = (
            "wandb" if type(error).__module__.startswith("wandb") else "SAELens"
        )  # not logged in, no such project, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, RuntimeError):  # torch's, NotImplementedError among them, go on for pages
            reason = re.split(r"(?<=\.) ", reason)[0]
        elif not isinstance(error, (AssertionError, TypeError, ValueError)):
            reason = f"{type(error).__name__}: {reason}"
        if who == "wandb":
            reason = f"{reason.rstrip('.')}; without an account set WANDB_MODE=offline, or logger.log_to_wandb: false"
        raise ConfigError(f"{where}: {who} refuses this config: {reason}") from error


@contextmanager
def quiet(progress: bool) -> Iterator[None]:
    """Without SAELens' warnings about overridden datasets and repeated samples, which here are the plan.

    Its bars are drawn in a terminal or a notebook, never into a log.
    """
    logger = logging.getLogger("sae_lens")
    modules: tuple[Any, ...] = (sae_trainer, multi_sae_trainer, activation_scaler)
    level, bars = logger.level, [module.tqdm for module in modules]
    logger.setLevel(max(level, logging.ERROR))
    for module, bar in zip(modules, bars, strict=True):
        module.tqdm = partial(bar, disable=not (progress and draws_bars()))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The training dataset contains fewer samples")
            warnings.filterwarnings("ignore", message="All samples in the training dataset have been exhausted")
            warnings.filterwarnings(
                "ignore", message="To copy construct from a tensor"
            )  # its store does so for each row
            warnings.filterwarnings("ignore", message="decoder_init_norm must be set to 1.0")
            warnings.filterwarnings("ignore", message="\\nThis SAE has non-empty model_from_pretrained_kwargs")
            yield
    finally:
        logger.setLevel(level)
        for module, bar in zip(modules, bars, strict=True):
            module.tqdm = bar


def write_saved(folder: StepFolder, made: str | Path, sparsity: Tensor | None = None, name: str = "") -> None:
    """The files of an SAE that SAELens saved in `made`, in `folder` or the folder `name` in it."""
    files, cfg = [SAE_CFG_FILENAME, SAE_WEIGHTS_FILENAME], Path(made) / SAE_CFG_FILENAME
    cfg.write_text(json.dumps(json.loads(cfg.read_text()), sort_keys=True))  # its keys are those of a set, in any order
    if sparsity is not None:
        save_file({"sparsity": sparsity}, Path(made) / SPARSITY_FILENAME)
        files.append(SPARSITY_FILENAME)
    for file in files:
        folder.write(posixpath.join(name, file), partial(shutil.copyfile, Path(made) / file))
