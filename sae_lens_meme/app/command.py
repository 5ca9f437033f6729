"""The `app` command."""

from __future__ import annotations

import threading
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from sae_lens_meme.app.options import LOOPBACK, AppOptions
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.flags import also_called, given_to
from sae_lens_meme.read.options import ReadOptions

_BESIDE = "default: the folder of that name beside EVALUATION"


@also_called("serve", "browse")
def app(
    *,
    evaluation: Annotated[
        Path | None, typer.Argument(help="The result of 'evaluate', for the names of latents.")
    ] = None,
    named_evaluation: Annotated[
        Path | None, typer.Option("--evaluation", help="The same, under the name that 'read' uses.")
    ] = None,
    sae: Annotated[Path | None, typer.Option("--sae", help=f"The SAE folder; {_BESIDE}.")] = None,
    embeddings: Annotated[Path | None, typer.Option("--embeddings", help=f"The result of 'embed'; {_BESIDE}.")] = None,
    corpus: Annotated[
        Path | None, typer.Option("--corpus", help=f"The corpus, to pick memes from; {_BESIDE}, if there is one.")
    ] = None,
    **given: Any,
) -> None:
    """Explore memes in the browser: read one, change the strength of its latents, watch the classifiers."""
    options, reading = AppOptions(**given_to(AppOptions, given)), ReadOptions(**given_to(ReadOptions, given))
    if find_spec("gradio") is None:
        from sae_lens_meme.app.serve import INSTALL

        raise ConfigError(INSTALL)
    evaluation = evaluation or named_evaluation
    folders = {"sae": sae, "embeddings": embeddings, "corpus": corpus}
    _serve(
        evaluation, {name: folder or _beside(evaluation, name) for name, folder in folders.items()}, options, reading
    )


def _serve(evaluation: Path | None, folders: dict[str, Path | None], options: AppOptions, reading: ReadOptions) -> None:
    from sae_lens_meme.app.memes import Memes
    from sae_lens_meme.app.serve import served
    from sae_lens_meme.read import MemeReader
    from sae_lens_meme.steps import only_sae

    sae, embeddings, corpus = folders["sae"], folders["embeddings"], folders["corpus"]
    if sae is None or embeddings is None:
        raise ConfigError(
            "app: give EVALUATION with the folders sae and embeddings beside it, or --sae and --embeddings"
        )
    reader = MemeReader(only_sae(sae), embeddings, evaluation, reading)
    memes = None if corpus is None else Memes(corpus)
    if options.host not in LOOPBACK:
        typer.echo(
            f"warning: {options.host} lets other computers in, and there is no login: they see every meme", err=True
        )
    with served(reader, memes, options) as address, suppress(KeyboardInterrupt):
        typer.echo(f"Open {address} (Ctrl-C ends it)")
        threading.Event().wait()


def _beside(evaluation: Path | None, name: str) -> Path | None:
    """The folder where `run` puts it."""
    folder = evaluation.absolute().parent / name if evaluation else None
    return folder if folder and folder.is_dir() else None
