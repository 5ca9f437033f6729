"""Results on disk that survive a crash: one folder a step, a manifest with hashes, `_SUCCESS` last."""

from sae_lens_meme.storage.files import (
    atomic_file,
    read_json,
    sha256_file,
    sha256_json,
    sync,
    to_json,
    write_text,
)
from sae_lens_meme.storage.folder import LOCK, REPLACING, StepFolder, first_difference
from sae_lens_meme.storage.manifest import (
    MANIFEST,
    SUCCESS,
    VERIFY,
    open_dataset,
    read_finished,
    read_manifest,
    verify,
)
from sae_lens_meme.storage.stores import fetched, require_here, url_of
from sae_lens_meme.storage.through import through_stores

__all__ = [
    "LOCK",
    "MANIFEST",
    "REPLACING",
    "SUCCESS",
    "VERIFY",
    "StepFolder",
    "atomic_file",
    "fetched",
    "first_difference",
    "open_dataset",
    "read_finished",
    "read_json",
    "read_manifest",
    "require_here",
    "sha256_file",
    "sha256_json",
    "sync",
    "through_stores",
    "to_json",
    "url_of",
    "verify",
    "write_text",
]
