"""Every command that writes, on a world that is as small as it can be: what `test_full_disk.py` has a disk fail under."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import pytest
import tiny_vlms
from arrays import anisotropic
from exported import FEW
from foreign_saes import dictionary_learning
from hooks_models import topk_sae
from seen_memes import EMBED, write_memes
from test_train_resume import EMBEDDINGS, section

from sae_lens_meme.attribute import attribute
from sae_lens_meme.corpus import build_corpus, export_table
from sae_lens_meme.dashboard import write_dashboard
from sae_lens_meme.embed import embed_arrays, embed_corpus
from sae_lens_meme.evaluators import evaluate
from sae_lens_meme.evaluators.user_study import compare_with_users
from sae_lens_meme.export import export, export_corpus, export_hub
from sae_lens_meme.figures import Inputs, write_figures
from sae_lens_meme.importers import import_sae
from sae_lens_meme.ocr import ENGINES, Engine, Line, Piece, read_captions
from sae_lens_meme.planted import write_planted, write_planted_vectors
from sae_lens_meme.results import read_step
from sae_lens_meme.select import select_memes
from sae_lens_meme.steer import steer
from sae_lens_meme.steps import describe_step
from sae_lens_meme.sweep import sweep
from sae_lens_meme.train import train

QUIET: dict[str, Any] = {"progress": False}
MEASURED: dict[str, Any] = {"only": ["reconstruction", "naming"], "bootstrap": 2, "stability_seeds": 0, **QUIET}
LITTLE: dict[str, Any] = {"map": "tsne", "single_file_mb": 0, "readings": 1, "nearest": 1, "top": 1, "per_interval": 1}


def write_world(folder: Path) -> Path:
    """What the steps read."""
    write_memes(folder, scale=0.01)
    evaluate(folder / "sae", folder / "embeddings", out=folder / "evaluation", **MEASURED)
    few = {**FEW, "n_latents": 3, "top": 2}
    attribute(folder / "sae", folder / "embeddings", folder / "corpus", out=folder / "attribution", **few)
    x = anisotropic(80, 6, np.random.default_rng(0))
    np.save(folder / "x.npy", x)
    splits = ["train", "train", "validation", "test"]
    for seed in (1, 2):
        lines = [f"{i},{splits[i % 4]},{i // 4 % 2},{seed}" for i in range(len(x))]
        (folder / f"rows{seed}.csv").write_text("\n".join(["id,split,hate,source", *lines]) + "\n")
        (folder / f"metric{seed}.csv").write_text("k,score\n1,0.5\n2,0.25\n3,1\n")
    _arrays(folder, folder / "arrays", 1)
    dictionary_learning(folder / "foreign", "AutoEncoder")
    PIL.Image.new("RGB", (20, 20), (200, 30, 30)).save(folder / "one.png")
    _write_study(folder / "study")
    _write_chat_model(folder / "chat")
    return folder


def _write_study(folder: Path) -> None:
    folder.mkdir()
    (folder / "pairs.csv").write_text("k_x,k_y,R_user,MS_x_a,MS_y_a\n1,2,1,.5,.25\n2,3,3,.25,.75\n1,3,3,.5,.75\n")
    (folder / "activations.csv").write_text("k,a_1,a_2\n1,0,2\n2,1,0.5\n3,1e3,0\n")


def _write_chat_model(folder: Path) -> None:
    """A LLaVA of two blocks, an SAE of its patches and four pictures."""
    tiny_vlms.save(folder / "model")
    (folder / "pictures").mkdir()
    for i, picture in enumerate(tiny_vlms.colour_pictures(4, seed=2)[0]):
        picture.save(folder / "pictures" / f"{i}.png")
    topk_sae(16, "hook_image_resid.1").save_model(folder / "sae")


def _planted(memes: Path, out: Path, seed: int, **more: Any) -> None:
    write_planted(out, seed=seed, scale=0.002, **QUIET, **more)


def _vectors(memes: Path, out: Path, seed: int, **more: Any) -> None:
    write_planted_vectors(out, n_samples=40, n_factors=6, d_in=8, active=1, seed=seed, **more)


def _corpus(memes: Path, out: Path, seed: int, **more: Any) -> None:
    build_corpus(out, pridemm=memes / "planted" / "PrideMM", shard_size=20 + seed, **QUIET, **more)


def _ocr(memes: Path, out: Path, seed: int, **more: Any) -> None:
    def load() -> Callable[[np.ndarray], list[Line]]:
        return lambda pixels: [Line("cats", 0.9, (Piece("cats", 0.9, (2, 3, 20, 9)),))]

    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(ENGINES, f"fake-{seed}", Engine(load, "numpy", "pip install it"))
        read_captions(memes / "corpus", out, engine=f"fake-{seed}", memes="all", **QUIET, **more)


def _embed(memes: Path, out: Path, seed: int, **more: Any) -> None:
    embed_corpus(memes / "corpus", out, **EMBED | {"batch_size": 8 + seed}, **more)


def _tokens(memes: Path, out: Path, seed: int, **more: Any) -> None:
    asked = {"hook": "hook_image_resid.1", "model": str(memes / "chat" / "model"), "tokens_per_item": 1}
    options = EMBED | asked | {"seed": seed}
    embed_corpus(memes / "corpus", out, **options, **more)


def _arrays(memes: Path, out: Path, seed: int, **more: Any) -> None:
    embed_arrays(out, fused_embeds=memes / "x.npy", table=memes / f"rows{seed}.csv", **more)


def _train(memes: Path, out: Path, seed: int, **more: Any) -> None:
    train(section(epochs=1, n_checkpoints=2, seed=seed), out=out, embeddings=EMBEDDINGS, **QUIET, **more)


def _sweep(memes: Path, out: Path, seed: int, **more: Any) -> None:
    recipe = {"epochs": 1, "train_batch_size_tokens": 16, "n_checkpoints": 0, "sae": {"d_sae": 8, "k": 2}}
    options: dict[str, Any] = {"grid": ["sae.k=2"], "seeds": 1, "bootstrap": 2 + seed}
    sweep(recipe, embeddings=memes / "arrays", out=out, **options, **QUIET, **more)


def _attribute(memes: Path, out: Path, seed: int, **more: Any) -> None:
    few = {**FEW, "n_latents": 2, "top": 2, "seed": seed}
    attribute(memes / "sae", memes / "embeddings", memes / "corpus", out=out, **few, **more)


def _evaluate(memes: Path, out: Path, seed: int, **more: Any) -> None:
    options = MEASURED | {"only": ["reconstruction"], "bootstrap": 2 + seed}
    evaluate(memes / "sae", memes / "embeddings", out=out, **options, **more)


def _dashboard(memes: Path, out: Path, seed: int, **more: Any) -> None:
    folders = (memes / "evaluation", memes / "sae", memes / "embeddings", memes / "corpus", memes / "attribution")
    write_dashboard(*folders, out=out, **LITTLE, pixels=32 + seed, **QUIET, **more)


def _select(memes: Path, out: Path, seed: int, **more: Any) -> None:
    select_memes(memes / "sae", memes / "embeddings", corpus=memes / "corpus", out=out, share=0.5 + seed / 10, **more)


def _export(memes: Path, out: Path, seed: int, **more: Any) -> None:
    folders: dict[str, Any] = {name: memes / name for name in ("sae", "embeddings", "attribution", "corpus")}
    export(memes / "evaluation", out=out, seed=seed, **folders, **QUIET, **more)


def _hub(memes: Path, out: Path, seed: int, **more: Any) -> None:
    repo = f"someone/sae-{seed}"
    export_hub(memes / "evaluation", repo, sae=memes / "sae", embeddings=memes / "embeddings", out=out, **more)


def _hub_corpus(memes: Path, out: Path, seed: int, **more: Any) -> None:
    export_corpus(memes / "corpus", f"someone/memes-{seed}", out=out, **more)


def _import(memes: Path, out: Path, seed: int, **more: Any) -> None:
    import_sae(
        next((memes / "foreign").rglob("*.pt")), out, converter="dictionary_learning", hook=f"hook_{seed}", **more
    )


def _user_study(memes: Path, out: Path, seed: int, **more: Any) -> None:
    compare_with_users(memes / "study", out, scores=[memes / f"metric{seed}.csv"], **more)


def _steer(memes: Path, out: Path, seed: int, **more: Any) -> None:
    chat = memes / "chat"
    asked: dict[str, Any] = {"model": str(chat / "model"), "pictures": chat / "pictures", "latents": [0]}
    few: dict[str, Any] = {"values": [2.0], "bootstrap": 2, "prompt": "what is this ?", "max_new_tokens": 1}
    steer(chat / "sae", out, seed=seed, **asked, **few, **QUIET, **more)


def _figures(memes: Path, out: Path, seed: int) -> None:
    write_figures(Inputs(memes / "evaluation", memes / "sae"), out, only=["density"], **QUIET)


def _describe(memes: Path, out: Path, seed: int) -> None:
    describe_step(memes / "corpus", out=out)


def _table(memes: Path, out: Path, seed: int) -> None:
    for name in ("rows.csv", "rows.parquet"):
        export_table(memes / "corpus", out / name, overwrite=True)


def _read(memes: Path, out: Path, seed: int) -> None:
    options = {"n_latents": 1, "n_neighbours": 1, "device": "cpu"}
    read_step(memes / "one.png", memes / "sae", memes / "embeddings", options, caption="cats", page=out / "page.html")


Write = Callable[..., None]


class Step(NamedTuple):
    """`write(memes, out, seed)`; the seed stands for whatever makes another result of it."""

    write: Write
    spread: int = 2
    """Writes that fail in the default suite; 0: the step is tried with `-m slow` alone."""
    long: bool = False
    """Where every write fails, a result that replaces another one is tried at every fifth alone."""


STEPS: dict[str, Step] = {
    "import": Step(_import),
    "arrays": Step(_arrays),
    "user-study": Step(_user_study),
    "ocr": Step(_ocr),
    "vectors": Step(_vectors),
    "hub-corpus": Step(_hub_corpus),
    "embed": Step(_embed, 5),
    "tokens": Step(_tokens),
    "hub": Step(_hub),
    "corpus": Step(_corpus, 5),
    "train": Step(_train, 5),
    "planted": Step(_planted, 5),
    "select": Step(_select, 5),
    "evaluate": Step(_evaluate, 5),
    "attribute": Step(_attribute, 5, long=True),
    "steer": Step(_steer, 0, long=True),
    "dashboard": Step(_dashboard, 5, long=True),
    "export": Step(_export, 5, long=True),
    "sweep": Step(_sweep, 0, long=True),
}
"""What is written as a result of a step."""

FILES: dict[str, Write] = {"table": _table, "read": _read, "figures": _figures, "describe": _describe}
"""What is written as files of no step."""
