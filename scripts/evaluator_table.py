"""Write the table of evaluators in docs/evaluation.md from what the evaluators say of themselves."""

from __future__ import annotations

from pathlib import Path

from sae_lens_meme.evaluators import find, names

PAGE = Path(__file__).parents[1] / "docs" / "evaluation.md"


def table() -> str:
    rows = [f"| `{name}` | {find(name).question} | {find(name).control} |" for name in names()]
    return "\n".join(["| evaluator | question | control beside it |", "| --- | --- | --- |", *rows]) + "\n"


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.split("<!-- evaluators -->\n")[0], page.split("<!-- end -->\n")[1]
    PAGE.write_text(f"{before}<!-- evaluators -->\n{table()}<!-- end -->\n{after}", encoding="utf-8")
