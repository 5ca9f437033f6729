"""One training step at batch 256 and 4,096: `meme_topk` and stock `topk` in SAELens' own trainer, and the plain loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer

from benchmarks import naive
from benchmarks.data import Shape, make_zscored
from benchmarks.measure import Row, interleaved, require_close, timed
from sae_lens_meme.train.adam import use_fused_adam
from sae_lens_meme.train.sae import MemeTopKTrainingSAE, MemeTopKTrainingSAEConfig

GOAL_SEED, GOAL_STOCK = 2, 4
N_CHECKED = 5  # steps over which the losses must agree


def run(quick: bool) -> list[Row]:
    shape = Shape.of(quick)
    x = torch.from_numpy(make_zscored(shape))
    sizes = {64: 3} if quick else {256: 25, 4_096: 5}
    return [row for batch, repeats in sizes.items() for row in _rows(shape, x, batch, repeats)]


def _rows(shape: Shape, x: torch.Tensor, batch: int, repeats: int) -> list[Row]:
    ours, stock, seed = _ours(shape, batch), _stock(shape, batch), _seed(shape, batch)
    batches = [x[i : i + batch] for i in range(0, len(x) - batch + 1, batch)]
    checked = (batches * N_CHECKED)[:N_CHECKED]  # also the warm-up: buffers, thread pools
    warm_up, losses = timed(lambda: [ours(b) for b in checked])
    same = require_close("5 losses of ours and the loop", losses, [seed(b) for b in checked], rtol=1e-4)
    stock_losses = [stock(b) / shape.d_in for b in checked]  # SAELens' loss is a sum over d_in
    same_as_stock = require_close("first loss", losses[:1], stock_losses[:1], rtol=1e-5)
    ours_s, stock_s, seed_s = interleaved([_in_turn(step, batches) for step in (ours, stock, seed)], repeats)
    name = f"training step, batch {batch:,}"
    return [
        Row(
            f"{name}, against the seed's loop",
            *(seed_s, ours_s, f"≥ {GOAL_SEED}x", seed_s / ours_s >= GOAL_SEED, same),
            note="the loop has no trainer around it",
            warm_up_s=warm_up,
        ),
        Row(
            f"{name}, against SAELens' topk",
            *(stock_s, ours_s, f"≥ {GOAL_STOCK}x", stock_s / ours_s >= GOAL_STOCK, same_as_stock),
            note="then theirs is clipped: its loss is a sum",
        ),
    ]


def _ours(shape: Shape, batch: int) -> Callable[[torch.Tensor], float]:
    torch.manual_seed(0)
    config = MemeTopKTrainingSAEConfig(d_in=shape.d_in, d_sae=shape.d_sae, k=shape.k)
    trainer = _trainer(MemeTopKTrainingSAE(config), batch)
    use_fused_adam(trainer)  # as our runner does
    return lambda x: trainer.step(x).loss.item()


def _stock(shape: Shape, batch: int) -> Callable[[torch.Tensor], float]:
    """Stock `topk` with what the recipe leaves out switched off, from the same weights."""
    config = TopKTrainingSAEConfig(
        d_in=shape.d_in,
        d_sae=shape.d_sae,
        k=shape.k,
        apply_b_dec_to_input=False,
        rescale_acts_by_decoder_norm=False,
    )
    sae = TopKTrainingSAE(config)
    sae.load_state_dict(_initial(shape).state_dict())
    trainer = _trainer(sae, batch)
    return lambda x: trainer.step(x).loss.item()


def _seed(shape: Shape, batch: int) -> Callable[[torch.Tensor], float]:
    model, start = naive.Autoencoder(shape.d_in, shape.d_sae, shape.k), _initial(shape)
    with torch.no_grad():
        model.encoder.weight.copy_(start.W_enc.T)
        model.encoder.bias.copy_(start.b_enc)
        model.decoder.weight.copy_(start.W_dec.T)
        model.decoder.bias.copy_(start.b_dec)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    return lambda x: naive.train_step(model, optimizer, x)


def _initial(shape: Shape) -> MemeTopKTrainingSAE:
    torch.manual_seed(0)
    sae = MemeTopKTrainingSAE(MemeTopKTrainingSAEConfig(d_in=shape.d_in, d_sae=shape.d_sae, k=shape.k))
    sae.constrain_decoder()  # the loop does so after a step, ours before one
    return sae


def _trainer(sae: TopKTrainingSAE, batch: int) -> SAETrainer:
    logger = LoggingConfig(log_to_wandb=False)
    return SAETrainer(SAETrainerConfig(10_000 * batch, batch, lr=1e-3, lr_end=1e-4, logger=logger), sae, iter(()))


def _in_turn(step: Callable[[torch.Tensor], float], batches: list[torch.Tensor]) -> Callable[[], float]:
    remaining: Iterator[torch.Tensor] = iter(batches * 100)
    return lambda: step(next(remaining))
