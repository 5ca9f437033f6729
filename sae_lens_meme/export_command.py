"""The `export` command: for Neuronpedia or the Hugging Face Hub; nothing is sent unless asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sae_lens_meme.errors import ConfigError
from sae_lens_meme.export.options import ExportOptions
from sae_lens_meme.flags import Out, Overwrite, also_called, given_to
from sae_lens_meme.report.blocks import visible


@also_called("upload", "publish", "neuronpedia")
def export(
    *,
    evaluation: Annotated[Path, typer.Argument(help="The result of 'evaluate'; or, with --hf, of 'corpus'.")],
    sae: Annotated[Path | None, typer.Option(help="An SAE folder, of this package or of SAELens.")] = None,
    embeddings: Annotated[Path | None, typer.Option(help="The result of 'embed'.")] = None,
    attribution: Annotated[
        Path | None, typer.Option("--attribution", help="The result of 'attribute': coloured words and patches.")
    ] = None,
    corpus: Annotated[Path | None, typer.Option("--corpus", help="The result of 'corpus': pictures.")] = None,
    out: Out,
    mark_sae: Annotated[
        bool, typer.Option("--mark-sae", help="Write the Neuronpedia id into the SAE's own cfg.json as well.")
    ] = False,
    upload: Annotated[
        bool, typer.Option("--upload", help="Send it to Neuronpedia, with the key in NEURONPEDIA_API_KEY.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write what --upload would send, to OUT/requests; send nothing.")
    ] = False,
    hf: Annotated[
        str | None, typer.Option("--hf", help="Write a folder for this Hugging Face repository instead: OWNER/NAME.")
    ] = None,
    report: Annotated[Path | None, typer.Option("--report", help="With --hf: a report to put beside it.")] = None,
    push: Annotated[bool, typer.Option("--push", help="With --hf: upload the folder.")] = False,
    public: Annotated[bool, typer.Option("--public", help="With --push: make it public; default: private.")] = False,
    overwrite: Overwrite = False,
    **given: Any,
) -> None:
    """Write the folder that Neuronpedia imports, or one for the Hugging Face Hub; upload it if asked."""
    options = given_to(ExportOptions, given)
    _require_with_hf(hf, {"--report": report, "--push": push, "--public": public})
    if public and not push:
        raise ConfigError("--public needs --push; without it nothing is uploaded")
    _require_login(hf, send=upload and not dry_run, push=push)
    if hf is not None and sae is None and embeddings is None:
        return _corpus(evaluation, hf, out=out, push=push, public=public, overwrite=overwrite)
    for flag, given_folder in {"--sae": sae, "--embeddings": embeddings}.items():
        if given_folder is None:
            raise ConfigError(f"{flag} is missing; an evaluation is exported with its SAE and its embeddings")
    folders: dict[str, Any] = {"sae": sae, "embeddings": embeddings, "out": out}
    if hf is None:
        sending: dict[str, Any] = {"mark": mark_sae, "send": upload, "dry_run": dry_run}
        seen = {"attribution": attribution, "corpus": corpus}
        _neuronpedia(evaluation, options, **folders, **seen, **sending, overwrite=overwrite)
    else:
        _hub(evaluation, hf, options, **folders, report=report, push=push, public=public, overwrite=overwrite)


def _require_with_hf(hf: str | None, given: dict[str, Any]) -> None:
    if hf is None and (alone := next((name for name, value in given.items() if value), None)):
        raise ConfigError(f"{alone} needs --hf OWNER/NAME")


def _require_login(hf: str | None, *, send: bool, push: bool) -> None:
    """Asked before hours of writing, not after them."""
    from sae_lens_meme.export.push import require_token
    from sae_lens_meme.export.sending import require_key

    if push:
        require_token()
    elif send and hf is None:
        require_key()


def _neuronpedia(
    evaluation: str | Path,
    section: dict[str, Any],
    *,
    sae: str | Path,
    out: Path,
    mark: bool = False,
    send: bool = False,
    dry_run: bool = False,
    **folders: Any,
) -> None:
    """Write the Neuronpedia folder; the section is that of `ExportOptions`. Nothing is sent unless asked."""
    from sae_lens_meme.export import export as write
    from sae_lens_meme.export import mark_sae, upload, write_requests
    from sae_lens_meme.steps import only_sae

    options = ExportOptions.from_mapping(section)
    source = write(evaluation, options, sae=only_sae(sae), out=out, **folders)
    _say(f"  {source}: ready for Neuronpedia's importer; {out / 'sae'} names it for SAELens")
    if mark:
        mark_sae(sae, f"{source.parent.name}/{source.name}")
        _say(f"  {sae}: its cfg.json names {source.parent.name}/{source.name}")
    if dry_run:
        _say(f"  {write_requests(out)}: what an upload would send; nothing was sent")
    elif send:
        _say(f"  {upload(out)}: uploaded")


def _hub(
    evaluation: str | Path,
    repo: str,
    section: dict[str, Any],
    *,
    sae: str | Path,
    out: Path,
    push: bool = False,
    public: bool = False,
    **folders: Any,
) -> None:
    """Write the folder for the Hugging Face Hub, and upload it if asked."""
    from sae_lens_meme.export import export_hub, push_hub
    from sae_lens_meme.steps import only_sae

    options = ExportOptions.from_mapping(section)
    export_hub(evaluation, repo, options, sae=only_sae(sae), out=out, **folders)
    _say(f"  {out}: SAE, latents, evaluation and card; nothing was sent" if not push else f"  {out}")
    if push:
        _say(f"  {push_hub(out, private=not public)}: uploaded, {'public' if public else 'private'}")


def _corpus(corpus: Path, repo: str, *, out: Path, push: bool, public: bool, overwrite: bool) -> None:
    """Write a corpus as a dataset repository, and upload it if asked."""
    from sae_lens_meme.export import export_corpus, push_corpus

    export_corpus(corpus, repo, out=out, overwrite=overwrite)
    _say(f"  {out}: Parquet and card" + ("" if push else "; nothing was sent"))
    if push:
        _say(f"  {push_corpus(out, private=not public)}: uploaded, {'public' if public else 'private'}")


def _say(text: str) -> None:
    typer.echo(visible(text))
