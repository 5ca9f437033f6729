"""Steps that measure and show an SAE, with what they print: evaluation, one meme, report, explanations."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rich.padding import Padding
from rich.text import Text

from sae_lens_meme.dashboard.options import DashboardOptions
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.evaluators.options import EvaluateOptions
from sae_lens_meme.read.options import ReadOptions
from sae_lens_meme.report.blocks import visible
from sae_lens_meme.steps import console, only_sae, timed
from sae_lens_meme.storage import fetched, read_finished, read_json, through_stores, to_json, write_text


def evaluate_step(
    sae: str | Path,
    embeddings: str | Path,
    section: dict[str, Any],
    *,
    out: Path,
    full: bool = False,
    overwrite: bool = False,
) -> None:
    """Evaluate and print what was found; the section is that of `EvaluateOptions`."""
    from sae_lens_meme.evaluators.run import PAGE, converted, evaluate
    from sae_lens_meme.report import print_report, print_summary

    options = EvaluateOptions.from_mapping(section)
    with timed("evaluate"):
        report = evaluate(only_sae(sae), embeddings, options, out=out, overwrite=overwrite)
    out = fetched(out)
    if kept := converted(out):
        console.print(
            Text(f"  {kept}: the SAE as a stock one, which dashboard, figures and export take"), soft_wrap=True
        )
    if full:
        print_report(report, console)
    print_summary(report, console, out / PAGE, full)


def read_step(
    picture: Path,
    sae: str | Path,
    embeddings: str | Path,
    section: dict[str, Any],
    *,
    caption: str | None = None,
    evaluation: Path | None = None,
    as_json: bool = False,
    page: Path | None = None,
) -> None:
    """Print what the model sees in one meme, or write it as a page; the section is that of `ReadOptions`."""
    from sae_lens_meme.images import open_image, small_webp
    from sae_lens_meme.read import read_meme
    from sae_lens_meme.report.reading import print_reading, reading_html

    options = ReadOptions.from_mapping(section)
    if page is not None:
        _require_no_other_file(page)
    found = read_meme(
        picture, sae=only_sae(sae), embeddings=embeddings, caption=caption, evaluation=evaluation, options=options
    ).to_dict()
    if page is not None:
        write_text(page, reading_html(found, *small_webp(open_image(picture))))
    if as_json:
        if isinstance(sys.stdout, io.TextIOWrapper):  # JSON is UTF-8, whatever the terminal or the pipe is
            sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
        print(to_json(found), end="")
    else:
        print_reading(found, console)
        if page is not None:
            console.print(Text.assemble(("Open ", "bold"), str(page)), soft_wrap=True)


def _require_no_other_file(page: Path) -> None:
    """A page replaces a page, never the picture."""
    if not page.is_file():
        return
    with page.open("rb") as file:
        start = file.read(64).lstrip().lower()
    if start and not start.startswith(b"<!doctype html"):
        raise ConfigError(f"--page {page}: is there already and is not a page; give another name, such as meme.html")


def dashboard_step(
    evaluation: str | Path,
    sae: str | Path,
    embeddings: str | Path,
    section: dict[str, Any],
    *,
    corpus: str | Path | None = None,
    attribution: str | Path | None = None,
    out: Path,
    overwrite: bool = False,
) -> Path:
    """Write the report and return the path of its page; the section is that of `DashboardOptions`."""
    from sae_lens_meme.dashboard import write_dashboard

    options = DashboardOptions.from_mapping(section)
    with timed("dashboard"):
        return write_dashboard(
            *(evaluation, only_sae(sae), embeddings, corpus, attribution, options), out=out, overwrite=overwrite
        )


def show_reports(pages: Sequence[Path], in_browser: bool) -> None:
    """Print the path of each page, and open it if asked."""
    import webbrowser

    for page in pages:
        console.print(Text.assemble(("Open ", "bold"), str(page)), soft_wrap=True)
        if in_browser:
            webbrowser.open(page.resolve().as_uri())


@through_stores("evaluation")
def explain_numbers(evaluation: str | Path, pattern: str | None = None) -> None:
    """Print every number of an evaluation whose name (`evaluator/number`) matches a shell pattern, with its explanation.

    Without a pattern: how many numbers each evaluator has, and the first parts of their names.

    Raises:
        ConfigError: none matches.
    """
    import pandas as pd

    from sae_lens_meme.evaluators.content import EVALUATION, numbers_table

    read_finished(evaluation, "evaluate")
    table = numbers_table(read_json(Path(evaluation) / EVALUATION))
    table["name"] = table["evaluator"] + "/" + table["number"]
    if pattern is None:
        _print_index(evaluation, table["name"])
        return
    table = table[[fnmatchcase(name, pattern) or fnmatchcase(name, f"*/{pattern}") for name in table["name"]]]
    if table.empty:
        raise ConfigError(f"{evaluation}: no number matches {pattern!r}; without a pattern an index is printed")
    for row in table.itertuples():
        value = f"undefined: {row.reason}" if pd.isna(row.value) else f"{row.value:.6g}"
        console.print(Text.assemble((visible(row.name), "bold"), f" {visible(value)}"), soft_wrap=True)
        console.print(Padding(Text(visible(row.explain), style="dim"), (0, 0, 0, 4)))


@through_stores("evaluation")
def explain_latent(evaluation: str | Path, latent: int, pattern: str | None = None) -> None:
    """Print what every evaluator's table says about one latent, column by column, with each column's explanation.

    A pattern chooses evaluators.

    Raises:
        ConfigError: the SAE has no such latent, or no chosen evaluator has a table of latents.
    """
    from sae_lens_meme.evaluators.content import EVALUATION, table_of_latents

    read_finished(evaluation, "evaluate")
    content = read_json(Path(evaluation) / EVALUATION)
    d_sae = content["sae"]["d_sae"]
    if not 0 <= latent < d_sae:
        raise ConfigError(f"--latent {latent}: the SAE has {d_sae} latents, 0 to {d_sae - 1}")
    tables = {name: table_of_latents(evaluation, name) for name in content["results"]}
    tables = {name: table for name, table in tables.items() if table is not None}
    chosen = [name for name in tables if fnmatchcase(name, pattern or "*")]
    if not chosen:
        raise ConfigError(
            f"{evaluation}: {pattern!r} is not an evaluator with a table of latents; these are: {', '.join(tables)}"
        )
    for name in chosen:
        rows = tables[name].query("latent == @latent").drop(columns="latent")
        _print_rows(name, rows, content["results"][name]["columns"], whole=pattern is not None)


def _print_rows(name: str, rows: Any, columns: Mapping[str, str], whole: bool) -> None:
    """A line per column with what it is; of a latent with many rows, say one per concept, only if requested."""
    console.print(Text.assemble((visible(name), "bold"), "" if len(rows) == 1 else f"  {len(rows)} rows"))
    if len(rows) > 1 and not whole:
        console.print(Padding(Text(f"give the pattern {name!r} to print them", style="dim"), (0, 0, 0, 4)))
        return
    for _, row in rows.iterrows():
        told = Text("\n").join(
            Text.assemble((visible(column), "bold"), f" {_cell(value)}  ", (visible(columns[column]), "dim"))
            for column, value in row.dropna().items()
            if value != ""
        )
        console.print(Padding(told, (0, 0, 1, 4)))


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else visible(str(value))


def _print_index(evaluation: str | Path, names: Any) -> None:
    """A line per evaluator: how many numbers, and the first parts of their names."""
    for evaluator, mine in names.str.partition("/").groupby(0, sort=False):
        groups = mine[2].str.partition("/")[0].drop_duplicates()
        shown = ", ".join(map(visible, groups[:8])) + (f", ... ({len(groups)})" if len(groups) > 8 else "")
        console.print(Text.assemble((visible(evaluator), "bold"), f"  {len(mine)} numbers: {shown}"))
    console.print(
        Text(f"sae-lens-meme explain {evaluation} 'PATTERN' prints them, e.g. 'reconstruction/*'", style="dim")
    )


def user_study_step(
    folder: Path, *, out: Path, embeds: Sequence[Path], scores: Sequence[Path], overwrite: bool = False
) -> None:
    """Compare metrics of neurons with users' judgements; write and print the result."""
    from sae_lens_meme.evaluators.user_study import compare_with_users
    from sae_lens_meme.report.terminal import print_result

    with timed("user-study"):
        result = compare_with_users(folder, out, embeds=embeds, scores=scores, overwrite=overwrite)
    print_result(result, console)
    console.print(Text(f"{out}: user_study.json, user_study.parquet"), soft_wrap=True)
