"""What is sent to Neuronpedia, through its own client; no request leaves the machine."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from exported import inputs, rows, write_arrays

from sae_lens_meme.errors import ConfigError, StorageError
from sae_lens_meme.export import export, upload, write_requests

client = pytest.importorskip("neuronpedia.requests.base_request")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    texts = ["a cat", "two dogs", "word " * 3000, "", None, "the cat again"]
    run = write_arrays(folder, texts=texts, n=120, d=8, d_sae=300, k=4)
    return export(run / "evaluation", out=run / "export", **inputs(run))


class Server:
    """Answers as Neuronpedia does, and remembers."""

    def __init__(self, there: bool = False, fails_at: int | None = None, status: int = 200):
        self.there, self.fails_at, self.status = there, fails_at, status
        self.asked: list[tuple[str, str, Any]] = []

    def __call__(self, method: str, url: str, **given: Any) -> Any:
        self.asked.append((method, url.split("/api/")[1], given.get("json")))
        status = self.status
        if method == "GET" and not self.there:
            status = 404
        if len(self.sent) - 1 == self.fails_at and method == "POST":
            status = 500
        kept = {"id": "m", "layers": 1, "displayName": "m", "website": None}
        kept |= {"name": "s", "modelId": "m", "description": "", "urls": [], "sources": []}
        return SimpleNamespace(status_code=status, json=lambda: kept, raise_for_status=lambda: None, text="")

    @property
    def sent(self) -> list[Any]:
        return [body for _, url, body in self.asked if url == "feature/upload-batch"]


@pytest.fixture
def folder(source: Path, tmp_path: Path) -> Path:
    """A copy: an upload leaves its answers in the export."""
    import shutil

    return Path(shutil.copytree(source.parents[2], tmp_path / "export"))


def serve(monkeypatch: pytest.MonkeyPatch, **given: Any) -> Server:
    server = Server(**given)
    monkeypatch.setattr(client.requests, "request", server)
    return server


def test_a_dry_run_writes_what_an_upload_sends(folder: Path, monkeypatch: pytest.MonkeyPatch):
    server = serve(monkeypatch)
    out = write_requests(folder)
    assert server.asked == []
    written = [json.loads((out / f"features-{i}.json").read_text()) for i in range(3)]
    upload(folder, key="k", progress=False)
    assert server.sent == written
    assert [url for _, url, _ in server.asked[:3]] == [
        "source-set/meme-model/meme-fused-topk-300",
        "model/new",
        "source-set/new",
    ]
    assert server.asked[1][2] == json.loads((out / "model.json").read_text())
    assert server.asked[2][2] == json.loads((out / "source-set.json").read_text())


def test_requests_stay_within_the_limits_and_leave_nothing_out(folder: Path, source: Path):
    out = write_requests(folder)
    bodies = [json.loads((out / f"features-{i}.json").read_text()) for i in range(3)]
    assert [len(body["features"]) for body in bodies] == [128, 128, 44]
    features = [feature for body in bodies for feature in body["features"]]
    assert [feature["index"] for feature in features] == list(range(300))
    sent = [activation for feature in features for activation in feature["activations"]]
    assert len(sent) == len(rows(source, "activations"))
    for activation in sent:
        assert 0 < len(activation["tokens"]) == len(activation["values"]) <= 1024
        assert all(activation["tokens"])
        fraction = activation["quantileFraction"]
        assert fraction is None or 0 <= fraction <= 1
    assert any(activation["quantileFraction"] is None for activation in sent)


def test_a_source_set_that_is_there_is_not_made_again(folder: Path, monkeypatch: pytest.MonkeyPatch):
    server = serve(monkeypatch, there=True)
    upload(folder, key="k", progress=False)
    assert {method for method, url, _ in server.asked if "upload" not in url} == {"GET"}


def test_an_upload_goes_on_behind_the_last_answer(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    server = serve(monkeypatch, there=True, fails_at=1)
    with pytest.raises(StorageError, match="run it again to resume"):
        upload(folder, key="k", progress=False)
    assert len(server.sent) == 2
    server.fails_at = None
    upload(folder, key="k", progress=False)
    assert [body["features"][0]["index"] for body in server.sent] == [0, 128, 128, 256]
    upload(folder, key="k", progress=False)
    assert len(server.sent) == 4
    assert capsys.readouterr().out == ""


def test_without_a_key_or_with_a_wrong_one(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NEURONPEDIA_API_KEY", raising=False)
    server = serve(monkeypatch, status=401, there=True)
    with pytest.raises(ConfigError, match="set NEURONPEDIA_API_KEY"):
        upload(folder, progress=False)
    assert server.asked == []
    with pytest.raises(ConfigError, match="does not know this key"):
        upload(folder, key="wrong", progress=False)


def test_only_a_finished_export_is_sent(tmp_path: Path):
    with pytest.raises(StorageError):
        upload(tmp_path, key="k", progress=False)
    with pytest.raises(StorageError):
        write_requests(tmp_path)
