"""The `dashboard` step: from result folders to `report.html`."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from sae_lens_meme.dashboard import page
from sae_lens_meme.dashboard.concepts import choice, concept_pages, found, glance
from sae_lens_meme.dashboard.doubts import doubts, missing, treated_worse
from sae_lens_meme.dashboard.inputs import ReportInputs, read_inputs
from sae_lens_meme.dashboard.latents import CONCEPT_COLUMNS, EFFECT_COLUMNS, LatentPages
from sae_lens_meme.dashboard.memes import MemePages
from sae_lens_meme.dashboard.numbers import clean, to_script
from sae_lens_meme.dashboard.options import DashboardOptions
from sae_lens_meme.dashboard.sentences import DENSE
from sae_lens_meme.dashboard.tokens import Tokens, spoken, told
from sae_lens_meme.dashboard.verdicts import TONES, USED
from sae_lens_meme.errors import BadImageError
from sae_lens_meme.images import open_image
from sae_lens_meme.progress import progress_bar
from sae_lens_meme.row_kind import TOKEN
from sae_lens_meme.storage import StepFolder, sha256_json, through_stores

SCHEMA = 2
REPORT, BESIDE = "report.html", "report_data"
LATENTS, MEMES, PICTURES = 32, 64, 32
"""Latents, memes and pictures a part."""
_SAMPLE = 64


@through_stores("evaluation", "sae", "embeddings", "corpus", "attribution")
def write_dashboard(
    evaluation: str | Path,
    sae: str | Path,
    embeddings: str | Path,
    corpus: str | Path | None = None,
    attribution: str | Path | None = None,
    options: DashboardOptions | None = None,
    *,
    out: str | Path,
    overwrite: bool = False,
    progress: bool = True,
    **given: Any,
) -> Path:
    """Write `report.html`; what is done is not done again.

    Args:
        evaluation: the result of `evaluate`.
        sae: the SAE that was evaluated.
        embeddings: the embeddings that it was evaluated on.
        corpus: the corpus of these memes, for their pictures.
        attribution: the result of `attribute`, for words and regions.
        options: or its fields as keywords, see `DashboardOptions`.
        out: the result folder.

    Returns:
        The path of the page.

    Raises:
        StorageError: a folder is not what it must be, or they do not belong together.
    """
    options = DashboardOptions.of(options, given)
    inputs = read_inputs(evaluation, sae, embeddings, corpus, attribution)
    return write_report(inputs, options, out=out, overwrite=overwrite, progress=progress)


def write_report(
    inputs: ReportInputs, options: DashboardOptions, *, out: str | Path, overwrite: bool = False, progress: bool = True
) -> Path:
    """As `write_dashboard`, from inputs in memory.

    Raises:
        StorageError: another process writes to `out`, or it holds something else.
    """
    fingerprint = {
        **inputs.fingerprint,
        "options": options.model_dump(mode="json"),
        "dashboard_schema": SCHEMA,
        "application": sha256_json(page.application()),
    }
    with StepFolder(out, "dashboard", fingerprint, overwrite=overwrite) as folder:
        if not folder.complete:
            _write(folder, inputs, options, progress)
    return Path(out) / REPORT


def _write(folder: StepFolder, inputs: ReportInputs, options: DashboardOptions, progress: bool) -> None:
    latents = LatentPages(inputs, options)
    memes = MemePages(inputs, latents.choices, latents.words, options)
    concepts = concept_pages(latents)
    parts = list(_parts(latents, memes, concepts, options))
    kind, lacks = inputs.memes.row_kind, missing(inputs)
    held_out, rows = inputs.memes.held_out()
    beside = _estimated_bytes(latents, memes, options) > options.single_file_mb * 1e6
    core = {
        "latents": latents.index(),
        "concepts": [concept["name"] for concept in concepts],
        "concept_columns": CONCEPT_COLUMNS,
        "effect_columns": (*EFFECT_COLUMNS, "beats"),
        "use": USED,
        "called": latents.words.changed(_keys(latents)),
        "tones": TONES,
        "columns": latents.generic,
        "charts": page.charts(inputs.evaluation, latents.words),
        "n_memes": len(inputs.memes),
        "n_shown": len(memes),
        "n_read": memes.n_read,
        "no_sides": memes.readings.no_sides,
        "sizes": {"latents": LATENTS, "memes": MEMES, "pictures": PICTURES},
        "dense": DENSE,
        "held_out": [held_out, len(rows)],
        "map": {"umap": "UMAP", "tsne": "t-SNE"}[options.map],
        "hook": clean(str(inputs.evaluation["sae"]["hook"])),
        "pictures": inputs.corpus is not None,
        "attribution": inputs.attribution is not None,
        "looked_into": None if inputs.attribution is None else len(inputs.attribution.latents),
        "view": _view(inputs),
        "missing": lacks,
        "rows": spoken(kind),
        "told": told(kind, lacks),
        "beside": BESIDE if beside else None,
    }
    lines = glance(latents, concepts)
    shown = {
        "glance": lines,
        "missing": list(lacks.values()),
        "doubts": doubts(inputs, latents, lines),
        "fairness": [kind.said(line) for line in treated_worse(inputs, latents.words)],
        "found": [kind.said(line) for line in found(lines, latents)],
        "use": USED,
        "choice": kind.said(choice(concepts)),
        "rows": kind,
    }
    with progress_bar("dashboard", len(parts), unit="parts", show=progress) as advance:
        if beside:
            for part in parts:
                folder.write(f"{BESIDE}/{part.name}.js", partial(_write_part, part))
                advance(1)
        counted = None if beside else _counted(parts, advance)
        folder.write(REPORT, lambda path: page.write_page(path, inputs.evaluation, latents.words, core, shown, counted))
    folder.finish(latents=latents.d_sae, memes=len(memes), single_file=not beside)


def _view(inputs: ReportInputs) -> str:
    """How what is marked on a picture lies on it."""
    if inputs.memes.row_kind == TOKEN:
        return Tokens(inputs).view
    return "whole" if inputs.attribution is None else inputs.attribution.facts.get("view", "whole")


def _keys(latents: LatentPages) -> Iterator[str]:
    """Every text that stands for a label or a concept in the data."""
    yield from latents.concept_names
    if (named := latents.tables.get("naming")) is not None:
        names = zip(named.column("name"), named.column("kind"), strict=True)
        yield from (name for name, kind in names if name is not None and kind == "concept")
    if (effects := latents.effects) is not None:
        rows = effects.table[["task", "class"]].drop_duplicates()
        yield from (f"{task}={level}" for task, level in rows.itertuples(index=False))


def _parts(
    latents: LatentPages, memes: MemePages, concepts: list[dict[str, Any]], options: DashboardOptions
) -> Iterator[page.Part]:
    """The smallest and most wanted first: a page that is still being read can show them."""
    yield page.Part("concepts", lambda: concepts)
    yield page.Part("search", memes.search)
    for i, places in enumerate(_blocks(latents.d_sae, LATENTS)):
        yield page.Part(f"latents-{i}", partial(_latent_part, latents, memes, places))
    for i, places in enumerate(_blocks(len(memes), MEMES)):
        yield page.Part(f"memes-{i}", partial(memes.pages, places))
    if memes.inputs.corpus is not None:
        for i, places in enumerate(_blocks(len(memes.pictures), PICTURES)):
            yield page.Part(f"pictures-{i}", partial(_picture_part, memes, places, options.pixels))


def _latent_part(latents: LatentPages, memes: MemePages, places: range) -> list[dict[str, Any]]:
    return [latents.page(latent, memes.place) for latent in places]


def _picture_part(memes: MemePages, places: range, pixels: int) -> list[str | None]:
    return data_uris(memes.inputs.corpus, memes.pictures[places.start : places.stop], pixels)


def _estimated_bytes(latents: LatentPages, memes: MemePages, options: DashboardOptions) -> float:
    """From a sample: nothing large is made twice."""
    step = max(1, latents.d_sae // _SAMPLE)
    pages = [len(to_script(latents.page(i, memes.place))) for i in range(0, latents.d_sae, step)]
    total = latents.d_sae * sum(pages) / max(1, len(pages))
    if memes.inputs.corpus is not None and len(memes):
        rows = memes.pictures[:: max(1, len(memes.pictures) // _SAMPLE)]
        sizes = [len(uri or "") for uri in data_uris(memes.inputs.corpus, rows, options.pixels)]
        total += len(memes.pictures) * sum(sizes) / len(sizes)
    return total + 600 * len(memes)


def _blocks(n: int, size: int) -> list[range]:
    return [range(start, min(start + size, n)) for start in range(0, n, size)]


def _counted(parts: list[page.Part], advance: Any) -> Iterator[page.Part]:
    for part in parts:
        yield part
        advance(1)


def _write_part(part: page.Part, path: Path) -> None:
    path.write_text(page.part_script(part), encoding="utf-8")


QUALITY = 70
FEW_COLOURS = 4096
"""A drawing, a screenshot: smaller without loss."""
_WORKERS = 4


def data_uris(corpus: Any, rows: Sequence[int | None], pixels: int) -> list[str | None]:
    """One `data:` URI a row of the corpus; None for None, and for a picture that cannot be read.

    Args:
        corpus: a dataset with a column `image` of undecoded pictures.
        pixels: longest side.
    """
    places = [row for row in rows if row is not None]
    found = corpus.select_columns(["image"])[places]["image"] if places else []
    with ThreadPoolExecutor(_WORKERS) as pool:  # Pillow works outside the interpreter lock
        made = iter(list(pool.map(lambda picture: _data_uri(picture, pixels), found)))
    return [None if row is None else next(made) for row in rows]


def _data_uri(picture: Any, pixels: int) -> str | None:
    try:
        image = open_image(picture["bytes"])
    except (BadImageError, TypeError, KeyError):
        return None
    image.thumbnail((pixels, pixels), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    drawn = image.getcolors(FEW_COLOURS) is not None
    clean = Image.frombytes("RGB", image.size, image.tobytes())  # no EXIF, no profile, no comment
    clean.save(file, "WEBP", **({"lossless": True} if drawn else {"quality": QUALITY, "method": 4}))
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
