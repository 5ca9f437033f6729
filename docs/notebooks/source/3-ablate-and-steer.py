# %% [markdown]
# # 3. Causality: ablate and steer
#
# That a latent is associated with a label does not mean that a classifier uses it. Here one latent is switched off, and
# turned up, inside a running model; the same is done to other latents that fire as often, and to random directions. The
# memes are drawn and harmless; `hate` is the name of a column.

# %% [install]

# %% [demo]

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from sae_lens import SAE

from sae_lens_meme import Embeddings, HookedMemeCLIP
from sae_lens_meme.evaluators import encode

embeddings = Embeddings.load("small-demo/embeddings")
sae = SAE.load_from_disk("small-demo/sae")
model = HookedMemeCLIP.from_embeddings(
    embeddings, task="hate"
)  # a linear classifier on hook_fused, fitted on train memes
memes = torch.tensor(model.token_dataset("test", labelled=False)["input_ids"])  # a meme is its row number, (n, 1)

# %% [markdown]
# ## Splice the SAE in
# `HookedMemeCLIP` is a TransformerLens `HookedRootModule`, and SAEs attach to it as to SAELens' `HookedSAETransformer`.
# With `use_error_term`, what the SAE does not explain is kept, so nothing changes until a latent is edited.

# %%
with torch.no_grad():
    logits = model(memes)
    spliced = model.run_with_saes(memes, saes=[sae])
    exact = model.run_with_saes(memes, saes=[sae], use_error_term=True)
print(f"the SAE's reconstruction moves the logits by {(spliced - logits).abs().mean():.2f} on average")
print(f"with its error term: {(exact - logits).abs().max():.0e}")

# %% [markdown]
# ## Which latent?
# `Influence` gives the exact effect of *every* latent at once. Validation memes choose the one that matters most to the
# model's own classifier; test memes measure it.

# %%
from sae_lens_meme.evaluators.influence import Influence, head_of

influence = Influence(embeddings, heads=[head_of(model)], tasks=["hate"]).evaluate(sae)
found, where = influence.numbers, "ablation/embedding/model/hate/"
latent = found[where + "largest_latent"]
print(influence.verdict)
print(f"latent {latent}: ablating it moves p(hate=1) by {found[where + 'largest']:.4f} on average over all test memes")
print(f"a step of equal length in a random direction: {found[where + 'largest_random']:.4f}")

# %% [markdown]
# ## Ablate it by hand
# A hook on the latents sets one of them to zero while the model runs.


# %%
def ablate(acts, hook):
    acts = acts.clone()
    acts[..., latent] = 0
    return acts


with torch.no_grad(), model.saes([sae], use_error_term=True):
    ablated = model.run_with_hooks(memes, fwd_hooks=[("hook_fused.hook_sae_acts_post", ablate)])
before, after = logits.softmax(-1)[:, 0, 1], ablated.softmax(-1)[:, 0, 1]
active = encode(sae, embeddings).rows(memes[:, 0].numpy()).csr() > 0  # memes x latents
fires = active[:, [latent]].toarray()[:, 0]
print(f"over all test memes p(hate=1) changes by {(after - before).mean():+.4f}")
print(f"where the latent fires ({fires.sum()} memes): from {before[fires].mean():.2f} to {after[fires].mean():.2f}")

# %% [markdown]
# ## Beside its controls
# `steer_through_model` does the same for any latent and strength (0 ablates, 5 makes it five times as strong). The twenty
# latents that fire nearly as often are the fair comparison: a latent that fires a lot moves a lot.

# %%
from sae_lens_meme.evaluators.influence import steer_through_model

rows, n_fires = memes[:, 0].numpy(), np.asarray(active.sum(0)).ravel()
order = np.argsort(np.abs(n_fires - n_fires[latent]), kind="stable")
matched = [int(other) for other in order if other != latent][:20]


def effect(which: int, strength: float) -> float:
    """Mean change of p(hate=1) over all test memes."""
    return steer_through_model(model, sae, rows, which, strength)[:, 1].mean()


effects = {
    strength: (effect(latent, strength), [effect(other, strength) for other in matched]) for strength in (0.0, 2.0, 5.0)
}

# %%
figure, panels = plt.subplots(1, 3, figsize=(10, 2.6), layout="constrained")
for axes, (strength, (own, others)) in zip(panels, effects.items(), strict=True):
    axes.plot(others, np.zeros(len(others)), "o", color="0.6", alpha=0.6, label="20 latents that fire as often")
    axes.plot(own, 0, "o", color="#1f5fa8", ms=9, label=f"latent {latent}")
    axes.axvline(0, color="0.8", zorder=0)
    axes.set(title="ablated" if strength == 0 else f"times {strength:g}", yticks=[], xlabel="mean change of p(hate=1)")
panels[0].legend(fontsize=7, loc="upper center")
plt.show()

# %%
for strength, (own, others) in effects.items():
    as_far = sum(abs(other) >= abs(own) for other in others)
    print(
        f"times {strength:g}: {own:+.4f}, as far or farther by {as_far} of {len(others)} matched latents (largest {max(map(abs, others)):.4f})"
    )

# %% [markdown]
# **What to conclude.** The classifier uses this latent: without it the probability falls on the memes that it fires on, and
# none of the latents that fire as often, nor a random step of equal length, does nearly as much. By hand and in closed form
# the effect is the same. Turning the latent **up** shows far less. The memes that it fires on are close to p = 1 already, so
# there is no room to rise, and at five times the strength arbitrary latents move more. Ablation is the evidence here;
# steering out of the range of activations that occur shows what a classifier *would* do, not what it does.
#
# The classifier was fitted on train memes, the latent was chosen on validation memes, and the numbers are from test memes.
# It is one latent and one label; that it is used does not make it the label ([notebook 2](2-is-this-latent-about-hate.ipynb)).
