# %% [markdown]
# # 2. Is this latent about hate?
#
# A latent that fires on hateful memes is easy to find and easy to misread. This notebook asks one latent four questions, each
# beside the control that would embarrass it. The memes are drawn and harmless; `hate` is the name of a column, 1 where the
# caption's mood and the faces contradict each other.

# %% [install]

# %% [demo]

# %%
from sae_lens import SAE

from sae_lens_meme import Embeddings, concept_alignment, measure

embeddings = Embeddings.load("small-demo/embeddings")
sae = SAE.load_from_disk("small-demo/sae")

# %% [markdown]
# ## 1. Does it fire on `hate` more often than chance?
# The latent must be chosen on memes that do not score it: here by its F1 on validation memes.

# %%
found = measure(sae, embeddings, only=["concept_alignment"], progress=False)
pairs = found["concept_alignment"].table.query("protocol == 'corrected' and concept == 'hate=1'")
candidates = pairs.sort_values("f1_validation", ascending=False).head(5)  # undefined ones come last
latent = int(candidates.iloc[0]["latent"])
answer = concept_alignment(latent=latent, concept="hate=1", sae=sae, embeddings=embeddings)
print(f"latent {latent}: p {answer.p:.0e}, q {answer.q:.0e}, odds ratio {answer.odds_ratio:.1f}")
print(
    f"test memes: F1 {answer.f1:.2f} (a latent that always fires: {answer.f1_always_on:.2f}), AUROC {answer.auroc:.2f}"
)

candidates[
    ["latent", "auroc", "auroc_low", "auroc_high", "f1_validation", "f1_test", "f1_always_on", "winners_curse"]
].round(2)

# %% [markdown]
# q counts every latent under every concept that was tried, and p compares memes within their source only: otherwise a
# latent that recognises a *data set* would look like one that recognises hate. A small q is the minimum.
# It must also beat the latent that always fires, and its AUROC says how far it goes. `winners_curse` is F1 on the validation
# memes that chose minus F1 on test memes: by how much one would have overestimated it.
#
# ## 2. Does anything significant mean something?
# Published studies lead with the number of significant pairs. Here is the same count for units that know nothing:

# %%
counts = measure(sae, embeddings, only=["baselines"], progress=False)
print(counts["baselines"].verdict)
counts.rows.drop(columns=["section", "low", "high"]).head(7).round(3)

# %% [markdown]
# **The count does not tell an SAE from random directions.** Raw neurons and a TopK code of random directions get more pairs
# than the SAE: any direction that overlaps with the label's own is significant once there are enough memes. Permuted labels
# bring the count to nothing, which says that the test is sound, not that the pairs mean anything.
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
# Blue is the SAE, bars are 95 % intervals, and the marks are its rivals; `k` marks those that are cut to the sparsity of the
# SAE. For single labels raw dimensions are as good or better; for recovering the planted values one by one (right) the SAE
# leads.
#
# ## 4. Is it about hate, or about something that goes with it?
# The same latent under every concept, strongest evidence first, and a probe that reads all latents at once.

# %%
every = found["concept_alignment"].table.query("protocol == 'corrected' and latent == @latent").sort_values("log10_p")
probes = measure(sae, embeddings, only=["probes"], tasks=["hate"], progress=False)
print(probes["probes"].verdict)
shown = every[["concept", "n", "odds_ratio", "auroc", "auroc_low", "auroc_high"]].round(2)
shown.assign(q=every["q_global"].map("{:.1g}".format)).head(6)

# %% [markdown]
# ## The honest conclusion

# %%
also = every[(every["q_global"] < 0.05) & (every["concept"] != "hate=1")]["concept"].astype(str)
together = probes["probes"].numbers["hate/latents/auroc"]
print(f"Latent {latent} goes with hate within source (q {answer.q:.0e}).")
print(f"On test memes its F1 is {answer.f1 - answer.f1_always_on:+.2f} above that of a latent that always fires.")
print(f"Alone it ranks memes with AUROC {answer.auroc:.2f}, all latents together with {together:.2f}.")
print(f"Other concepts with q < .05: {', '.join(also) or 'none'}.")
print(f"Against what was there before: {contest['contest'].verdict}")

# %% [markdown]
# So: **the latent is associated with hate, it is not a hate detector, and the size of q hides that.** One latent carries
# part of the label; a probe on all of them carries nearly all of it, and so does a probe on the raw vectors. To be *about*
# hate, a latent would also have to change what a classifier says when it is edited:
# [notebook 3](3-ablate-and-steer.ipynb).
