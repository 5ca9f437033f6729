# %% [markdown]
# # 6. Report, export, Neuronpedia
#
# Three ways to hand over what was found: a report in one file, the folder that Neuronpedia imports, and a folder for the
# Hugging Face Hub. Nothing is sent in this notebook. The memes are drawn and harmless; with real ones, remember that sharing
# the report or Neuronpedia's folder shares pictures and captions.

# %% [install]

# %% [demo]

# %% [markdown]
# ## The report, and figures for a paper
# The report is already there, as the last step of a recipe: one file that needs no network, with pictures blurred
# and captions masked until the reader asks. A figure is a function of matplotlib axes; `sae-lens-meme figures` draws all
# of them as PNG and SVG.

# %%
from pathlib import Path

import matplotlib.pyplot as plt

from sae_lens_meme import figures

page = Path("small-demo/report/report.html")
print(f"open {page} in a browser ({page.stat().st_size / 1e6:.1f} MB)")
inputs = figures.Inputs.of_run("small-demo")
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
figures.find("density").draw(left, inputs)
figures.find("training").draw(right, inputs)

# %% [markdown]
# ## The folder that Neuronpedia imports
# Neuronpedia shows text, so a meme becomes a row of tokens: its id, the words of its caption, and 7 x 7 squares for its
# patches. Names appear only where they hold on memes not used to choose them.

# %%
from sae_lens_meme.export import export

source = export(
    "small-demo/evaluation",
    sae="small-demo/sae",
    embeddings="small-demo/embeddings",
    attribution="small-demo/attribution",
    corpus="small-demo/corpus",
    out="neuronpedia",
    progress=False,
)
for file in sorted(source.rglob("*.*")):
    print(f"{file.stat().st_size / 1000:>8.1f} kB  {file}")

# %% [markdown]
# ## Check it before anyone imports it
# The importer stops at a NaN, a missing latent or a row whose tokens and values differ in number. A look at the rows:

# %%
import gzip
import json


def rows_of(kind):
    with gzip.open(source / kind / "batch-0.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


features, activations, explanations = map(rows_of, ("features", "activations", "explanations"))
complaints = [row["id"] for row in activations if len(row["tokens"]) != len(row["values"]) or not row["maxValue"] > 0]
complaints += [row["index"] for row in features if "NaN" in json.dumps(row)]
complaints += ["latents are missing"] * ([int(row["index"]) for row in features] != list(range(len(features))))
print(f"{len(features)} latents, {len(activations)} rows of memes, {len(explanations)} explanations")
print(f"complaints: {complaints or 'none'}")

held = inputs.table("naming").query("holds == 1")
latent = str(held.sort_values("auroc").iloc[-1]["latent"])
told = next(row for row in explanations if row["index"] == latent)
print(f"latent {latent}: {told['description']}\n{told['notes']}")
shown = next(row for row in activations if row["index"] == latent)
print("".join(shown["tokens"]))

# %% [markdown]
# ## Upload, without sending
# If you cannot run the importer, upload through Neuronpedia's client. A dry run writes the requests to a folder instead; with
# `upload("neuronpedia")` and `NEURONPEDIA_API_KEY` in the environment they would be sent.

# %%
from sae_lens_meme.export import write_requests

requests = write_requests("neuronpedia", "neuronpedia-requests")
print(requests)

# %% [markdown]
# ## The Hugging Face Hub
# One folder with the SAE, its latents on the memes (ids only), the evaluation, and a model card that says what to distrust
# and what was not measured: the contest was left out of this small run, and the card says so.

# %%
from sae_lens_meme.export import export_hub

folder = export_hub(
    "small-demo/evaluation", "me/meme-sae", sae="small-demo/sae", embeddings="small-demo/embeddings", out="hub"
)
print((folder / "README.md").read_text(encoding="utf-8")[:2500])

# %% [markdown]
# **What to conclude.** The pages show what was measured and nothing more: a latent without evidence has no explanation, the
# release is UNLISTED until you say PUBLIC, and the signed attributions and the pictures, for which Neuronpedia has no field,
# are beside it in `multimodal/`.
