"""In a notebook: nothing is printed but what is asked for, bars go away, and results are tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

CELLS = [
    """
import numpy as np
from sae_lens_meme import as_embeddings, measure
from sae_lens_meme.train import train
rng = np.random.default_rng(0)
x = rng.standard_normal((200, 4)) @ rng.standard_normal((4, 12)) + 0.1 * rng.standard_normal((200, 12))
memes = as_embeddings({"hate": [int(v) for v in x[:, 0] > 0]}, fused=x.astype("float32"))
""",
    'sae = train({"epochs": 3, "train_batch_size_tokens": 20, "sae": {"d_sae": 16, "k": 3}}, embeddings=memes)',
    'found = measure(sae, memes, only=["reconstruction", "concept_alignment"], bootstrap=0)',
    "found",
    "found.latent_table(n=3)",
    "print(found)",
]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    import nbformat

    cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    folder = Path(__file__).parents[1]
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    return [json.loads(json.dumps(cell.outputs)) for cell in notebook.cells]


def printed(cell: list[dict[str, Any]]) -> str:
    return "".join(
        output["text"] for output in cell if output["output_type"] == "stream" and output["name"] == "stdout"
    )


@pytest.mark.whole
def test_training_and_measuring_print_nothing_and_leave_no_bar(outputs: list[Any]):
    for cell in outputs[1:3]:
        assert printed(cell) == ""
    for output in outputs[2]:  # a bar that is done is an empty display
        assert "━" not in json.dumps(output, ensure_ascii=False)


@pytest.mark.whole
def test_a_result_is_one_table_and_prints_once(outputs: list[Any]):
    for cell in outputs[3:5]:
        (shown,) = cell
        assert "<table" in shown["data"]["text/html"]
        assert "<script" not in shown["data"]["text/html"]
    assert printed(outputs[5]).count("explained variance, raw") == 1
