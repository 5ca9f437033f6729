"""A folder for the Hugging Face Hub: the SAE, its latents on the memes, the evaluation, and a model card."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Features, Value
from huggingface_hub import ModelCard, ModelCardData

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import StorageError
from sae_lens_meme.evaluators.content import EVALUATION, LATENTS
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.export.names import ExportNames
from sae_lens_meme.export.options import ExportOptions
from sae_lens_meme.export.push import push_folder, require_repo
from sae_lens_meme.export.run import Run
from sae_lens_meme.export.sae import copy_sae, named_config
from sae_lens_meme.markdown import markdown_table, markdown_text
from sae_lens_meme.report.blocks import blocks, cautions, heading, verdicts
from sae_lens_meme.shards import write_dataset
from sae_lens_meme.storage import (
    MANIFEST,
    SUCCESS,
    StepFolder,
    read_finished,
    read_json,
    sha256_file,
    through_stores,
    to_json,
)

STEP = "export-hub"
SHARD = 65_536
"""Memes a file of latents."""
FEATURES = Features(
    {
        **{"id": Value("string"), "source": Value("string"), "split": Value("string")},
        "indices": [Value("int32")],  # of the active latents, ascending
        "values": [Value("float32")],
    }
)
_OUTSIDE = (
    " outside `report/`: that page can hold both, blurred and masked until a reader asks, on the terms of their sources"
)
_TEMPLATE = Path(__file__).with_name("card.md")


@through_stores("evaluation", "sae", "embeddings", "report")
def export_hub(
    evaluation: str | Path,
    repo: str,
    options: ExportOptions | None = None,
    *,
    sae: str | Path,
    embeddings: str | Path,
    report: str | Path | None = None,
    out: str | Path,
    overwrite: bool = False,
    **given: Any,
) -> Path:
    """Write the folder; nothing is sent.

    Args:
        repo: OWNER/NAME, the repository it is meant for.
        report: a page, or a folder of pages, that is put beside the evaluation.
        out: the result folder. `SAE.from_pretrained(repo, "sae")` and `load_from_disk(FOLDER + "/latents")` read it.

    Raises:
        ConfigError: `repo` is not the name of a repository.
        StorageError, DataError: see `run.Run`.
    """
    options = ExportOptions.of(options, given)
    require_repo(repo)
    run = Run(Path(evaluation), Path(sae), Path(embeddings), None, None)
    names = ExportNames.of(run.dictionary, run.hook, options)
    pages = _pages(Path(report)) if report is not None else {}
    fingerprint = {
        **run.recorded(),
        "repo": repo,
        "neuronpedia_id": names.neuronpedia_id,
        "report": {name: sha256_file(path) for name, path in pages.items()},
    }
    with StepFolder(out, STEP, fingerprint, overwrite=overwrite) as folder:
        if not folder.complete:
            copy_sae(folder, run.sae, named_config(run.sae, names, address=False))
            _write_latents(folder, run.memes, run.latents)
            _copy_evaluation(folder, run.evaluation)
            _copy(folder, "report", pages)
            card = model_card(read_json(run.evaluation / EVALUATION), repo, report=bool(pages))
            folder.write_text("README.md", card)
            folder.finish(repo=repo)
    return Path(out)


def push_hub(folder: str | Path, *, private: bool = True, token: str | None = None) -> str:
    """Upload what `export_hub` wrote; see `push.push_folder`."""
    return push_folder(folder, STEP, repo_type="model", message="SAE and evaluation", private=private, token=token)


def model_card(evaluation: dict[str, Any], repo: str, report: bool = False) -> str:
    """Markdown: what the SAE is, the contest with its rivals first, what every evaluator concludes, what to distrust."""
    sae, ended = evaluation["sae"], verdicts(evaluation)
    led = next(iter(evaluation["results"]), None) == "contest"
    first = blocks(evaluation)[:1] if led else []
    contest = "\n\n".join(
        f"{markdown_text(block.title)}. {markdown_text(block.note)}\n\n{_table(block.columns, block.rows)}"
        for block in first
    )
    data = ModelCardData(
        library_name="saelens",
        tags=["saelens", "sparse-autoencoder", "interpretability", "memes", "not-for-all-audiences"],
        model_name=repo,
    )
    card = ModelCard.from_template(
        data,
        template_path=str(_TEMPLATE),
        title=markdown_text(f"SAE with {sae['d_sae']:,} latents at {sae['hook']}"),
        heading=markdown_text(heading(evaluation)),
        verdict=f"**{markdown_text(ended[0])}**" if led and ended else "The contest with rival units was not run.",
        contest=contest,
        findings=_list(ended[1:] if led else ended) or "Nothing else was measured.",
        cautions=_list(cautions(evaluation)) or "The evaluation has no warning.",
        repo=repo,
        report=" `report/` holds the report." if report else "",
        outside=_OUTSIDE if report else "",
    )
    return str(card).rstrip() + "\n"


def _table(columns: list[str], body: list[list[str]]) -> str:
    return markdown_table(["", *columns], body)


def _list(lines: list[str]) -> str:
    return "\n".join(f"- {markdown_text(line)}" for line in lines)


def _write_latents(folder: StepFolder, memes: Embeddings, latents: Latents) -> None:
    starts = range(0, len(memes), SHARD)
    shards = [partial(_columns, memes, latents, slice(start, start + SHARD)) for start in starts]
    write_dataset(folder, FEATURES, shards, subfolder="latents")


def _columns(memes: Embeddings, latents: Latents, part: slice) -> dict[str, Any]:
    rows = np.arange(len(memes))[part]
    matrix = latents.rows(rows).csr()
    cuts = matrix.indptr[1:-1]
    return {
        **{
            "id": memes.ids[part].tolist(),
            "source": memes.sources[part].tolist(),
            "split": memes.splits[part].tolist(),
        },
        "indices": np.split(matrix.indices.astype(np.int32), cuts),
        "values": np.split(matrix.data, cuts),
    }


def _copy_evaluation(folder: StepFolder, evaluation: Path) -> None:
    """Without the latents, which `latents/` holds, and without the SAEs of controls; its manifest names what is there."""
    manifest = read_finished(evaluation, "evaluate")
    manifest["files"].pop(LATENTS, None)
    _copy(folder, "evaluation", {name: evaluation / name for name in (*manifest["files"], SUCCESS)})
    folder.write_text(f"evaluation/{MANIFEST}", to_json(manifest))


def _pages(report: Path) -> dict[str, Path]:
    if report.suffix == ".html" and report.is_file():
        return {report.name: report}
    files = dict(_files(report))
    if not any(name.endswith(".html") and "/" not in name for name in files):  # it may be published: nothing by mistake
        raise StorageError(f"{report}: is neither a page nor a folder with one; give the report that was written")
    return files


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            yield name.as_posix(), path


def _copy(folder: StepFolder, where: str, files: dict[str, Path]) -> None:
    for name, path in files.items():
        folder.write(f"{where}/{name}", partial(shutil.copyfile, path))
