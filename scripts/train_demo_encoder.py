"""Train the demo encoder: a small CLIP on planted memes of another seed, whose captions agree with their pictures.

    python scripts/train_demo_encoder.py --out sae_lens_meme/planted/encoder

In a training pair the topic is the object, the mood is the expression, the addressee has its hat and the phrasing
its layout. To CLIP's contrastive loss come linear heads, thrown away afterwards, that read the factors from each
embedding and, in the manner of image-text matching, from the product of a picture and another meme's caption (and rebuild
the product from them): a million parameters and 150,000 pairs do not get there by contrast alone. The same arguments, thread count and
library versions give the same weights.
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
from sae_lens_meme.planted.aligned import VALUES, aligned_factors, describe
from sae_lens_meme.planted.captions import write_caption
from sae_lens_meme.planted.pictures import draw_picture

SIZE, MERGES, TEXTS, HELD_OUT = 72, 1200, 6, 1024
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
CONFIG = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": SIZE, "patch_size": 12, "width": 128, "layers": 3, "head_width": 32, "mlp_ratio": 2.0},
    "text_cfg": {"context_length": 32, "vocab_size": 0, "width": 128, "heads": 4, "layers": 2, "mlp_ratio": 2.0},
    "tokenizer": {"context_length": 32},
    "preprocess": {"size": SIZE, "mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "squash"},
}


class Data(NamedTuple):
    """Training memes: a meme has several captions and as many descriptions."""

    pixels: Tensor  # uint8 [n, 3, 72, 72]
    tokens: Tensor  # int16 [n, texts, context]: captions, then descriptions
    codes: Tensor  # int64 [n, factors]: the place of each factor's value in VALUES


class Heads(nn.Module):
    """Linear maps from standardised embeddings to the factors, and back from the factors; losses are 1 at chance."""

    def __init__(self, width: int, classes: dict[str, int]):
        super().__init__()
        self.classes = classes
        self.standardise = nn.BatchNorm1d(width, affine=False)
        self.read = nn.Linear(width, sum(classes.values()))
        self.rebuild = nn.Linear(sum(classes.values()), width)

    def reading_loss(self, embedding: Tensor, codes: Tensor) -> Tensor:
        logits = self.read(self.standardise(embedding)).split(list(self.classes.values()), dim=1)
        losses = [
            F.cross_entropy(part, code) / math.log(part.shape[1]) for part, code in zip(logits, codes.T, strict=True)
        ]
        return torch.stack(losses).mean()

    def rebuilding_loss(self, embedding: Tensor, codes: Tensor) -> Tensor:
        """The share of the variance that is no sum of factors."""
        one_hot = [F.one_hot(code, n) for code, n in zip(codes.T, self.classes.values(), strict=True)]
        return F.mse_loss(self.rebuild(torch.cat(one_hot, dim=1).float()), self.standardise(embedding))


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
    """Learn BPE merges from captions and descriptions, write them in CLIP's format, and load them with open_clip."""
    rng = np.random.default_rng([seed, 1])
    memes = [aligned_factors(rng) for _ in range(8000)]
    texts = [text.lower() for meme in memes for text in (write_caption(meme, rng).text, describe(meme, rng, 1.0))]
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
    return SimpleTokenizer(bpe_path=str(path), context_length=CONFIG["text_cfg"]["context_length"])


def training_data(arguments: argparse.Namespace, tokenizer: SimpleTokenizer) -> Data:
    """The training memes, drawn once and kept in `--cache`."""
    first = _draw_pairs(range(64), arguments, tokenizer)
    digest = hashlib.sha256(b"".join(part.numpy().tobytes() for part in first))  # changes with whatever is drawn
    cache = arguments.cache / f"{digest.hexdigest()[:16]}-{arguments.pictures}.pt"
    if cache.exists():
        return Data(*torch.load(cache, weights_only=True))
    pairs = _draw_pairs(range(arguments.pictures), arguments, tokenizer)
    arguments.cache.mkdir(parents=True, exist_ok=True)
    torch.save(tuple(pairs), cache)
    return pairs


def train(model: open_clip.CLIP, data: Data, arguments: argparse.Namespace) -> None:
    """AdamW and one cosine cycle; prints how well held-out pictures find their texts as it goes."""
    with torch.no_grad():
        model.logit_scale.fill_(math.log(arguments.scale))
    heads = make_heads(CONFIG["embed_dim"])
    parameters = [*model.parameters(), *nn.ModuleDict(heads).parameters()]
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
        losses = training_losses(model, heads, data, rows, generator)
        # from the start, the rebuilding loss would be met best by embeddings that show next to nothing
        losses["rebuilt"] *= min(1.0, max(0.0, 3 * step / arguments.steps - 1))
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        if step % 50 == 0 or step == arguments.steps:
            shown = "  ".join(f"{name} {loss.item():.3f}" for name, loss in losses.items())
            captions, plain = (held_out_accuracy(model, data.pixels[n:], data.tokens[n:, i]) for i in (0, -1))
            print(
                f"step {step:5d}  {shown}  top-1 of 64: captions {captions:.3f}, descriptions {plain:.3f}"
                f"  {time.monotonic() - started:.0f} s",
                flush=True,
            )


def make_heads(width: int) -> dict[str, Heads]:
    """Readers of the image embedding, of the text embedding, and of their product."""
    classes = {name: len(values) for name, values in VALUES.items()}
    visual = {name: classes[name] for name in planted.VISUAL}
    textual = {name: classes[name] for name in planted.TEXTUAL}
    fused = visual | textual | {"clash": 2, "distance": 3}
    return {"image": Heads(width, visual), "text": Heads(width, textual), "fused": Heads(width, fused)}


def training_losses(
    model: open_clip.CLIP, heads: dict[str, Heads], data: Data, rows: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """The contrastive loss and the heads'; the first half of `rows` comes with captions, the rest with descriptions."""
    half, n_visual = len(rows) // 2, len(planted.VISUAL)
    which = torch.randint(TEXTS // 2, (len(rows),), generator=generator)
    which[half:] += TEXTS // 2
    image, text = encode(model, data.pixels[rows], data.tokens[rows, which])
    seen, said = data.codes[rows, :n_visual], data.codes[rows[:half], n_visual:]
    other = torch.arange(1, len(rows) + 1) % half  # the caption of another meme
    pairs = torch.cat([seen, said[other], _agreement(seen, said[other])], dim=1)
    fused = image * text[other]
    return {
        "contrastive": _contrastive_loss(model, image, text),
        "image": 2 * heads["image"].reading_loss(image, seen),
        "text": heads["text"].reading_loss(text[:half], said),
        "fused": 2 * heads["fused"].reading_loss(fused, pairs),
        "rebuilt": heads["fused"].rebuilding_loss(fused, pairs),
    }


def _agreement(seen: Tensor, said: Tensor) -> Tensor:
    """Whether mood and expression clash, and how far the topic is from the object (0, 1, 2 and more)."""
    column = {name: i for i, name in enumerate(planted.VISUAL)} | {name: i for i, name in enumerate(planted.TEXTUAL)}
    clash = seen[:, column["expression"]] != said[:, column["mood"]]
    steps = (seen[:, column["object"]] - said[:, column["topic"]]) % len(planted.TOPICS)
    return torch.stack([clash.long(), torch.minimum(steps, len(planted.TOPICS) - steps).clamp(max=2)], dim=1)


@torch.no_grad()
def held_out_accuracy(model: open_clip.CLIP, pixels: Tensor, tokens: Tensor, among: int = 64) -> float:
    """The share of pictures whose own text is the nearest of `among` held-out texts."""
    image, text = encode(model, pixels, tokens)
    logits = image.view(-1, among, image.shape[-1]) @ text.view(-1, among, text.shape[-1]).transpose(1, 2)
    return (logits.argmax(-1) == torch.arange(among)).float().mean().item()


def encode(model: open_clip.CLIP, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Unit image and text embeddings of uint8 pictures and token rows."""
    normal = (pixels.float() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    return model.encode_image(normal, normalize=True), model.encode_text(tokens.long(), normalize=True)


def _draw_pairs(indices: range, arguments: argparse.Namespace, tokenizer: SimpleTokenizer) -> Data:
    pixels = torch.empty(len(indices), 3, SIZE, SIZE, dtype=torch.uint8)
    texts: list[str] = []
    codes = torch.empty(len(indices), len(VALUES), dtype=torch.int64)
    for i in indices:
        rng = np.random.default_rng([arguments.seed, 2, i])
        meme = aligned_factors(rng, arguments.neighbour)
        captions = [write_caption(meme, rng).text for _ in range(TEXTS // 2)]
        picture = draw_picture(meme, captions[0], rng).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        pixels[i] = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        codes[i] = torch.tensor([values.index(getattr(meme, name)) for name, values in VALUES.items()])
        texts += captions + [describe(meme, rng) for _ in range(TEXTS // 2)]
    return Data(pixels, tokenizer(texts).view(len(indices), TEXTS, -1).short(), codes)


def _contrastive_loss(model: open_clip.CLIP, image: Tensor, text: Tensor) -> Tensor:
    logits = model.logit_scale.exp() * image @ text.T
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("sae_lens_meme/planted/encoder"))
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "demo-encoder", help="drawn training pictures"
    )
    parser.add_argument("--seed", type=int, default=7001, help="of the training memes; the corpus has seed 0")
    parser.add_argument("--pictures", type=int, default=16_000)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--scale", type=float, default=14.3, help="logit scale at the start")
    parser.add_argument("--neighbour", type=float, default=0.15, help="share of captions on a related topic")
    parser.add_argument("--threads", type=int, default=1, help="part of what makes it reproducible")
    return parser.parse_args()


if __name__ == "__main__":
    main()
