"""Steps that make something, with what they print: corpus, captions, embeddings, SAE, attribution."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from sae_lens_meme.attribute.options import AttributeOptions
from sae_lens_meme.config import read_yaml
from sae_lens_meme.corpus.options import corpus_options
from sae_lens_meme.embed.options import ArrayOptions, EmbedOptions, ViewOptions
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.importers.options import AUTO, ImportOptions
from sae_lens_meme.ocr.options import OcrOptions
from sae_lens_meme.planted.options import PlantedOptions, VectorOptions
from sae_lens_meme.report.blocks import visible
from sae_lens_meme.row_kind import MEME
from sae_lens_meme.storage import MANIFEST, fetched, read_finished, read_manifest, sha256_json, to_json, write_text

if TYPE_CHECKING:
    from sae_lens_meme.train import TrainConfig

_in_terminal = sys.stdout is not None and sys.stdout.isatty()  # None: there is no place to print to
console = Console(highlight=False, width=None if _in_terminal else 110)


def corpus_step(section: dict[str, Any], *, out: Path, overwrite: bool = False) -> None:
    """Build a corpus; print what is in it, and what was left out and why."""
    from sae_lens_meme.corpus import build_corpus, corpus_notes
    from sae_lens_meme.corpus.notes import dropped_note

    options = corpus_options().from_mapping(section)
    with timed("corpus"):
        built = build_corpus(out, options, overwrite=overwrite)
    memes = ", ".join(f"{len(rows):,} {split}" for split, rows in built.items())
    console.print(Text(f"  {out}: {memes} memes"), soft_wrap=True)
    facts = read_finished(out, "corpus")["facts"]
    for note in filter(None, [dropped_note(facts), *corpus_notes(facts)]):
        console.print(Text(f"  {visible(note)}"), soft_wrap=True)


def corpus_section(section: dict[str, Any] | None, base: Path, overwrite: bool) -> Path | None:
    """Build the corpus of a recipe; returns the answer key if the memes are planted."""
    if section is None:
        return None  # the embed section brings arrays
    section, answer_key = dict(section), None
    if planted := section.pop("planted", None):
        from sae_lens_meme.planted import write_planted

        with timed("planted"):
            paths = write_planted(base / "planted", PlantedOptions.from_mapping(planted), overwrite=overwrite)
        section |= {"pridemm": paths.pridemm, "hmc": paths.hmc, "memotion": paths.memotion}
        answer_key = paths.answer_key
    corpus_step(section, out=base / "corpus", overwrite=overwrite)
    return answer_key


def describe_step(corpus: Path, *, out: Path | None = None) -> None:
    """Print what is in a corpus; with a folder also write `description.json` and the figure `corpus`."""
    from sae_lens_meme.figures import Inputs, write_figures
    from sae_lens_meme.report.terminal import print_description

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

    with timed("ocr"):
        facts = read_captions(corpus, out, OcrOptions.from_mapping(section), overwrite=overwrite).facts
    text = f"  {out}: text on {facts['n_read']:,} of {facts['n_pictures']:,} pictures of {facts['n_memes']:,} memes"
    text += f"; the engine failed at {facts['n_failed']:,} (column problem)" if facts["n_failed"] else ""
    console.print(Text(text), soft_wrap=True)


def embed_step(section: dict[str, Any], *, corpus: Path | None, out: Path, overwrite: bool = False) -> None:
    """Embed a corpus, or take the arrays that the section names."""
    from sae_lens_meme.embed import embed_arrays, embed_corpus

    with timed("embed"):
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

    with timed("vectors"):
        result = write_planted_vectors(out, VectorOptions.from_mapping(section), overwrite=overwrite)
    _print_embeddings(out, result, "planted vectors")
    console.print(Text(f"  {answer_key_of(out)}: what is true of them, for evaluate --answer-key"), soft_wrap=True)
    return answer_key_of(out)


def import_step(source: str, path: Path, section: dict[str, Any], *, out: Path, overwrite: bool = False) -> None:
    """Write an SAE of another project as a stock one, and print how it was converted."""
    from sae_lens_meme.importers import import_sae

    options = ImportOptions.from_mapping(section)
    sae = import_sae(path, out, options, converter=None if source == AUTO else source, overwrite=overwrite)
    cfg, imported = sae.cfg, sae.cfg.metadata.imported or {}
    hook = cfg.metadata.hook_name or "a hook that its files do not name: pass --hook to it, or here"
    told = f"{out}: {cfg.architecture()}, d_in {cfg.d_in}, d_sae {cfg.d_sae}, reads {hook}"
    for line in (told, *(f"  {note}" for note in imported.get("notes", ()))):
        console.print(Text(visible(line)), soft_wrap=True)


def _print_embeddings(out: Path, result: Embeddings, what: str) -> None:
    hooks = ", ".join(f"{hook} {result.d_in(hook)}" for hook in result.hooks)
    console.print(Text(visible(f"  {out}: {len(result):,} {what}, {hooks}")), soft_wrap=True)


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
    seen: Mapping[str, Any] | None = None,
) -> None:
    """Train on embeddings, or live on a corpus through a model's towers.

    Args:
        seen: fields of `ViewOptions`, for live training.

    Raises:
        ConfigError: neither embeddings nor a corpus, or both; or `seen` with embeddings.
    """
    from sae_lens_meme.train import TrainConfig, load_train_config, train

    if (embeddings is None) == (corpus is None):
        raise ConfigError("give --embeddings (cached) or --corpus (live), one of the two")
    source = read_yaml(config) if isinstance(config, (str, Path)) else config
    if given is not None:
        overrides = [*overrides, f"from_pretrained_path={json.dumps(str(given))}"]
    if embeddings is not None and seen:
        raise ConfigError(
            f"--{min(seen)} is of live training (--corpus); give it to embed, whose result is trained on here"
        )
    if embeddings is not None:
        train(source, out=out, overrides=overrides, embeddings=embeddings, overwrite=overwrite)
    else:
        assert corpus is not None
        checked = source if isinstance(source, TrainConfig) else load_train_config(source, overrides)
        family = checked.section.get("model_class_name", "HookedVLM" if checked.recipe.keep else "HookedMemeCLIP")
        name = model or checked.section.get("model_name") or "ViT-L-14/openai"
        rows, live = _live(corpus, family, name, fusion, heads, ViewOptions.from_mapping(seen or {}))
        train(checked, out=out, embeddings=rows, model=live, overwrite=overwrite)


def _live(
    corpus: str | Path, family: str, name: str, fusion: str, heads: str | Path | None, seen: ViewOptions
) -> tuple[Embeddings, Any]:
    """The rows of a corpus, and a registered model that encodes them when it is asked."""
    from sae_lens_meme.corpus import caption_of, load_rows
    from sae_lens_meme.corpus.build import Pictures
    from sae_lens_meme.hooks import HookedMemeCLIP, find
    from sae_lens_meme.ocr import Captions

    if (fusion == "memeclip") != (heads is not None):
        raise ConfigError(
            "fusion memeclip and --heads CHECKPOINT go together: new heads would fuse at random "
            "(embed --fusion memeclip trains heads and keeps them as heads.safetensors)"
        )
    rows, depends_on = load_rows(corpus), []
    if seen.ocr is not None:
        read = Captions.load(seen.ocr)
        rows, note = read.fill(rows)
        depends_on.append(read.fingerprint)
        console.print(Text(visible(note)), soft_wrap=True)
    captions = [caption_of(meme) for meme in rows.select_columns(["text", "text_origin"]).to_list()]
    model = HookedMemeCLIP.from_memeclip_checkpoint(heads, name) if heads else find(family).from_pretrained(name)
    if seen.resize is not None:
        if not isinstance(model, HookedMemeCLIP):
            raise ConfigError(f"--resize is of CLIP's towers; a {family} makes its own squares, leave it out")
        model.towers.resize(seen.resize)
        depends_on.append(seen.resize)
    model.attach_memes(Pictures(rows), captions, splits=rows["split"])
    described = rows.remove_columns("image")
    found = Embeddings.from_dataset(described, model=name, fusion=fusion)
    return (replace(found, fingerprint=sha256_json([found.fingerprint, *depends_on])) if depends_on else found), model


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
    with timed("attribute"):
        found = attribute(only_sae(sae), embeddings, corpus, options, out=out, overwrite=overwrite)
    pairs, memes = len(found.dataset), found.facts["n_memes"]
    text = f"  {out}: {len(found.latents):,} latents on {memes:,} memes, {pairs:,} pairs with words and regions"
    console.print(Text(text), soft_wrap=True)


@contextmanager
def timed(step: str):
    started = time.perf_counter()
    yield
    console.print(Text.assemble((f"{step:<10}", "bold"), (f"{time.perf_counter() - started:6.1f} s", "dim")))


def trained_saes(folder: str | Path) -> dict[Path, str]:
    """Folder and validation numbers of each SAE of a `train` result; of any other folder only itself."""
    folder = fetched(folder)
    if not (folder / MANIFEST).is_file():
        return {folder: ""}
    facts = read_manifest(folder)["facts"]
    several = {
        folder / name: numbers for name, numbers in facts.items() if isinstance(numbers, dict) and "d_sae" in numbers
    }
    return {path: _numbers(numbers) for path, numbers in (several or {folder: facts}).items()}


def only_sae(folder: str | Path) -> str | Path:
    """The folder itself, which must not be that of several SAEs."""
    if several := [sae for sae in trained_saes(folder) if sae != fetched(folder)]:
        raise ConfigError(f"{folder}: holds several SAEs; give one of {', '.join(map(str, several))}")
    return folder


def _numbers(facts: dict[str, Any]) -> str:
    if facts.get("validation_explained_variance") is None:
        return f"no validation numbers ({facts.get('validation_reason', 'an earlier release trained it')})"
    return (
        f"validation explained variance {facts['validation_explained_variance']:.3f}, "
        f"L0 {facts['validation_l0']:.1f}, {facts['validation_never_fired']} of {facts['d_sae']} latents never fire "
        f"on the {facts['validation_n']:,} validation {facts.get('rows', MEME.many)}"
    )
