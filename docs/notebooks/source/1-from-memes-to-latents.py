# %% [markdown]
# # 1. From memes to latents
#
# A meme is a picture and a caption. A model makes one vector of both; a sparse autoencoder (SAE) writes that vector as a
# sum of a few **latents**, each of which, with luck, stands for something one can name. This notebook does that once.
#
# The memes are drawn by this package and harmless. `hate` is only the name of a column here: it is 1 where the mood of the
# caption and the faces in the picture contradict each other, so neither side shows it alone.

# %% [install]

# %% [demo]

# %% [markdown]
# ## The corpus
# One row per meme, as a Hugging Face `DatasetDict`. Three sources are merged as three real data sets would be: with their own
# splits, their own labels, and gaps where a source does not know a label.

# %%
import matplotlib.pyplot as plt

from sae_lens_meme import load_corpus

corpus = load_corpus("small-demo/corpus")
figure, panels = plt.subplots(2, 4, figsize=(8, 4.6))
for meme, axes in zip(corpus["test"].select(range(0, 400, 50)), panels.ravel(), strict=True):
    axes.imshow(meme["image"])
    axes.set_title(f"{meme['source']}, hate: {meme['hate']}", fontsize=8)
    axes.axis("off")

# %%
labels = corpus["train"].select_columns(["source", "hate", "humor", "stance", "sentiment"]).to_pandas()
labels.groupby("source").count()  # memes with a known label

# %% [markdown]
# A missing label is null. It is never counted as a negative: `hate` is unknown for every meme of one source, and no number
# below uses those memes for it.
#
# ## The embeddings
# `hook_fused` is the product of the unit image vector and the unit text vector. The SAE was trained on it, on train memes.

# %%
from sae_lens import SAE

from sae_lens_meme import Embeddings
from sae_lens_meme.evaluators import encode

embeddings = Embeddings.load("small-demo/embeddings")
sae = SAE.load_from_disk("small-demo/sae")  # a stock SAELens SAE
latents = encode(sae, embeddings)
print({hook: embeddings.d_in(hook) for hook in embeddings.hooks})
print(f"{sae.cfg.d_sae} latents, {latents.l0.mean():.1f} of them active in one meme")

# %% [markdown]
# ## What a latent is about
# `naming` gives a latent a name from captions and labels on some memes, and scores the name on memes not used to choose it.
# A name `holds` if it beats chance there; most first guesses do not.

# %%
from sae_lens_meme import figures

inputs = figures.Inputs.of_run("small-demo")
named = inputs.table("naming")
held = named[named["holds"] == 1].sort_values("auroc", ascending=False)
print(f"{len(held)} of {sae.cfg.d_sae} latents have a name that holds")
held[["latent", "name", "auroc", "auroc_low", "auroc_high", "n", "n_true"]].head(8).round(2)

# %% [markdown]
# An AUROC of .5 is chance. Where `n_true` is small the interval is wide, so read `auroc_low` first. The memes of one of the
# best named latents follow: the three regions that drive it most are outlined, and the words are coloured (red: the latent
# is weaker without the word).

# %%
best = held[held["n_true"] >= 20].iloc[0]
latent = int(best["latent"])
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), width_ratios=[1, 1.4])
figures.find("top_memes").draw(left, inputs, latent=latent, reveal=True)  # without `reveal` pictures are blurred
figures.find("tokens").draw(right, inputs, latent=latent)

# %% [markdown]
# ## One new meme
# `read_meme` says the same about a single picture: which latents it has, what they stand for, and how far to trust that.

# %%
from sae_lens_meme import read_meme

meme = corpus["test"][0]
meme["image"].save("meme.png")
reading = read_meme(
    "meme.png",
    caption=meme["text"],
    sae="small-demo/sae",
    embeddings="small-demo/embeddings",
    evaluation="small-demo/evaluation",
)
for active in reading.latents[:5]:
    print(
        f"latent {active.latent:>3}  {active.name.name or 'no name'}: {active.name.evidence}; decided by {active.sides.decided_by}"
    )

# %% [markdown]
# **What to conclude.** Some latents have a meaning that holds on memes not used to choose it, and many have none: an
# active latent without evidence behind its name says nothing about the meme. Whether such a latent is *about* a label is
# the question of [notebook 2](2-is-this-latent-about-hate.ipynb).
