"""`meme_topk`: InterVLM's TopK recipe as a SAELens training architecture that saves a stock `topk` SAE.

SAELens' trainer, schedules and checkpoints do the work; this class holds what differs from stock
`topk`: initialisation, mean-squared error, decoder norms, and a step that computes only k latents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from sae_lens import TopKSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig, register_sae_training_class
from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY
from sae_lens.saes.sae import SAEConfig, TrainStepInput, TrainStepOutput
from torch import Tensor, nn

from sae_lens_meme.errors import ConfigError
from sae_lens_meme.hooks.saelens import teach_load_model
from sae_lens_meme.train.cpu import Recycled, clamp_rows, topk_step
from sae_lens_meme.train.kept import KeptLatents
from sae_lens_meme.train.kernels import sparse_decode, topk_encode

ARCHITECTURE = "meme_topk"


@dataclass
class MemeTopKTrainingSAEConfig(TopKTrainingSAEConfig):
    """Stock `topk` fields with the recipe's defaults, and two more.

    Args:
        decoder_norm: 'clamp' divides each row of W_dec by max(norm, 1) after each step (the recipe),
            'unit' by its norm, 'none' leaves it.
        init: 'xavier' draws W_enc and W_dec apart (the recipe), 'tied' starts with W_enc = W_dec.T.
        aux_loss_coefficient: AuxK for dead latents (Gao et al. 2024, appendix A.2), off in the recipe;
            1/32 is the paper's value. It is a mean over elements like the main loss, in the space the
            SAE is trained in, so that its weight does not depend on d_in or on the scale of the input.
    """

    aux_loss_coefficient: float = 0.0
    rescale_acts_by_decoder_norm: bool = False
    apply_b_dec_to_input: bool = False
    decoder_init_norm: float | None = None
    decoder_norm: str = "clamp"
    init: str = "xavier"

    @classmethod
    def architecture(cls) -> str:
        return ARCHITECTURE

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_choice("decoder_norm", self.decoder_norm, ("clamp", "unit", "none"))
        _require_choice("init", self.init, ("xavier", "tied"))
        if not 0 < self.k <= self.d_sae:
            raise ConfigError(f"sae.k is {self.k}, it must lie between 1 and sae.d_sae {self.d_sae}")

    def get_inference_config_class(self) -> type[SAEConfig]:
        return TopKSAEConfig


class MemeTopKTrainingSAE(TopKTrainingSAE):
    """x^ = TopK_k(x W_enc + b_enc)^+ W_dec + b_dec with the loss mean((x^ - x)^2) over all elements.

    SAELens' own loss is the sum over d_in, and its trainer clips the gradient norm at 1. On z-scored
    input at the full recipe's size the norm is 20 to 190 for the sum, so that every step is clipped, and
    at most .2 for the mean: a run is never clipped and equals the reference loop, which does not clip.
    """

    cfg: MemeTopKTrainingSAEConfig  # type: ignore[assignment]

    folded = False
    """The weights take raw activations, `decoder_norm` is about the scaled ones that they were trained on."""

    def __init__(self, cfg: MemeTopKTrainingSAEConfig, use_error_term: bool = False):
        super().__init__(cfg, use_error_term)  # type: ignore[arg-type]
        self.mse_loss_fn = _element_mean_loss
        self._gradients = Recycled()
        self.register_state_dict_post_hook(_row_after_row)

    def initialize_weights(self) -> None:
        super().initialize_weights()
        nn.init.xavier_uniform_(self.W_enc)
        nn.init.xavier_uniform_(self.W_dec)
        if self.cfg.decoder_init_norm is not None:
            self.W_dec.data *= self.cfg.decoder_init_norm / self.W_dec.data.norm(dim=-1, keepdim=True)
        if self.cfg.init == "tied":
            self.W_enc.data = self.W_dec.data.T.clone(memory_format=torch.contiguous_format)  # no transposed view

    @torch.no_grad()
    def constrain_decoder(self) -> None:
        """Bring the norms of the rows of W_dec into the range of `decoder_norm`."""
        _constrain(self.W_dec.data, self.cfg.decoder_norm)

    def decoder_is_constrained(self) -> bool:
        """The norms are in that range, up to rounding."""
        return torch.allclose(_constrain(self.W_dec.data.clone(), self.cfg.decoder_norm), self.W_dec.data, rtol=1e-4)

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        # SAELens has no post-step hook: what follows a step is done before the next forward pass
        self.constrain_decoder()
        if self.cfg.rescale_acts_by_decoder_norm or self._hooked():
            return super().training_forward_pass(step_input)
        return self._sparse_forward_pass(step_input)

    def calculate_topk_aux_loss(
        self, sae_in: Tensor, sae_out: Tensor, hidden_pre: Tensor, dead_neuron_mask: Tensor | None
    ) -> Tensor:
        if self.cfg.aux_loss_coefficient == 0 or dead_neuron_mask is None:
            return sae_out.new_tensor(0.0)
        return super().calculate_topk_aux_loss(sae_in, sae_out, hidden_pre, dead_neuron_mask) / self.cfg.d_in

    def fold_activation_whitening(self, mean: Tensor, whitening_matrix: Tensor, unwhitening_matrix: Tensor) -> None:
        if not self.folded:
            self.constrain_decoder()
        super().fold_activation_whitening(mean, whitening_matrix, unwhitening_matrix)
        self.folded = not self.folded  # folding the inverse un-folds

    def fold_activation_norm_scaling_factor(self, scaling_factor: float) -> None:
        self.constrain_decoder()
        super().fold_activation_norm_scaling_factor(scaling_factor)
        self.folded = True

    def process_state_dict_for_saving_inference(self, state_dict: dict[str, Any]) -> None:
        if not self.folded:  # `decoder_norm` is about the space of training
            state_dict["W_dec"] = _constrain(state_dict["W_dec"].clone(), self.cfg.decoder_norm)
        super().process_state_dict_for_saving_inference(state_dict)

    def _sparse_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        compiled = self._compiled(step_input.sae_in)
        if compiled and not self.cfg.apply_b_dec_to_input:
            sae_in = step_input.sae_in  # SAELens would subtract 0 * b_dec
        else:
            sae_in = self.process_sae_in(step_input.sae_in)
        if not self.cfg.apply_b_dec_to_input:
            sae_in = sae_in.detach()  # no gradient goes there, but it would be computed
        if compiled:
            weights = (self.W_enc, self.b_enc, self.W_dec, self.b_dec)
            mse, sae_out, values, indices = topk_step(sae_in, step_input.sae_in, *weights, self.cfg.k, self._gradients)
            hidden_pre = None
        else:
            values, indices, hidden_pre = topk_encode(sae_in, self.W_enc, self.b_enc, self.cfg.k)
            decoded = sparse_decode(values, indices, self.W_dec) + self.b_dec
            sae_out = self.reshape_fn_out(self.run_time_activation_norm_fn_out(decoded), self.d_head)
            mse = torch.nn.functional.mse_loss(sae_out, step_input.sae_in.to(sae_out.dtype))
        losses = {"mse_loss": mse}
        if self.cfg.aux_loss_coefficient:
            losses["auxiliary_reconstruction_loss"] = self._aux_loss(step_input, sae_in, sae_out)
        feature_acts = KeptLatents(values.detach(), indices, self.cfg.d_sae)
        return TrainStepOutput(
            sae_in=step_input.sae_in,
            sae_out=sae_out,
            feature_acts=feature_acts,
            hidden_pre=feature_acts if hidden_pre is None else hidden_pre,  # SAELens' trainer does not look at it
            loss=torch.stack(list(losses.values())).sum(),
            losses=losses,
        )

    def _aux_loss(self, step_input: TrainStepInput, sae_in: Tensor, sae_out: Tensor) -> Tensor:
        """AuxK on the dead columns alone; equal to the stock loss divided by d_in."""
        mask = step_input.dead_neuron_mask
        if mask is None or not mask.any():
            return sae_out.new_tensor(0.0)
        dead = mask.nonzero().squeeze(1)
        k_aux = max(1, self.cfg.d_in // 2)  # the paper's heuristic, as in SAELens
        scale = min(len(dead) / k_aux, 1.0)
        hidden_pre = torch.addmm(self.b_enc[dead], sae_in, self.W_enc[:, dead])
        values, indices = hidden_pre.topk(min(k_aux, len(dead)), dim=-1, sorted=False)
        reconstructed = sparse_decode(values, indices, self.W_dec[dead])
        residual = (step_input.sae_in - sae_out).detach()
        return self.cfg.aux_loss_coefficient * scale * torch.nn.functional.mse_loss(reconstructed, residual)

    def _compiled(self, target: Tensor) -> bool:
        """On a CPU, in float32, where the reconstruction is the decoder's output as it is."""
        as_it_is = self.cfg.normalize_activations not in ("constant_norm_rescale", "layer_norm")
        plain = target.is_cpu and target.ndim == 2 and target.dtype == self.dtype == torch.float32
        return as_it_is and plain and not torch.is_autocast_enabled("cpu")

    def _hooked(self) -> bool:
        return any(hook._forward_hooks or hook._backward_hooks for hook in self.hook_dict.values())


def register() -> None:
    """Tell SAELens of `meme_topk` and of the hooked models; doing it again does nothing."""
    teach_load_model()
    if ARCHITECTURE not in SAE_TRAINING_CLASS_REGISTRY:
        register_sae_training_class(ARCHITECTURE, MemeTopKTrainingSAE, MemeTopKTrainingSAEConfig)


def _row_after_row(sae: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """safetensors refuses a transposed view, and W_enc is one while it is trained on a CPU."""
    state[f"{prefix}W_enc"] = state[f"{prefix}W_enc"].contiguous()


def _element_mean_loss(sae_out: Tensor, sae_in: Tensor) -> Tensor:
    """SAELens sums this over d_in: divided by d_in the sum is the mean over elements."""
    return torch.nn.functional.mse_loss(sae_out, sae_in, reduction="none") / sae_in.shape[-1]


def _constrain(W_dec: Tensor, decoder_norm: str) -> Tensor:
    if decoder_norm == "clamp" and W_dec.is_cpu and W_dec.dtype == torch.float32:
        clamp_rows(W_dec)
    elif decoder_norm != "none":
        smallest = 1.0 if decoder_norm == "clamp" else 1e-8
        W_dec.div_(W_dec.norm(dim=-1, keepdim=True).clamp(min=smallest))
    return W_dec


def _require_choice(field: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"sae.{field} is {value!r}, it must be one of {', '.join(choices)}")


register()
