"""The command line: one command per step, `run` for all of them, `demo` for all of them on planted memes."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from sae_lens_meme import __version__
from sae_lens_meme.app.command import app as app_
from sae_lens_meme.app.options import AppOptions
from sae_lens_meme.attribute.options import AttributeOptions
from sae_lens_meme.commands import (
    Full,
    OpenReport,
    attribute,
    corpus,
    dashboard,
    describe,
    embed,
    evaluate,
    explain,
    figures,
    import_,
    ocr,
    planted_vectors,
    read,
    select,
    table_,
    train,
    user_study,
)
from sae_lens_meme.corpus.options import corpus_options
from sae_lens_meme.dashboard.options import DashboardOptions
from sae_lens_meme.embed.options import ArrayOptions, EmbedOptions, ViewOptions
from sae_lens_meme.errors import MemeError
from sae_lens_meme.evaluators.options import EvaluateOptions, evaluators_help
from sae_lens_meme.export.options import ExportOptions
from sae_lens_meme.export_command import export
from sae_lens_meme.flags import Commands, Out, Overwrite, also_called, flags_of
from sae_lens_meme.importers.options import ImportOptions
from sae_lens_meme.ocr.options import OcrOptions
from sae_lens_meme.options import wrong_value
from sae_lens_meme.planted.options import VectorOptions
from sae_lens_meme.progress import draws_bars
from sae_lens_meme.read.options import ReadOptions
from sae_lens_meme.steer.command import steer
from sae_lens_meme.steer.options import SteerOptions
from sae_lens_meme.studies.command import patch_filter, question_set
from sae_lens_meme.studies.options import PatchFilterOptions, QuestionSetOptions
from sae_lens_meme.sweep.command import sweep
from sae_lens_meme.sweep.options import SweepOptions

_INTERRUPTED = 130


def build_app() -> typer.Typer:
    """The commands, with a flag for every option, reader and evaluator that is registered now."""
    app = typer.Typer(
        name="sae-lens-meme",
        cls=Commands,
        help="Look inside multimodal meme models with sparse autoencoders: corpus -> embed -> train -> attribute -> evaluate -> dashboard.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    app.callback()(settings)
    app.command()(demo)
    app.command()(run)
    app.command()(flags_of(corpus_options())(corpus))
    app.command()(describe)
    app.command()(flags_of(OcrOptions)(ocr))
    app.command()(flags_of(EmbedOptions, ArrayOptions)(embed))
    app.command()(flags_of(ViewOptions)(train))
    app.command()(flags_of(SweepOptions)(sweep))
    app.command()(flags_of(AttributeOptions)(attribute))
    app.command(help=f"{evaluate.__doc__}\n\nEvaluators: {evaluators_help()}.")(flags_of(EvaluateOptions)(evaluate))
    app.command()(flags_of(ReadOptions)(read))
    app.command()(flags_of(DashboardOptions)(dashboard))
    app.command("app")(flags_of(AppOptions, ReadOptions)(app_))
    app.command()(explain)
    app.command()(figures)
    app.command()(flags_of(ExportOptions)(export))
    app.command()(select)
    app.command()(flags_of(SteerOptions)(steer))
    app.command("question-set")(flags_of(QuestionSetOptions)(question_set))
    app.command("patch-filter")(flags_of(PatchFilterOptions)(patch_filter))
    app.command("import")(flags_of(ImportOptions)(import_))
    app.command("user-study")(user_study)
    app.command("table")(table_)
    app.command("planted-vectors")(flags_of(VectorOptions)(planted_vectors))
    return app


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"sae-lens-meme {__version__}")
        raise typer.Exit


def settings(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Read results without checking them against their recorded hashes.")
    ] = False,
) -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if no_verify:
        os.environ["SAE_LENS_MEME_VERIFY"] = "0"
    if debug:
        os.environ["SAE_LENS_MEME_DEBUG"] = "1"


@also_called("example", "quickstart")
def demo(
    out: Out = Path("meme-demo"), full: Full = False, overwrite: Overwrite = False, open_report: OpenReport = False
) -> None:
    """Run everything on planted memes with the demo encoder: no download, no GPU, about two minutes."""
    from sae_lens_meme.pipeline import run as run_all

    run_all("demo.yaml", out=out, full=full, overwrite=overwrite, open_report=open_report)


@also_called("pipeline", "recipe")
def run(
    config: Annotated[Path, typer.Argument(help="A YAML recipe, or the name of one that comes with the package.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="corpus.hmc=DIR train.sae.k=32 ...")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Overrides the recipe's 'out'.")] = None,
    full: Full = False,
    overwrite: Overwrite = False,
    open_report: OpenReport = False,
) -> None:
    """Run every step of a recipe; resume where it stopped, skip what is done."""
    from sae_lens_meme.pipeline import run as run_all

    run_all(config, out=out, overrides=overrides or [], full=full, overwrite=overwrite, open_report=open_report)


def _say(message: str) -> None:
    """On stderr; what it repeats of the data (ids, names of files) is shown, not interpreted by the terminal."""
    from sae_lens_meme.report.blocks import visible

    typer.echo(visible(message), err=True)


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
    if not draws_bars():  # before datasets is imported
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    for stream in (sys.stdout, sys.stderr):  # a pipe of Windows is not UTF-8, and captions are of any language
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = build_app()(standalone_mode=False) or 0
        if status == _INTERRUPTED:  # typer turns Ctrl-C into a status
            raise KeyboardInterrupt
        sys.exit(status)
    except (MemeError, OSError) as error:
        if os.environ.get("SAE_LENS_MEME_DEBUG"):
            raise
        _say(f"error: {_one_line(error)}")
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("\ninterrupted; run the same command again to resume", err=True)
        sys.exit(_INTERRUPTED)
    except MemoryError as error:
        _say(f"error: not enough memory ({_one_line(error) or 'no more could be allocated'})")
        sys.exit(2)
    except Exception as error:
        if not hasattr(error, "format_message"):  # not typer's own usage errors
            raise
        _say(f"error: {_of_usage(error)}")
        sys.exit(2)


def _of_usage(error: Any) -> str:
    """What typer says about a wrong flag or value, and where the right ones are listed.

    Of a value of the wrong type it says what it must be, but not the value.
    """
    said = " ".join(error.format_message().split()).replace("Value error, ", "").rstrip(".")
    said = said or "no command is given"
    wrong = error.__cause__.errors(include_url=False) if isinstance(error.__cause__, ValidationError) else []
    if wrong and wrong[0]["type"] != "value_error":
        said = wrong_value(error.param.opts[0], wrong)
    context = getattr(error, "ctx", None)
    if context is None:  # raised while the flags were read
        command = next((f" {word}" for word in sys.argv[1:] if not word.startswith("-")), "")
    else:
        command = f" {context.info_name}" if context.parent is not None else ""
    return f"{said}{' See' if said.endswith('?') else '; see'} sae-lens-meme{command} --help"


if __name__ == "__main__":
    main()
