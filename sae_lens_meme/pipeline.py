"""The steps in their order, and `run`: every step of a recipe, skipping what is done."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.text import Text

from sae_lens_meme.config import apply_overrides, read_yaml
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.options import check_keys
from sae_lens_meme.storage import read_finished, read_json, read_manifest

if TYPE_CHECKING:
    from sae_lens_meme.train import TrainConfig

SECTIONS = ("out", "corpus", "embed", "train", "evaluate")
console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)


def run(
    config: str | Path,
    *,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
) -> None:
    """Run a recipe from corpus to evaluation; a step that is done is not done again.

    Args:
        config: a YAML file with the sections `corpus`, `embed`, `train`, `evaluate` and the key
            `out`, or the name of a recipe of this package.
        out: the folder for all results, instead of the recipe's `out`.
        overrides: `train.sae.k=32` and the like.
        overwrite: replace the result of an earlier recipe in the same folder.

    Raises:
        ConfigError: an unknown section or key; the message names the nearest known one.
    """
    recipe = apply_overrides(read_yaml(config), overrides)
    check_keys(str(config), recipe, SECTIONS)
    base = Path(out or recipe.get("out") or "runs/" + Path(config).stem)
    base.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    options, training = _check_sections(recipe, base)
    answer_key = corpus_section(recipe.get("corpus"), base, overwrite)
    options = {"answer_key": answer_key} | options
    embed_section(recipe.get("embed") or {}, base, overwrite)
    with _timed("train"):
        train_step(training, out=base / "sae", embeddings=base / "embeddings", overwrite=overwrite)
    for sae in trained_saes(base / "sae"):
        out_of_this = base / "evaluation" / sae.relative_to(base / "sae")  # one folder an SAE after multi-hook training
        evaluate_step(sae, base / "embeddings", out=out_of_this, overwrite=overwrite, **options)
    console.print(f"[dim]{time.perf_counter() - started:.0f} s in all; results in[/] {base}")


def corpus_section(section: dict[str, Any] | None, base: Path, overwrite: bool) -> Path | None:
    """Build the corpus of a recipe; returns the answer key if the memes are planted."""
    if section is None:
        return None  # the embed section brings arrays
    from sae_lens_meme.corpus import build_corpus

    section, answer_key = dict(section), None
    if planted := section.pop("planted", None):
        from sae_lens_meme.planted import write_planted

        _check_arguments("corpus.planted", planted, write_planted)
        with _timed("planted"):
            paths = write_planted(base / "planted", overwrite=overwrite, **planted)
        section |= {"pridemm": paths.pridemm, "hmc": paths.hmc, "memotion": paths.memotion}
        answer_key = paths.answer_key
    _check_arguments("corpus", section, build_corpus)
    with _timed("corpus"):
        build_corpus(base / "corpus", overwrite=overwrite, **section)
    return answer_key


def embed_section(section: dict[str, Any], base: Path, overwrite: bool) -> None:
    """Embed the corpus of a recipe, or the arrays that its `embed` section names."""
    from sae_lens_meme.embed import embed_arrays, embed_corpus

    arrays = "table" in section
    with _timed("embed"):
        if arrays:
            embed_arrays(out=base / "embeddings", overwrite=overwrite, **section)
        else:
            embed_corpus(base / "corpus", out=base / "embeddings", overwrite=overwrite, **section)


def train_step(
    config: str | Path | dict[str, Any] | TrainConfig,
    *,
    out: str | Path,
    overrides: Sequence[str] = (),
    embeddings: str | Path | None = None,
    corpus: str | Path | None = None,
    model: str = "ViT-L-14/openai",
    fusion: str = "clip",
    heads: str | Path | None = None,
    overwrite: bool = False,
) -> None:
    """Train on embeddings, or live on a corpus through a model's towers.

    Raises:
        ConfigError: neither embeddings nor a corpus, or both.
    """
    from sae_lens_meme.train import load_train_config, train

    if (embeddings is None) == (corpus is None):
        raise ConfigError("give --embeddings (cached) or --corpus (live), one of the two")
    source = read_yaml(config) if isinstance(config, (str, Path)) else config
    if embeddings is not None:
        train(source, out=out, overrides=overrides, embeddings=embeddings, overwrite=overwrite)
    else:
        assert corpus is not None
        checked = load_train_config(source, overrides)
        family = checked.section.get("model_class_name", "HookedMemeCLIP")
        rows, live = _live(corpus, family, model, fusion, heads)
        train(checked, out=out, embeddings=rows, model=live, overwrite=overwrite)


def _live(corpus: str | Path, family: str, name: str, fusion: str, heads: str | Path | None) -> tuple[Embeddings, Any]:
    """The rows of a corpus, and a registered model that encodes them when it is asked."""
    from sae_lens_meme.corpus import caption_of, load_rows
    from sae_lens_meme.embed.from_corpus import Pictures
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
    described = rows.remove_columns(["image", "image_sha256"])
    return Embeddings.from_dataset(described, model=name, fusion=fusion), model


def evaluate_step(sae: str | Path, embeddings: str | Path, **options: Any) -> None:
    """Evaluate and print the table; the arguments are those of `evaluate.evaluate`."""
    from sae_lens_meme.evaluate import evaluate
    from sae_lens_meme.report import print_report

    if several := [folder for folder in trained_saes(sae) if folder != Path(sae)]:
        raise ConfigError(f"{sae}: holds several SAEs; give one of {', '.join(map(str, several))}")
    with _timed("evaluate"):
        report = evaluate(sae, embeddings, **options)
    print_report(report, console)


def explain_numbers(evaluation: str | Path, pattern: str) -> None:
    """Print every number of an evaluation whose name (`evaluator/number`) matches a shell pattern, and what it is.

    Raises:
        ConfigError: none matches.
    """
    import pandas as pd

    from sae_lens_meme.evaluate import EVALUATION, numbers_table

    read_finished(evaluation, "evaluate")
    table = numbers_table(read_json(Path(evaluation) / EVALUATION))
    table["name"] = table["evaluator"] + "/" + table["number"]
    table = table[[fnmatchcase(name, pattern) or fnmatchcase(name, f"*/{pattern}") for name in table["name"]]]
    if table.empty:
        raise ConfigError(f"{evaluation}: no number matches {pattern!r}; '*' shows all")
    for row in table.itertuples():
        value = f"undefined: {row.reason}" if pd.isna(row.value) else f"{row.value:.6g}"
        console.print(f"[bold]{escape(row.name)}[/] {escape(value)}")
        console.print(Padding(Text(str(row.explain), style="dim"), (0, 0, 0, 4)))


def trained_saes(folder: str | Path) -> dict[Path, str]:
    """Folder and held-out numbers of each SAE of a `train` result; of any other folder only itself."""
    folder = Path(folder)
    if not (folder / "manifest.json").is_file():
        return {folder: ""}
    facts = read_manifest(folder)["facts"]
    several = {
        folder / name: numbers for name, numbers in facts.items() if isinstance(numbers, dict) and "d_sae" in numbers
    }
    return {path: _numbers(numbers) for path, numbers in (several or {folder: facts}).items()}


def _numbers(facts: dict[str, Any]) -> str:
    if facts.get("heldout_explained_variance") is None:
        return f"no held-out numbers ({facts.get('heldout_reason', 'the held-out memes are all alike')})"
    return (
        f"held-out explained variance {facts['heldout_explained_variance']:.3f}, L0 {facts['heldout_l0']:.1f}, "
        f"{facts['heldout_never_fired']} of {facts['d_sae']} latents never fire there"
    )


def _check_sections(recipe: dict[str, Any], base: Path) -> tuple[dict[str, Any], TrainConfig]:
    """The last sections, and the others looked at: a mistake in one is told before the long steps."""
    from sae_lens_meme.embed import ArrayOptions, EmbedOptions
    from sae_lens_meme.evaluate import evaluate
    from sae_lens_meme.train import load_train_config

    embedding, options = recipe.get("embed") or {}, recipe.get("evaluate") or {}
    arrays = isinstance(embedding, dict) and "table" in embedding
    (ArrayOptions if arrays else EmbedOptions).from_mapping(embedding)
    _check_arguments("evaluate", options, evaluate)
    if recipe.get("corpus") is None and not arrays and not (base / "corpus").is_dir():
        raise ConfigError("corpus: the section is missing; give one, or arrays with embed: {table: rows.csv, ...}")
    if options.get("protocol", "both") not in (protocols := ("corrected", "published", "both")):
        raise ConfigError(f"evaluate.protocol is {options['protocol']!r}, it must be one of {', '.join(protocols)}")
    return options, load_train_config({"train": recipe.get("train")})


def _check_arguments(where: str, given: Any, function: Callable[..., Any]) -> None:
    from sae_lens_meme.train.values import check_value

    if not isinstance(given, dict):
        raise ConfigError(f"{where}: is {type(given).__name__}, not a mapping of options")
    internal = {"out", "overwrite", "progress", "sae", "embeddings", "corpus"}
    types = {name: kind for name, kind in get_type_hints(function).items() if name not in {*internal, "return"}}
    check_keys(where, given, types)
    for key, value in given.items():
        check_value(f"{where}.{key}", value, types[key])


@contextmanager
def _timed(step: str):
    started = time.perf_counter()
    yield
    console.print(f"[bold]{step:<10}[/] [dim]{time.perf_counter() - started:6.1f} s[/]")
