"""Train the demo encoder: a small CLIP on planted memes of another seed.

    python scripts/train_demo_encoder.py --out sae_lens_meme/planted/encoder

Every planted value has a direction in the embedding that is drawn beforehand (`Side`): the values of dense factors at right
angles as far as there is room, props and expressions anywhere, so that there are far more of them than dimensions. Each
tower is trained alone to put a meme where the directions of its values, added up, point. Nothing reads or shapes the
product of the two embeddings: that a contradiction shows there follows from the picture's factor and the caption's that
speak of the same thing having the same direction, as contrastive training brings about in CLIP. The same arguments,
thread count and library versions give the same weights.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F

from sae_lens_meme.planted import factors as planted
from sae_lens_meme.planted.aligned import VALUES, aligned_factors, details
from sae_lens_meme.planted.captions import write_caption
from sae_lens_meme.planted.extras import PROPS, SAYINGS
from sae_lens_meme.planted.pictures import draw_picture

SIZE, WIDTH, CONTEXT, MERGES, TEXTS, HELD_OUT = 72, 64, 40, 1600, 3, 1024
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
CONFIG = {
    "embed_dim": WIDTH,
    "vision_cfg": {"image_size": SIZE, "patch_size": 12, "width": 128, "layers": 3, "head_width": 32, "mlp_ratio": 2.0},
    "text_cfg": {"context_length": CONTEXT, "vocab_size": 0, "width": 128, "heads": 4, "layers": 2, "mlp_ratio": 2.0},
    "tokenizer": {"context_length": CONTEXT},
    "preprocess": {"size": SIZE, "mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "squash"},
}
SEEN = tuple(name for name in planted.VISUAL if name in VALUES)
SAID = tuple(name for name in planted.TEXTUAL if name in VALUES)
ALIKE: Mapping[str, str] = {"topic": "object", "mood": "expression", "phrasing": "layout", "addressee": "hat"}
"""Factors of a caption that speak of a factor of the picture, and have its directions."""
LENGTHS: Mapping[str, float] = {
    **dict.fromkeys(("expression", "mood"), 4.0),
    **dict.fromkeys(("object", "topic"), 3.0),
    **dict.fromkeys(("layout", "hat", "phrasing", "addressee", "light", "sign", "bursts"), 1.2),
    **dict.fromkeys(("scene", "colour", "figures", "style"), 0.5),
}
"""Of the directions of a factor's values. A contradiction of two factors is as long as the product of theirs."""
CONE = 0.95
"""Length of the mean embedding: CLIP's lie in a cone, the captions' in another than the pictures'."""


class Data(NamedTuple):
    """Training memes: a meme has several captions."""

    pixels: Tensor  # uint8 [n, 3, 72, 72]
    tokens: Tensor  # int16 [n, texts, context]
    seen: Tensor  # int64 [n, factors]: the place of each visual factor's value in VALUES; a number for each place of props
    said: Tensor  # int64 [n, factors]: the same of the caption


class Side:
    """Where the embeddings of one tower are to lie.

    The directions of a factor's values sum to zero (a simplex); those of another factor are at right angles to them. Props
    and expressions have random directions, mostly outside the space of these factors.
    """

    def __init__(
        self,
        names: Sequence[str],
        axis: Tensor,
        axes: Tensor,
        rare: float,
        outside: float,
        generator: torch.Generator,
    ):
        self.names, self.axis, self.axes, self.rare, self.outside = names, axis, axes, rare, outside
        self.generator = generator
        self.directions: dict[str, Tensor] = {}

    def place(self, basis: Tensor, given: Mapping[str, Tensor], details: Sequence[Sequence[str]]) -> Side:
        used = 0
        for name in self.names:
            n = len(VALUES[name])
            if name in given:
                self.directions[name] = given[name]
            else:
                self.directions[name] = LENGTHS[name] * _simplex(n) @ basis[used : used + n - 1]
                used += n - 1
        dense = torch.cat([*self.directions.values()])
        rank = int(torch.linalg.matrix_rank(dense, tol=1e-3))
        space = torch.linalg.svd(dense)[2][:rank]
        rows = [len(row) for row in details]
        drawn = torch.randn(sum(rows), WIDTH, generator=self.generator)
        drawn = drawn - (drawn @ self.axes.T) @ self.axes
        drawn = self.rare * F.normalize(drawn - self.outside * (drawn @ space.T) @ space, dim=1)
        nothing = torch.zeros(1, WIDTH)
        self.table = torch.cat([dense, *(torch.cat([nothing, part]) for part in drawn.split(rows))])
        self.sizes = [*(len(VALUES[name]) for name in self.names), *(1 + n for n in rows)]
        return self

    def centre(self, codes: Tensor) -> None:
        """Take the mean and the size of the sums from training memes."""
        sums = self._sums(codes)
        self.mean = sums.mean(dim=0)
        self.size = (sums - self.mean).square().sum(dim=1).mean().sqrt()

    def targets(self, codes: Tensor) -> Tensor:
        moved = math.sqrt(1 - CONE**2) * (self._sums(codes) - self.mean) / self.size
        return F.normalize(CONE * self.axis / math.sqrt(WIDTH) + moved, dim=1)

    def _sums(self, codes: Tensor) -> Tensor:
        starts = torch.tensor([0, *self.sizes[:-1]]).cumsum(0)
        return self.table[codes + starts].sum(dim=1)


def make_sides(arguments: argparse.Namespace) -> tuple[Side, Side]:
    """Of the pictures and of the captions."""
    generator = torch.Generator().manual_seed(arguments.seed)
    ones, signs = torch.ones(WIDTH), torch.randn(WIDTH, generator=generator).sign()
    drawn = torch.cat([torch.stack([ones, signs]), torch.randn(WIDTH - 2, WIDTH, generator=generator)])
    basis = torch.linalg.qr(drawn.T)[0].T
    axes, basis = basis[:2], basis[2:]  # no direction leans to a cone, or some captions would be near every picture
    how = (axes, arguments.rare, arguments.outside, generator)
    pictures = Side(SEEN, ones, *how).place(basis, {}, PROPS)
    given = {said: pictures.directions[seen] for said, seen in ALIKE.items()}
    used = sum(len(VALUES[name]) - 1 for name in SEEN)
    return pictures, Side(SAID, signs, *how).place(basis[used:], given, SAYINGS)


def _simplex(n: int) -> Tensor:
    """n unit vectors in n - 1 dimensions that sum to zero."""
    u, s, _ = torch.linalg.svd(torch.eye(n) - 1 / n)
    return F.normalize(u[:, : n - 1] * s[: n - 1], dim=1)


def main() -> None:
    arguments = _arguments()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(arguments.out / "merges.txt.gz", arguments.seed)
    data = training_data(arguments, tokenizer)
    config = json.loads(json.dumps(CONFIG))
    config["text_cfg"]["vocab_size"] = tokenizer.vocab_size
    model = open_clip.CLIP(**{key: config[key] for key in ("embed_dim", "vision_cfg", "text_cfg")})
    train(model, data, arguments)
    (arguments.out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, arguments.out / "weights.safetensors")
    (arguments.out / "weights.safetensors").chmod(0o644)  # safetensors leaves 0600
    size = sum(file.stat().st_size for file in arguments.out.iterdir())
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {size:,} bytes in {arguments.out}")


def make_tokenizer(path: Path, seed: int) -> SimpleTokenizer:
    """Learn BPE merges from captions, write them in CLIP's format, and load them with open_clip."""
    rng = np.random.default_rng([seed, 1])
    texts = [write_caption(aligned_factors(rng), rng).text.lower() for _ in range(16_000)]
    words = [" ".join(re.findall(r"[a-z]+|[0-9]|[^\sa-z0-9]+", text)) for text in texts]
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=MERGES + 200, end_of_word_suffix="</w>", show_progress=False)
    learner.train_from_iterator(words, trainer)
    merges = [" ".join(pair) for pair in json.loads(learner.to_str())["model"]["merges"]][:MERGES]
    text = "\n".join(
        ["#version: 1, learned from planted captions", *merges]
    )  # no newline at the end: it would be a merge
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    return SimpleTokenizer(bpe_path=str(path), context_length=CONTEXT)


def training_data(arguments: argparse.Namespace, tokenizer: SimpleTokenizer) -> Data:
    """The training memes, drawn once and kept in `--cache`."""
    first = _draw_memes(range(64), arguments, tokenizer)
    digest = hashlib.sha256(b"".join(part.numpy().tobytes() for part in first))  # changes with whatever is drawn
    cache = arguments.cache / f"{digest.hexdigest()[:16]}-{arguments.pictures}.pt"
    if cache.exists():
        return Data(*torch.load(cache, weights_only=True))
    memes = _draw_memes(range(arguments.pictures), arguments, tokenizer)
    arguments.cache.mkdir(parents=True, exist_ok=True)
    torch.save(tuple(memes), cache)
    return memes


def train(model: open_clip.CLIP, data: Data, arguments: argparse.Namespace) -> None:
    """AdamW and one cosine cycle; prints what share of the held-out memes' variance is missed as it goes."""
    with torch.no_grad():
        model.logit_scale.fill_(math.log(100))  # of CLIP; nothing here trains it
    pictures, captions = make_sides(arguments)
    pictures.centre(data.seen)
    captions.centre(data.said)
    parameters = [p for p in model.parameters() if p is not model.logit_scale]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=arguments.lr, betas=(0.9, 0.98), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, arguments.lr, arguments.steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(arguments.seed)
    n, started = len(data.pixels) - HELD_OUT, time.monotonic()
    for step in range(1, arguments.steps + 1):
        rows = torch.randint(n, (arguments.batch,), generator=generator)
        few, which = rows[: arguments.batch // 2], int(torch.randint(TEXTS, (1,), generator=generator))
        seen = missed(encode_image(model, data.pixels[rows]), pictures.targets(data.seen[rows]))
        said = missed(encode_text(model, data.tokens[few, which]), captions.targets(data.said[few]))
        optimizer.zero_grad()
        (seen + said).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == arguments.steps:
            with torch.no_grad():
                image = encode_image(model, data.pixels[n:])
                text = encode_text(model, data.tokens[n:, 0])
                held_out = [
                    missed(image, pictures.targets(data.seen[n:])).item(),
                    missed(text, captions.targets(data.said[n:])).item(),
                ]
            print(
                f"step {step:5d}  missed: pictures {seen.item():.3f}, captions {said.item():.3f}; held out "
                f"{held_out[0]:.3f}, {held_out[1]:.3f}  top-1 of 64 {accuracy(image, text):.3f}"
                f"  {time.monotonic() - started:.0f} s",
                flush=True,
            )


def missed(embedding: Tensor, target: Tensor) -> Tensor:
    """The share of the targets' variance that the embeddings miss."""
    return (embedding - target).square().sum(dim=1).mean() / (1 - CONE**2)


def accuracy(image: Tensor, text: Tensor, among: int = 64) -> float:
    """The share of pictures whose own caption is the nearest of `among`."""
    logits = image.view(-1, among, WIDTH) @ text.view(-1, among, WIDTH).transpose(1, 2)
    return (logits.argmax(-1) == torch.arange(among)).float().mean().item()


def encode_image(model: open_clip.CLIP, pixels: Tensor) -> Tensor:
    """Unit embeddings of uint8 pictures."""
    normal = (pixels.float() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    return model.encode_image(normal, normalize=True)


def encode_text(model: open_clip.CLIP, tokens: Tensor) -> Tensor:
    """Unit embeddings of token rows."""
    return model.encode_text(tokens.long(), normalize=True)


def _draw_memes(indices: range, arguments: argparse.Namespace, tokenizer: SimpleTokenizer) -> Data:
    pixels = torch.empty(len(indices), 3, SIZE, SIZE, dtype=torch.uint8)
    texts: list[str] = []
    seen, said = [], []
    for i in indices:
        rng = np.random.default_rng([arguments.seed, 2, i])
        meme = aligned_factors(rng)
        captions = [write_caption(meme, rng).text for _ in range(TEXTS)]
        picture = draw_picture(meme, captions[0], rng).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        pixels[i] = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        codes = {name: values.index(getattr(meme, name)) for name, values in VALUES.items()}
        seen.append([codes[name] for name in SEEN] + details(meme.prop, PROPS))
        said.append([codes[name] for name in SAID] + details(meme.phrase, SAYINGS))
        texts += captions
    tokens = tokenizer(texts).view(len(indices), TEXTS, -1).short()
    return Data(pixels, tokens, torch.tensor(seen), torch.tensor(said))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("sae_lens_meme/planted/encoder"))
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "demo-encoder", help="drawn training pictures"
    )
    parser.add_argument("--seed", type=int, default=7001, help="of the training memes; the corpus has seed 0")
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=1400)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--rare", type=float, default=5.0, help="length of the directions of props and expressions")
    parser.add_argument("--outside", type=float, default=0.8, help="how far these keep out of the other factors' space")
    parser.add_argument("--threads", type=int, default=1, help="part of what makes it reproducible")
    return parser.parse_args()


if __name__ == "__main__":
    main()
