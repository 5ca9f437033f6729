"""The commands of single steps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from sae_lens_meme.attribute.options import AttributeOptions
from sae_lens_meme.corpus.options import corpus_options
from sae_lens_meme.dashboard.options import DashboardOptions
from sae_lens_meme.embed.options import ArrayOptions, EmbedOptions, ViewOptions
from sae_lens_meme.evaluators.options import EvaluateOptions
from sae_lens_meme.flags import EmbeddingsFolder, Hook, Out, Overwrite, SAEFolder, also_called, given_to
from sae_lens_meme.importers.options import AUTO, FORMATS, ImportOptions
from sae_lens_meme.ocr.options import OcrOptions
from sae_lens_meme.planted.options import VectorOptions
from sae_lens_meme.read.options import ReadOptions

Full = Annotated[bool, typer.Option("--full", help="Print every row of the report, not only the summary.")]
OpenReport = Annotated[bool, typer.Option("--open", help="Open the report in the browser.")]


@also_called("build", "merge", "dataset")
def corpus(*, out: Out, overwrite: Overwrite = False, **given: Any) -> None:
    """Merge meme data sets into one Hugging Face DatasetDict: one row per meme, missing labels null."""
    from sae_lens_meme.steps import corpus_step

    corpus_step(given_to(corpus_options(), given), out=out, overwrite=overwrite)


@also_called("summary", "stats", "info")
def describe(
    corpus: Annotated[Path, typer.Argument(help="The result of 'corpus'.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder for description.json and the figure.")] = None,
) -> None:
    """Describe a corpus: rows, what is missing where, labels that go together, captions, pictures."""
    from sae_lens_meme.steps import describe_step

    describe_step(corpus, out=out)


def ocr(
    *,
    corpus: Annotated[Path, typer.Argument(help="The result of 'corpus'.")],
    out: Out,
    overwrite: Overwrite = False,
    **given: Any,
) -> None:
    """Read the text on pictures: captions for memes that have none (embed --ocr OUT), words with their boxes."""
    from sae_lens_meme.steps import ocr_step

    ocr_step(given_to(OcrOptions, given), corpus=corpus, out=out, overwrite=overwrite)


@also_called("encode", "extract")
def embed(
    *,
    corpus: Annotated[
        Path | None, typer.Argument(help="The result of 'corpus'; leave it out when you pass arrays.")
    ] = None,
    out: Out,
    overwrite: Overwrite = False,
    **given: Any,
) -> None:
    """Embed a corpus with a model, or take arrays: one row per meme, one column per hook."""
    from sae_lens_meme.errors import ConfigError
    from sae_lens_meme.steps import embed_step

    arrays = given_to(ArrayOptions, given)
    if (corpus is None) == (not arrays):
        raise ConfigError("give either a CORPUS or arrays (--image-embeds, --text-embeds, --fused-embeds), not both")
    if arrays and "table" not in arrays:
        raise ConfigError("arrays need --table rows.csv with a column id and, if known, source, split and labels")
    embed_step(given_to(EmbedOptions, given) if corpus else arrays, corpus=corpus, out=out, overwrite=overwrite)


@also_called("fit")
def train(
    config: Annotated[
        Path,
        typer.Argument(
            help="YAML with a train: section (or only its content), or the name of a recipe that comes with the package."
        ),
    ],
    out: Out,
    overrides: Annotated[list[str] | None, typer.Argument(help="sae.k=32 epochs=10 ..., relative to train:")] = None,
    embeddings: Annotated[Path | None, typer.Option(help="The result of 'embed'.")] = None,
    corpus: Annotated[Path | None, typer.Option(help="Train on this corpus, encoded live by --model.")] = None,
    model: Annotated[
        str | None, typer.Option(help="The model for live training; default the recipe's, else ViT-L-14/openai.")
    ] = None,
    fusion: Annotated[Literal["clip", "memeclip"], typer.Option(help="The fusion for live training.")] = "clip",
    heads: Annotated[Path | None, typer.Option(help="Live training with memeclip: its trained checkpoint.")] = None,
    given: Annotated[Path | None, typer.Option("--from", help="Start from this SAE, ours or any SAELens SAE.")] = None,
    overwrite: Overwrite = False,
    **seen: Any,
) -> None:
    """Train an SAE through SAELens; the result is a stock SAELens SAE folder."""
    from sae_lens_meme.steps import train_step, trained_saes

    train_step(
        config,
        out=out,
        overrides=overrides or [],
        embeddings=embeddings,
        corpus=corpus,
        model=model,
        fusion=fusion,
        heads=heads,
        given=given,
        overwrite=overwrite,
        seen=given_to(ViewOptions, seen),
    )
    for folder, numbers in trained_saes(out).items():
        _done(folder, f"{numbers}; load it with sae_lens.SAE.load_from_disk")


@also_called("attribution", "saliency")
def attribute(
    *,
    sae: SAEFolder,
    embeddings: EmbeddingsFolder,
    corpus: Annotated[Path, typer.Option("--corpus", help="The corpus that was embedded.")],
    out: Out,
    overwrite: Overwrite = False,
    **given: Any,
) -> None:
    """Find the memes of each latent, and which words and regions of them drive it."""
    from sae_lens_meme.steps import attribute_step

    attribute_step(sae, embeddings, corpus, given_to(AttributeOptions, given), out=out, overwrite=overwrite)


@also_called("measure", "metrics", "score")
def evaluate(
    *,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Options of single evaluators, e.g. influence.n_random=8 ...")
    ] = None,
    sae: SAEFolder,
    embeddings: EmbeddingsFolder,
    out: Out,
    concepts_file: Annotated[
        Path | None, typer.Option("--concepts", help="YAML with a list or a mapping of concepts under 'concepts:'.")
    ] = None,
    full: Full = False,
    overwrite: Overwrite = False,
    **given: Any,
) -> None:
    """Measure an SAE on held-out memes, every number beside its control."""
    from sae_lens_meme.config import apply_overrides, read_concepts
    from sae_lens_meme.results import evaluate_step

    section = apply_overrides(given_to(EvaluateOptions, given), overrides or [])
    if concepts_file is not None:
        section["concepts"] = [*section.get("concepts", []), *read_concepts(concepts_file)]
    evaluate_step(sae, embeddings, section, out=out, full=full, overwrite=overwrite)


@also_called("predict", "inspect", "meme")
def read(
    *,
    picture: Annotated[Path, typer.Argument(help="The meme: JPEG, PNG, GIF, WEBP or BMP.")],
    sae: SAEFolder,
    embeddings: EmbeddingsFolder,
    caption: Annotated[str | None, typer.Option(help="Its caption; default: what OCR reads; '' for none.")] = None,
    evaluation: Annotated[Path | None, typer.Option(help="The result of 'evaluate', for the names of latents.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    page: Annotated[Path | None, typer.Option(help="Write a page that opens in a browser.")] = None,
    **given: Any,
) -> None:
    """Say what the model sees in one meme: latents, words, regions, labels, the nearest train memes."""
    from sae_lens_meme.results import read_step

    options = given_to(ReadOptions, given)
    read_step(picture, sae, embeddings, options, caption=caption, evaluation=evaluation, as_json=json, page=page)


@also_called("report", "page", "html")
def dashboard(
    *,
    evaluation: Annotated[Path, typer.Argument(help="The result of 'evaluate'.")],
    sae: SAEFolder,
    embeddings: EmbeddingsFolder,
    corpus: Annotated[Path | None, typer.Option("--corpus", help="The corpus, for pictures.")] = None,
    attribution: Annotated[
        Path | None, typer.Option("--attribution", help="The result of 'attribute', for words and regions.")
    ] = None,
    out: Out,
    overwrite: Overwrite = False,
    open_report: OpenReport = False,
    **given: Any,
) -> None:
    """Write report.html: the run, every latent with its memes, every concept, as one page that needs no network."""
    from sae_lens_meme.results import dashboard_step, show_reports

    section = given_to(DashboardOptions, given)
    folders = {"corpus": corpus, "attribution": attribution}
    page = dashboard_step(evaluation, sae, embeddings, section, **folders, out=out, overwrite=overwrite)
    show_reports([page], open_report)


@also_called("why", "numbers")
def explain(
    evaluation: Annotated[Path, typer.Argument(help="The result of 'evaluate'.")],
    pattern: Annotated[
        str | None,
        typer.Argument(help="Which numbers, e.g. '*best_f1_test' or 'probes/hate/*'; leave it out for an index."),
    ] = None,
    latent: Annotated[
        int | None,
        typer.Option(help="Everything that was measured on this latent; the pattern then chooses evaluators."),
    ] = None,
) -> None:
    """Explain each number: the rows and split it was measured on, its control, or why it is undefined."""
    from sae_lens_meme.results import explain_latent, explain_numbers

    if latent is None:
        explain_numbers(evaluation, pattern)
    else:
        explain_latent(evaluation, latent, pattern)


@also_called("plot", "draw")
def figures(
    evaluation: Annotated[Path, typer.Argument(help="The result of 'evaluate'.")],
    out: Out,
    only: Annotated[list[str] | None, typer.Option(help="A figure to draw; repeatable; default: all.")] = None,
    sae: Annotated[Path | None, typer.Option(help="The SAE: for its decoder and training log.")] = None,
    embeddings: Annotated[Path | None, typer.Option(help="The result of 'embed', for the maps of memes.")] = None,
    attribution: Annotated[Path | None, typer.Option(help="The result of 'attribute', for words and regions.")] = None,
    corpus: Annotated[Path | None, typer.Option(help="The result of 'corpus', for pictures.")] = None,
    reveal: Annotated[bool, typer.Option("--reveal", help="Show pictures; otherwise they are blurred.")] = False,
) -> None:
    """Draw figures for a paper, each as PNG and SVG."""
    from sae_lens_meme.figures import Inputs, write_figures
    from sae_lens_meme.report.blocks import visible

    inputs = Inputs(evaluation, sae, embeddings, attribution, corpus, reveal)
    reasons = write_figures(inputs, out, only=only)
    for name, reason in reasons.items():
        typer.echo(visible(f"{name}: {'not drawn, ' + reason if reason else 'drawn'}"))
    _done(out, f"{sum(reason is None for reason in reasons.values())} figures, each as PNG and SVG")


@also_called("filter")
def select(
    sae: SAEFolder,
    embeddings: EmbeddingsFolder,
    out: Out,
    corpus: Annotated[Path | None, typer.Option(help="Filter this corpus; default: the embeddings.")] = None,
    share: Annotated[float, typer.Option(help="Share of the train memes to keep.")] = 0.5,
    by: Annotated[
        Literal["sum", "mean", "clip", "l0"],
        typer.Option(help="Score: sum or mean of the latents' cross-modal weights, CLIP score, or L0."),
    ] = "sum",
    within_source: Annotated[bool, typer.Option("--within-source", help="Keep this share of each source.")] = False,
    hook: Hook = None,
    delta: Annotated[float, typer.Option(help="A latent is active above this value; SAE-V uses 1 on tokens.")] = 0.0,
    overwrite: Overwrite = False,
) -> None:
    """Keep the train memes whose latents bind picture and caption (SAE-V's filter), as a Hugging Face dataset."""
    from sae_lens_meme.row_kind import kind_of_rows
    from sae_lens_meme.select import select_memes

    kept = select_memes(
        *(sae, embeddings),
        out=out,
        corpus=corpus,
        share=share,
        by=by,
        within_source=within_source,
        hook=hook,
        delta=delta,
        overwrite=overwrite,
    )
    sizes = {name: len(part) for name, part in kept.items()} if isinstance(kept, dict) else {"": len(kept)}
    many = ", ".join(f"{n:,} {name}".rstrip() for name, n in sizes.items())
    columns = (next(iter(kept.values())) if isinstance(kept, dict) else kept).column_names
    _done(out, f"{many} {kind_of_rows(columns).many}; datasets.load_from_disk opens it")


@also_called("convert")
def import_(
    *,
    source: Annotated[
        str,
        typer.Argument(
            metavar="FROM",
            help=f"The project that trained it: {', '.join(FORMATS)}; {AUTO}: recognise it from its files.",
        ),
    ],
    path: Annotated[Path, typer.Argument(help="Its folder, or the file with its weights.")],
    out: Out,
    overwrite: Overwrite = False,
    **given: Any,
) -> None:
    """Turn an SAE of another project into a stock SAELens SAE folder that computes the same."""
    from sae_lens_meme.steps import import_step

    import_step(source, path, given_to(ImportOptions, given), out=out, overwrite=overwrite)


def user_study(
    folder: Annotated[Path, typer.Argument(help="pairs.csv, activations.csv and top16_images.csv of the study.")],
    out: Out,
    embeds: Annotated[
        list[Path] | None,
        typer.Option(help="Embeddings of the pictures of activations.csv (.npy): compute MS under them; repeatable."),
    ] = None,
    scores: Annotated[
        list[Path] | None, typer.Option(help="Your own metric: a CSV with columns k and score; repeatable.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure how often a metric and users agree on which of two neurons is more focused (sae-for-vlm's benchmark).

    docs/tokens.md describes the files of a study.
    """
    from sae_lens_meme.results import user_study_step

    user_study_step(folder, out=out, embeds=embeds or [], scores=scores or [], overwrite=overwrite)


def table_(
    corpus: Annotated[Path, typer.Argument(help="The result of 'corpus'.")],
    out: Annotated[Path, typer.Argument(help="rows.csv or rows.parquet: what 'embed --table' reads.")],
    overwrite: Overwrite = False,
) -> None:
    """Write a corpus as a table: id, source, split, caption and labels of each meme."""
    from sae_lens_meme.corpus import export_table

    export_table(corpus, out, overwrite=overwrite)
    _done(out, "a row for each meme, in the order of the corpus")


@also_called("synthetic", "toy")
def planted_vectors(*, out: Out, overwrite: Overwrite = False, **given: Any) -> None:
    """Draw vectors whose sparse factors and directions are known, as embeddings with an answer key."""
    from sae_lens_meme.steps import vectors_step

    vectors_step(given_to(VectorOptions, given), out=out, overwrite=overwrite)


def _done(out: Path, what: str) -> None:
    from sae_lens_meme.report.blocks import visible

    typer.echo(visible(f"{out}: {what}"))
