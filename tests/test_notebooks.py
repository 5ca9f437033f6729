"""The notebooks run from top to bottom, and what is committed is what a reader may see."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import notebooks  # noqa: E402

pytestmark = pytest.mark.whole

NAMES = notebooks.names()
LARGEST_KB = 400
UNWANTED = {
    "a path of a machine": r"(?<![\w.])/(home|root|usr|tmp|work|opt|var|Users|mnt|content)/|[A-Z]:\\\\?Users",
    "an address in memory": r"0x[0-9a-f]{6,}",
    "a widget, which GitHub cannot show": r"widget-view|Output\(\)",
}


def committed(name: str) -> nbformat.NotebookNode:
    return nbformat.read(notebooks.NOTEBOOKS / f"{name}.ipynb", as_version=4)


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def kinds(notebook: nbformat.NotebookNode) -> list[tuple[str, str | None]]:
    return [(output.output_type, output.get("name")) for output in outputs(notebook)]


def texts(notebook: nbformat.NotebookNode) -> str:
    """Everything that the outputs say, without pictures."""
    said = [output.get("text", "") for output in outputs(notebook)]
    said += [str(data) for output in outputs(notebook) for kind, data in output.get("data", {}).items() if "image" not in kind]  # fmt: skip
    return "\n".join(said)


def test_there_are_six_and_nothing_is_left_over():
    assert [name[:2] for name in NAMES] == [f"{number}-" for number in range(1, 7)]
    assert sorted(path.stem for path in notebooks.NOTEBOOKS.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_that_of_its_script(name: str):
    """`python scripts/notebooks.py` makes them."""
    made, found = notebooks.notebook_of(name), committed(name)
    nbformat.validate(found)
    assert [(c.id, c.cell_type, c.source) for c in found.cells] == [(c.id, c.cell_type, c.source) for c in made.cells]
    assert found.metadata == notebooks.KERNEL, "nothing of the machine that ran it"
    assert not any(cell.metadata for cell in found.cells), "no times"


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_short_and_begins_with_its_installation(name: str):
    cells = committed(name).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    assert cells[0].source.startswith(f"# {name[0]}. ")
    assert code[0] == notebooks.INSTALL
    assert sum("%pip" in source for source in code) == 1
    assert 8 <= len(cells) <= 15
    assert max(source.count("\n") for source in code) < 45, "no more than a reader would type"
    assert "**What to conclude.**" in cells[-1].source or "conclusion" in "".join(c.source for c in cells[-3:])


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_there_small_and_of_no_machine(name: str):
    notebook = committed(name)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run once, from top to bottom"
    kinds = {output.output_type for output in outputs(notebook)}
    assert "error" not in kinds
    assert not [output.text for output in outputs(notebook) if output.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook)), "a picture"
    for what, pattern in UNWANTED.items():
        assert not (found := re.search(pattern, texts(notebook))), f"{what}: {found}"
    assert (notebooks.NOTEBOOKS / f"{name}.ipynb").stat().st_size < 1000 * LARGEST_KB


@pytest.mark.parametrize("name", NAMES)
def test_links_between_notebooks_lead_somewhere(name: str):
    text = "".join(cell.source for cell in committed(name).cells if cell.cell_type == "markdown")
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (notebooks.NOTEBOOKS / link).is_file(), link


SMALLER = {
    "corpus.planted.scale=0.5": "corpus.planted.scale=0.15",
    '"attribute.top=8"': '"attribute.top=1", "train.epochs=20"',
    "scale=0.25": "scale=0.1",
    '"epochs": 30': '"epochs": 5',
}


@pytest.mark.parametrize("name", [pytest.param(NAMES[1], marks=pytest.mark.slow), NAMES[3]])
def test_a_notebook_runs_on_few_memes(name: str, tmp_path: Path):
    notebook, replaced = notebooks.notebook_of(name), 0
    for cell in notebook.cells:
        for large, small in SMALLER.items():
            replaced += large in cell.source
            cell.source = cell.source.replace(large, small)
    assert replaced >= 2, "it would be a long test"
    notebooks.execute(notebook, tmp_path, timeout=300)


@pytest.mark.slow
def test_all_notebooks_run_in_one_folder(tmp_path: Path):
    for name in NAMES:
        notebook = notebooks.execute(notebooks.notebook_of(name), tmp_path)
        assert kinds(notebook) == kinds(committed(name)), texts(notebook)


def test_a_cell_that_fails_stops_the_notebook(tmp_path: Path):
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        notebooks.execute(notebook, tmp_path)
