"""`run`: every step of a recipe in its order, skipping what is done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from sae_lens_meme.attribute.options import AttributeOptions
from sae_lens_meme.config import apply_overrides, read_yaml
from sae_lens_meme.corpus.options import corpus_options
from sae_lens_meme.dashboard.options import DashboardOptions
from sae_lens_meme.embed.options import ArrayOptions, EmbedOptions
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.evaluators.options import EvaluateOptions
from sae_lens_meme.ocr.options import OcrOptions
from sae_lens_meme.options import check_keys
from sae_lens_meme.planted.options import PlantedOptions, VectorOptions
from sae_lens_meme.results import dashboard_step, evaluate_step, show_reports
from sae_lens_meme.steps import (
    attribute_step,
    console,
    corpus_section,
    embed_step,
    ocr_step,
    timed,
    train_step,
    trained_saes,
    vectors_step,
)
from sae_lens_meme.storage import fetched, url_of

if TYPE_CHECKING:
    from sae_lens_meme.train import TrainConfig

SECTIONS = ("out", "corpus", "ocr", "embed", "train", "attribute", "evaluate", "dashboard")


def run(
    config: str | Path,
    *,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    full: bool = False,
    overwrite: bool = False,
    open_report: bool = False,
) -> None:
    """Run a recipe from corpus to report; finished steps are not repeated.

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
    if url_of(base) is None:
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
    with timed("train"):
        if training.recipe.keep is None:
            train_step(training, out=base / "sae", embeddings=base / "embeddings", overwrite=overwrite)
        else:
            live = {"corpus": base / "corpus", "model": embedding.get("model")}
            train_step(training, out=base / "sae", **live, overwrite=overwrite)
    options = {"answer_key": answer_key, **options} if answer_key else options
    pages = []
    for sae in trained_saes(base / "sae"):
        name = sae.relative_to(fetched(base / "sae"))  # one folder per SAE after multi-hook training
        seen = {}
        if corpus is not None and "hook" not in embedding:  # single tokens are no memes to attribute to
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
    if corpus is None and not arrays and not vectors and not fetched(base / "corpus").is_dir():
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
            raise ConfigError(f"{section}: planted vectors have neither pictures nor a model; leave the section out")
    tokens = isinstance(embedding, dict) and "hook" in embedding
    if tokens and "attribute" in recipe:
        raise ConfigError(
            "attribute: rows of single tokens are not memes, so nothing can be attributed; leave the section out"
        )
    made = {"attribution": base} if pictures and not tokens else {}  # what the steps before will have made
    made |= {"answer_key": base} if vectors or memes else {}
    EvaluateOptions.from_mapping({**made, **options} if isinstance(options, dict) else options).check()
    return load_train_config({"train": recipe.get("train")}), dict(options)
