"""The report in Firefox, from disk: what `test_dashboard_page.py` asks in Chromium, in short."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from firefox import firefox
from report_inputs import hostile_inputs, small_inputs
from test_report import HOSTILE

from sae_lens_meme.dashboard import DashboardOptions, write_report

pytestmark = pytest.mark.whole

QUICK = DashboardOptions(map="tsne")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(small_inputs(), QUICK, out=tmp_path_factory.mktemp("report"), progress=False)


@pytest.mark.slow
def test_the_report_works_in_firefox(report: Path, tmp_path: Path):
    latents, meme = small_inputs().latents, str(small_inputs().memes.ids[0])
    busiest = int(latents.csc().getnnz(axis=0).argmax())
    hostile = write_report(hostile_inputs(HOSTILE), QUICK, out=tmp_path / "hostile", progress=False)
    with firefox() as tab:
        tab.open(report)
        tab.wait("document.querySelector('main h1')")
        for view in (
            "measures",
            "latents",
            "concepts",
            "map",
            f"compare={busiest},1",
            f"meme={meme}",
            "concept=hate%3D1",
        ):
            tab.evaluate(f"location.hash = {json.dumps(view)}")
            tab.wait("[...document.querySelectorAll('main')].some((m) => m.offsetParent && m.innerText.length > 50)")
        tab.evaluate("location.hash = 'latents'")
        tab.wait("document.querySelector('.row')")
        everything = tab.evaluate("document.querySelector('#count').innerText")
        typed = 'Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(box, "no such latent")'
        tab.evaluate(f"((box) => {{ {typed}; box.dispatchEvent(new Event('input', {{bubbles: true}})); }})(document.getElementById('search'))")  # fmt: skip
        tab.wait(f"document.querySelector('#count').innerText !== {json.dumps(everything)}")
        tab.open(report, f"#latent={busiest}")
        tab.wait("document.querySelector('.cards')")
        tab.evaluate("document.querySelector('.cards').scrollIntoView()")
        tab.wait("document.querySelector('.card img')?.naturalWidth > 0")
        assert "blur" in tab.evaluate("getComputedStyle(document.querySelector('.card img')).filter")
        assert tab.evaluate("document.querySelectorAll('.card .picture:not(.covered)').length") == 0
        tab.evaluate(
            "[...document.querySelectorAll('.card button')].find((b) => b.innerText.startsWith('Show')).click()"
        )
        tab.wait("document.querySelectorAll('.card .picture:not(.covered)').length === 1")
        assert tab.heard == []
        tab.open(hostile, "#latents")
        tab.wait("document.querySelector('.row')")
        assert (
            tab.evaluate("document.querySelectorAll('main iframe, main object, main embed, main script').length") == 0
        )
        assert tab.heard == []
        tab.evaluate("console.error('the test hears the console')")
        tab.ask("browsingContext.getTree")
        assert tab.heard == ["error: the test hears the console"]
