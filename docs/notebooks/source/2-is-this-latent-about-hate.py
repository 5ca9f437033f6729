# %% [markdown]
# # 2. Is this latent about hate?
#
# A latent that fires on hateful memes is easily found and easily misread. This notebook asks one latent four questions, each
# beside the control that would embarrass it. The memes are drawn and harmless; `hate` is the name of a column, 1 where the
# caption's mood and the faces contradict each other.

# %% [install]

# %% [demo]

# %%
from sae_lens import SAE

from sae_lens_meme import Embeddings, concept_alignment, measure
from sae_lens_meme.evaluators import encode

embeddings = Embeddings.load("small-demo/embeddings")
sae = SAE.load_from_disk("small-demo/sae")
latents = encode(sae, embeddings)

# %% [markdown]
# ## 1. Does it fire on `hate` more often than chance?
# The latent must be chosen on memes that do not score it: here by its F1 on validation memes.

# %%
found = measure(sae, embeddings, only=["concept_alignment"], progress=False)
pairs = found["concept_alignment"].table.query("protocol == 'corrected' and concept == 'hate=1'")
latent = int(pairs.sort_values("f1_validation").iloc[-1]["latent"])
answer = concept_alignment(latent=latent, concept="hate=1", sae=sae, embeddings=embeddings, latents=latents)
print(f"latent {latent}: p {answer.p:.0e}, q {answer.q:.0e}, odds ratio {answer.odds_ratio:.1f}")
print(
    f"test memes: F1 {answer.f1:.2f} (a latent that always fires: {answer.f1_always_on:.2f}), AUROC {answer.auroc:.2f}"
)

# %% [markdown]
# q counts every latent under every concept that was tried, and p compares memes within their source only: otherwise a
# latent that recognises a *data set* would look like one that recognises hate. A small q is the least a latent must have.
# It must also beat the latent that always fires, and its AUROC says how far it goes.
#
# ## 2. Does anything significant mean something?
# Published studies lead with the number of significant pairs. The same count for things that know nothing:

# %%
counts = measure(sae, embeddings, only=["baselines"], progress=False)
print(counts["baselines"].verdict)
counts.rows.drop(columns=["section", "low", "high"]).head(7).round(3)

# %% [markdown]
# **The count does not tell an SAE from random directions.** Any direction that overlaps with the label's own direction is
# significant once there are enough memes. Only permuted labels bring the count down, as they must.
#
# ## 3. Is the SAE better than what was there before?
# The contest gives neurons, principal components, independent components and random directions the same task, dense and
# cut to the sparsity of the SAE. It takes several numbers because they disagree.

# %%
from IPython.display import Image

contest = measure(sae, embeddings, only=["contest"], answer_key="small-demo/planted/answer_key", progress=False)
print(contest["contest"].verdict)
Image(contest.figure("contest.png"), width=900)

# %% [markdown]
# ## 4. Is it about hate, or about something that goes with it?
# One latent against a second one, and against a probe that reads all latents at once.

# %%
probes = measure(sae, embeddings, only=["probes"], tasks=["hate"], progress=False)
print(probes["probes"].verdict)
others = pairs.sort_values("f1_validation", ascending=False).head(5)
others[["latent", "n_test", "auroc", "auroc_low", "auroc_high", "f1_test", "f1_always_on", "winners_curse"]].round(2)

# %% [markdown]
# `winners_curse` is F1 on the validation memes that chose minus F1 on test memes: what one would have believed too much.
#
# ## The honest conclusion

# %%
beats = "beats" if answer.f1 > answer.f1_always_on else "does not beat"
print(
    f"Latent {latent} is associated with hate within source (q {answer.q:.0e}), and {beats} always firing on test memes."
)
print(f"Alone it ranks memes with AUROC {answer.auroc:.2f}: part of the label, not the label.")
print(f"Number of significant pairs: no evidence. {contest['contest'].verdict}")

# %% [markdown]
# To be **about** hate a latent would have to carry the label and little else, and changing it would have to change what a
# classifier says. The first the contest measures (its TPP panel), the second is
# [notebook 3](3-ablate-and-steer.ipynb).
