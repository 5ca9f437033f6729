"""The steps in their order, and `run`: every step of a recipe, skipping what is done."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from sae_lens_meme.attribute.options import AttributeOptions
from sae_lens_meme.config import apply_overrides, read_yaml
from sae_lens_meme.corpus.options import corpus_options
from sae_lens_meme.dashboard.options import DashboardOptions
from sae_lens_meme.embed.options import ArrayOptions, EmbedOptions
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.evaluators.options import EvaluateOptions
from sae_lens_meme.importers.options import AUTO, ImportOptions
from sae_lens_meme.ocr.options import OcrOptions
from sae_lens_meme.options import check_keys
from sae_lens_meme.planted.options import PlantedOptions, VectorOptions
from sae_lens_meme.read.options import ReadOptions
from sae_lens_meme.report.blocks import visible
from sae_lens_meme.storage import read_finished, read_json, read_manifest, to_json, write_text

if TYPE_CHECKING:
    from sae_lens_meme.train import TrainConfig

SECTIONS = ("out", "corpus", "ocr", "embed", "train", "attribute", "evaluate", "dashboard")
console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)


def run(
    config: str | Path,
    *,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    full: bool = False,
    overwrite: bool = False,
    open_report: bool = False,
) -> None:
    """Run a recipe from corpus to report; a step that is done is not done again.

    Args:
        config: a YAML file with the sections `corpus`, `ocr`, `embed`, `train`, `attribute`, `evaluate`,
            `dashboard` and the key `out`, or the name of a recipe of this package.
        out: the folder for all results, instead of the recipe's `out`.
        overrides: `train.sae.k=32` and the like.
        full: print every row of the report.
        overwrite: replace the result of an earlier recipe in the same folder.
        open_report: open the report in the browser.

    Raises:
        ConfigError: an unknown section or key; the message names the nearest known one.
    """
    recipe = apply_overrides(read_yaml(config), overrides)
    check_keys(str(config), recipe, SECTIONS)
    base = _results_folder(config, out or recipe.get("out"))
    started = time.perf_counter()
    training, options = _check_sections(recipe, base)
    base.mkdir(parents=True, exist_ok=True)
    answer_key = corpus_section(recipe.get("corpus"), base, overwrite)
    embedding = recipe.get("embed") or {}
    corpus = None if embedding.keys() & {"table", "planted"} else base / "corpus"  # vectors have no pictures
    if "planted" in embedding:
        answer_key = vectors_step(embedding["planted"] or {}, out=base / "embeddings", overwrite=overwrite)
    else:
        if "ocr" in recipe:
            ocr_step(recipe["ocr"] or {}, corpus=base / "corpus", out=base / "ocr", overwrite=overwrite)
            embedding = {**embedding, "ocr": base / "ocr"}
        embed_step(embedding, corpus=corpus, out=base / "embeddings", overwrite=overwrite)
    with _timed("train"):
        if training.recipe.keep is None:
            train_step(training, out=base / "sae", embeddings=base / "embeddings", overwrite=overwrite)
        else:
            live = {"corpus": base / "corpus", "model": embedding.get("model")}
            train_step(training, out=base / "sae", **live, overwrite=overwrite)
    if "hook" in embedding:  # rows are single tokens, and there are no memes to attribute to or to show
        corpus = None
    options = {"answer_key": answer_key, **options} if answer_key else options
    pages = []
    for sae in trained_saes(base / "sae"):
        name = sae.relative_to(base / "sae")  # one folder an SAE after multi-hook training
        seen = {}
        if corpus is not None:
            seen = {"attribution": base / "attribution" / name}
            attribute_step(
                *(sae, base / "embeddings", corpus, recipe.get("attribute") or {}),
                out=seen["attribution"],
                overwrite=overwrite,
            )
        out_of_this = base / "evaluation" / name
        evaluate_step(sae, base / "embeddings", {**seen, **options}, out=out_of_this, full=full, overwrite=overwrite)
        pages.append(
            dashboard_step(
                *(out_of_this, sae, base / "embeddings", recipe.get("dashboard") or {}),
                corpus=corpus,
                **seen,
                out=base / "report" / name,
                overwrite=overwrite,
            )
        )
    console.print(Text(f"{time.perf_counter() - started:.0f} s in all; results in {base}", style="dim"), soft_wrap=True)
    show_reports(pages, open_report)


def _results_folder(config: str | Path, given: Any) -> Path:
    if given is not None and not isinstance(given, (str, Path)):
        raise ConfigError(f"{config}: out is {given!r}, it must be a path")
    return Path(given or f"runs/{Path(config).stem}")


def corpus_step(section: dict[str, Any], *, out: Path, overwrite: bool = False) -> None:
    """Build a corpus and say what is in it, and what was left out and why."""
    from sae_lens_meme.corpus import build_corpus, corpus_notes

    options = corpus_options().from_mapping(section)
    with _timed("corpus"):
        built = build_corpus(out, options, overwrite=overwrite)
    memes = ", ".join(f"{len(rows):,} {split}" for split, rows in built.items())
    console.print(Text(f"  {out}: {memes} memes"), soft_wrap=True)
    for note in corpus_notes(out):
        console.print(Text(f"  {visible(note)}"), soft_wrap=True)


def describe_step(corpus: Path, *, out: Path | None = None) -> None:
    """Print what is in a corpus; with a folder also write `description.json` and the figure `corpus`."""
    from sae_lens_meme.figures import Inputs, write_figures
    from sae_lens_meme.report.description import print_description

    inputs = Inputs(None, corpus=corpus)
    content = inputs.description.to_dict()
    print_description(content["tables"].values(), console)
    if out is not None:
        write_figures(inputs, out, only=["corpus"], progress=False)
        write_text(out / "description.json", to_json(content))
        console.print(Text(f"{out}: description.json, corpus.png, corpus.svg"), soft_wrap=True)


def ocr_step(section: dict[str, Any], *, corpus: Path, out: Path, overwrite: bool = False) -> None:
    """Read the text on pictures; the section is that of `OcrOptions`."""
    from sae_lens_meme.ocr import read_captions

    with _timed("ocr"):
        facts = read_captions(corpus, out, OcrOptions.from_mapping(section), overwrite=overwrite).facts
    text = f"  {out}: text on {facts['n_read']:,} of {facts['n_pictures']:,} pictures of {facts['n_memes']:,} memes"
    text += f"; the engine failed at {facts['n_failed']:,} (column problem)" if facts["n_failed"] else ""
    console.print(Text(text), soft_wrap=True)


def embed_step(section: dict[str, Any], *, corpus: Path | None, out: Path, overwrite: bool = False) -> None:
    """Embed a corpus, or take the arrays that the section names."""
    from sae_lens_meme.embed import embed_arrays, embed_corpus

    with _timed("embed"):
        if corpus is None:
            result = embed_arrays(out, ArrayOptions.from_mapping(section), overwrite=overwrite)
        else:
            result = embed_corpus(corpus, out, EmbedOptions.from_mapping(section), overwrite=overwrite)
    _print_embeddings(out, result, "memes" if "n_items" not in result.facts else "tokens")
    told = ("ocr" in result.facts) + ("cosine_to_float32" in result.facts)
    for note in result.facts["corpus_notes"][-told:] if told else ():
        console.print(Text(f"  {visible(note)}"), soft_wrap=True)


def vectors_step(section: dict[str, Any], *, out: Path, overwrite: bool = False) -> Path:
    """Draw planted vectors as embeddings; returns the answer key beside them."""
    from sae_lens_meme.planted import answer_key_of, write_planted_vectors

    with _timed("vectors"):
        result = write_planted_vectors(out, VectorOptions.from_mapping(section), overwrite=overwrite)
    _print_embeddings(out, result, "planted vectors")
    console.print(Text(f"  {answer_key_of(out)}: what is true of them, for evaluate --answer-key"), soft_wrap=True)
    return answer_key_of(out)


def import_step(source: str, path: Path, section: dict[str, Any], *, out: Path, overwrite: bool = False) -> None:
    """Write an SAE of another project as a stock one, and say what became of it."""
    from sae_lens_meme.importers import import_sae

    options = ImportOptions.from_mapping(section)
    sae = import_sae(path, out, options, converter=None if source == AUTO else source, overwrite=overwrite)
    cfg, imported = sae.cfg, sae.cfg.metadata.imported or {}
    hook = cfg.metadata.hook_name or "a hook that its files do not name: pass --hook to it, or here"
    console.print(
        Text(f"{out}: {cfg.architecture()}, d_in {cfg.d_in}, d_sae {cfg.d_sae}, reads {hook}"), soft_wrap=True
    )
    for note in imported.get("notes", ()):
        console.print(Text(f"  {note}"), soft_wrap=True)


def user_study_step(
    folder: Path, *, out: Path, embeds: Sequence[Path], scores: Sequence[Path], overwrite: bool = False
) -> None:
    """Compare metrics of neurons with what users said of them; write and print the result."""
    from sae_lens_meme.evaluators.user_study import compare_with_users
    from sae_lens_meme.report.terminal import print_result

    with _timed("user-study"):
        result = compare_with_users(folder, out, embeds=embeds, scores=scores, overwrite=overwrite)
    print_result(result, console)
    console.print(Text(f"{out}: user_study.json, user_study.parquet"), soft_wrap=True)


def _print_embeddings(out: Path, result: Embeddings, what: str) -> None:
    hooks = ", ".join(f"{hook} {result.d_in(hook)}" for hook in result.hooks)
    console.print(Text(f"  {out}: {len(result):,} {what}, {hooks}"), soft_wrap=True)


def corpus_section(section: dict[str, Any] | None, base: Path, overwrite: bool) -> Path | None:
    """Build the corpus of a recipe; returns the answer key if the memes are planted."""
    if section is None:
        return None  # the embed section brings arrays
    section, answer_key = dict(section), None
    if planted := section.pop("planted", None):
        from sae_lens_meme.planted import write_planted

        with _timed("planted"):
            paths = write_planted(base / "planted", PlantedOptions.from_mapping(planted), overwrite=overwrite)
        section |= {"pridemm": paths.pridemm, "hmc": paths.hmc, "memotion": paths.memotion}
        answer_key = paths.answer_key
    corpus_step(section, out=base / "corpus", overwrite=overwrite)
    return answer_key


def train_step(
    config: str | Path | dict[str, Any] | TrainConfig,
    *,
    out: str | Path,
    overrides: Sequence[str] = (),
    embeddings: str | Path | None = None,
    corpus: str | Path | None = None,
    model: str | None = None,
    fusion: str = "clip",
    heads: str | Path | None = None,
    given: str | Path | None = None,
    overwrite: bool = False,
) -> None:
    """Train on embeddings, or live on a corpus through a model's towers.

    Raises:
        ConfigError: neither embeddings nor a corpus, or both.
    """
    from sae_lens_meme.train import TrainConfig, load_train_config, train

    if (embeddings is None) == (corpus is None):
        raise ConfigError("give --embeddings (cached) or --corpus (live), one of the two")
    source = read_yaml(config) if isinstance(config, (str, Path)) else config
    if given is not None:
        overrides = [*overrides, f"from_pretrained_path={json.dumps(str(given))}"]
    if embeddings is not None:
        train(source, out=out, overrides=overrides, embeddings=embeddings, overwrite=overwrite)
    else:
        assert corpus is not None
        checked = source if isinstance(source, TrainConfig) else load_train_config(source, overrides)
        family = checked.section.get("model_class_name", "HookedVLM" if checked.recipe.keep else "HookedMemeCLIP")
        name = model or checked.section.get("model_name") or "ViT-L-14/openai"
        rows, live = _live(corpus, family, name, fusion, heads)
        train(checked, out=out, embeddings=rows, model=live, overwrite=overwrite)


def _live(corpus: str | Path, family: str, name: str, fusion: str, heads: str | Path | None) -> tuple[Embeddings, Any]:
    """The rows of a corpus, and a registered model that encodes them when it is asked."""
    from sae_lens_meme.corpus import caption_of, load_rows
    from sae_lens_meme.corpus.opened import Pictures
    from sae_lens_meme.hooks import HookedMemeCLIP, find

    if (fusion == "memeclip") != (heads is not None):
        raise ConfigError(
            "fusion memeclip and --heads CHECKPOINT go together: new heads would fuse at random "
            "(embed --fusion memeclip trains heads and keeps them as heads.safetensors)"
        )
    rows = load_rows(corpus)
    captions = [caption_of(meme) for meme in rows.select_columns(["text", "text_origin"]).to_list()]
    model = HookedMemeCLIP.from_memeclip_checkpoint(heads, name) if heads else find(family).from_pretrained(name)
    model.attach_memes(Pictures(rows), captions, splits=rows["split"])
    described = rows.remove_columns("image")
    return Embeddings.from_dataset(described, model=name, fusion=fusion), model


def attribute_step(
    sae: str | Path,
    embeddings: str | Path,
    corpus: str | Path,
    section: dict[str, Any],
    *,
    out: Path,
    overwrite: bool = False,
) -> None:
    """Find the memes of each latent and what drives it on them; the section is that of `AttributeOptions`."""
    from sae_lens_meme.attribute import attribute

    options = AttributeOptions.from_mapping(section)
    with _timed("attribute"):
        found = attribute(only_sae(sae), embeddings, corpus, options, out=out, overwrite=overwrite)
    pairs, memes = len(found.dataset), found.facts["n_memes"]
    text = f"  {out}: {len(found.latents):,} latents on {memes:,} memes, {pairs:,} pairs with words and regions"
    console.print(Text(text), soft_wrap=True)


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
    from sae_lens_meme.evaluators.run import CONVERTED, PAGE, evaluate
    from sae_lens_meme.report import print_report, print_summary

    options = EvaluateOptions.from_mapping(section)
    with _timed("evaluate"):
        report = evaluate(only_sae(sae), embeddings, options, out=out, overwrite=overwrite)
    if (kept := Path(out) / CONVERTED).is_dir():
        console.print(
            Text(f"  {kept}: the SAE as a stock one, which dashboard, figures and export take"), soft_wrap=True
        )
    if full:
        print_report(report, console)
    print_summary(report, console, Path(out) / PAGE)


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
    found = read_meme(
        picture, sae=only_sae(sae), embeddings=embeddings, caption=caption, evaluation=evaluation, options=options
    ).to_dict()
    if page is not None:
        write_text(page, reading_html(found, *small_webp(open_image(picture))))
    if as_json:
        print(to_json(found), end="")
    else:
        print_reading(found, console)
        if page is not None:
            console.print(Text.assemble(("Open ", "bold"), str(page)), soft_wrap=True)


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
    with _timed("dashboard"):
        return write_dashboard(
            *(evaluation, only_sae(sae), embeddings, corpus, attribution, options), out=out, overwrite=overwrite
        )


def show_reports(pages: Sequence[Path], in_browser: bool) -> None:
    """Print the path of each page, and open it if that is asked for."""
    import webbrowser

    for page in pages:
        console.print(Text.assemble(("Open ", "bold"), str(page)), soft_wrap=True)
        if in_browser:
            webbrowser.open(page.resolve().as_uri())


def explain_numbers(evaluation: str | Path, pattern: str | None = None) -> None:
    """Print every number of an evaluation whose name (`evaluator/number`) matches a shell pattern, and what it is.

    Without a pattern: how many numbers there are under which first parts of a name.

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


def _print_index(evaluation: str | Path, names: Any) -> None:
    """A line an evaluator: how many numbers, and the first parts of their names."""
    for evaluator, mine in names.str.partition("/").groupby(0, sort=False):
        groups = mine[2].str.partition("/")[0].drop_duplicates()
        shown = ", ".join(map(visible, groups[:8])) + (f", ... ({len(groups)})" if len(groups) > 8 else "")
        console.print(Text.assemble((f"{evaluator}", "bold"), f"  {len(mine)} numbers: {shown}"))
    console.print(
        Text(f"sae-lens-meme explain {evaluation} 'PATTERN' prints them, e.g. 'reconstruction/*'", style="dim")
    )


def trained_saes(folder: str | Path) -> dict[Path, str]:
    """Folder and validation numbers of each SAE of a `train` result; of any other folder only itself."""
    folder = Path(folder)
    if not (folder / "manifest.json").is_file():
        return {folder: ""}
    facts = read_manifest(folder)["facts"]
    several = {
        folder / name: numbers for name, numbers in facts.items() if isinstance(numbers, dict) and "d_sae" in numbers
    }
    return {path: _numbers(numbers) for path, numbers in (several or {folder: facts}).items()}


def only_sae(folder: str | Path) -> str | Path:
    """The folder itself, which must not be that of several SAEs."""
    if several := [sae for sae in trained_saes(folder) if sae != Path(folder)]:
        raise ConfigError(f"{folder}: holds several SAEs; give one of {', '.join(map(str, several))}")
    return folder


def _numbers(facts: dict[str, Any]) -> str:
    if facts.get("validation_explained_variance") is None:
        return f"no validation numbers ({facts.get('validation_reason', 'an earlier release trained it')})"
    return (
        f"validation explained variance {facts['validation_explained_variance']:.3f}, "
        f"L0 {facts['validation_l0']:.1f}, {facts['validation_never_fired']} of {facts['d_sae']} latents never fire "
        f"on the {facts['validation_n']:,} validation memes"
    )


def _check_sections(recipe: dict[str, Any], base: Path) -> tuple[TrainConfig, dict[str, Any]]:
    """Validate all sections before the first step runs; the last two come back."""
    from sae_lens_meme.train import load_train_config

    embedding, options, corpus = recipe.get("embed") or {}, recipe.get("evaluate") or {}, recipe.get("corpus")
    arrays = isinstance(embedding, dict) and "table" in embedding
    if vectors := isinstance(embedding, dict) and "planted" in embedding:
        check_keys("embed", embedding, ["planted"])
        VectorOptions.from_mapping(embedding["planted"] or {})
        if corpus is not None:
            raise ConfigError("embed.planted draws vectors, which need no memes; leave out the section corpus")
    else:
        (ArrayOptions if arrays else EmbedOptions).from_mapping(embedding)
    if corpus is None and not arrays and not vectors and not (base / "corpus").is_dir():
        raise ConfigError("corpus: the section is missing; give one, or arrays with embed: {table: rows.csv, ...}")
    memes = isinstance(corpus, dict) and corpus.get("planted")
    if isinstance(corpus, dict):
        PlantedOptions.from_mapping(corpus.get("planted") or {})
        corpus = {key: value for key, value in corpus.items() if key != "planted"}
    if corpus is not None:
        corpus_options().from_mapping(corpus)
    DashboardOptions.from_mapping(recipe.get("dashboard") or {})
    AttributeOptions.from_mapping(recipe.get("attribute") or {})
    OcrOptions.from_mapping(recipe.get("ocr") or {})
    pictures = not arrays and not vectors
    for section in ("ocr", "attribute"):
        if not pictures and section in recipe:
            raise ConfigError(
                f"{section}: vectors have neither pictures nor a model to look into; leave the section out"
            )
    tokens = isinstance(embedding, dict) and "hook" in embedding
    if tokens and "attribute" in recipe:
        raise ConfigError("attribute: rows of single tokens are no memes to attribute to; leave the section out")
    made = {"attribution": base} if pictures and not tokens else {}  # what the steps before will have made
    made |= {"answer_key": base} if vectors or memes else {}
    EvaluateOptions.from_mapping({**made, **options} if isinstance(options, dict) else options).check()
    return load_train_config({"train": recipe.get("train")}), dict(options)


@contextmanager
def _timed(step: str):
    started = time.perf_counter()
    yield
    console.print(Text.assemble((f"{step:<10}", "bold"), (f"{time.perf_counter() - started:6.1f} s", "dim")))
