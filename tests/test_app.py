"""The application in a real browser: what it says, what it refuses, and that it asks for nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from chromium import chromium
from PIL import Image
from seen_memes import write_memes
from test_cli import here
from test_images import png_header

from sae_lens_meme.app.options import AppOptions
from sae_lens_meme.app.page import framed, trouble, verdict
from sae_lens_meme.app.steering import HEAD, PROBE, Outcome, SteeredMeme, Steering
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators import evaluate
from sae_lens_meme.evaluators.latents import decoder_rows
from sae_lens_meme.images import MAX_PIXELS
from sae_lens_meme.read import MemeReader

pytestmark = pytest.mark.whole

FEW = {"n_attributed": 2, "n_swaps": 8, "n_random": 2, "device": "cpu"}
HOSTILE = (
    "<img src=x onerror=alert(1)><script>alert(2)</script> ${alert(3)} {{#each value}} </iframe><b id=foreign>\u202e"
)
needs_gradio = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason="gradio is not installed: pip install -e '.[app]'"
)


@pytest.fixture(scope="module")
def memes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `run` lays them out; the embeddings are made with MemeCLIP's heads."""
    folder = write_memes(tmp_path_factory.mktemp("memes"), fusion="memeclip", task="hate")
    few: Any = {"only": ["naming"], "bootstrap": 0, "progress": False}
    evaluate(folder / "sae", folder / "embeddings", out=folder / "evaluation", **few)
    return folder


@pytest.fixture(scope="module")
def reader(memes: Path) -> MemeReader:
    return MemeReader(memes / "sae", memes / "embeddings", memes / "evaluation", **FEW)


@pytest.fixture(scope="module")
def corpus(memes: Path) -> Any:
    from sae_lens_meme.app.memes import Memes

    return Memes(memes / "corpus")


def expected(reader: MemeReader, look: Any, latent: int, multiplier: float) -> dict[tuple[str, str], np.ndarray]:
    """Probabilities of every class, from the SAE's weights and the model itself."""
    dense = look.latents.csr().toarray().astype(np.float64)
    moved = dense.copy()
    moved[0, latent] *= multiplier
    found = {(probe.task, PROBE): probe.predict_proba(moved)[0] for _, probe in reader.probes}
    vector = look.vectors["hook_fused"] + (moved - dense)[:, [latent]] * decoder_rows(reader.sae)[[latent]]
    heads: Any = reader.encoder.model.heads
    with torch.no_grad():
        logits = heads.double().eval().classify(torch.from_numpy(vector))
    heads.float()
    found["hate", HEAD] = logits.softmax(-1)[0].numpy()
    return found


def test_probabilities_are_those_of_the_classifiers_on_the_changed_meme(reader: MemeReader, corpus: Any):
    row = corpus.find("")[0][1]
    look = reader.look(*corpus.pick(row))
    meme = Steering(reader).of(look)
    strengths = look.latents.csr().toarray()[0]
    assert meme.strengths == sorted(
        ((int(i), float(strengths[i])) for i in np.flatnonzero(strengths)), key=lambda p: -p[1]
    )
    before = expected(reader, look, meme.strengths[0][0], 1.0)  # the meme as it is
    for latent, _ in meme.strengths[::4]:
        after = expected(reader, look, latent, 3.0)
        classes = {probe.task: probe.classes for _, probe in reader.probes}
        outcomes = meme.outcomes(latent, 3.0)
        assert {(o.label, o.reader) for o in outcomes} == after.keys()
        for outcome in outcomes:
            key = outcome.label, outcome.reader
            place = int(before[key].argmax())
            assert outcome.decided == classes[outcome.label][place]
            assert outcome.before == pytest.approx(before[key][place], abs=1e-5)
            assert outcome.after == pytest.approx(after[key][place], abs=1e-5)
            assert outcome.now == classes[outcome.label][int(after[key].argmax())]


def test_the_control_multiplies_the_other_latents_of_most_similar_activation(reader: MemeReader, corpus: Any):
    look = reader.look(*corpus.pick(corpus.find("")[1][1]))
    meme = Steering(reader).of(look)
    (latent, strength), *others = meme.strengths
    near = sorted(others, key=lambda other: abs(other[1] - strength))[:4]
    for outcome in meme.outcomes(latent, 0.0):
        key = outcome.label, outcome.reader
        place = int(expected(reader, look, latent, 1.0)[key].argmax())
        changes = [expected(reader, look, other, 0.0)[key][place] - outcome.before for other, _ in near]
        assert sorted(outcome.others) == pytest.approx(sorted(changes), abs=1e-5)


def test_where_no_head_is_shown_the_page_says_why(memes: Path):
    reader = MemeReader(memes / "sae_image", memes / "embeddings", **FEW)
    assert Steering(reader).no_head == (
        "MemeCLIP's head reads hook_fused and the SAE hook_image_embed, so the head is not shown."
    )
    without: Any = SimpleNamespace(encoder=SimpleNamespace(model=SimpleNamespace(heads=None)))
    assert "without MemeCLIP's heads" in str(Steering(without).no_head)


def outcome(change: float, others: list[float], now: int = 0) -> Outcome:
    return Outcome("hate", PROBE, 0, 0.6, 0.6 + change, others, now, "")


def test_the_sentence_counts_what_beats_the_control_and_says_what_chance_gives():
    found = verdict([outcome(-0.3, [0.1, -0.2], now=1), outcome(0.1, [-0.2, 0.0])], 2.0)
    assert found.startswith("1 of 2 change more than with any of the 2 other active latents")
    assert "of latents that do not differ 1 in 3 would. 1 then decide for another class." in found
    assert "conclude nothing" in verdict([outcome(-0.3, [])], 2.0)
    assert "move the slider" in verdict([outcome(0.0, [0.0])], 1.0)
    assert "no label" in verdict([], 2.0)


def test_foreign_text_stays_text():
    assert "<b" not in framed(HOSTILE).replace("<iframe", "")
    assert framed(HOSTILE).count("<") == 2
    assert trouble(HOSTILE).count("<") == 2
    assert "\u202e" not in trouble(HOSTILE)


def test_a_meme_without_active_latents_has_nothing_to_steer(reader: MemeReader):
    assert SteeredMeme(np.empty(0, np.int64), np.empty(0), []).strengths == []


def test_nothing_but_the_command_line_imports_the_application():
    root = Path(__file__).parents[1]
    users = {
        path.relative_to(root).as_posix()
        for folder in ("sae_lens_meme", "hooks", "scripts")
        for path in (root / folder).rglob("*.py")
        if re.search(r"(from|import) sae_lens_meme\.app\b|from sae_lens_meme import app\b", path.read_text())
    }
    assert {user for user in users if not user.startswith("sae_lens_meme/app/")} == {"sae_lens_meme/cli.py"}


def test_without_gradio_one_line_says_how_to_install_it(capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("sae_lens_meme.app.command.find_spec", lambda name: None)
    status, out, err = here(("app", tmp_path), capsys)
    assert (status, out) == (2, "")
    assert err == "error: the app needs gradio: pip install 'sae-lens-meme[app]'\n"


@needs_gradio
def test_without_folders_one_line_says_what_to_give(capsys: Any, tmp_path: Path):
    status, _, err = here(("app", tmp_path / "evaluation"), capsys)
    assert status == 2
    assert err.count("\n") == 1
    assert "give EVALUATION with the folders sae and embeddings beside it, or --sae and --embeddings" in err
    status, _, err = here(("app", tmp_path, "--port", 70000), capsys)
    assert (status, err) == (2, "error: app.port is 70000, it must be 65535 or less\n")


@needs_gradio
@pytest.mark.parametrize("host", ["no address of mine", "192.0.2.1"])
def test_an_address_of_another_computer_is_one_line_at_once(reader: MemeReader, host: str):
    from sae_lens_meme.app.serve import served

    there = f"cannot listen on {host}, port 7860 to 7959 .*; give another --port or --host"
    with pytest.raises(ConfigError, match=there), served(reader, None, AppOptions(host=host)):
        pass


@needs_gradio
def test_folders_are_found_beside_the_evaluation_and_another_host_is_warned_of(
    memes: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
):
    asked = []

    @contextmanager
    def served(reader: MemeReader, found: Any, options: AppOptions) -> Iterator[str]:
        asked.append((reader, found, options))
        yield "http://here"
        asked.append("closed")

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sae_lens_meme.app.serve.served", served)
    waiting = SimpleNamespace(Event=lambda: SimpleNamespace(wait=interrupted))
    monkeypatch.setattr("sae_lens_meme.app.command.threading", waiting)
    flags = ("--host", "0.0.0.0", "--port", 7999, "--n-attributed", 2, "--device", "cpu")
    status, out, err = here(("app", memes / "evaluation", *flags), capsys)
    assert (status, out) == (0, "Open http://here (Ctrl-C ends it)\n")
    assert err == "warning: 0.0.0.0 lets other computers in, and there is no login: they see every meme\n"
    (reader, found, options), closed = asked
    assert (reader.embeddings.path, reader.measured.given, closed) == (memes / "embeddings", True, "closed")
    assert len(found.find("")) == 50
    assert options == AppOptions(host="0.0.0.0", port=7999)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def address(reader: MemeReader, corpus: Any) -> Iterator[str]:
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("gradio is not installed: pip install -e '.[app]'")
    from sae_lens_meme.app.serve import served

    with pytest.MonkeyPatch.context() as patched:
        for name in ("GRADIO_SHARE", "GRADIO_ALLOWED_PATHS", "GRADIO_ANALYTICS_ENABLED"):
            patched.setenv(name, "True")
        with served(reader, corpus, AppOptions()) as found:
            assert not {"GRADIO_SHARE", "GRADIO_ALLOWED_PATHS"} & os.environ.keys()
            yield found
        assert not Path(os.environ["GRADIO_TEMP_DIR"]).exists(), "uploads are deleted"


@contextmanager
def opened(browser: Any, address: str) -> Iterator[tuple[Any, list[str]]]:
    """A tab on the page, and a list that gets dialogs, errors and every request to elsewhere, which is stopped."""
    heard: list[str] = []
    with browser.new_context(reduced_motion="reduce") as window:
        tab = window.new_page()
        tab.set_default_timeout(30_000)
        tab.on("pageerror", lambda error: heard.append(f"error: {error}"))
        tab.on("console", lambda message: heard.append(message.text) if "Refused" in message.text else None)
        tab.on("dialog", lambda dialog: (heard.append(f"dialog: {dialog.message}"), dialog.dismiss()))

        def decide(route: Any) -> None:
            if route.request.url.startswith((address, "data:", "blob:")):
                return route.continue_()
            heard.append(route.request.url)
            return route.abort()

        tab.route("**/*", decide)
        tab.goto(address)
        yield tab, heard


def png(size: tuple[int, int] = (60, 40)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, "PNG")
    return file.getvalue()


def upload(tab: Any, file: Any) -> None:
    """A file on disk, or one given by its name and content."""
    box = tab.locator("#upload")
    if box.get_by_label("Clear").count():
        box.get_by_label("Clear").click()
    named = {"name": file[0], "mimeType": "image/png", "buffer": file[1]} if isinstance(file, tuple) else file
    box.locator("input[type=file]").set_input_files(named)


STEERED = """slider => {
  const cells = (row, kind) => [...row.querySelectorAll(kind)].map(cell => cell.innerText.trim())
  const [table, times] = [document.querySelector("#steered"), Number(slider.value)]
  if (times <= 1 || !cells(table, "th").some(name => name.endsWith(`× ${times}`))) return false
  return [times, [...table.querySelectorAll("tbody tr")].map(row => cells(row, "td"))]
}"""


def shown(tab: Any) -> tuple[float, dict[tuple[str, str], list[str]]]:
    """The slider's multiplier and the cells of the table of classifiers, once that is the table of this multiplier."""
    slider = tab.locator("#strength input[type=range]").element_handle()
    multiplier, rows = tab.wait_for_function(STEERED, arg=slider).json_value()
    return multiplier, {(row[0], row[1]): row[2:] for row in rows}


@pytest.mark.slow
def test_a_meme_is_picked_and_its_latent_dragged(browser: Any, address: str, reader: MemeReader, corpus: Any):
    _, row = corpus.find("")[0]
    look = reader.look(*corpus.pick(row))
    latent = Steering(reader).of(look).strengths[0][0]
    with opened(browser, address) as (tab, heard):
        tab.set_default_timeout(120_000)  # twenty answers, beside other tests
        tab.locator("#meme input").click()
        tab.get_by_role("option").first.click()
        frame = tab.frame_locator("#reading iframe")
        frame.get_by_role("heading", name="Active latents").wait_for()
        assert frame.locator("tbody").first.locator("tr").count() == len(look.reading.latents)
        name = reader.measured.name(latent)
        assert [name.name or "-", name.evidence] == frame.locator("tbody").first.locator("tr").first.locator(
            "td"
        ).all_inner_texts()[3:5]
        assert frame.locator("mark").count() > 0, "coloured words"
        assert frame.locator("rect").count() == 2 * 49, "regions of two latents"
        blurred = "(found) => getComputedStyle(found).filter"
        assert "blur" in frame.locator("svg g.hidden").evaluate(blurred)
        assert "blur" in frame.locator(".caption").first.evaluate(blurred)
        frame.get_by_label("Show the picture").check()
        assert frame.locator("svg g.hidden").evaluate(blurred) == "none"

        slider = tab.locator("#strength input[type=range]")
        slider.focus()
        for _ in range(20):  # faster than the server answers: the last one counts
            slider.press("ArrowRight")
        multiplier, cells = shown(tab)  # gradio may put the slider back to 1 among the first keys
        before, after = (expected(reader, look, latent, times) for times in (1.0, multiplier))
        assert cells.keys() == after.keys()
        for key, (_, was, now, change, *_) in cells.items():
            place = int(before[key].argmax())
            assert float(was) == pytest.approx(before[key][place], abs=6e-4)
            assert float(now) == pytest.approx(after[key][place], abs=6e-4)
            assert float(change) == pytest.approx(after[key][place] - before[key][place], abs=6e-4)
        assert any(abs(float(change)) > 0.001 for _, _, _, change, *_ in cells.values())
        assert heard == []


def test_uploads_are_read_or_refused_in_one_line(browser: Any, address: str, tmp_path: Path):
    large = tmp_path / "c.png"
    large.write_bytes(bytes(20_000_000))
    with opened(browser, address) as (tab, heard):
        message, frame = tab.locator("#message"), tab.frame_locator("#reading iframe")
        tab.get_by_role("tab", name="Your own picture").click()
        tab.get_by_label("Its caption").fill(HOSTILE)
        upload(tab, ("a.png", png()))
        tab.locator("#upload").get_by_text("a.png").first.wait_for()
        tab.get_by_role("button", name="Read it").click()
        frame.get_by_role("heading", name="Active latents").wait_for()
        assert "onerror=alert(1)" in frame.locator("body").inner_text()
        assert (frame.locator("#foreign, script, img").count(), tab.locator("#foreign").count()) == (0, 0)
        assert message.inner_text() == ""
        assert [path.read_bytes() for path in Path(os.environ["GRADIO_TEMP_DIR"]).rglob("a.png")] == [png()]

        upload(tab, ("b.png", b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'))
        tab.locator("#upload").get_by_text("b.png").first.wait_for()
        tab.get_by_role("button", name="Read it").click()
        refused = message.get_by_role("alert")
        refused.wait_for()
        assert refused.inner_text() == (
            "image 'the picture' (71 bytes) is SVG, not a readable JPEG, PNG, GIF, WEBP, BMP; re-download or convert it"
        )
        assert tab.locator("#reading iframe").count() == 0

        upload(tab, large)
        toast = tab.get_by_text("exceed the maximum allowed size of 10.0 Mb")
        toast.wait_for()
        assert toast.inner_text() == 'File(s) exceed the maximum allowed size of 10.0 Mb: "c.png"'
        assert heard == []


def request(address: str, path: str, data: Any = None, **headers: str) -> tuple[int, str]:
    body = None if data is None else json.dumps(data).encode()
    asked = urllib.request.Request(
        f"{address.rstrip('/')}/{path}", body, {"Content-Type": "application/json", **headers}
    )
    try:
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize("path", ["http://198.51.100.1/meme.png", "/etc/passwd"])
def test_a_request_that_names_a_picture_elsewhere_is_refused(address: str, path: str, monkeypatch: pytest.MonkeyPatch):
    from gradio import processing_utils  # pyright: ignore[reportMissingImports]

    fetched = []
    monkeypatch.setattr(processing_utils, "async_ssrf_protected_download", lambda *a, **k: fetched.append(a))
    config = json.loads(request(address, "config")[1])
    button = next(part["id"] for part in config["components"] if part["props"].get("elem_id") == "read")
    place = next(i for i, event in enumerate(config["dependencies"]) if [button, "click"] in event["targets"])
    asked = [{"path": path, "url": path, "meta": {"_type": "gradio.FileData"}}, "x", False]
    status, _ = request(address, "gradio_api/queue/join", {"data": asked, "fn_index": place, "session_hash": "here"})
    assert status == 200, "it waits in the queue"
    _, events = request(address, "gradio_api/queue/data?session_hash=here")
    completed = next(line for line in events.splitlines() if "process_completed" in line)
    assert '"success":false' in completed.replace(" ", "")
    assert (fetched, "root:" in events) == ([], False)


def test_the_server_is_for_this_computer_alone(address: str):
    assert address.startswith("http://127.0.0.1:")
    assert request(address, "")[0] == 200
    assert request(address, "", Host="elsewhere.example")[0] == 400
    assert request(address, "config")[0] == 200
    elsewhere = "https://198.51.100.1/meme.png"
    for path in (
        f"file={elsewhere}",
        "file=/etc/passwd",
        f"proxy={elsewhere}",
        "info",
        "call/steer",
        "run/predict",
        "runs",
    ):
        assert request(address, f"gradio_api/{path}") == (404, "not served"), path
    config = json.loads(request(address, "config")[1])
    assert not any(config[kind] for kind in ("analytics_enabled", "run_history", "mcp_server", "footer_links", "pwa"))
    assert {event["api_visibility"] for event in config["dependencies"]} == {"private"}


def test_a_bomb_and_an_empty_choice_are_one_line(reader: MemeReader):
    pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[app]'")
    from sae_lens_meme.app.interface import Interface

    page = Interface(reader, None)
    message, reading, *_ = page.upload(png_header(10_000, 5_001), "", True)
    assert (message.count("<p"), reading) == (1, "")
    assert f"over the limit of {MAX_PIXELS:,}" in message
    assert "Upload a picture first" in page.upload(None, "", True)[0]
    assert page.steer(None, 3, 2.0) == ""


@needs_gradio
def test_reading_and_steering_leave_the_number_of_threads_as_it_was():
    """numba's loops change it, and sums in other parts have other last bits: those of the next meme."""
    from sae_lens_meme.app.interface import Interface

    before = torch.get_num_threads()

    def in_more_threads(*_: Any) -> Any:
        torch.set_num_threads(before + 1)
        raise DataError("nothing more is needed here")

    page: Any = Interface.__new__(Interface)
    page._reader, page._steering = SimpleNamespace(look=in_more_threads), SimpleNamespace(no_head=None)
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    assert "nothing more" in page.upload(picture.getvalue(), "a caption", False)[0]
    assert torch.get_num_threads() == before
    with pytest.raises(DataError):
        page.steer(SimpleNamespace(outcomes=in_more_threads), 0, 2.0)
    assert torch.get_num_threads() == before
