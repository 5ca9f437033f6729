"""Uploads an export through Neuronpedia's public API, for those who cannot run its importer; or writes what would be sent."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

from sae_lens_meme.errors import ConfigError, StorageError
from sae_lens_meme.export.step import ROOT, STEP, exported
from sae_lens_meme.export.write import BATCH, read_batch
from sae_lens_meme.progress import progress_bar
from sae_lens_meme.storage import StepFolder, read_json, read_manifest, sha256_json, through_stores, to_json

FEATURES = 128
"""Features a request."""
TOKENS = 1024
"""Tokens of an activation."""
UPLOAD, DRY_RUN = "upload", "requests"


@through_stores("folder")
def write_requests(folder: str | Path, out: str | Path | None = None) -> Path:
    """Write the bodies of all requests that `upload` would send, as JSON files; nothing is sent.

    Args:
        folder: a finished export.
        out: default `requests` inside it.

    Raises:
        StorageError: the export is not finished.
    """
    out = Path(out) if out is not None else Path(folder) / DRY_RUN
    with _result(folder, out, DRY_RUN) as made:
        if not made.complete:
            for name, body in (("model", model_body(folder)), ("source-set", set_body(folder))):
                made.write(f"{name}.json", partial(_write, body))
            for i, body in enumerate(feature_bodies(folder)):
                made.write(f"features-{i}.json", partial(_write, body))
            made.finish()
    return out


@through_stores("folder")
def upload(folder: str | Path, *, key: str | None = None, progress: bool = True) -> str:
    """Send a finished export; a killed upload resumes after the last request that was answered.

    The source set is made, UNLISTED, unless it is there.

    Args:
        key: default that of the environment, NEURONPEDIA_API_KEY.

    Returns:
        The address of the source.

    Raises:
        ConfigError: no client, no key, or a key that Neuronpedia does not know.
        StorageError: the export is not finished, or Neuronpedia refuses it.
    """
    client, facts = _client(), exported(folder)
    n = -(-facts["n_latents"] // FEATURES)
    with _errors(client), _result(folder, Path(folder) / UPLOAD, UPLOAD) as made:
        features = client.FeatureRequest(api_key=key)
        made.write("source-set.json", lambda path: _write({"made": _make_set(client, folder, key)}, path))
        with progress_bar("upload", n, unit="requests", show=progress) as advance:
            for i, body in enumerate(feature_bodies(folder)):
                made.write(f"answer-{i}.json", lambda path, body=body: _write(_send(features, body), path))
                advance(1)
        made.finish()
    return f"https://neuronpedia.org/{facts['model']}/{facts['source']}"


def require_key() -> None:
    """What `upload` will need, checked before an export is written for it; nothing is sent.

    Raises:
        ConfigError: no client, or no key.
    """
    client = _client()
    with _errors(client):
        client.FeatureRequest()


def model_body(folder: str | Path) -> dict[str, Any]:
    row = read_json(_source(folder) / "model.jsonl")
    return {"id": row["id"], "layers": row["layers"], "displayName": row["displayName"], "url": None}


def set_body(folder: str | Path) -> dict[str, Any]:
    row = read_json(_source(folder) / "sourceset.jsonl")
    return {"name": row["name"], "modelId": row["modelId"], "description": row["description"], "url": None}


def feature_bodies(folder: str | Path) -> Iterator[dict[str, Any]]:
    """128 features each, in their order."""
    facts = exported(folder)
    every = _features(_source(folder), facts["n_latents"])
    while part := list(itertools.islice(every, FEATURES)):
        yield {"modelId": facts["model"], "source": facts["source"], "features": part}


def _features(source: Path, n: int) -> Iterator[dict[str, Any]]:
    for i in range(-(-n // BATCH)):
        name = f"batch-{i}.jsonl.gz"
        activations = _Groups(source / "activations" / name)
        explanations = _Groups(source / "explanations" / name)
        for row in read_batch(source / "features" / name):
            yield {
                "index": int(row["index"]),
                "density": row["frac_nonzero"],
                "activations": [_activation(found) for found in activations.of(row["index"])],
                "explanations": [
                    {"text": found["description"], "methodName": None, "modelName": None}
                    for found in explanations.of(row["index"])
                ],
                "topLogits": _logits(row["pos_str"], row["pos_values"]),
                "bottomLogits": _logits(row["neg_str"], row["neg_values"]),
            }


class _Groups:
    """The rows of a batch by latent; it is read once, forwards."""

    def __init__(self, path: Path):
        self._groups = itertools.groupby(read_batch(path), key=lambda row: row["index"])
        self._next: tuple[str, list[dict[str, Any]]] | None = None

    def of(self, index: str) -> list[dict[str, Any]]:
        if self._next is None:
            key, rows = next(self._groups, ("", ()))
            self._next = key, list(rows)
        if self._next[0] != index:
            return []
        (_, rows), self._next = self._next, None
        return rows


def _activation(row: dict[str, Any]) -> dict[str, Any]:
    top = row["binMin"] == -1
    return {
        "tokens": row["tokens"][:TOKENS],
        "values": row["values"][:TOKENS],
        "quantileMax": None if top else row["binMax"],
        "quantileMin": None if top else row["binMin"],
        "quantileFraction": None if top else row["binContains"],
    }


def _logits(texts: list[str], values: list[float]) -> list[dict[str, Any]]:
    return [{"token": text, "value": value} for text, value in zip(texts, values, strict=True)]


def _make_set(client: Any, folder: str | Path, key: str | None) -> bool:
    """Whether the source set had to be made."""
    from requests import HTTPError

    model, body = model_body(folder), set_body(folder)
    sets = client.SourceSetRequest(api_key=key)
    try:
        sets.get(body["modelId"], body["name"])
        return False
    except HTTPError as error:
        if "not found" not in str(error).lower():
            raise
    try:
        client.ModelRequest(api_key=key).new(model["id"], model["layers"], model["displayName"], model["url"])
    except HTTPError as error:
        if "status 4" not in str(error):  # it is there already; if it is not, the set cannot be made either
            raise
    sets.new(body["name"], body["modelId"], body["description"], body["url"])
    return True


def _send(request: Any, body: dict[str, Any]) -> Any:
    """Through the client's own classes, which check a batch and know the server's names of fields."""
    from neuronpedia.np_activation import Activation
    from neuronpedia.np_explanation import Explanation
    from neuronpedia.np_feature import Feature, Logit

    model, source = body["modelId"], body["source"]
    features = [
        Feature(
            *(model, source, feature["index"], feature["density"]),
            top_logits=[Logit(**logit) for logit in feature["topLogits"]],
            bottom_logits=[Logit(**logit) for logit in feature["bottomLogits"]],
            explanations=[Explanation(model, source, feature["index"], e["text"]) for e in feature["explanations"]],
            activations=[Activation(model, source, feature["index"], **found) for found in feature["activations"]],
        )
        for feature in body["features"]
    ]
    return request.upload_batch(model, source, features)


def _client() -> Any:
    try:
        import neuronpedia
    except ImportError:
        raise ConfigError("upload needs Neuronpedia's client: pip install 'sae-lens-meme[neuronpedia]'") from None
    return neuronpedia


@contextmanager
def _errors(client: Any) -> Iterator[None]:
    """The client prints each request, and raises classes of its own."""
    from neuronpedia.requests import base_request
    from requests import RequestException

    try:
        with redirect_stdout(io.StringIO()):
            yield
    except base_request.NPKeyMissingError:
        raise ConfigError(
            "there is no key for Neuronpedia; set NEURONPEDIA_API_KEY to the key on neuronpedia.org/account"
        ) from None
    except base_request.NPUnauthorizedError:
        raise ConfigError("Neuronpedia does not know this key; check NEURONPEDIA_API_KEY") from None
    except (base_request.NPRateLimitError, base_request.NPInvalidResponseError, RequestException) as error:
        reason = " ".join(str(error).split())[:300]
        raise StorageError(
            f"Neuronpedia refuses the upload ({reason}); run it again to resume where it stopped"
        ) from None


def _result(folder: str | Path, out: Path, step: str) -> StepFolder:
    exported(folder)
    files = read_manifest(folder, STEP)["files"]
    return StepFolder(out, step, {"export": sha256_json(files)}, overwrite=True)


def _source(folder: str | Path) -> Path:
    facts = exported(folder)
    return Path(folder) / ROOT / facts["model"] / facts["source"]


def _write(body: Any, path: Path) -> None:
    path.write_text(to_json(body), encoding="utf-8")
