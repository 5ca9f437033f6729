# %% [markdown]
# # 5. Train in plain SAELens, evaluate here
#
# You need not change trainers. This notebook trains two SAEs with SAELens' own runner on cached activations, and compares
# them with the one that this package's recipe trained. The memes are drawn and harmless.

# %% [install]

# %% [demo]

# %% [markdown]
# ## Train rows alone
# `embed` writes one folder in SAELens' cached-activations layout, with the test memes in it. A stock runner would train on
# those too, and every number below would flatter it. `export_cached` writes the train rows alone.

# %%
from pathlib import Path

import datasets

from sae_lens_meme import Embeddings, HookedMemeCLIP

datasets.disable_progress_bars()
embeddings = Embeddings.load("small-demo/embeddings")
if not Path("train-rows").exists():
    embeddings.export_cached("train-rows")
model = HookedMemeCLIP.from_embeddings(embeddings, fit_head=False)
rows = model.token_dataset("train", labelled=False)

# %% [markdown]
# ## SAELens' runner, as it is
# A meme is a context of one token, so SAELens' buffer holds `n_batches_in_buffer` memes. It must hold at least one training
# batch (the default of 20 is refused), and batches are mixed from it: use several batches.

# %%
import torch
from sae_lens import (
    SAE,
    BatchTopKTrainingSAEConfig,
    LanguageModelSAERunnerConfig,
    LanguageModelSAETrainingRunner,
    LoggingConfig,
    TopKTrainingSAEConfig,
)


def trained(sae_config, out):
    torch.manual_seed(0)  # SAELens draws weights and batches from torch's own generator
    config = LanguageModelSAERunnerConfig(
        sae=sae_config,
        hook_name="hook_fused",
        use_cached_activations=True,
        cached_activations_path="train-rows",
        is_dataset_tokenized=True,
        streaming=False,
        context_size=1,
        prepend_bos=False,
        train_batch_size_tokens=256,
        store_batch_size_prompts=16,
        n_batches_in_buffer=1024,
        training_tokens=60 * len(rows),
        lr=4e-3,
        logger=LoggingConfig(log_to_wandb=False),
        checkpoint_path=None,
        verbose=False,
        output_path=out,
    )
    LanguageModelSAETrainingRunner(config, override_model=model, override_dataset=rows).run()
    return SAE.load_from_disk(out)


size = {"d_in": embeddings.d_in("hook_fused"), "d_sae": 128}
saes = {"recipe": SAE.load_from_disk("small-demo/sae")}
with capture_output():  # progress, and a warning that counts memes as prompts
    saes["stock topk"] = trained(TopKTrainingSAEConfig(**size, k=16), "stock-topk")
    saes["stock batchtopk"] = trained(BatchTopKTrainingSAEConfig(**size, k=16), "stock-batchtopk")

# %% [markdown]
# ## The same questions to all three
# `measure` takes any SAELens SAE.

# %%
from sae_lens_meme import measure

found = {
    name: measure(sae, embeddings, only=["reconstruction", "contest"], progress=False) for name, sae in saes.items()
}
for name, evaluation in found.items():
    print(f"{name}: {evaluation['reconstruction'].verdict} {evaluation['contest'].verdict}")

# %%
import matplotlib.pyplot as plt

_, axes = plt.subplots(figsize=(7, 2.2))
for place, evaluation in enumerate(found.values()):
    table = evaluation["contest"].table.query("targets == 'labels' and estimator == 'auroc' and target == 'all'")
    own = table[table["units"] == "sae"].iloc[0]
    axes.plot([own["low"], own["high"]], [place, place], color="#1f5fa8")
    axes.plot(own["value"], place, "o", color="#1f5fa8")
    neurons = table[(table["units"] == "neurons") & (table["sparsity"] == "dense")].iloc[0]["value"]
axes.axvline(neurons, color="0.5", ls=":", label="raw neurons")
axes.set(
    yticks=range(len(found)),
    yticklabels=list(found),
    xlabel="AUROC of the best unit, mean of 13 labels, 95 % intervals",
)
axes.legend()
plt.show()

# %% [markdown]
# The trainer is the same in all three; the recipes differ. Ours standardises every dimension of the input and starts with
# tied weights; the stock runs do neither. The intervals are over test memes and do not include the seed, and another seed
# moves a stock SAE here by as much as TopK and BatchTopK differ: train several seeds before you rank architectures.
# For single labels none of the three is as good as raw neurons.
#
# ## What cannot be known
# An SAE from another trainer does not say which memes it has seen. Nothing here can find out, so there is a warning:

# %%
for name, evaluation in found.items():
    print(
        f"{name}: {[warning for warning in evaluation.content['warnings'] if 'training rows' in warning] or 'trained on the train memes'}"
    )

# %% [markdown]
# **What to conclude.** Evaluation is independent of the trainer: take any architecture that SAELens has. You answer for the
# train rows yourself, and the warning stays with the numbers so that a reader knows to ask.
