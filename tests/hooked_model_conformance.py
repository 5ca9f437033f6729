"""What every hooked model must pass: `check_hooked_model` is called by the tests of each."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
import torch
from hooks_models import topk_sae
from sae_lens import ActivationsStore
from sae_lens.saes.sae import SAE

from sae_lens_meme.errors import DataError, MissingHookError, ModelError
from sae_lens_meme.hooks import HookedModel
from sae_lens_meme.hooks.names import LOGITS

RESHAPED_BY_SAELENS = ("hook_q", "hook_k", "hook_v", "hook_z")


def check_hooked_model(model: HookedModel, *, aside: Collection[str] = (), rows: torch.Tensor | None = None) -> None:
    """Hooks listed, edited, differentiated, spliced; rows as tokens; nothing left behind.

    Args:
        model: with a source of four rows or more and, where it has a head, their labels.
        aside: hooks that nothing is computed from.
        rows: tokens of four rows; default their numbers.
    """
    before = model.fingerprint
    rows = torch.arange(4)[:, None] if rows is None else rows
    model(rows)  # transformers puts hooks of its own on its modules in the first pass
    hooks = [len(module._forward_hooks) for module in model.modules()]
    check_hooks(model, rows)
    check_stopping(model, rows)
    check_edits(model, rows, aside)
    check_gradients(model, rows, aside)
    check_splicing(model, rows)
    check_rows(model, rows)
    assert model.fingerprint == before, "a weight was changed"
    assert not any(point.has_hooks() for point in model.hook_points()), "a hook was left behind"
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    assert not model.is_caching
    assert model.acts_to_saes == {}
    layers = set(model.modules()) - set(model.hook_points())  # SAELens puts new hook points in the place of an SAE
    assert not any(layer.training for layer in layers), "dropout is on"


def check_hooks(model: HookedModel, rows: torch.Tensor) -> None:
    """Every declared hook is reached, with its shape; a batch is what its rows are one by one."""
    assert model.hook_dict.keys() == {*model.shapes, LOGITS}
    assert not [name for name in model.hook_dict if any(part in name for part in RESHAPED_BY_SAELENS)]
    random = torch.get_rng_state()
    output, cache = model.run_with_cache(rows)
    assert torch.equal(torch.get_rng_state(), random), "random numbers were drawn"
    assert cache.keys() == model.shapes.keys()
    for name, x in cache.items():
        assert x.shape == (len(rows), model.positions(name) or x.shape[1], model.d(name)), name
    assert (output is None) == (LOGITS not in model.shapes)
    for place, row in enumerate(rows):
        _, alone = model.run_with_cache(row[None])
        for name, x in cache.items():
            torch.testing.assert_close(
                alone[name][0], x[place], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
            )
    with pytest.raises(MissingHookError, match="'hook_nowhere' is not a hook"):
        model.run_with_cache(rows, names_filter="hook_nowhere")


def check_stopping(model: HookedModel, rows: torch.Tensor) -> None:
    """A pass for one hook ends there; the tokens of a hook of several positions are those of its positions."""
    _, cache = model.run_with_cache(rows)
    for name, x in cache.items():
        tokens = rows
        if model.positions(name) not in (0, rows.shape[1]):
            dataset = model.token_dataset(None, labelled=False, hook=name)
            tokens = torch.tensor(dataset["input_ids"][:4])
        elif x.shape[:2] != rows.shape:  # pictures of a chat model are no rows
            continue
        output, alone = model.run_with_cache(tokens, names_filter=[name], stop_at_layer=1)
        assert output is None
        assert alone.keys() == {name}
        torch.testing.assert_close(alone[name], x, rtol=1e-5, atol=1e-6)


def check_edits(model: HookedModel, rows: torch.Tensor, aside: Collection[str]) -> None:
    """What a hook returns flows on, and so does what it writes in place."""
    _, cache = model.run_with_cache(rows)
    last = list(cache)[-1]
    for name in (name for name in cache if name not in aside):
        new = 1 - 2 * cache[name]
        for edit in (lambda x, hook, new=new: new, lambda x, hook, new=new: x.copy_(new)):
            seen = _seen(model, rows, (name, edit))
            changed = {other for other in cache if not torch.allclose(seen[other], cache[other], atol=1e-4)}
            assert name in changed
            assert name == last or changed - {name}, f"nothing depends on {name}"
        model.run_with_hooks(rows, fwd_hooks=[(name, lambda x, hook: x.zero_())])  # also where gradients are kept


def check_gradients(model: HookedModel, rows: torch.Tensor, aside: Collection[str]) -> None:
    """The gradient of the loss at every hook, and it is the slope of the loss there."""
    if LOGITS not in model.shapes:
        return
    with pytest.raises(ModelError, match="return_type='loss'"):
        model.run_with_cache(rows, incl_bwd=True)
    _, cache = model.run_with_cache(rows, return_type="loss", incl_bwd=True)
    generator = torch.Generator().manual_seed(0)
    for name in (name for name in model.shapes if name not in aside):  # in this order: each draws its own step
        gradient = cache[f"{name}_grad"]
        assert gradient.shape == cache[name].shape
        step = torch.randn(gradient.shape, generator=generator)
        step *= 0.001 * cache[name].norm() / step.norm()
        above, below = (
            model.run_with_hooks(rows, return_type="loss", fwd_hooks=[(name, lambda x, hook, s=sign * step: x + s)])
            for sign in (1, -1)
        )
        slope, expected = (gradient * step).sum().item(), (above - below).item() / 2
        assert slope == pytest.approx(expected, rel=0.05, abs=1e-5 * max(1, abs(above.item()))), name
    model.zero_grad()


def check_splicing(model: HookedModel, rows: torch.Tensor) -> None:
    """With its error term an SAE changes nothing; without it, its reconstruction flows on."""
    _, cache = model.run_with_cache(rows)
    for name, shape in model.shapes.items():
        sae = topk_sae(shape.width, name)
        exact = _seen(model, rows, sae=sae, error_term=True)
        assert all(torch.allclose(x, cache[other], rtol=1e-4, atol=1e-5) for other, x in exact.items())
        decoded = sae.decode(sae.encode(cache[name]))
        by_hand = _seen(model, rows, (name, lambda x, hook, new=decoded: new))
        for other, x in _seen(model, rows, sae=sae).items():
            torch.testing.assert_close(x, by_hand[other], rtol=1e-4, atol=1e-5)
        with pytest.raises(ModelError, match=f"d_in {shape.width + 1}, {name} of this model has width {shape.width}"):
            model.add_sae(topk_sae(shape.width + 1, name))
        if shape.positions != 1:
            with pytest.raises(ModelError, match=f"some positions of {name} alone"):
                model.add_sae(topk_sae(shape.width, name, seqpos_slice=(0, 1)))


def check_rows(model: HookedModel, rows: torch.Tensor) -> None:
    """A meme's row number is its token, also for SAELens' store."""
    dataset = model.token_dataset(None, labelled=False)
    assert dataset["input_ids"][:4] == rows.tolist()
    name = next(name for name, shape in reversed(model.shapes.items()) if shape.positions in (0, rows.shape[1]))
    options: dict[str, Any] = {"streaming": False, "store_batch_size_prompts": 4, "total_tokens": 4}
    options["context_size"] = rows.shape[1]
    store = ActivationsStore.from_sae(model, topk_sae(model.d(name), name), dataset, **options)  # type: ignore[arg-type]
    _, cache = model.run_with_cache(rows, stop_at_layer=1, prepend_bos=False)
    torch.testing.assert_close(store.get_raw_llm_batch()[0], cache[name].flatten(0, 1))
    beyond = int(rows.max()) - 3 + len(dataset)
    with pytest.raises(DataError, match=f"row {len(dataset)} is not one"):
        model(torch.full_like(rows[:1], beyond))
    with pytest.raises(ModelError, match="is its row number"):
        model.to_tokens("a caption")


@torch.no_grad()
def _seen(
    model: HookedModel, rows: torch.Tensor, hook: Any = None, sae: SAE[Any] | None = None, error_term: bool = False
) -> dict[str, torch.Tensor]:
    """The value that flows on from every hook but the one that an SAE replaces."""
    seen: dict[str, torch.Tensor] = {}
    names = [name for name in model.shapes if sae is None or name != sae.cfg.metadata.hook_name]
    with model.saes([] if sae is None else [sae], use_error_term=error_term):
        keep = [(name, lambda x, hook: seen.__setitem__(hook.name, x.clone())) for name in names]
        with model.hooks(fwd_hooks=[*([hook] if hook else []), *keep]):
            model(rows)
    return seen
