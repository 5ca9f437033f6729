"""What an SAE's own files say about its training memes, the scale of its activations and the groups of its latents."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors.torch import save

from sae_lens_meme.attributions import STEP
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError, StorageError
from sae_lens_meme.storage import open_dataset, read_finished, read_json, sha256_json, write_text

RUNNER_CFG, SCALER = "runner_cfg.json", "activation_scaler.json"
SAE_CFG, SAE_WEIGHTS = "cfg.json", "sae_weights.safetensors"
IMPORTED = "imported"
"""In the metadata of an SAE: whose it is, what became of it, and the hash of its file."""
TRAINED_FURTHER = "trained_further"
"""In the metadata of an SAE: training began with weights whose own training rows are not known."""


def require_evaluated(evaluation: str | Path, part: str, given: Any, what: str) -> None:
    """The evaluation is of this SAE or these embeddings, `part` of its fingerprint.

    Raises:
        StorageError: it is of others, or not finished.
    """
    if read_finished(evaluation, "evaluate")["fingerprint"].get(part) != given:
        raise StorageError(f"{evaluation}: was not made from {what}; give the folder that `evaluate` was given")


def require_attribution_of(evaluation: str | Path, attribution: str | Path) -> None:
    """The attribution is of the SAE and the embeddings of the evaluation.

    Raises:
        StorageError: it is of others, or one of both is not finished.
    """
    evaluated, made = (
        read_finished(folder, step)["fingerprint"] for folder, step in ((evaluation, "evaluate"), (attribution, STEP))
    )
    for part, what in (("sae", "SAE"), ("embeddings", "embeddings")):
        if made.get(part) != evaluated.get(part):
            raise StorageError(f"{attribution}: was not made from the {what} of {evaluation}; run attribute again")


def training_rows_known(sae: Any, embeddings: Embeddings) -> str | None:
    """None where the train rows of the embeddings are the ones that the SAE was trained on; else why that is not known.

    `train` writes the facts into the SAE's metadata, by which test memes are known to be new to it. Any other SAE may
    have seen them: SAELens' own runner, for one, trains on all rows of a folder of cached activations.
    """
    metadata = sae.cfg.metadata
    unknown = "the training rows of this SAE are not known, test memes may be among them"
    if metadata[TRAINED_FURTHER]:
        return f"{unknown}: it was trained further from weights whose training rows are not known"
    if metadata.embeddings_fingerprint is None or metadata.train_rows_fingerprint is None:
        return f"{unknown}: it carries no record of them, which `sae-lens-meme train` writes"
    if metadata.weights_fingerprint != weights_fingerprint(sae):
        return f"{unknown}: its weights are not the ones that `sae-lens-meme train` made"
    if metadata.embeddings_fingerprint == embeddings.fingerprint:
        return None
    if metadata.train_rows_fingerprint != train_rows_fingerprint(embeddings):
        return f"{unknown}: it was trained on other embeddings with other train memes"
    return None


def describe_training_rows(sae: Any, embeddings: Embeddings) -> dict[str, str]:
    """The metadata that `training_rows_known` reads, of an SAE with the weights that are saved."""
    return {
        "embeddings_fingerprint": embeddings.fingerprint,
        "train_rows_fingerprint": train_rows_fingerprint(embeddings),
        "weights_fingerprint": weights_fingerprint(sae),
    }


def record_training_rows(sae: str | Path, embeddings: Embeddings | str | Path) -> None:
    """Write into an SAE of SAELens' own runner that it was trained on the train rows, after looking them up.

    Its `runner_cfg.json` names the folder of cached activations that it read: the memes in it must be train memes.

    Raises:
        StorageError: the SAE has no `runner_cfg.json`, or the folder that it names is gone.
        DataError: it was not trained on cached activations, or on memes that are not train memes here.
    """
    from sae_lens import SAE

    folder, memes = Path(sae), embeddings if isinstance(embeddings, Embeddings) else Embeddings.load(embeddings)
    made = read_json(folder / RUNNER_CFG)
    path = made.get("cached_activations_path") if isinstance(made, dict) else None
    if path is None or not made.get("use_cached_activations"):
        raise DataError(
            f"{folder}: was not trained on cached activations, so that its training rows cannot be looked up"
        )
    read = open_dataset(path)
    if "id" not in getattr(read, "column_names", ()):
        raise DataError(f"{path}: its memes have no id; write the rows with Embeddings.export_cached")
    train = set(memes.ids[memes.rows("train")].tolist())
    if others := [id for id in read["id"] if str(id) not in train]:
        raise DataError(
            f"{folder}: {len(others):,} of the {len(read):,} memes that it was trained on are not train memes of these "
            f"embeddings, the first is {others[0]!r}; train on Embeddings.export_cached"
        )
    cfg = read_json(folder / SAE_CFG)
    cfg["metadata"] = {**(cfg.get("metadata") or {}), **describe_training_rows(SAE.load_from_disk(folder), memes)}
    write_text(folder / SAE_CFG, json.dumps(cfg))


def train_rows_fingerprint(embeddings: Embeddings) -> str:
    """A hash of the ids of the train memes, whatever their order and however they were embedded; of token rows, their memes'."""
    rows = embeddings.rows("train")
    if "item" in embeddings.dataset.column_names:
        return sha256_json(sorted(set(embeddings.dataset.select(rows)["item"])))
    identified = "id" in embeddings.dataset.column_names
    return sha256_json(sorted(embeddings.ids[rows].tolist()) if identified else rows.tolist())


def weights_fingerprint(sae: Any) -> str:
    """A hash of all weights, bit by bit."""
    weights = {name: value.detach().cpu().contiguous() for name, value in sae.state_dict().items()}
    return hashlib.sha256(save(weights)).hexdigest()


def scaled_in_training(folder: str | Path) -> bool:
    """Whether the folder is a checkpoint from the middle of training on scaled activations: its weights do not take raw ones."""
    file = Path(folder) / SCALER
    scaler = read_json(file) if file.is_file() else None
    return isinstance(scaler, dict) and any(value not in (None, False) for value in scaler.values())


def not_folded(normalize_activations: Any) -> str | None:
    """Why an SAE of this setting, beside which no scale lies, does not take raw activations; None where it does.

    SAELens writes `none` where it folds the scale into the weights; the other settings are computed for each activation.
    """
    if normalize_activations not in ("expected_average_only_in", "covariance_whitening"):
        return None
    return (
        f"its normalize_activations is {normalize_activations!r}: its weights take scaled activations, and the scale is "
        f"not known; give the final SAE of that training, which says 'none', or restore {SCALER}"
    )


def recorded_widths(folder: str | Path) -> list[int] | None:
    """Where the groups of a Matryoshka SAE end, as training wrote it in `runner_cfg.json` or `import` in its metadata.

    None for any other SAE.
    """
    for name, section in ((RUNNER_CFG, "sae"), (SAE_CFG, "metadata")):
        file = Path(folder) / name
        written = read_json(file) if file.is_file() else None
        said = written.get(section) if isinstance(written, dict) else None
        widths = said.get("matryoshka_widths") if isinstance(said, dict) else None
        if isinstance(widths, list) and widths and all(isinstance(width, int) for width in widths):
            return widths
    return None


def import_notes(sae: Any) -> str | None:
    """What became of an SAE of another project, as `import` wrote it into its metadata."""
    imported = sae.cfg.metadata[IMPORTED]
    notes = imported.get("notes") if isinstance(imported, dict) else None
    if not isinstance(notes, list) or not notes:
        return None
    return f"This SAE is {imported.get('format')}'s, as a stock one: {'; '.join(map(str, notes))}."
