"""The report knows no evaluator: it is tried on made-up rows, some of them hostile."""

from __future__ import annotations

import io
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sae_lens_meme.report import draw_figure, print_report, print_summary, report_html, report_text
from sae_lens_meme.report.blocks import cautions, number

HOSTILE = (
    '[link="><script>alert(1)</script>]x',
    "[bold]x",
    "[/]",
    "[x",
    "<img src=x onerror=alert(1)>",
    "</td></table><script>alert(1)</script>",
    "' onmouseover='alert(1)",
    '"><svg onload=alert(1)>',
    "javascript:alert(1)",
    "\x1b[31mred\x1b]8;;http://x\x07",
    "\u202etxt.exe",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt; & \u2028 $\\frac{1}{2}$",
)


def evaluation_of(text: str) -> dict[str, Any]:
    """Every field that can come from data holds the text."""
    row = {"section": text, "measure": text, "value": 0.5, "low": 0.4, "high": 0.6, "controls": {text: 0.1}}
    return {
        "sae": {"architecture": text, "training_architecture": text, "hook": text, "d_in": 8, "d_sae": 16, "k": 4},
        "embeddings": {"model": text, "splits": {"train": 8, "validation": 1, "test": 1}},
        "skipped": {text: text},
        "results": {text: {"verdict": text}},
        "warnings": [text],
        "sections": [{"title": text, "note": text, "axis": text}],
        "table": [row],
    }


class Tags(HTMLParser):
    def __init__(self, page: str):
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attrs)))


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_the_data_is_markup(text: str, tmp_path: Path):
    evaluation = evaluation_of(text)
    assert Tags(report_html(evaluation)).found == Tags(report_html(evaluation_of("plain"))).found
    printed = report_text(evaluation)
    assert "\x1b" not in printed
    assert "\u202e" not in printed
    bare = "".join(c for c in text if c.isprintable() and not c.isspace())[:12]
    assert bare[:4] in printed.replace(" ", "").replace("\n", "")
    assert draw_figure(evaluation, tmp_path / "figure.png")


def test_what_could_not_be_measured_is_a_plain_sentence():
    skipped = {"confounders": "too few pairs", "stock_evals/zeros": "no labels."}
    found = cautions(evaluation_of("x") | {"skipped": skipped, "warnings": ["One."]})
    assert found == [
        "One.",
        "Confounders could not be measured: too few pairs.",
        "Stock evals/zeros could not be measured: no labels.",
    ]


def test_the_page_asks_for_nothing():
    page = report_html(evaluation_of("x"))
    assert "default-src 'none'" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page


def test_nothing_is_printed_by_making_a_report(capsys: pytest.CaptureFixture[str]):
    report_html(evaluation_of("x"))
    report_text(evaluation_of("x"))
    assert capsys.readouterr() == ("", "")


def test_a_summary_is_short_and_ends_with_the_page():
    file = io.StringIO()
    evaluation = evaluation_of("x") | {"warnings": [f"warning {i}" for i in range(30)]}
    print_summary(evaluation, Console(file=file, width=110), Path("out/evaluation.html"))
    lines = file.getvalue().splitlines()
    assert len(lines) <= 25
    assert "out/evaluation.html" in lines[-1]
    assert "and 28 more on the page" in file.getvalue()


def test_every_control_is_drawn(tmp_path: Path):
    from matplotlib.figure import Figure

    from sae_lens_meme.report.figure import draw_rows

    controls = {name: 0.1 * i for i, name in enumerate(("permuted", "neurons", "PCA"))} | {"undefined": None}
    axes: Any = Figure().subplots()
    draw_rows(axes, [{"measure": "a", "value": 0.9, "low": None, "high": None, "controls": controls}])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["SAE, 95 %", "permuted", "neurons", "PCA"]


def test_without_a_section_to_draw_there_is_no_figure(tmp_path: Path):
    evaluation = evaluation_of("x") | {"sections": [{"title": "x", "note": "", "axis": None}]}
    assert not draw_figure(evaluation, tmp_path / "figure.png")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (3, "3"),
        (1234, "1,234"),
        (0.5, "0.500"),
        (0.0004, "0.0004"),
        (0.00001, "1e-05"),
        (1.0, "1.000"),
        (-0.0, "0"),
    ],
)
def test_numbers(value, shown):
    assert number(value) == shown


def test_the_whole_report_is_printed_on_demand():
    file = io.StringIO()
    print_report(evaluation_of("x"), Console(file=file, width=60))
    assert "0.500" in file.getvalue()
    assert "0.400 to 0.600" in file.getvalue()
