"""The command line: one command a step, `run` for all of them, `demo` for all of them on planted memes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from sae_lens_meme.errors import MemeError

app = typer.Typer(
    name="sae-lens-meme",
    help="Look inside multimodal meme models with sparse autoencoders: corpus -> embed -> train -> evaluate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Out = Annotated[Path, typer.Option("--out", help="Folder for the result.")]
_INTERRUPTED = 130
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a different result that is in the way.")]


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if debug:
        os.environ["SAE_LENS_MEME_DEBUG"] = "1"


@app.command()
def demo(
    out: Out = Path("meme-demo"),
    overwrite: Overwrite = False,
) -> None:
    """Run everything on planted memes with the demo encoder: no download, no GPU, about a minute."""
    from sae_lens_meme.pipeline import run as run_all

    run_all("demo.yaml", out=out, overwrite=overwrite)


@app.command()
def corpus(
    out: Out,
    pridemm: Annotated[Path | None, typer.Option(help="PrideMM: folder with PrideMM.csv and its images.")] = None,
    hmc: Annotated[Path | None, typer.Option(help="Hateful Memes: folder with train.jsonl ... and img/.")] = None,
    memotion: Annotated[Path | None, typer.Option(help="Memotion 7k: folder with labels.csv and images/.")] = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="Any other memes: an ImageFolder with metadata.*, or a table with an image column."),
    ] = None,
    columns: Annotated[
        Path | None,
        typer.Option(help="YAML that maps columns of --folder, e.g. {text: caption, labels: {hate: is_hateful}}."),
    ] = None,
    preset: Annotated[
        Literal["all", "intervlm"],
        typer.Option(help="'all' keeps every labelled row; 'intervlm' the published 19,820 + 1,007."),
    ] = "all",
    holdout: Annotated[
        float, typer.Option(help="Share of validation and of test rows for a source that has no split of its own.")
    ] = 0.1,
    on_bad: Annotated[
        Literal["raise", "skip"],
        typer.Option(help="A missing or broken picture: 'raise' stops, 'skip' lists it in bad_rows.jsonl."),
    ] = "raise",
    overwrite: Overwrite = False,
) -> None:
    """Merge meme data sets into one Hugging Face DatasetDict: one row a meme, missing labels null."""
    from sae_lens_meme.config import read_yaml
    from sae_lens_meme.corpus import build_corpus

    built = build_corpus(
        out,
        pridemm=pridemm,
        hmc=hmc,
        memotion=memotion,
        folder=folder,
        columns=read_yaml(columns) if columns else None,
        preset=preset,
        holdout=holdout,
        on_bad=on_bad,
        overwrite=overwrite,
    )
    _done(out, ", ".join(f"{len(rows):,} {split}" for split, rows in built.items()) + " memes")


@app.command()
def embed(
    out: Out,
    corpus: Annotated[
        Path | None, typer.Argument(help="The result of 'corpus'; leave it out when you pass arrays.")
    ] = None,
    model: Annotated[str, typer.Option(help="open_clip name, 'hf-hub:...', or 'demo-encoder'.")] = "ViT-L-14/openai",
    fusion: Annotated[
        Literal["clip", "memeclip"], typer.Option(help="'clip' (projected text) or 'memeclip' (un-projected text).")
    ] = "clip",
    heads: Annotated[
        Path | None, typer.Option(help="memeclip: a trained checkpoint; without one the heads are trained on --task.")
    ] = None,
    task: Annotated[str, typer.Option(help="memeclip: the label that new heads are trained on.")] = "hate",
    image_embeds: Annotated[
        str | None, typer.Option(help="Array: .npy, .safetensors[:key], .pt[:key], dataset:column.")
    ] = None,
    text_embeds: Annotated[str | None, typer.Option(help="Array of the same width as --image-embeds.")] = None,
    fused_embeds: Annotated[
        str | None, typer.Option(help="Array of fused embeddings, where that is all there is.")
    ] = None,
    table: Annotated[Path | None, typer.Option(help="id, source, split, labels: row i describes vector i.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option(help="auto (bfloat16 on CUDA, else float32), float32, bfloat16, float16."),
    ] = "auto",
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Decoding processes; default one a core, at most 8.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Embed a corpus with a model, or take arrays: one row a meme, one column a hook."""
    from sae_lens_meme.embed import embed_arrays, embed_corpus
    from sae_lens_meme.errors import ConfigError

    arrays = (image_embeds, text_embeds, fused_embeds)
    if (corpus is None) == (not any(arrays)):
        raise ConfigError("give either a CORPUS or arrays (--image-embeds, --text-embeds, --fused-embeds), not both")
    if corpus is not None:
        result = embed_corpus(
            corpus,
            out=out,
            model=model,
            fusion=fusion,
            heads=heads,
            task=task,
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            workers=workers,
            overwrite=overwrite,
        )
    else:
        if table is None:
            raise ConfigError(
                "arrays need --table rows.csv with a column id and, where there are any, source, split, labels"
            )
        result = embed_arrays(
            out=out,
            table=table,
            image_embeds=image_embeds,
            text_embeds=text_embeds,
            fused_embeds=fused_embeds,
            overwrite=overwrite,
        )
    _done(out, f"{len(result):,} memes, " + ", ".join(f"{hook} {result.d_in(hook)}" for hook in result.hooks))


@app.command()
def train(
    config: Annotated[
        Path, typer.Argument(help="YAML with a train: section (or one that is it), or a shipped recipe's name.")
    ],
    out: Out,
    overrides: Annotated[list[str] | None, typer.Argument(help="sae.k=32 epochs=10 ..., relative to train:")] = None,
    embeddings: Annotated[Path | None, typer.Option(help="The result of 'embed'.")] = None,
    corpus: Annotated[
        Path | None, typer.Option(help="Train live on this corpus, through the towers of --model.")
    ] = None,
    model: Annotated[str, typer.Option(help="The model for live training.")] = "ViT-L-14/openai",
    fusion: Annotated[Literal["clip", "memeclip"], typer.Option(help="The fusion for live training.")] = "clip",
    heads: Annotated[Path | None, typer.Option(help="Live training with memeclip: its trained checkpoint.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Train an SAE through SAELens; the result is a stock SAELens SAE folder."""
    from sae_lens_meme.pipeline import train_step, trained_saes

    train_step(
        config,
        out=out,
        overrides=overrides or [],
        embeddings=embeddings,
        corpus=corpus,
        model=model,
        fusion=fusion,
        heads=heads,
        overwrite=overwrite,
    )
    for folder, numbers in trained_saes(out).items():
        _done(folder, f"{numbers}; load it with sae_lens.SAE.load_from_disk")


@app.command()
def evaluate(
    sae: Annotated[Path, typer.Option(help="An SAE folder: ours or any of SAELens'.")],
    embeddings: Annotated[Path, typer.Option(help="The result of 'embed'.")],
    out: Out,
    protocol: Annotated[
        Literal["corrected", "published", "both"],
        typer.Option(help="corrected, published (InterVLM's, fault for fault), or both."),
    ] = "both",
    concept: Annotated[
        list[str] | None,
        typer.Option(
            "--concept",
            help="e.g. 'hate=1', 'mocking: humor>=2'; repeat. Default: InterVLM's 13, any other label's classes.",
        ),
    ] = None,
    concepts: Annotated[
        Path | None, typer.Option(help="YAML with a list or a mapping of such concepts under 'concepts:'.")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option("--task", help="Label for probes and influence; repeat. Default: all.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only this evaluator; repeat.")] = None,
    skip: Annotated[list[str] | None, typer.Option(help="Not this evaluator; repeat.")] = None,
    hook: Annotated[str | None, typer.Option(help="The hook to read, for an SAE that names none.")] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Embeddings of the same memes by another encoder, for monosemanticity.")
    ] = None,
    other_sae: Annotated[
        list[str] | None, typer.Option(help="SAE of the same recipe and another seed, for stability; repeat.")
    ] = None,
    stability_seeds: Annotated[
        int, typer.Option(min=0, help="Train so many such SAEs (each as long as 'train'); they are kept.")
    ] = 0,
    share: Annotated[float, typer.Option(help="Share of memes that SAE-V's filter keeps.")] = 0.5,
    answer_key: Annotated[
        Path | None, typer.Option(help="Planted factors (factors.parquet) to score latents against.")
    ] = None,
    bootstrap: Annotated[int, typer.Option(min=0, help="Bootstrap resamples of the memes for intervals.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of permutations and resamples.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Measure an SAE on held-out memes, every number beside its control."""
    from sae_lens_meme.config import read_concepts
    from sae_lens_meme.pipeline import evaluate_step

    listed = [*(concept or []), *(read_concepts(concepts) if concepts else [])]
    evaluate_step(
        sae,
        embeddings,
        out=out,
        protocol=protocol,
        concepts=listed or None,
        tasks=task,
        only=only,
        skip=skip,
        hook=hook,
        reference=reference,
        other_saes=other_sae,
        stability_seeds=stability_seeds,
        share=share,
        answer_key=answer_key,
        bootstrap=bootstrap,
        seed=seed,
        overwrite=overwrite,
    )


@app.command()
def select(
    sae: Annotated[Path, typer.Option(help="An SAE folder: ours or any of SAELens'.")],
    embeddings: Annotated[Path, typer.Option(help="The result of 'embed'.")],
    out: Out,
    corpus: Annotated[Path | None, typer.Option(help="Filter this corpus; default the embeddings.")] = None,
    share: Annotated[float, typer.Option(help="Share of the train memes to keep.")] = 0.5,
    by: Annotated[
        Literal["sum", "mean", "clip", "l0"],
        typer.Option(help="Score: sum or mean of the latents' cross-modal weights, CLIP score, or L0."),
    ] = "sum",
    within_source: Annotated[bool, typer.Option("--within-source", help="Keep this share of each source.")] = False,
    hook: Annotated[str | None, typer.Option(help="The hook to read, for an SAE that names none.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Keep the train memes whose latents bind picture and caption (SAE-V's filter), as a Hugging Face dataset."""
    from sae_lens_meme.select import select_memes

    kept = select_memes(
        *(sae, embeddings),
        out=out,
        corpus=corpus,
        share=share,
        by=by,
        within_source=within_source,
        hook=hook,
        overwrite=overwrite,
    )
    sizes = {name: len(part) for name, part in kept.items()} if isinstance(kept, dict) else {"": len(kept)}
    _done(
        out,
        ", ".join(f"{n:,} {name}".rstrip() for name, n in sizes.items()) + " memes; datasets.load_from_disk opens it",
    )


@app.command()
def explain(
    evaluation: Annotated[Path, typer.Argument(help="The result of 'evaluate'.")],
    pattern: Annotated[str, typer.Argument(help="Which numbers, e.g. '*best_f1_test' or 'probes/hate/*'.")] = "*",
) -> None:
    """Say of each number what it is: rows used, split, control, or why it is undefined."""
    from sae_lens_meme.pipeline import explain_numbers

    explain_numbers(evaluation, pattern)


@app.command()
def run(
    config: Annotated[
        Path, typer.Argument(help="YAML with the sections corpus, embed, train, evaluate, or a shipped recipe.")
    ],
    overrides: Annotated[list[str] | None, typer.Argument(help="corpus.hmc=DIR train.sae.k=32 ...")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Overrides the recipe's 'out'.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Run every step of a recipe; resume where it was stopped, skip what is done."""
    from sae_lens_meme.pipeline import run as run_all

    run_all(config, out=out, overrides=overrides or [], overwrite=overwrite)


def _done(out: Path, what: str) -> None:
    typer.echo(f"{out}: {what}")


def _one_line(error: Exception) -> str:
    """The message; of an error of the operating system (a full disk, no permission) the file and the reason."""
    if isinstance(error, MemeError) or not isinstance(error, OSError) or not error.strerror:
        return " ".join(str(error).split())
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


def main() -> None:
    """Entry point: one line and exit 2 for bad input, 130 for Ctrl-C."""
    # Before torch is imported: OpenMP threads that spin while they wait fight over the cores with those of other
    # libraries in the process. Measured on two cores: a small training step takes 10 ms instead of 200.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        status = app(standalone_mode=False) or 0
        if status == _INTERRUPTED:  # typer turns Ctrl-C into a status
            raise KeyboardInterrupt
        sys.exit(status)
    except (MemeError, OSError) as error:
        if os.environ.get("SAE_LENS_MEME_DEBUG"):
            raise
        typer.echo(f"error: {_one_line(error)}", err=True)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("\ninterrupted; run the same command again to go on", err=True)
        sys.exit(_INTERRUPTED)
    except Exception as error:
        if not hasattr(error, "show"):  # not typer's own usage errors
            raise
        error.show()  # type: ignore[attr-defined]
        sys.exit(2)


if __name__ == "__main__":
    main()
