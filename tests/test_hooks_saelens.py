"""SAELens runs on HookedMemeCLIP as it is: splicing, the activation store, and its evaluations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from arrays import make_embeddings
from datasets import Dataset
from hooks_models import TEXTS, pictures, tiny_towers, topk_sae
from sae_lens import ActivationsStore
from sae_lens.evals import get_eval_everything_config, run_evals
from sae_lens.training.activation_scaler import ActivationScaler

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import MissingHookError, ModelError
from sae_lens_meme.hooks import HookedMemeCLIP

D, N = 16, 400
ROWS = torch.arange(0, N, 3)[:, None]


@pytest.fixture(scope="module")
def embeddings() -> Embeddings:
    rng = np.random.default_rng(0)
    image, text = rng.standard_normal((2, N, D)).astype(np.float32)
    hate = ((image * text)[:, :4].sum(1) > 0).astype(int).tolist()
    hate[::9] = [None] * len(hate[::9])
    return make_embeddings({"hook_image_embed": image, "hook_text_embed": text}, labels={"hate": hate})


@pytest.fixture
def model(embeddings: Embeddings) -> HookedMemeCLIP:
    return HookedMemeCLIP.from_embeddings(embeddings)


def fused(embeddings: Embeddings, rows: np.ndarray) -> torch.Tensor:
    image, text = (torch.from_numpy(embeddings.take(h, rows)) for h in ("hook_image_embed", "hook_text_embed"))
    return F.normalize(image, dim=-1) * F.normalize(text, dim=-1)


def store(model: HookedMemeCLIP, dataset: Dataset, d_in: int, batch: int, hook: str = "hook_fused") -> ActivationsStore:
    return ActivationsStore.from_sae(
        model, topk_sae(d_in, hook), dataset, streaming=False, store_batch_size_prompts=batch, total_tokens=len(dataset)
    )


@torch.no_grad()
def test_stock_run_evals_agrees_with_a_hand_computation(model: HookedMemeCLIP, embeddings: Embeddings):
    # Whole batches: run_evals' second part goes on where its first part ended, and wraps around.
    n_batches, batch = 5, 10
    sae, dataset = topk_sae(D), model.token_dataset("test").select(range(n_batches * batch))
    config = get_eval_everything_config(
        batch_size_prompts=batch, n_eval_reconstruction_batches=n_batches, n_eval_sparsity_variance_batches=n_batches
    )
    metrics, per_latent = run_evals(sae, store(model, dataset, D, batch), model, ActivationScaler(), config)

    rows = np.array(dataset["input_ids"])[:, 0]
    x = fused(embeddings, rows)
    pre = x @ sae.W_enc + sae.b_enc - sae.b_dec @ sae.W_enc
    acts = torch.zeros_like(pre).scatter(1, pre.topk(4).indices, pre.topk(4).values.clamp(min=0))
    decoded = acts @ sae.W_dec + sae.b_dec
    y = torch.from_numpy(embeddings.label("hate").values[rows])
    head = model.linear_head
    assert head is not None
    logits, spliced, ablated = (v @ head.weight.T + head.bias for v in (x, decoded, 0 * x))
    clean_ce, sae_ce, zero_ce = (F.cross_entropy(v, y).item() for v in (logits, spliced, ablated))
    p = logits.softmax(-1)
    sae_kl, zero_kl = (
        (p * (logits.log_softmax(-1) - v.log_softmax(-1))).sum(-1).mean().item() for v in (spliced, ablated)
    )
    total = (x - x.mean(0)).pow(2).sum()

    performance, behaviour = metrics["model_performance_preservation"], metrics["model_behavior_preservation"]
    assert performance["ce_loss_without_sae"] == pytest.approx(clean_ce, rel=1e-5)
    assert performance["ce_loss_with_sae"] == pytest.approx(sae_ce, rel=1e-5)
    assert performance["ce_loss_with_ablation"] == pytest.approx(zero_ce, rel=1e-5)
    assert performance["ce_loss_score"] == pytest.approx((zero_ce - sae_ce) / (zero_ce - clean_ce), rel=1e-3)
    assert behaviour["kl_div_with_sae"] == pytest.approx(sae_kl, rel=1e-4)
    assert behaviour["kl_div_with_ablation"] == pytest.approx(zero_kl, rel=1e-4)
    assert metrics["sparsity"]["l0"] == pytest.approx((acts != 0).sum(-1).float().mean().item())
    explained = 1 - ((x - decoded).pow(2).sum() / total).item()
    assert metrics["reconstruction_quality"]["explained_variance"] == pytest.approx(explained, abs=1e-5)
    np.testing.assert_allclose(per_latent["feature_density"], (acts != 0).float().mean(0), atol=1e-6)


@pytest.mark.parametrize("hook", ["hook_fused", "hook_image_embed", "hook_text_unit"])
@torch.no_grad()
def test_with_the_error_term_nothing_changes_and_without_it_the_reconstruction_flows_on(
    model: HookedMemeCLIP, hook: str
):
    sae = topk_sae(D, hook)
    clean, cache = model.run_with_cache(ROWS)
    exact = model.run_with_saes(ROWS, saes=[sae], use_error_term=True)
    torch.testing.assert_close(exact, clean, rtol=0, atol=1e-6)
    spliced = model.run_with_saes(ROWS, saes=sae)
    decoded = sae.decode(sae.encode(cache[hook]))
    by_hand = model.run_with_hooks(ROWS, fwd_hooks=[(hook, lambda x, hook: decoded)])
    torch.testing.assert_close(spliced, by_hand, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(spliced, clean, atol=1e-3)
    torch.testing.assert_close(model(ROWS), clean, rtol=0, atol=0)


@torch.no_grad()
def test_a_spliced_sae_shows_its_latents_and_takes_hooks(model: HookedMemeCLIP, embeddings: Embeddings):
    sae = topk_sae(D)
    _, cache = model.run_with_cache_with_saes(ROWS, saes=[sae], names_filter="hook_fused.hook_sae_acts_post")
    latents = cache["hook_fused.hook_sae_acts_post"]
    torch.testing.assert_close(latents[:, 0], sae.encode(fused(embeddings, ROWS[:, 0].numpy())))

    def silence(acts: torch.Tensor, hook: object) -> torch.Tensor:
        return 0 * acts

    name = "hook_fused.hook_sae_acts_post"
    off = model.run_with_hooks_with_saes(ROWS, saes=[sae], fwd_hooks=[(name, silence)])
    b_dec = model.run_with_hooks(ROWS, fwd_hooks=[("hook_fused", lambda x, hook: sae.b_dec.expand_as(x))])
    torch.testing.assert_close(off, b_dec)


@torch.no_grad()
def test_attached_saes_stay_until_reset(model: HookedMemeCLIP):
    clean, first, second = model(ROWS), topk_sae(D), topk_sae(D, seed=1)
    model.add_sae(first)
    assert model.acts_to_saes == {"hook_fused": first}
    spliced = model(ROWS)
    with model.saes([second]):
        assert model.acts_to_saes == {"hook_fused": second}
    torch.testing.assert_close(model(ROWS), spliced, rtol=0, atol=0)
    with pytest.raises(
        MissingHookError, match=r"SAE is attached at 'hook_fused'; its hooks are hook_fused.hook_sae_input"
    ):
        model.run_with_cache(ROWS, names_filter="hook_fused")
    with pytest.raises(MissingHookError, match="no SAE is attached at 'hook_fuse'; attached: hook_fused"):
        model.reset_saes("hook_fuse")
    model.reset_saes()
    assert model.acts_to_saes == {}
    torch.testing.assert_close(model(ROWS), clean, rtol=0, atol=0)


@torch.no_grad()
def test_everything_is_restored_after_an_exception(model: HookedMemeCLIP):
    clean = model(ROWS)
    first = topk_sae(D)

    def fail(x: torch.Tensor, hook: object) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        model.run_with_hooks_with_saes(ROWS, saes=[first], fwd_hooks=[("hook_fused.hook_sae_output", fail)])
    with pytest.raises(RuntimeError, match="stop"), model.hooks(fwd_hooks=[("hook_image_unit", fail)]):
        model.run_with_cache(ROWS)
    model.add_sae(first)
    with pytest.raises(MissingHookError, match="'hook_fussed' is not a hook of this model; did you mean 'hook_fused'"):
        model.run_with_saes(ROWS, saes=[topk_sae(D, "hook_image_unit"), topk_sae(D, "hook_fussed")])
    assert model.acts_to_saes == {"hook_fused": first}
    model.reset_saes()
    assert not any(point.has_hooks() for point in model.hook_points())
    assert not model.is_caching
    torch.testing.assert_close(model(ROWS), clean, rtol=0, atol=0)


def test_missing_hooks_raise_everywhere(model: HookedMemeCLIP):
    def nothing(x: torch.Tensor, hook: object) -> None: ...

    calls = [
        lambda name: model.run_with_hooks(ROWS, fwd_hooks=[(name, nothing)]),
        lambda name: model.run_with_cache(ROWS, names_filter=name),
        lambda name: model.run_with_cache(ROWS, names_filter=["hook_fused", name]),
        lambda name: model.add_hook(name, nothing),
        lambda name: model.add_caching_hooks(name),
        lambda name: model.add_sae(topk_sae(D, name)),
        lambda name: model.d(name),
    ]
    for call in calls:
        for name in ("hook_visual", "linear_head", "hook_image_proj"):
            with pytest.raises(MissingHookError, match=f"'{name}' is not a hook of this model"):
                call(name)
    assert not any(point.has_hooks() for point in model.hook_points())
    assert not model.is_caching


def test_saes_that_do_not_fit_are_refused(model: HookedMemeCLIP):
    with pytest.raises(ModelError, match="the SAE has d_in 8, hook_fused of this model has width 16"):
        model.add_sae(topk_sae(8))
    with pytest.raises(ModelError, match="two SAEs at one hook"):
        model.run_with_saes(ROWS, saes=[topk_sae(D), topk_sae(D, seed=1)])
    with pytest.raises(ModelError, match="token is its row number"):
        model.run_with_saes({"hook_fused": torch.ones(1, 1, D)}, saes=topk_sae(D), exclude_special_tokens=[0])


@torch.no_grad()
def test_rows_can_be_excluded_from_splicing(model: HookedMemeCLIP):
    clean, spliced = model(ROWS), model.run_with_saes(ROWS, saes=topk_sae(D))
    mixed = model.run_with_saes(ROWS, saes=topk_sae(D), exclude_special_tokens=[3, 6])
    torch.testing.assert_close(mixed[1:3], clean[1:3])
    torch.testing.assert_close(mixed[3:], spliced[3:])


def test_the_activation_store_yields_the_fused_vectors(model: HookedMemeCLIP, embeddings: Embeddings):
    dataset = model.token_dataset("train", labelled=False)
    activations = store(model, dataset, D, 70).get_raw_llm_batch()[0]
    rows = np.array(dataset["input_ids"])[:70, 0]
    torch.testing.assert_close(activations, fused(embeddings, rows))


def test_the_activation_store_runs_live_towers_without_a_head(tmp_path):
    towers = tiny_towers(tmp_path)
    model = HookedMemeCLIP("clip", towers).attach_memes(pictures(), TEXTS)
    activations = store(model, model.token_dataset(None), 12, 4).get_raw_llm_batch()[0]
    pixels = torch.stack([towers.preprocess(p) for p in pictures()])
    batch = {"pixels": pixels, "tokens": towers.tokenize(TEXTS)}
    expected = model.run_with_cache(batch, return_type=None)[1]["hook_fused"][:, 0]
    torch.testing.assert_close(activations, expected)


def test_one_pass_feeds_saes_at_three_hooks(model: HookedMemeCLIP, embeddings: Embeddings):
    hooks = ["hook_image_embed", "hook_text_embed", "hook_fused"]
    shared = ActivationsStore.from_config_multi_hook(
        model,
        dataset=model.token_dataset("train", labelled=False),
        hook_names=hooks,
        hook_d_ins=dict.fromkeys(hooks, D),
        context_size=1,
        store_batch_size_prompts=20,
        total_training_tokens=20,
        prepend_bos=False,
    )
    rows = torch.arange(20)[:, None]
    activations = shared.get_multi_hook_activations(rows)
    for hook in hooks[:2]:
        np.testing.assert_array_equal(activations[hook][:, 0], embeddings.take(hook, np.arange(20)))
    torch.testing.assert_close(activations["hook_fused"][:, 0], fused(embeddings, np.arange(20)))
