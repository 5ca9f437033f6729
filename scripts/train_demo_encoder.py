"""Train the small CLIP of a planted world on memes of another seed, whose captions agree with their pictures.

    python scripts/train_demo_encoder.py --out sae_lens_meme/planted/encoder
    python scripts/train_demo_encoder.py --world crowded --out sae_lens_meme/planted/crowded_encoder

What is trained towards is in `contrast.py` (plain) and `directions.py` (crowded). The same arguments, thread count and
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

import numpy as np
import open_clip
import torch
from contrast import Contrast
from directions import Directions
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from training_memes import MEAN, SIZE, STD, Data

from sae_lens_meme.planted.captions import write_caption
from sae_lens_meme.planted.pictures import draw_picture

HELD_OUT = 1024
OBJECTIVES = {"plain": Contrast, "crowded": Directions}
Objective = Contrast | Directions


def main() -> None:
    arguments = _arguments()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    objective = OBJECTIVES[arguments.world](arguments)
    arguments.out.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(objective, arguments.out / "merges.txt.gz", arguments.seed)
    data = training_data(objective, arguments, tokenizer)
    config = configuration(objective, tokenizer.vocab_size)
    model = open_clip.CLIP(**{key: config[key] for key in ("embed_dim", "vision_cfg", "text_cfg")})
    train(objective, model, data, arguments)
    (arguments.out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, arguments.out / "weights.safetensors")
    (arguments.out / "weights.safetensors").chmod(0o644)  # safetensors leaves 0600
    size = sum(file.stat().st_size for file in arguments.out.iterdir())
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {size:,} bytes in {arguments.out}")


def configuration(objective: Objective, vocab_size: int) -> dict:
    context = objective.context
    vision = {"image_size": SIZE, "patch_size": 12, "width": 128, "layers": 3, "head_width": 32, "mlp_ratio": 2.0}
    text = {
        "context_length": context,
        "vocab_size": vocab_size,
        "width": 128,
        "heads": 4,
        "layers": 2,
        "mlp_ratio": 2.0,
    }
    preprocess = {"size": SIZE, "mean": [*MEAN], "std": [*STD], "interpolation": "bicubic", "resize_mode": "squash"}
    return {
        "embed_dim": objective.embed_dim,
        "vision_cfg": vision,
        "text_cfg": text,
        "tokenizer": {"context_length": context},
        "preprocess": preprocess,
    }


def make_tokenizer(objective: Objective, path: Path, seed: int) -> SimpleTokenizer:
    """Learn BPE merges from captions and descriptions, write them in CLIP's format, and load them with open_clip."""
    rng = np.random.default_rng([seed, 1])
    memes = [objective.meme_of_vocabulary(rng) for _ in range(8000)]
    texts = [text.lower() for meme in memes for text in objective.words_of(meme, rng)]
    words = [" ".join(re.findall(r"[a-z]+|[0-9]|[^\sa-z0-9]+", text)) for text in texts]
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=objective.merges + 200, end_of_word_suffix="</w>", show_progress=False)
    learner.train_from_iterator(words, trainer)
    merges = [" ".join(pair) for pair in json.loads(learner.to_str())["model"]["merges"]][: objective.merges]
    text = "\n".join(
        ["#version: 1, learned from planted captions", *merges]
    )  # no newline at the end: it would be a merge
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    return SimpleTokenizer(bpe_path=str(path), context_length=objective.context)


def training_data(objective: Objective, arguments: argparse.Namespace, tokenizer: SimpleTokenizer) -> Data:
    """The training memes, drawn once and kept in `--cache`."""
    first = _draw(objective, range(64), arguments.seed, tokenizer)
    digest = hashlib.sha256(b"".join(part.numpy().tobytes() for part in first))  # changes with whatever is drawn
    cache = arguments.cache / f"{digest.hexdigest()[:16]}-{arguments.pictures}.pt"
    if cache.exists():
        return Data(*torch.load(cache, weights_only=True))
    memes = _draw(objective, range(arguments.pictures), arguments.seed, tokenizer)
    arguments.cache.mkdir(parents=True, exist_ok=True)
    torch.save(tuple(memes), cache)
    return memes


def train(objective: Objective, model: open_clip.CLIP, data: Data, arguments: argparse.Namespace) -> None:
    """AdamW and one cosine cycle; prints how well held-out memes are encoded as it goes."""
    parameters = [*model.parameters(), *objective.prepare(model, data)]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=arguments.lr, betas=(0.9, 0.98), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, arguments.lr, arguments.steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(arguments.seed)
    n, started = len(data.pixels) - HELD_OUT, time.monotonic()
    held_out = Data(*(part[n:] for part in data))
    for step in range(1, arguments.steps + 1):
        rows = torch.randint(n, (arguments.batch,), generator=generator)
        losses = objective.losses(model, data, rows, generator, step / arguments.steps)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        if step % 50 == 0 or step == arguments.steps:
            shown = "  ".join(f"{name} {loss.item():.3f}" for name, loss in losses.items())
            seconds = time.monotonic() - started
            print(f"step {step:5d}  {shown}  {objective.progress(model, held_out)}  {seconds:.0f} s", flush=True)


def _draw(objective: Objective, indices: range, seed: int, tokenizer: SimpleTokenizer) -> Data:
    pixels = torch.empty(len(indices), 3, SIZE, SIZE, dtype=torch.uint8)
    texts: list[str] = []
    codes = []
    for i in indices:
        rng = np.random.default_rng([seed, 2, i])
        meme = objective.meme(rng)
        captions = [write_caption(meme, rng).text for _ in range(objective.captions)]
        picture = draw_picture(meme, captions[0], rng).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        pixels[i] = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        codes.append(objective.codes(meme))
        texts += captions + objective.described(meme, rng)
    return Data(pixels, tokenizer(texts).view(len(indices), -1, objective.context).short(), torch.tensor(codes))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--world", choices=list(OBJECTIVES), default="plain")
    parser.add_argument("--out", type=Path, default=Path("sae_lens_meme/planted/encoder"))
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "demo-encoder", help="drawn training pictures"
    )
    parser.add_argument("--seed", type=int, default=7001, help="of the training memes; the corpus has seed 0")
    parser.add_argument("--pictures", type=int, default=16_000)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--scale", type=float, default=14.3, help="logit scale at the start (plain)")
    parser.add_argument("--neighbour", type=float, default=0.15, help="share of captions on a related topic (plain)")
    parser.add_argument("--threads", type=int, default=1, help="part of what makes it reproducible")
    return parser.parse_args()


if __name__ == "__main__":
    main()
