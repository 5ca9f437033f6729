"""The report as a reader has it: opened from disk in a real browser."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from chromium import FILTER, PAINTED, chromium, opened
from report_inputs import hostile_inputs, many_inputs, small_inputs
from test_dashboard import parts_of
from test_report import HOSTILE

from sae_lens_meme.dashboard import DashboardOptions, write_report
from sae_lens_meme.embeddings import Embeddings

pytestmark = pytest.mark.whole

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
    return int(latents.csc().getnnz(axis=0).argmax())


def inputs_with(label: str, value: int) -> set[str]:
    """Ids of the memes with this level of a label."""
    memes = small_inputs().memes
    found = memes.label(label)
    return {str(memes.ids[row]) for row in range(len(memes)) if found.known[row] and found.values[row] == value}


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


def test_the_memes_stand_before_every_chart_and_a_button_leads_to_each_section(browser: Any, report: Path):
    with opened(browser, report, f"#latent={busiest()}", viewport={"width": 1280, "height": 800}) as (tab, heard):
        tab.wait_for_selector(".card")
        top = "e => e.getBoundingClientRect().top"
        memes = tab.locator(".card").first.evaluate(top)
        assert memes < 800, "the first memes are on the first screen"
        assert tab.locator(".about").evaluate(top) < memes
        assert memes < min(
            tab.locator("main:visible .answers, main:visible figure").evaluate_all(f"all => all.map({top})")
        )
        sections = tab.locator("section.part h2").all_inner_texts()
        assert sections[:2] == ["Verdicts", "Concepts"]
        for title in sections:
            tab.get_by_role("button", name=title, exact=True).click()
            assert tab.locator("section.part", has=tab.get_by_role("heading", name=title)).evaluate(top) < 800, title
        assert tab.evaluate("location.hash") == f"#latent={busiest()}"
    assert heard == []


def test_a_word_and_a_region_lead_to_where_they_are(browser: Any, report: Path):
    with opened(browser, report, f"#latent={busiest()}") as (tab, heard):
        scroll_to_memes(tab)
        words, regions = (tab.locator(".drivers", has_text=f"Strongest {kind}s") for kind in ("word", "region"))
        assert re.search(r"in \d+ of \d+ meme", words.inner_text())
        assert not re.search(r"[a-z]", words.locator("button span[aria-hidden]").first.inner_text()), (
            "masked until asked for"
        )
        regions.locator("button").first.click()
        assert tab.locator(".card.target").count() == 1
        tab.locator(".card.target .marked").wait_for()
        place = regions.locator("button").first.inner_text()
        row, column = (int(number) - 1 for number in re.findall(r"\d+", place))
        marked = tab.locator(".card.target .marked")
        assert (int(float(marked.get_attribute("x"))), int(float(marked.get_attribute("y")))) == (column, row)
        tab.get_by_role("button", name=SHOW).click()
        words.locator("button").first.click()
        tab.locator(".card.target .word.asked").wait_for()
        asked = tab.locator(".card.target .word.asked").inner_text()
        assert asked.lower() == words.locator("button").first.inner_text().lower()
    assert heard == []


def test_at_first_a_few_memes_of_the_whole_range_are_shown_and_then_all(browser: Any, report: Path):
    pages = parts_of(report)
    memes = pages["part-latents-0"][busiest()]["memes"]
    with opened(browser, report, f"#latent={busiest()}") as (tab, heard):
        tab.wait_for_selector(".card")
        parts = len({interval for interval in memes["interval"] if interval is not None})
        assert tab.locator(".card").count() == min(4, memes["kind"].count("top")) + parts < len(memes["at"])
        tab.get_by_role("button", name=f"Show all {len(memes['at'])} memes of this latent").click()
        assert tab.locator(".card").count() == len(memes["at"])
    assert heard == []


def test_one_verdict_stands_on_a_name_and_density_is_no_fault(browser: Any, report: Path):
    latents = parts_of(report)["core"]["latents"]
    with opened(browser, report) as (tab, heard):
        for latent in range(24):
            tab.evaluate(f"location.hash = 'latent={latent}'")
            tab.locator("h1:visible", has_text=f"Latent {latent}:").wait_for()
            tags = [tag for tag in tab.locator("h1:visible .tag").all_inner_texts() if tag not in ("dead", "dense")]
            assert tags == ([] if latents["name"][latent] is None else [latents["verdict"][latent]])
            dense = tab.locator("h1:visible .tag", has_text="dense")
            assert dense.count() == 0 or "poor" not in str(dense.get_attribute("class"))
    assert heard == []


CODE = re.compile(r"\b(hate|humor) ?(=|>=|<=|≥|≤) ?[0-3]\b")


def test_levels_are_shown_by_name_on_every_view(browser: Any, report: Path):
    core = parts_of(report)["core"]
    assert ["hate=1", "hate=yes"] in core["called"]
    assert "hate=1" in core["concepts"], "data and links keep the code"
    meme = str(small_inputs().memes.ids[0])
    with opened(browser, report) as (tab, heard):
        for view in (
            "run",
            "measures",
            "latents",
            "concepts",
            "concept=hate%3D1",
            f"latent={busiest()}",
            f"meme={meme}",
            "map",
        ):
            tab.evaluate(f"location.hash = {json.dumps(view)}")
            tab.wait_for_timeout(200)
            text = tab.locator("main:visible").inner_text()
            assert not CODE.search(text), (view, CODE.search(text))
    assert heard == []


def test_the_first_page_says_what_to_distrust_first_and_folds_what_is_for_specialists(browser: Any, report: Path):
    with opened(browser, report) as (tab, heard):
        titles = tab.locator("#run h2").all_inner_texts()
        assert (
            titles.index("What to distrust")
            < titles.index("Which latent is most about what")
            < titles.index("What was found")
        )
        verdict = next(
            result["verdict"] for result in small_inputs().evaluation["results"].values() if result["verdict"]
        )
        folded = tab.locator("details.specialists")
        assert verdict.split(" ")[0] in folded.text_content()
        assert not folded.locator("li").first.is_visible()
        folded.locator("summary").click()
        assert folded.locator("li").first.is_visible()
        assert "not beaten" not in tab.locator("#run").inner_text()
    assert heard == []


def test_both_aurocs_say_which_way_they_go(browser: Any, report: Path):
    with opened(browser, report) as (tab, heard):
        assert "from the latent to the concept" in tab.locator("#run").inner_text()
        for latent in range(24):
            tab.evaluate(f"location.hash = 'latent={latent}'")
            tab.locator("h1:visible", has_text=f"Latent {latent}:").wait_for()
            tab.wait_for_selector(".about")
            for text in tab.locator("main:visible .about, main:visible .answers div").all_inner_texts():
                assert (
                    "AUROC" not in text or "From the name to the latent: AUROC" in text or "weak name" in text.lower()
                )
    assert heard == []


def test_measures_have_contents_that_lead_to_each_section(browser: Any, report: Path):
    with opened(browser, report, "#measures") as (tab, heard):
        titles = tab.locator("#measures .block h2").all_inner_texts()
        assert tab.locator(".contents a").all_inner_texts() == titles
        tab.locator(".contents a").last.click()
        tab.wait_for_timeout(200)
        assert tab.locator("#measures .block").last.evaluate("e => e.getBoundingClientRect().top") < 700
        assert tab.locator("nav a[aria-current]").inner_text() == "Measures"
    assert heard == []


def test_the_first_table_is_cards_on_a_narrow_screen(browser: Any, report: Path):
    with opened(browser, report, viewport={"width": 390, "height": 800}) as (tab, heard):
        glance = tab.locator(".glance")
        assert glance.evaluate("e => e.scrollWidth <= e.clientWidth")
        assert glance.evaluate("e => e.closest('.scroll')") is None
        cells = glance.locator("tbody tr").first.locator("th, td")
        lefts = set(cells.evaluate_all("all => all.map(e => Math.round(e.getBoundingClientRect().left))"))
        assert len(lefts) == 1, "one below the other"
        label = "e => getComputedStyle(e, '::before').content"
        assert all(
            "attr" in said or len(said) > 4
            for said in cells.locator("xpath=self::td").evaluate_all(f"all => all.map({label})")
        )
    assert heard == []


def test_a_memes_page_reads_the_meme(browser: Any, report: Path):
    parts = parts_of(report)
    pages = [page for name, part in parts.items() if name.startswith("part-memes-") for page in part]
    place = next(place for place, page in enumerate(pages) if page["reading"])
    reading, meme = pages[place]["reading"], parts["part-search"]["id"][place]
    with opened(browser, report, f"#meme={meme}") as (tab, heard):
        tab.wait_for_selector(".reading")
        text = " ".join(tab.locator("main:visible").inner_text().split())
        assert "What the model sees in it" in text
        assert reading["decisions"]
        for decision in reading["decisions"]:
            assert f"{decision['label']}: {decision['decided']} with probability" in text
        carried = [decision for decision in reading["decisions"] if decision["carriers"]]
        assert text.count("Carried by") == len(carried)
        for row in reading["latents"]:
            assert row["evidence"] in text
        assert tab.locator(".reading .says tbody tr").count() == len(reading["latents"])
    assert heard == []


def test_a_memes_latents_are_cards_on_a_narrow_screen(browser: Any, report: Path):
    parts = parts_of(report)
    pages = [page for name, part in parts.items() if name.startswith("part-memes-") for page in part]
    place = next(place for place, page in enumerate(pages) if page["reading"])
    with opened(
        browser, report, f"#meme={parts['part-search']['id'][place]}", viewport={"width": 390, "height": 800}
    ) as (tab, heard):
        tab.wait_for_selector(".says")
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        lefts = tab.locator(".says tbody tr").first.locator("th, td")
        assert len(set(lefts.evaluate_all("all => all.map(e => Math.round(e.getBoundingClientRect().left))"))) == 1
    assert heard == []


def test_a_meme_that_was_not_read_says_so(browser: Any, tmp_path: Path):
    inputs = small_inputs()
    page = write_report(inputs, QUICK.model_copy(update={"readings": 0}), out=tmp_path, progress=False)
    meme = parts_of(page)["part-search"]["id"][0]
    with opened(browser, page, f"#meme={meme}") as (tab, heard):
        tab.wait_for_selector(".reading")
        assert "It was not read" in tab.locator(".reading").inner_text()
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
        core = parts_of(report)["core"]
        assert f"{core['n_shown']} of {core['n_memes']} memes are on this page" in tab.locator(".hits").inner_text()
        for text in ("humor=not funny", "humor=0"):
            tab.fill("#search", text)
            tab.wait_for_timeout(100)
            assert re.search(r"Concepts: .*humor=not funny", tab.locator(".hits").inner_text())
            assert re.search(r"Labels: humor=not funny", tab.locator(".hits").inner_text())
            labels = inputs_with("humor", 0)
            assert (
                f"{len(labels & set(parts_of(report)['part-search']['id']))} memes match"
                in tab.locator(".hits").inner_text()
            )
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
        assert count("name", "good") == parts_of(report)["core"]["latents"]["verdict"].count("good name")
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


def test_no_long_name_runs_over_the_side(browser: Any, tmp_path: Path):
    inputs, name = (
        small_inputs(),
        "a_label_in_one_word_that_is_longer_than_any_telephone_is_wide_and_longer_than_half_a_desk",
    )
    table = inputs.tables["concept_alignment"]
    tables = inputs.tables | {
        "concept_alignment": table.assign(concept=table["concept"].astype(str).str.replace("hate", name)),
        "influence": inputs.tables["influence"].assign(task=name),
    }
    memes = Embeddings.from_dataset(inputs.memes.dataset.rename_column("hate", name), **inputs.memes.facts)
    named = replace(inputs, tables=tables, memes=memes, corpus=None, attribution=None, sae=None)
    page = write_report(named, QUICK, out=tmp_path, progress=False)
    for width in (390, 1280):
        with opened(browser, page, viewport={"width": width, "height": 800}) as (tab, _):
            for view in ("run", "latents", f"latent={busiest()}", "compare=0,1"):
                tab.evaluate(f"location.hash = {json.dumps(view)}")
                tab.wait_for_timeout(50)
                assert tab.evaluate("document.documentElement.scrollWidth") <= width, view


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


@pytest.mark.parametrize("single_file_mb", [0, pytest.param(50, marks=pytest.mark.slow)])
def test_no_text_of_the_data_is_markup_or_script(browser: Any, report: Path, tmp_path: Path, single_file_mb: int):
    """13 payloads in every field."""
    inputs = hostile_inputs(HOSTILE)
    options = QUICK.model_copy(update={"single_file_mb": single_file_mb})
    page = write_report(inputs, options, out=tmp_path, progress=False)
    single = page if single_file_mb else write_report(inputs, QUICK, out=tmp_path / "single", progress=False)
    shown = parts_of(single)["part-search"]["id"]
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
