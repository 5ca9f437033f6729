"""Makes `docs/notebooks/*.ipynb` from `docs/notebooks/source/*.py`: runs each from top to bottom and keeps what comes out.

    python scripts/notebooks.py [NAME ...] [--into FOLDER] [--installed]

The scripts are the source, because they can be reviewed line by line, linted and formatted; the notebooks are what a
reader opens, outputs included. A script has cells that begin with `# %%` (code) or `# %% [markdown]` (text, commented out),
as editors and converters know them. Two cells are the same in all notebooks and stand here: `# %% [install]` and
`# %% [demo]`.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "docs" / "notebooks"
SOURCES = NOTEBOOKS / "source"
INSTALL = """\
try:
    import sae_lens_meme
except ImportError:
    %pip install -q sae-lens-meme"""
DEMO = """\
# A minute or two the first time: draws memes, embeds them, trains an SAE and analyses it. Finished steps are not repeated.
from IPython.utils.capture import capture_output

from sae_lens_meme.pipeline import run

smaller = ["corpus.planted.scale=0.5", "attribute.top=8", "evaluate.only=[concept_alignment, naming, reconstruction]"]
with capture_output():  # times and progress
    run("demo.yaml", out="small-demo", overrides=smaller)"""
SHARED = {"install": INSTALL, "demo": DEMO}
KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def names() -> list[str]:
    return sorted(path.stem for path in SOURCES.glob("*.py"))


def notebook_of(name: str) -> NotebookNode:
    """The notebook of a script, not executed."""
    marks = re.split(r"^# %%(?: \[(\w+)\])?\n", (SOURCES / f"{name}.py").read_text(encoding="utf-8"), flags=re.M)
    cells = [_cell(kind, text.strip("\n")) for kind, text in zip(marks[1::2], marks[2::2], strict=True)]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"  # nbformat's own are random
    return nbformat.v4.new_notebook(cells=cells, metadata=KERNEL)


def _cell(kind: str | None, text: str) -> NotebookNode:
    if kind == "markdown":
        return nbformat.v4.new_markdown_cell(re.sub(r"^# ?", "", text, flags=re.M))
    return nbformat.v4.new_code_cell(SHARED[kind] if kind else text)


def execute(notebook: NotebookNode, folder: Path, *, installed: bool = False, timeout: int = 1200) -> NotebookNode:
    """Run it in a folder.

    Args:
        installed: with the installed package, not with this checkout.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    paths = [] if installed else [str(ROOT)]
    paths += filter(None, [os.environ.get("PYTHONPATH")])
    given = {
        "timeout": timeout,
        "kernel_name": "python3",
        "coalesce_streams": True,
    }  # or what is printed comes in parts
    client = NotebookClient(notebook, resources={"metadata": {"path": folder}}, **given)
    quiet = {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore:IProgress not found"}  # tqdm's, where ipywidgets is not
    client.execute(env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **quiet})
    return without_traces(notebook)


def without_traces(notebook: NotebookNode) -> NotebookNode:
    """Without times and versions of this machine."""
    notebook.metadata = KERNEL
    for cell in notebook.cells:
        cell.metadata = {}
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", help=f"default all: {', '.join(names())}")
    parser.add_argument("--into", type=Path, help="where they run; default a new folder that is removed")
    parser.add_argument("--installed", action="store_true", help="run the installed package, not this checkout")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = given.into or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        for name in given.names or names():
            nbformat.write(execute(notebook_of(name), folder, installed=given.installed), NOTEBOOKS / f"{name}.ipynb")
            print(f"{name}: {(NOTEBOOKS / f'{name}.ipynb').stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
