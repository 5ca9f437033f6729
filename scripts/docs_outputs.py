"""Put what the commands of docs/tour.md print below them, and the numbers of docs/statistics.md into its table.

    python scripts/docs_outputs.py FOLDER     # the folder that holds a finished meme-demo

The commands run in a temporary folder in which `meme-demo` is a link to it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TOUR, STATISTICS = ROOT / "docs" / "tour.md", ROOT / "docs" / "statistics.md"
BLOCK = re.compile(r"(?<=```console\n)\$ (?P<command>(?:.*\\\n)*.*)\n(?:.*\n)*?(?=```\n)")
PROGRESS = re.compile(r"^(\w+ +[\d.]+ s|\d+ s in all.*|[\w ]+: .*about \d+ s left)$")
UNITS = {
    "sae": "**the SAE**",
    "neurons": "raw neurons, both signs",
    "pca": "principal components, both signs",
    "ica": "independent components, both signs",
    "random_topk": "random directions, TopK",
    "shuffled_data": "an SAE trained on shuffled data",
    "permuted_labels": "the SAE, labels permuted within source (mean of 100 draws)",
}


def run(command: str, folder: Path) -> str:
    """What a command prints, without progress and times."""
    command = re.sub(r"^sae-lens-meme\b", f"{sys.executable} -m sae_lens_meme.cli", command.replace("\\\n", " "))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "NO_COLOR": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command}\n{done.stderr}")
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    return "\n".join(line for line in lines if not PROGRESS.match(line)).strip("\n") + "\n"


def table(numbers: dict[str, Any]) -> str:
    """The count of significant pairs under both protocols, for the SAE and for everything that learned nothing."""
    rows = []
    for unit, name in UNITS.items():
        corrected, published = (
            (numbers[f"{protocol}/{unit}/n_significant_{family}"], numbers[f"{protocol}/{unit}/n_pairs_tested"])
            for protocol, family in (("corrected", "global"), ("published", "concept"))
        )
        cells = [f"{count:,.0f} of {tested:,.0f} | {count / tested:.1%}" for count, tested in (corrected, published)]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    head = ["| units | corrected | share | published | share |", "| --- | ---: | ---: | ---: | ---: |"]
    return "\n".join([*head, *rows]) + "\n"


def main(demo: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "meme-demo").symlink_to(demo.resolve())
        tour = TOUR.read_text(encoding="utf-8")
        tour = BLOCK.sub(lambda m: f"$ {m['command']}\n{run(m['command'], Path(name))}", tour)
        TOUR.write_text(tour, encoding="utf-8")
    results = json.loads((demo / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))["results"]
    page = STATISTICS.read_text(encoding="utf-8")
    before, after = page.split("<!-- pairs -->\n")[0], page.split("<!-- end of pairs -->\n")[1]
    filled = f"{before}<!-- pairs -->\n{table(results['baselines']['numbers'])}<!-- end of pairs -->\n{after}"
    STATISTICS.write_text(filled, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) / "meme-demo")
