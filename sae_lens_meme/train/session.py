"""One run of SAELens' training loop plus what it lacks: exact checkpoints, signal handling, a stop at NaN, epochs.

SAELens calls `full_sparsity_window_log` before each step and once after the last, when every part of
the state agrees: all of this is attached there, on the instance, and removed afterwards.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from sae_lens.saes.sae import TrainStepInput, TrainStepOutput
from sae_lens.training.sae_trainer import SAETrainer

from sae_lens_meme.errors import NonFiniteError
from sae_lens_meme.train.adam import use_fused_adam
from sae_lens_meme.train.checkpoint import Checkpoints, Provider
from sae_lens_meme.train.monitor import Monitor, Trainers

Result = TypeVar("Result")


class Session:
    """Runs `fit` of one SAETrainer, or of a MultiSAETrainer over several.

    Args:
        trainers: by name of the SAE; they advance in lockstep.
        coordinator: the trainer whose `fit` is run.
        provider: what the coordinator draws batches from.
        monitor: receives the losses and the end of each epoch, where there are any.
        checkpoints: where to leave checkpoints, or None to leave none.
    """

    def __init__(
        self,
        trainers: Trainers,
        coordinator: Any,
        provider: Provider,
        monitor: Monitor,
        checkpoints: Checkpoints | None,
    ):
        self._trainers = trainers
        self._coordinator = coordinator
        self._provider = provider
        self._monitor = monitor
        self._checkpoints = checkpoints
        self._thresholds = list(coordinator.checkpoint_thresholds)
        coordinator.checkpoint_thresholds.clear()  # SAELens' own are taken before the step is counted
        self._signal: int | None = None

    def fit(self, fit: Callable[[], Result]) -> Result:
        """Run or resume.

        Raises:
            NonFiniteError: a loss was NaN or infinite; the weights before that step are checkpointed.
            KeyboardInterrupt: SIGINT came; the state is checkpointed.
            SystemExit: SIGTERM came (143); the state is checkpointed.
        """
        self._resume()
        for trainer in self._trainers.values():
            use_fused_adam(trainer)
        with ExitStack() as stack:
            for name, trainer in self._trainers.items():
                forward = self._checked(name, trainer, trainer.sae.training_forward_pass)
                stack.enter_context(replaced(trainer.sae, "training_forward_pass", forward))
            first = next(iter(self._trainers.values()))
            between = self._between_steps(first.full_sparsity_window_log)
            stack.enter_context(replaced(first, "full_sparsity_window_log", between))
            stack.enter_context(self._signals())
            return fit()

    def _between_steps(self, original: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
        def between_steps() -> dict[str, Any]:
            self._end_epoch_if_due()
            self._stop_if_signalled()
            if self._finished:
                self._monitor.restore_best()
            elif self._thresholds and self._n_samples > self._thresholds[0]:
                self._save()
                self._thresholds = [t for t in self._thresholds if t >= self._n_samples]
            return original()

        return between_steps

    def _end_epoch_if_due(self) -> None:
        if self._monitor.stalled or not self._monitor.due(self._n_samples, self._finished):
            return
        records = self._monitor.end_epoch(self._n_samples)
        self._log_to_wandb(records)
        if self._monitor.stalled:
            self._stop_after_this_step()

    def _stop_after_this_step(self) -> None:
        """`fit` looks at the total before each step only: one more follows, and the best weights undo it."""
        self._coordinator.cfg.total_training_samples = self._n_samples + 1

    def _stop_if_signalled(self) -> None:
        if self._signal is None:
            return
        self._save()
        if self._signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + self._signal)

    def _checked(
        self, name: str, trainer: SAETrainer[Any, Any], forward: Callable[..., TrainStepOutput]
    ) -> Callable[..., TrainStepOutput]:
        def training_forward_pass(step_input: TrainStepInput) -> TrainStepOutput:
            output = forward(step_input=step_input)
            loss = output.loss.item()
            if not math.isfinite(loss):
                self._stop_at_non_finite(name, trainer, loss, len(step_input.sae_in))
            self._monitor.observe(name, loss)
            return output

        return training_forward_pass

    def _stop_at_non_finite(self, name: str, trainer: SAETrainer[Any, Any], loss: float, batch: int) -> None:
        kept = "the last checkpoint is kept"
        if len(self._trainers) == 1 and self._checkpoints is not None:
            trainer.n_training_samples -= batch  # back to the state before this step
            self._provider.take_back()
            self._save()
            kept = "the weights before it are in the checkpoint"
        of = f" of SAE {name!r}" if name else ""
        raise NonFiniteError(
            f"the training loss{of} is {loss} at step {trainer.n_training_steps}; {kept}; lower lr or look for outliers in the input"
        )

    def _save(self) -> None:
        if self._checkpoints is not None:
            self._checkpoints.save(self._trainers, self._provider, self._monitor)

    def _resume(self) -> None:
        newest = self._checkpoints.newest() if self._checkpoints else None
        if newest is None:
            return
        assert self._checkpoints is not None
        self._checkpoints.load(newest, self._trainers, self._provider, self._monitor)
        first = next(iter(self._trainers.values()))
        self._coordinator.n_training_steps = first.n_training_steps
        self._coordinator.n_training_samples = first.n_training_samples
        self._thresholds = [t for t in self._thresholds if t >= self._n_samples]
        if self._monitor.stalled:
            self._stop_after_this_step()

    def _log_to_wandb(self, records: list[dict[str, Any]]) -> None:
        if not self._coordinator.cfg.logger.log_to_wandb:
            return
        import wandb

        for record in records:
            prefix = f"{record['sae']}/epochs" if "sae" in record else "epochs"
            numbers = {f"{prefix}/{k}": v for k, v in record.items() if isinstance(v, (int, float))}
            wandb.log(numbers, step=self._coordinator.n_training_steps)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM wait for the end of a step; a second SIGINT does not wait."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: Any) -> None:
            if self._signal is not None and number == signal.SIGINT:
                raise KeyboardInterrupt
            self._signal = number

        earlier = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)

    @property
    def _n_samples(self) -> int:
        return int(self._coordinator.n_training_samples)

    @property
    def _finished(self) -> bool:
        return self._n_samples >= self._coordinator.cfg.total_training_samples


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute of one instance, put back afterwards."""
    had, earlier = name in vars(owner), vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if had:
            setattr(owner, name, earlier)
        else:
            delattr(owner, name)
