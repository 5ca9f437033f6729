"""The report as a reader has it: opened from disk in a real browser."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from chromium import FILTER, PAINTED, chromium, opened
from report_inputs import hostile_inputs, many_inputs, small_inputs
from test_dashboard import parts_of
from test_report import HOSTILE

from sae_lens_meme.dashboard import DashboardOptions, write_report

SHOW = re.compile("Show pictures and captions")
QUICK = DashboardOptions(map="tsne")


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(small_inputs(), QUICK, out=tmp_path_factory.mktemp("report"), progress=False)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = QUICK.model_copy(update={"single_file_mb": 0})
    return write_report(small_inputs(), options, out=tmp_path_factory.mktemp("sharded"), progress=False)


def busiest() -> int:
    """The latent that fires most often."""
    latents = small_inputs().latents
    return int((latents.csr() > 0).sum(axis=0).argmax())


def scroll_to_memes(tab: Any) -> None:
    """Pictures are read when they come near the window."""
    tab.wait_for_selector(".cards")
    tab.locator(".cards").first.scroll_into_view_if_needed()
    tab.wait_for_selector(".card img")


def test_every_view_opens_without_a_word_from_the_console(browser: Any, report: Path):
    latent, meme = busiest(), str(small_inputs().memes.ids[0])
    with opened(browser, report) as (tab, heard):
        for view in (
            "run",
            "measures",
            "latents",
            "concepts",
            "map",
            f"latent={latent}",
            f"compare={latent},1",
            f"meme={meme}",
            "concept=hate%3D1",
        ):
            tab.evaluate(f"location.hash = {json.dumps(view)}")
            tab.wait_for_timeout(150)
            assert tab.locator("main:visible h1").count() == 1, view
            assert tab.locator("main:visible").inner_text().strip(), view
            assert "Reading" not in tab.locator("main:visible").inner_text(), view
    assert heard == []


def test_a_deep_link_opens_its_latent(browser: Any, report: Path):
    with opened(browser, report, f"#latent={busiest()}") as (tab, heard):
        tab.wait_for_selector(".answers")
        assert tab.locator("h1:visible").inner_text().startswith(f"Latent {busiest()}:")
        assert tab.locator("nav a[aria-current]").inner_text() == "Latents"
    assert heard == []


@pytest.mark.parametrize(
    "fragment",
    [
        "#latent=99999",
        "#latent=-1",
        "#latent=x",
        "#latent=",
        "#meme=nobody",
        "#concept=%",
        "#compare=1",
        "#compare=,",
        "#%%%",
        "#nothing",
    ],
)
def test_a_wrong_link_says_so(browser: Any, report: Path, fragment: str):
    with opened(browser, report, fragment) as (tab, heard):
        tab.wait_for_selector("h1:visible")
        assert tab.locator("main:visible").inner_text()
    assert heard == []


def test_pictures_and_captions_are_covered_until_asked_for(browser: Any, report: Path):
    captions = [text for text in small_inputs().captions if text]
    with opened(browser, report, f"#latent={busiest()}") as (tab, heard):
        scroll_to_memes(tab)
        cards = tab.locator(".card")
        assert tab.locator(".card .picture:not(.covered)").count() == 0
        assert "blur" in tab.locator(".card img").first.evaluate("e => getComputedStyle(e).filter")
        assert not any(word in cards.first.inner_text() for word in captions[0].split() if len(word) > 2)
        cards.first.get_by_role("button", name="Show").click()
        assert tab.locator(".card .picture:not(.covered)").count() == 1, "one meme was asked for"
        assert cards.first.locator("img").evaluate("e => getComputedStyle(e).filter") == "none"
        tab.get_by_role("button", name=SHOW).click()
        assert tab.locator(".card .picture.covered").count() == 0
        shown = {word for text in captions for word in text.split()}
        assert set(cards.first.locator(".word").all_inner_texts()) <= shown | {""}
        tab.evaluate(f"location.hash = 'latent={(busiest() + 1) % 24}'")
        tab.wait_for_timeout(200)
        assert tab.locator(".card .picture:not(.covered)").count() == 0, "another page is covered again"
    assert heard == []


def test_regions_can_be_laid_over_and_a_word_shows_those_it_works_with(browser: Any, report: Path):
    with opened(browser, report, f"#latent={busiest()}") as (tab, heard):
        scroll_to_memes(tab)
        card = tab.locator(".card:has(.word.pairs)").first
        assert card.locator(".regions").count() == 0
        card.get_by_role("button", name="Regions").click()
        assert card.locator(".regions rect").count() == 49
        card.get_by_role("button", name="Regions").click()
        assert card.locator(".regions").count() == 0
        card.locator(".word.pairs").first.focus()
        assert card.locator(".regions .marked").count() == 1, "the one region that this word is paired with"
        card.locator(".word.pairs").first.blur()
        assert card.locator(".regions").count() == 0
    assert heard == []


def test_search_finds_latents_by_name_and_by_the_captions_of_their_memes(browser: Any, report: Path):
    table = small_inputs().tables["naming"]
    name = next(name for name in table["name"] if isinstance(name, str))
    with opened(browser, report, "#latents") as (tab, heard):
        rows = tab.locator(".row a")
        tab.wait_for_selector(".row")
        assert rows.count() > 5
        tab.fill("#search", name)
        tab.wait_for_timeout(100)
        named = set(table.loc[table["name"].str.contains(name, regex=False, na=False), "latent"])
        assert f"{len(named)} by name" in tab.locator("#count").inner_text()
        assert name in rows.first.inner_text()
        tab.fill("#search", "no such word anywhere")
        tab.wait_for_timeout(100)
        assert rows.count() == 0
        tab.fill("#search", "rain")
        tab.wait_for_timeout(100)
        by_meme = int(re.search(r"(\d+) by a meme", tab.locator("#count").inner_text())[1])  # type: ignore[index]
        assert by_meme > 0
        assert tab.locator("details.found").count() == 1
    assert heard == []


def test_filters_agree_with_the_tables(browser: Any, report: Path):
    inputs = small_inputs()
    density = inputs.latents.csc().getnnz(axis=0) / len(inputs.memes)
    kinds = inputs.tables["question_set"].set_index("latent")["class"]
    concepts = inputs.tables["concept_alignment"].query("protocol == 'corrected' and q_global < 0.05")
    with opened(browser, report, "#latents") as (tab, heard):
        tab.wait_for_selector(".row")

        def count(label: str, value: str) -> int:
            tab.get_by_label(label, exact=True).select_option(value)
            tab.wait_for_timeout(60)
            found = int(tab.locator("#count").inner_text().split(" ")[0])
            tab.get_by_label(label, exact=True).select_option("")
            return found

        tab.get_by_label("firing", exact=True).select_option("")
        assert count("firing", "dense") == int((density > 0.1).sum())
        assert count("firing", "dead") == int((density == 0).sum())
        assert count("what drives it", "visual") == int((kinds == "visual").sum())
        assert count("name", "holds") == int(inputs.tables["naming"]["holds"].fillna(False).sum())
        names = list(dict.fromkeys(inputs.tables["concept_alignment"]["concept"].astype(str)))
        wanted = concepts["concept"].astype(str).value_counts().index[0]
        assert count("tied to the concept", str(names.index(wanted))) == int((concepts["concept"] == wanted).sum())
    assert heard == []


def test_the_list_works_by_keyboard_alone(browser: Any, report: Path):
    with opened(browser, report) as (tab, heard):
        tab.keyboard.press("Tab")
        assert tab.evaluate("document.activeElement.className") == "skip"
        tab.keyboard.press("Enter")
        tab.wait_for_selector(".row")
        tab.locator(".row a").first.focus()
        first = tab.evaluate("document.activeElement.dataset.place")
        tab.keyboard.press("ArrowDown")
        assert tab.evaluate("document.activeElement.dataset.place") == str(int(first) + 1)
        tab.keyboard.press("End")
        tab.wait_for_timeout(100)
        last = int(tab.locator("#count").inner_text().split(" ")[0]) - 1
        assert tab.evaluate("document.activeElement.dataset.place") == str(last)
        href = tab.evaluate("document.activeElement.hash")
        tab.keyboard.press("Enter")
        tab.wait_for_selector(".answers")
        assert tab.evaluate("location.hash") == href
        assert tab.evaluate("document.activeElement.id") == "view", "a screen reader starts at the new page"
    assert heard == []


def test_two_latents_are_compared(browser: Any, report: Path):
    with opened(browser, report, "#latents") as (tab, heard):
        tab.wait_for_selector(".row")
        assert tab.get_by_role("button", name="Compare two").is_disabled()
        for i in range(2):
            tab.locator(".row input").nth(i).check()
        tab.get_by_role("button", name="Compare two").click()
        tab.wait_for_selector(".beside .answers")
        assert tab.locator(".beside article").count() == 2
    assert heard == []


def test_a_selection_is_downloaded(browser: Any, report: Path, tmp_path: Path):
    with opened(browser, report, "#latents") as (tab, heard):
        tab.wait_for_selector(".row")
        tab.get_by_label("firing", exact=True).select_option("")
        for kind in ("CSV", "JSON"):
            with tab.expect_download() as download:
                tab.get_by_role("button", name=f"Download {kind}").click()
            download.value.save_as(tmp_path / kind)
        with (tmp_path / "CSV").open(newline="") as file:
            rows = list(csv.DictReader(file))
        records = json.loads((tmp_path / "JSON").read_text())
        assert sorted(int(row["latent"]) for row in rows) == sorted(r["latent"] for r in records) == list(range(24))
        names = small_inputs().tables["naming"].set_index("latent")["name"]
        assert all(
            (row["name"] or None) == (names[int(row["latent"])] or None)
            for row in rows
            if isinstance(names[int(row["latent"])], str)
        )
        tab.locator(".row input").first.check()
        with tab.expect_download() as download:
            tab.get_by_role("button", name="Download JSON").click()
        download.value.save_as(tmp_path / "one")
        assert len(json.loads((tmp_path / "one").read_text())) == 1
    assert heard == []


def test_random_and_next_go_to_latents_that_fire(browser: Any, report: Path):
    firing = small_inputs().latents.csc().getnnz(axis=0)
    with opened(browser, report, "#latent=0") as (tab, heard):
        for button in ("Next alive →", "Random", "← Previous alive"):
            tab.get_by_role("button", name=button).click()
            tab.wait_for_timeout(100)
            latent = int(tab.evaluate("location.hash").split("=")[1])
            assert firing[latent] > 0
            assert tab.locator("h1:visible").inner_text().startswith(f"Latent {latent}:")
    assert heard == []


def test_parts_beside_the_page_show_the_same(browser: Any, report: Path, sharded: Path):
    assert sharded.stat().st_size < report.stat().st_size
    texts = []
    for page in (report, sharded):
        with opened(browser, page, f"#latent={busiest()}") as (tab, heard):
            scroll_to_memes(tab)
            texts.append(tab.locator("main:visible").inner_text())
        assert heard == []
    assert texts[0] == texts[1]


def test_without_the_folder_beside_it_the_page_says_so(browser: Any, sharded: Path, tmp_path: Path):
    alone = tmp_path / "report.html"
    alone.write_bytes(sharded.read_bytes())
    with opened(browser, alone, "#latent=1") as (tab, _):
        tab.get_by_text("cannot be read").wait_for()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_runs_over_the_side(browser: Any, report: Path, width: int, scheme: str):
    context = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    with opened(browser, report, **context) as (tab, heard):
        for view in ("run", "measures", "latents", f"latent={busiest()}", "map", "concept=hate%3D1"):
            tab.evaluate(f"location.hash = {json.dumps(view)}")
            tab.wait_for_timeout(150)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width, view
    assert heard == []


def test_without_javascript_the_run_and_its_tables_can_be_read(browser: Any, report: Path):
    with opened(browser, report, java_script_enabled=False) as (tab, _):
        assert "What was found" in tab.locator("#run").inner_text()
        assert tab.locator("#measures table").count() == len(
            {row["section"] for row in small_inputs().evaluation["table"]}
        )


TAGS = "[...new Set([...document.querySelectorAll('*')].map(e => e.localName))]"
HANDLERS = "[...document.querySelectorAll('*')].filter(e => [...e.attributes].some(a => /^on/.test(a.name))).length"


def tags_of(browser: Any, page: Path, memes: list[str]) -> set[str]:
    """Every kind of element on any view of the report, after the reader has asked for pictures and captions."""
    found: set[str] = set()
    with opened(browser, page) as (tab, heard):
        tab.wait_for_selector("#run h1")
        scripts = tab.locator("script").count()
        concepts = json.loads(tab.locator("#core").text_content())["concepts"]
        views = ["run", "measures", "latents", f"latent={busiest()}", f"compare={busiest()},1", "concepts", "map"]
        views += [f"concept={quote(name, safe='')}" for name in concepts]
        for view in views + [f"meme={quote(name, safe='')}" for name in memes]:
            tab.evaluate(f"location.hash = {json.dumps(view)}")
            tab.wait_for_timeout(80)
            tab.get_by_text("Reading…").wait_for(state="detached")
            assert tab.locator("h1:visible").count() == 1, view
            if view.startswith("latent="):
                scroll_to_memes(tab)
            if view.startswith(("latent=", "meme=")):
                tab.get_by_role("button", name=SHOW).click()
                assert tab.locator("h1:visible", has_text="No such").count() == 0, view
            found |= set(tab.evaluate(TAGS))
            assert tab.evaluate(HANDLERS) == 0
        assert tab.locator("script").count() == scripts, "no script was added"
    assert heard == []
    return found


@pytest.mark.parametrize("single_file_mb", [0, 50])
def test_no_text_of_the_data_is_markup_or_script(browser: Any, report: Path, tmp_path: Path, single_file_mb: int):
    """13 payloads in every field."""
    inputs = hostile_inputs(HOSTILE)
    options = QUICK.model_copy(update={"single_file_mb": single_file_mb})
    page = write_report(inputs, options, out=tmp_path, progress=False)
    shown = parts_of(write_report(inputs, QUICK, out=tmp_path / "single", progress=False))["part-search"]["id"]
    of_each = [next(name for name in shown if name.startswith(text)) for text in HOSTILE]
    plain = [next(iter(parts_of(report)["part-search"]["id"]))]
    assert tags_of(browser, page, of_each) <= tags_of(browser, report, plain)


@pytest.mark.slow
def test_many_latents_stay_responsive(browser: Any, tmp_path: Path):
    """4,096 latents with 45 memes each: first paint under a second, a filter under 100 ms."""
    page = write_report(many_inputs(n=3000, d_sae=4096, k=64), QUICK, out=tmp_path, progress=False)
    with opened(browser, page) as (tab, heard):
        painted = tab.evaluate(PAINTED)
        tab.evaluate("location.hash = 'latents'")
        tab.wait_for_selector(".row")
        tab.wait_for_timeout(500)
        assert tab.locator(".row").count() < 60, "only what is in the window exists"
        took = tab.evaluate(FILTER)
        assert tab.locator("#count").inner_text() != "4,096 of 4,096 latents"
    assert heard == []
    assert painted < 1000, f"first paint after {painted:.0f} ms"
    assert took < 100, f"a filter takes {took:.0f} ms"
    print(f"first paint after {painted:.0f} ms, a filter takes {took:.0f} ms")
