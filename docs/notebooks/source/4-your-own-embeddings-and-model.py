# %% [markdown]
# # 4. Your own embeddings and your own model
#
# Everything that this package measures needs three things: vectors, a table that describes them, and an SAE. First a model
# of your own gets hooks, in one class, without CLIP. After that, only its vectors are used, as arrays: if you have arrays,
# start at "Arrays". Nothing is written to disk but the memes.

# %% [install]

# %% [markdown]
# ## Memes
# Yours would be a list of pictures and a list of captions. These are drawn by the package (harmless; `hate` is the name of
# a column), with what is known about them in a table: NaN or `None` where a label is not known.

# %%
from sae_lens_meme import build_corpus
from sae_lens_meme.corpus import load_rows
from sae_lens_meme.planted import write_planted

paths = write_planted("own/planted", scale=0.25, progress=False)
build_corpus("own/corpus", pridemm=paths.pridemm, hmc=paths.hmc, memotion=paths.memotion, progress=False)
memes = load_rows("own/corpus")
table = memes.select_columns(["id", "source", "split", "text", "hate", "humor", "offensive"]).to_pandas()
table.head(3)

# %% [markdown]
# ## A hooked model in one class
# It declares its hooks with their widths and passes each with `tap`. This one knows nothing of memes: mean colours of 8 x 8
# squares, and counts of words in 192 buckets. `@register` makes it known by its name, so `train --corpus` finds it too.

# %%
import zlib

import numpy as np
import torch

from sae_lens_meme.hooks import Hook, HookedModel, register

D = 8 * 8 * 3


@register
class ColoursAndWords(HookedModel):
    model_name = "colours-and-words"

    def __init__(self):
        super().__init__()
        self.declare({"hook_image_embed": Hook(D), "hook_text_embed": Hook(D), "hook_fused": Hook(2 * D)})

    def preprocess(self, image):
        return torch.from_numpy(np.asarray(image.convert("RGB").resize((8, 8)), dtype=np.float32).ravel() / 255)

    def tokenize(self, texts):
        counts = torch.zeros(len(texts), D)
        for row, text in enumerate(texts):
            for word in (text or "").split():
                counts[row, zlib.crc32(word.encode()) % D] += 1
        return counts

    def compute(self, inputs):
        image = self.tap("hook_image_embed", inputs["pixels"][:, None])
        text = self.tap("hook_text_embed", inputs["tokens"][:, None])
        self.tap("hook_fused", torch.cat([image, text], -1))


model = ColoursAndWords().attach_memes(memes["image"], memes["text"])
_, cache = model.run_with_cache(torch.arange(len(memes))[:, None])
print({hook: tuple(acts.shape) for hook, acts in cache.items()})

# %% [markdown]
# ## Arrays
# From here on only arrays and the table are used; start here if you have them already. `as_embeddings` takes arrays or
# tensors, and a pandas, polars or pyarrow table, a `datasets.Dataset` or columns. Without a `split` column it holds out
# 20 % for validation and 20 % for test.

# %%
from sae_lens_meme import as_embeddings
from sae_lens_meme.train import MemeSAETrainingRunner, load_train_config

embeddings = as_embeddings(table, fused=cache["hook_fused"])
config = load_train_config({"sae": {"d_sae": 256, "k": 16}, "epochs": 30, "lr": 4e-3})
runner = MemeSAETrainingRunner(
    config.runner_config(embeddings.d_in("hook_fused"), len(embeddings.rows("train"))), embeddings, progress=False
)
sae = runner.run()

# %% [markdown]
# ## Measure
# The contest asks what the SAE gives that raw dimensions, PCA, ICA or random directions do not.

# %%
from IPython.display import Image

from sae_lens_meme import measure

found = measure(sae, embeddings, only=["reconstruction", "contest"], progress=False)
for name in found.results:
    print(found[name].verdict)
Image(found.figure("own-contest.png"), width=900)

# %% [markdown]
# A model of mean colours and word counts hardly sees these labels (the probe on all its dimensions is the best one could
# hope for), and the contest says so instead of finding something: its latents do no better than raw dimensions.
#
# ## The SAE in the model
# What works on `HookedMemeCLIP` works on your own model: caching, hooks, SAEs spliced in.

# %%
rows = torch.arange(4)[:, None]
_, cache = model.run_with_cache_with_saes(rows, saes=[sae])
active = cache["hook_fused.hook_sae_acts_post"][:, 0]
print([int(n) for n in (active > 0).sum(-1)], "latents are active in the first four memes")

# %% [markdown]
# **What to conclude.** The table decides how much can be said: with `source`, memes are compared within their data set; with
# `group`, copies of a template do not count twice; with null for unknown labels, nothing is mistaken for a negative. Without
# these columns the numbers assume one source, independent memes and complete labels.
