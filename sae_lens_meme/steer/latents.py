"""Setting latents of an SAE while a model runs.

With the error term the result is `x + (new - z) @ W_dec`: only that is computed, from the pre-activations of the set latents
alone where the architecture allows it. Without it the SAE's reconstruction takes the place of x, and what it loses with it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from sae_lens_meme.errors import ConfigError, ModelError
from sae_lens_meme.evaluators.latents import normalises_at_run_time
from sae_lens_meme.hooks import HookedVLM
from sae_lens_meme.hooks.names import DECODER_CROSS, DECODER_RESID, IMAGE_RESID
from sae_lens_meme.hooks.positions import tag_numbers, tagged

Where = str | Collection[str] | Tensor
"""`all`, kinds of positions (`image`, `generated`, ...), or a mask that broadcasts to the positions."""
Mode = Literal["set", "add", "scale"]
Change = Callable[[Float[Tensor, "... latents"]], Float[Tensor, "... latents"]]
ALL = "all"


@contextmanager
def latent_set(
    model: HookedVLM,
    sae: Any,
    values: Mapping[int, float],
    *,
    where: Where = ALL,
    mode: Mode = "set",
    use_error_term: bool = True,
    pre_zero: bool = False,
    fast: bool = True,
    direction: Float[Tensor, " d_in"] | None = None,
) -> Iterator[HookedVLM]:
    """Inside the `with`, these latents have these values wherever the model passes the SAE's hook.

    Args:
        values: by latent, its new activation, what is added to it, or what it is multiplied by, as `mode` says.
        where: the positions, default all (also CLS, as sae-for-vlm has it).
        use_error_term: add what the SAE does not reconstruct, so that nothing but the latents changes.
        pre_zero: all other latents are 0 there.
        fast: compute the change alone where that is the same; False splices the whole SAE in.
        direction: go along this unit vector instead of the decoder's, as far: the control (one latent).

    Raises:
        ModelError: what is changed cannot reach the text, or no position was of these kinds.
        ConfigError: a latent that the SAE does not have, or a value that is no finite number.
    """
    hook = str(sae.cfg.metadata.hook_name)
    chosen, amounts = _chosen(values, sae.cfg.d_sae)
    require_reach(model, hook, where)
    change = _change(amounts, mode)
    places = _Places(model, hook, where)
    alone = use_error_term and not pre_zero and (fast or direction is not None) and not normalises_at_run_time(sae)
    with ExitStack() as stack:
        if alone:
            steps = decoder_steps(sae, chosen) if direction is None else _as_far(sae, chosen, direction)
            stack.enter_context(model.hooks(fwd_hooks=[(hook, _displace(sae, chosen, change, steps, places))]))
        else:
            stack.enter_context(model.saes([sae], use_error_term=use_error_term))
            stack.enter_context(model.hooks(fwd_hooks=_spliced(sae, hook, chosen, change, places, pre_zero, direction)))
        yield model
    places.require_some()


def _chosen(values: Mapping[int, float], d_sae: int) -> tuple[Int64[Tensor, " latents"], Float32[Tensor, " latents"]]:
    """Latents and their values."""
    try:
        latents = torch.tensor([operator.index(latent) for latent in values])
        amounts = torch.tensor([float(value) for value in values.values()])
    except (TypeError, ValueError):
        raise ConfigError(f"values {dict(values)}: give a number for each latent, by the latent's own number") from None
    if not len(latents) or latents.min() < 0 or latents.max() >= d_sae:
        raise ConfigError(f"latents {list(values)}: give one or more of 0 to {d_sae - 1}")
    if not amounts.isfinite().all():
        raise ConfigError(f"values {dict(values)}: not all are finite; give numbers")
    return latents, amounts


def require_reach(model: HookedVLM, hook: str, where: Where = ALL) -> None:
    """Refuse a change from which nothing reaches the text, whose effect would be 0 by construction.

    Raises:
        ModelError: why it does not.
    """
    if not model.writes:
        return
    model.require_reach(hook)
    if isinstance(where, Tensor) or where == ALL:
        return
    kinds = set(tag_numbers(where))
    in_picture = not hook.startswith((DECODER_RESID, DECODER_CROSS))
    if in_picture and not kinds & set(tag_numbers(["image", "special"])):
        raise ModelError(f"{hook} has no position of kind {where}, so that nothing would change; give image or special")
    drops_cls = getattr(model.hf.config, "vision_feature_select_strategy", None) == "default"
    read = [f"{IMAGE_RESID}.{block}" for block in model.feature_blocks]
    if drops_cls and hook in read and kinds == set(tag_numbers("special")):
        raise ModelError(f"{hook}: the text reads its patches without CLS, so that nothing would change; give image")


def activations_of(sae: Any, x: Float[Tensor, "... d_in"], latents: Tensor) -> Float[Tensor, "... latents"]:
    """The activations of these latents, from their own weights where no other latent has a say."""
    kind = sae.cfg.architecture()
    if kind not in ("standard", "jumprelu", "gated"):
        return sae.encode(x)[..., latents.to(sae.device)]
    given, latents = sae.process_sae_in(x), latents.to(sae.device)
    encoder = sae.W_enc[:, latents]
    if kind == "gated":
        gates = given @ encoder + sae.b_gate[latents] > 0
        magnitudes = given @ (encoder * sae.r_mag[latents].exp()) + sae.b_mag[latents]
        return gates * magnitudes.relu()
    hidden = given @ encoder + sae.b_enc[latents]
    return hidden.relu() * (hidden > sae.threshold[latents]) if kind == "jumprelu" else hidden.relu()


@torch.no_grad()
def decoder_steps(sae: Any, latents: Tensor) -> Float[Tensor, "latents d_in"]:
    """What one unit of each latent adds to the activation."""
    units = torch.zeros(len(latents) + 1, sae.cfg.d_sae, dtype=sae.dtype, device=sae.device)
    units[torch.arange(len(latents)), latents.to(sae.device)] = 1
    decoded = sae.decode(units)
    return decoded[:-1] - decoded[-1]


class _Places:
    """Where latents are set, and whether that was anywhere."""

    def __init__(self, model: HookedVLM, hook: str, where: Where):
        self._model, self._hook, self._where = model, hook, where
        self._passes, self._n = 0, torch.zeros((), dtype=torch.long)

    def __call__(self, x: Tensor) -> Bool[Tensor, "... 1"]:
        shape = x.shape[:-1]
        if isinstance(self._where, Tensor):
            found = self._where.to(x.device).expand(shape)
        elif self._where == ALL:
            found = torch.ones(shape, dtype=torch.bool, device=x.device)
        else:
            found = tagged(self._model.tags_now(self._hook, x), self._where)
        self._passes, self._n = self._passes + 1, self._n.to(x.device) + found.sum()  # read at the end: no GPU waits
        return found[..., None]

    def require_some(self) -> None:
        if self._passes and not self._n:
            raise ModelError(f"{self._hook}: no position was of kind {self._where}, so that nothing was changed")


def _change(values: Tensor, mode: Mode) -> Change:
    if mode == "set":
        return lambda z: values.to(z).expand_as(z)
    if mode == "add":
        return lambda z: z + values.to(z)
    if mode == "scale":
        return lambda z: z * values.to(z)
    raise ConfigError(f"mode {mode!r} is none of set, add, scale")


def _displace(sae: Any, chosen: Tensor, change: Change, steps: Tensor, places: _Places) -> Callable[..., Tensor]:
    def displace(x: Tensor, hook: Any) -> Tensor:
        z = activations_of(sae, x.to(sae.device), chosen)
        step = ((change(z) - z) @ steps).to(x.device)
        return torch.where(places(x), x + step, x)

    return displace


def _spliced(
    sae: Any,
    hook: str,
    chosen: Tensor,
    change: Change,
    places: _Places,
    pre_zero: bool,
    direction: Tensor | None,
) -> list[tuple[str | Callable[..., Any], Callable[..., Any]]]:
    """Hooks inside a spliced SAE."""
    far: list[Tensor] = []

    def set_latents(acts: Tensor, hook: Any) -> Tensor:
        new = torch.zeros_like(acts) if pre_zero else acts.clone()
        z = acts[..., chosen]
        if direction is None:
            new[..., chosen] = change(z)
        else:
            far.append(torch.where(places(acts), change(z) - z, 0))
            return acts
        return torch.where(places(acts), new, acts)

    def go(x: Tensor, hook: Any) -> Tensor:
        assert direction is not None
        return x + far.pop() @ _as_far(sae, chosen, direction)

    inside: list[Any] = [(f"{hook}.hook_sae_acts_post", set_latents)]
    return inside if direction is None else [*inside, (f"{hook}.hook_sae_output", go)]


def _as_far(sae: Any, chosen: Tensor, direction: Tensor) -> Float[Tensor, "1 d_in"]:
    """Steps of the size of the decoder's, along another direction."""
    if len(chosen) != 1:
        raise ConfigError("a direction goes in the place of one latent's; set one")
    step = decoder_steps(sae, chosen)
    return step.norm() * direction.to(step)[None] / direction.norm()
