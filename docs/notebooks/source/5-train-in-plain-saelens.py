# %% [markdown]
# # 5. Train in plain SAELens, evaluate here
#
# Nobody has to change trainers. This notebook trains two SAEs with SAELens' own runner on cached activations, and compares
# them with the one that this package's recipe trained. The memes are drawn and harmless.

# %% [install]

# %% [demo]

# %% [markdown]
# ## Train rows alone
# `embed` writes one folder in SAELens' cached-activations layout, with the test memes in it. A stock runner would train on
# those, too, and every number below would flatter it. `export_cached` writes the train rows.

# %%
import shutil

from sae_lens_meme import Embeddings, HookedMemeCLIP

embeddings = Embeddings.load("small-demo/embeddings")
shutil.rmtree("train-rows", ignore_errors=True)
embeddings.export_cached("train-rows")
model = HookedMemeCLIP.from_embeddings(embeddings, fit_head=False)
rows = model.token_dataset("train", labelled=False)

# %% [markdown]
# ## SAELens' runner, as it is
# A meme is a context of one token. The buffer must then hold at least one training batch: `n_batches_in_buffer` counts
# prompts of one token each, and SAELens' default would mix too few memes.

# %%
# %%capture
from sae_lens import (
    SAE,
    BatchTopKTrainingSAEConfig,
    LanguageModelSAERunnerConfig,
    LanguageModelSAETrainingRunner,
    LoggingConfig,
    TopKTrainingSAEConfig,
)


def trained(sae_config, out):
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
        n_batches_in_buffer=64,
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
saes = {
    "recipe": SAE.load_from_disk("small-demo/sae"),
    "stock topk": trained(TopKTrainingSAEConfig(**size, k=16), "stock-topk"),
    "stock batchtopk": trained(BatchTopKTrainingSAEConfig(**size, k=16), "stock-batchtopk"),
}

# %% [markdown]
# ## The same questions to all three
# `measure` takes any SAELens SAE.

# %%
import pandas as pd

from sae_lens_meme import measure

found = {
    name: measure(sae, embeddings, only=["reconstruction", "contest"], progress=False) for name, sae in saes.items()
}
for name, evaluation in found.items():
    print(f"{name}: {evaluation['reconstruction'].verdict} {evaluation['contest'].verdict}")

# %%
tables = [
    evaluation["contest"].table.query("target == 'all' and units in ('sae', 'neurons')").assign(SAE=name)
    for name, evaluation in found.items()
]
scores = pd.concat(tables).query("targets == 'labels' and estimator == 'auroc'")
scores[["SAE", "units", "sparsity", "value", "low", "high"]].round(3)

# %% [markdown]
# Intervals that overlap say that the corpus is too small to tell two SAEs apart, which is the usual case.
#
# ## What cannot be known
# An SAE from another trainer does not say which memes it has seen. Nothing here can find out, so it is said:

# %%
for name, evaluation in found.items():
    print(
        f"{name}: {[warning for warning in evaluation.content['warnings'] if 'training rows' in warning] or 'trained on the train memes'}"
    )

# %% [markdown]
# **What to conclude.** Evaluation is independent of the trainer: take any architecture that SAELens has. You answer for the
# train rows yourself, and the warning stays with the numbers so that a reader can ask.
