"""What `ocr` reads against Tesseract, on meme pictures with captions drawn on them: `python -m benchmarks.ocr FOLDER`.

FOLDER has `manifest.jsonl`, pictures and fonts (`fonts_ofl/*.ttf`), as memegen's templates do: a line a picture with
`image`, `example` (a caption a box) and `boxes` (`anchor_x`, `anchor_y`, `scale_x`, `scale_y` as shares of the picture,
`color`, `font`, `style`). Nothing of it is shipped.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sae_lens_meme.ocr import read_text

FONTS = {"thick": "TitilliumWeb-Black.ttf", "comic": "Kalam-Regular.ttf", "thin": "TitilliumWeb-SemiBold.ttf"}
LIGHT = ("white", "khaki", "palegoldenrod")
LEAST, WIDEST = 14, 700
DRAWS = 2000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ocr", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n", type=int, default=60, help="pictures, drawn at random with a fixed seed")
    parser.add_argument("--json", type=Path, help="write the numbers and every text that was read here")
    arguments = parser.parse_args()
    if not (arguments.folder / "manifest.jsonl").is_file():
        print(f"skipped: {arguments.folder} has no manifest.jsonl; give a folder of memegen's templates")
        return
    memes = list(drawn(arguments.folder, arguments.n))
    truth = [caption for _, caption in memes]
    found = {}
    for name, read in engines().items():
        read(memes[0][0])  # models are loaded, and the file system's cache is warm
        found[name] = [timed(read, picture) for picture, _ in memes]
    scores = {name: scored(truth, [text for text, _ in mine]) for name, mine in found.items()}
    for name, mine in found.items():
        print(line(name, scores[name], statistics.median(seconds for _, seconds in mine), len(truth)))
    names = list(scores)
    for other in names[1:]:
        difference = scores[other]["cer"] - scores[names[0]]["cer"]
        low, high = interval(difference)
        wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
        print(
            f"{names[0]} has the lower CER than {other} on {wins} pictures, the higher on {losses}; "
            f"mean difference {difference.mean():+.3f} ({low:+.3f} to {high:+.3f})"
        )
    if arguments.json:
        texts = {name: [text for text, _ in mine] for name, mine in found.items()}
        content = {
            "truth": truth,
            "read": texts,
            "scores": {n: {k: v.tolist() for k, v in s.items()} for n, s in scores.items()},
        }
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")


def engines() -> dict[str, Callable[[Image.Image], str]]:
    """Ours, and Tesseract as it comes and told that text is sparse, where it is installed."""
    found: dict[str, Callable[[Image.Image], str]] = {"rapidocr": lambda picture: read_text(picture) or ""}
    if which("tesseract") is None:
        print("tesseract is left out: it is not installed (apt-get install tesseract-ocr)")
        return found
    for mode, what in ((3, "as it comes"), (11, "sparse text")):
        found[f"tesseract, {what}"] = lambda picture, mode=mode: tesseract(picture, mode)
    return found


def tesseract(picture: Image.Image, mode: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        picture.save(file := Path(folder) / "picture.png")
        command = ["tesseract", str(file), "stdout", "--psm", str(mode)]
        return " ".join(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def drawn(folder: Path, n: int) -> Any:
    """Pictures with their captions on them, and the captions from the top down."""
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if not row["flag_review"] and _upright(row)]
    for row in random.Random(0).sample(rows, min(n, len(rows))):
        picture = Image.open(folder / row["image"]).convert("RGB")
        picture.thumbnail((WIDEST, 2 * WIDEST))
        boxes = sorted(zip(row["boxes"], row["example"], strict=False), key=_top_left)
        captions = [_draw(picture, box, text.strip(), folder / "fonts_ofl") for box, text in boxes if text.strip()]
        yield picture, " ".join(" ".join(captions).split())


def _upright(row: dict[str, Any]) -> bool:
    return any(text.strip() for text in row["example"]) and not any(box["angle"] for box in row["boxes"])


def _top_left(pair: Any) -> tuple[float, float]:
    return pair[0]["anchor_y"], pair[0]["anchor_x"]


def _draw(picture: Image.Image, box: dict[str, Any], text: str, fonts: Path) -> str:
    """Draw one caption as large as its box allows; returns it as it was drawn."""
    text = text.upper() if box["style"] == "upper" else text
    width, height = box["scale_x"] * picture.width, box["scale_y"] * picture.height
    left, top = box["anchor_x"] * picture.width, box["anchor_y"] * picture.height
    draw, outlined = ImageDraw.Draw(picture), box["color"] in LIGHT
    for size in range(max(LEAST, int(height)), LEAST - 1, -1):
        font = ImageFont.truetype(str(fonts / FONTS.get(box["font"], FONTS["thick"])), size)
        stroke = max(1, size // 16) if outlined else 0
        lines = _wrapped(draw, text, font, width - 2 * stroke)
        block = "\n".join(lines)
        x0, y0, x1, y1 = draw.multiline_textbbox((0, 0), block, font=font, stroke_width=stroke, align="center")
        if (x1 - x0 <= width and y1 - y0 <= height) or size == LEAST:
            place = (left + (width - x1 + x0) / 2 - x0, top + (height - y1 + y0) / 2 - y0)
            draw.multiline_text(
                place, block, fill=box["color"], font=font, align="center", stroke_width=stroke, stroke_fill="black"
            )
            break
    return text


def _wrapped(draw: ImageDraw.ImageDraw, text: str, font: Any, width: float) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and draw.textlength(longer, font=font) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def timed(read: Callable[[Image.Image], str], picture: Image.Image) -> tuple[str, float]:
    started = time.perf_counter()
    return read(picture), time.perf_counter() - started


def scored(truth: list[str], texts: list[str]) -> dict[str, np.ndarray]:
    """For each picture the character error rate; the share of the caption's letters that were missed, whatever else was
    read (a template's own text counts as an error of the rate); the share of words found; whether all is exact."""
    pairs = list(zip(truth, texts, strict=True))
    words = [(Counter(t.split()), Counter(r.split())) for t, r in pairs]
    return {
        "cer": np.array([edits(t, r) / len(t) for t, r in pairs]),
        "missed": np.array([1 - common(t, r) / len(t) for t, r in pairs]),
        "recall": np.array([(t & r).total() / t.total() for t, r in words]),
        "exact": np.array([float(t == r) for t, r in pairs]),
    }


def edits(a: str, b: str) -> int:
    """Levenshtein's distance."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(diagonal + (x != y), row[j] + 1, row[j - 1] + 1)
    return row[-1]


def common(a: str, b: str) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, start=1):
            diagonal, row[j] = row[j], diagonal + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def interval(x: np.ndarray) -> tuple[float, float]:
    """Of the mean, 95 %: pictures are resampled."""
    means = np.random.default_rng(0).choice(x, (DRAWS, len(x))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def line(name: str, score: dict[str, np.ndarray], seconds: float, n: int) -> str:
    low, high = interval(score["cer"])
    return (
        f"| {name} | {score['cer'].mean():.3f} ({low:.3f} to {high:.3f}) | {np.median(score['cer']):.3f} | "
        f"{score['missed'].mean():.3f} | "
        f"{score['recall'].mean():.3f} | {score['exact'].mean():.0%} of {n} | {seconds:.2f} s |"
    )


if __name__ == "__main__":
    main()
