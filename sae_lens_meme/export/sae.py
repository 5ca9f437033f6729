"""The SAE's own config with the id by which SAELens opens its pages."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from sae_lens_meme.export.names import ExportNames
from sae_lens_meme.provenance import SAE_CFG, SAE_WEIGHTS
from sae_lens_meme.storage import MANIFEST, StepFolder, read_json, read_manifest, sha256_file, to_json, write_text


def named_config(sae: Path, names: ExportNames, *, address: bool = True) -> dict[str, Any]:
    """`cfg.json` with `neuronpedia_id` in its metadata.

    Args:
        address: SAELens builds the addresses of quick lists from `model_name`, so that it becomes the model's id on
            Neuronpedia where the two differ; the name by which the model is loaded is kept as `loads_from`.
    """
    cfg = read_json(sae / SAE_CFG)
    metadata = dict(cfg.get("metadata") or {}) | {"neuronpedia_id": names.neuronpedia_id}
    if address and metadata.get("model_name") != names.model:
        metadata |= {"loads_from": metadata.get("model_name"), "model_name": names.model}
    return {**cfg, "metadata": metadata}


def copy_sae(folder: StepFolder, sae: Path, cfg: dict[str, Any]) -> None:
    """A folder that `SAE.load_from_disk` opens."""
    folder.write_text(f"sae/{SAE_CFG}", json.dumps(cfg))
    folder.write(f"sae/{SAE_WEIGHTS}", partial(shutil.copyfile, sae / SAE_WEIGHTS))


def mark_sae(sae: str | Path, neuronpedia_id: str) -> None:
    """Write the id into the SAE's own `cfg.json`; its weights, and everything measured on them, stay valid.

    In a result of `train` the manifest records the new file.
    """
    sae = Path(sae)
    cfg = read_json(sae / SAE_CFG)
    cfg["metadata"] = dict(cfg.get("metadata") or {}) | {"neuronpedia_id": neuronpedia_id}
    write_text(sae / SAE_CFG, json.dumps(cfg))
    for owner in (sae, *sae.parents[:2]):  # the SAE of one hook is a folder inside the result
        name = (sae / SAE_CFG).relative_to(owner).as_posix()
        if (owner / MANIFEST).is_file() and name in (manifest := read_manifest(owner))["files"]:
            manifest["files"][name] = sha256_file(sae / SAE_CFG)
            write_text(owner / MANIFEST, to_json(manifest))
