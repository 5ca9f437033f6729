"""A corpus as a dataset repository: Parquet with the pictures in it, and a card with a content warning. Nothing is sent unless asked."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
from datasets import Dataset
from huggingface_hub import DatasetCard

from sae_lens_meme.corpus import load_corpus
from sae_lens_meme.export.push import push_folder, require_repo
from sae_lens_meme.storage import StepFolder, read_finished, sha256_json, through_stores

STEP = "export-corpus"
ROWS = 100
"""Rows that whoever streams the files has to read at once."""


@through_stores("corpus")
def export_corpus(corpus: str | Path, repo: str, *, out: str | Path, overwrite: bool = False) -> Path:
    """Write the folder: `data/SPLIT-00000-of-0000N.parquet`, a file for each shard of the corpus, and `README.md`.

    `datasets.load_dataset` reads it from disk and from the Hub, streaming or not; so does `corpus --folder` (`--hub`).

    Args:
        corpus: the result of the `corpus` step.
        repo: OWNER/NAME, the repository it is meant for.

    Raises:
        ConfigError: `repo` is not the name of a repository.
        StorageError: there is no finished corpus, or `out` holds something else.
    """
    require_repo(repo)
    manifest = read_finished(corpus, "corpus")
    splits = {name: rows for name, rows in load_corpus(corpus).items() if len(rows)}
    fingerprint = {"corpus": sha256_json(manifest["files"]), "repo": repo}
    with StepFolder(out, STEP, fingerprint, overwrite=overwrite) as folder:
        if not folder.complete:
            for split, rows in splits.items():
                shards = [Path(file["filename"]) for file in rows.cache_files]
                for i, shard in enumerate(shards):
                    name = f"data/{split}-{i:05d}-of-{len(shards):05d}.parquet"
                    folder.write(name, partial(_write_parquet, shard))
            card = corpus_repository_card(
                (Path(corpus) / "README.md").read_text(encoding="utf-8"), repo, [*map(str, splits)]
            )
            folder.write_text("README.md", card)
            folder.finish(repo=repo, rows={split: len(rows) for split, rows in splits.items()})
    return Path(out)


def push_corpus(folder: str | Path, *, private: bool = True, token: str | None = None) -> str:
    """Upload what `export_corpus` wrote; see `push.push_folder`."""
    return push_folder(folder, STEP, repo_type="dataset", message="Meme corpus", private=private, token=token)


def corpus_repository_card(card: str, repo: str, splits: Sequence[str]) -> str:
    """The card of the corpus, with where the splits are and how to load them."""
    written = DatasetCard(card)
    files: list[dict[str, Any]] = [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits]
    written.data["configs"] = [{"config_name": "default", "data_files": files}]
    load = (
        f'```python\nfrom datasets import load_dataset\n\nload_dataset("{repo}")  # streaming=True: without a download\n'
        "```\n"
    )
    return f"{str(written).rstrip()}\n\n## Load\n\n{load}"


def _write_parquet(shard: Path, path: Path) -> None:
    """One shard at a time is in memory; pictures stay the bytes that they are, and the schema names their type."""
    parquet.write_table(Dataset.from_file(str(shard)).data.table, path, row_group_size=ROWS)
