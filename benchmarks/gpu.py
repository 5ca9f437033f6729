"""What a GPU makes of training, embedding, attribution, token rows and steering: `python -m benchmarks.gpu`.

One JSON line a measurement, as it is made; a part that fails says so and the others go on. All models have random
weights, which cost as much as trained ones. `--device cpu --quick` runs tiny ones, to see that it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

Measured = dict[str, Any]
CHANGE_S = 30
"""Attribution stops after so many seconds and is extrapolated by memes."""


@dataclass(frozen=True)
class Machine:
    device: str
    quick: bool

    def sync(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()

    def seconds(self, function: Callable[[], Any], repeats: int = 10, warm_up: int = 3) -> float:
        """Median of calls that each wait for the device."""
        times = []
        for i in range(warm_up + repeats):
            self.sync()
            start = time.perf_counter()
            function()
            self.sync()
            if i >= warm_up:
                times.append(time.perf_counter() - start)
        return statistics.median(times)

    def rate(self, function: Callable[[], Any], n: int, repeats: int = 10) -> float:
        return round(n / self.seconds(function, repeats), 1)

    def free(self) -> None:
        if self.device != "cpu":
            torch.cuda.empty_cache()


def training(machine: Machine) -> Iterator[Measured]:
    """A step in SAELens' trainer: stock `topk`, the recipe, the recipe with a Triton decoder."""
    from benchmarks.gpu_kernels import triton_decode

    batch = 64 if machine.quick else 4_096
    sizes = [(32, 128)] if machine.quick else [(d, n) for d in (768, 1_024) for n in (4_096, 16_384, 65_536)]
    for precision in ("highest", "high"):  # float32, TF32
        torch.set_float32_matmul_precision(precision)
        for d_in, d_sae in sizes:
            x = torch.randn(batch, d_in, device=machine.device)
            found: Measured = {"step": batch, "d_in": d_in, "d_sae": d_sae, "precision": precision}
            for name in ("stock", "ours"):
                trainer = _trainer(name, d_in, d_sae, batch, machine)
                found[f"{name}_ms"] = _ms(machine, lambda t=trainer, x=x: t.step(x))
                found[f"{name}_loss"] = trainer.step(x).loss.item() / (d_in if name == "stock" else 1)
            with patch("sae_lens_meme.train.sae.sparse_decode", triton_decode):
                trainer = _trainer("ours", d_in, d_sae, batch, machine)
                try:
                    found["triton_ms"] = _ms(machine, lambda t=trainer, x=x: t.step(x))
                except Exception as error:
                    found["triton_error"] = _line(error)
            yield found | {"ratio": round(found["stock_ms"] / found["ours_ms"], 2)}
            del trainer, x
            machine.free()
    torch.set_float32_matmul_precision("highest")


def _trainer(name: str, d_in: int, d_sae: int, batch: int, machine: Machine) -> Any:
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    from sae_lens_meme.train.sae import MemeTopKTrainingSAE, MemeTopKTrainingSAEConfig

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"d_in": d_in, "d_sae": d_sae, "k": 8 if machine.quick else 64, "device": machine.device}
    if name == "ours":
        sae: Any = MemeTopKTrainingSAE(MemeTopKTrainingSAEConfig(**sizes))
    else:
        sae = TopKTrainingSAE(
            TopKTrainingSAEConfig(**sizes, apply_b_dec_to_input=False, rescale_acts_by_decoder_norm=False)
        )
    config = SAETrainerConfig(
        *(10_000 * batch, batch), lr=1e-3, lr_end=1e-4, device=machine.device, logger=LoggingConfig(log_to_wandb=False)
    )
    trainer = SAETrainer(config, sae.to(machine.device), iter(()))
    if name == "ours":
        for group in trainer.optimizer.param_groups:  # as our runner does
            group["fused"] = True
    return trainer


def embedding(machine: Machine) -> Iterator[Measured]:
    """Memes a second from JPEGs to embeddings, decoding in workers, beside the bare towers on batches that lie on the device."""
    from datasets import concatenate_datasets

    from sae_lens_meme.corpus import load_rows
    from sae_lens_meme.embed import from_corpus

    with tempfile.TemporaryDirectory() as folder:
        corpus = _corpus(Path(folder), 16 if machine.quick else 256)
        rows = load_rows(corpus)
        rows = concatenate_datasets([rows] * (2 if machine.quick else 12))
        for dtype in (torch.bfloat16,) if machine.quick else (torch.bfloat16, torch.float16):
            for batch in (8,) if machine.quick else (64, 256):
                encoder = _encoder(machine, dtype, batch)
                shards = [range(0, len(rows))]
                done, started = 0, 0.0
                for part in encoder.run(from_corpus._loader(rows, shards, encoder), lambda n: None):
                    started, done = (
                        (started, done + len(next(iter(part.values())))) if started else (time.perf_counter(), 0)
                    )
                whole = done / (time.perf_counter() - started)  # without the start of the workers
                pixels, tokens = (p.to(machine.device) for p in next(iter(from_corpus._loader(rows, shards, encoder))))
                bare = machine.rate(lambda e=encoder, p=pixels, t=tokens: _bare(e, p, t), batch)
                yield {
                    **{"memes": len(rows), "dtype": str(dtype), "batch": batch, "workers": encoder.workers},
                    **{"embed_per_s": round(whole, 1), "bare_per_s": bare, "bare_over_embed": round(bare / whole, 2)},
                }


def attribution(machine: Machine) -> Iterator[Measured]:
    """100 latents x 20 memes, each meme another one: every picture with 49 patches taken out, every caption word by word."""
    from sae_lens import SAE, TopKSAE, TopKSAEConfig

    from benchmarks.extraction import embedded
    from sae_lens_meme.attribute.attributor import Attributor, Meme
    from sae_lens_meme.attribute.step import BLOCK
    from sae_lens_meme.corpus import load_rows
    from sae_lens_meme.corpus.build import Pictures
    from sae_lens_meme.hooks.names import FUSED

    wanted = 20 if machine.quick else 2_000
    with tempfile.TemporaryDirectory() as folder:
        corpus = _corpus(Path(folder), 16 if machine.quick else 256)
        encoder = _encoder(machine, torch.bfloat16, 8 if machine.quick else 64)
        memes = embedded(corpus, Path(folder) / "E", encoder)
        config = TopKSAEConfig(memes.d_in(FUSED), 64 if machine.quick else 16_384, k=8, device=machine.device)
        sae: SAE[Any] = TopKSAE(config)
        rows = load_rows(corpus)
        pictures, captions = Pictures(rows), rows["text"]
        attributor = Attributor(sae, FUSED, encoder, memes, batch_size=8 if machine.quick else 128)
        block = [Meme(rows["id"][i], pictures[i], captions[i]) for i in range(min(BLOCK, len(rows)))]
        attributor.attribute(block[:2], [[0]] * 2)
        done, start = 0, time.perf_counter()
        while done < wanted and time.perf_counter() - start < CHANGE_S:
            attributor.attribute(block, [[1 + i % 60] for i in range(len(block))])
            done += len(block)
        each = (time.perf_counter() - start) / done
        yield {"memes": done, "ms_a_meme": round(1e3 * each, 2), "seconds_of_100_x_20": round(each * 2_000, 1)}


def token_rows(machine: Machine) -> Iterator[Measured]:
    """All positions of the last block but one of ViT-L/14, on the host in float32, beside the bare tower."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    from sae_lens_meme.hooks import HookedVLM

    config = CLIPVisionConfig(num_hidden_layers=4) if machine.quick else CLIPVisionConfig(
        hidden_size=1_024, intermediate_size=4_096, num_hidden_layers=24, num_attention_heads=16, patch_size=14
    )  # fmt: skip
    batch, hook = 2 if machine.quick else 64, f"hook_image_resid.{config.num_hidden_layers - 2}"
    with torch.device(machine.device):
        tower: Any = CLIPVisionModel(config).eval()
        tower.to(torch.bfloat16)
    size: Any = config.image_size
    pixels = torch.randn(batch, 3, size, size, device=machine.device, dtype=torch.bfloat16)
    bare = machine.rate(torch.no_grad()(lambda: tower(pixel_values=pixels)), batch)
    to_host = machine.rate(torch.no_grad()(lambda: tower(pixel_values=pixels)[0].float().cpu()), batch)
    model = HookedVLM(tower)

    @torch.no_grad()
    def read() -> Any:
        _, cache = model.run_with_cache(
            {"pixel_values": pixels}, names_filter=[hook], stop_at_layer=0, return_type=None
        )
        return cache[hook].float().cpu().numpy()

    ours = machine.rate(read, batch)
    yield {
        **{"hook": hook, "positions": int(read().shape[1]), "batch": batch, "read_per_s": ours},
        **{"bare_per_s": bare, "bare_to_host_per_s": to_host, "bare_over_read": round(bare / ours, 2)},
    }


def steering(machine: Machine) -> Iterator[Measured]:
    """Five words of LLaVA-1.5-7B about each picture of a batch: bare, one latent set by its change alone, the SAE spliced in."""
    from sae_lens import StandardSAE, StandardSAEConfig

    from sae_lens_meme.hooks import HookedVLM
    from sae_lens_meme.steer.latents import latent_set

    llava = _llava(machine)
    batch, width = 2 if machine.quick else 8, llava.config.vision_config.hidden_size
    hook = f"hook_image_resid.{llava.config.vision_config.num_hidden_layers - 2}"
    inputs = _asked(llava, batch, machine)
    options = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    bare = machine.seconds(torch.no_grad()(lambda: llava.generate(**inputs, **options)), 5, 2)
    yield {"model": "LLaVA-1.5-7B", "batch": batch, "prompt": inputs["input_ids"].shape[1], "bare_s": round(bare, 4)}
    model = HookedVLM(llava)
    sae = StandardSAE(StandardSAEConfig(width, 256 if machine.quick else 65_536, device=machine.device))
    sae.cfg.metadata.hook_name = hook
    hooked = machine.seconds(lambda: model.generate(inputs, **options), 5, 2)
    yield {"hooked_s": round(hooked, 4), "hooked_over_bare": round(hooked / bare, 3)}
    for name, fast in (("change alone", True), ("spliced", False)):
        with torch.no_grad(), latent_set(model, sae, {39: 100.0}, fast=fast):
            took = machine.seconds(lambda: model.generate(inputs, **options), 5, 2)
        yield {"steered": name, "seconds": round(took, 4), "over_bare": round(took / bare, 3)}


def _llava(machine: Machine) -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    config = LlavaConfig(
        text_config=LlamaConfig(vocab_size=32_064, max_position_embeddings=4_096)
    )  # the 7B model's sizes
    if machine.quick:
        vision = CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=4,
            num_attention_heads=2,
            image_size=28,
            patch_size=14,
        )
        small: Any = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        text = LlamaConfig(vocab_size=128, **small)
        config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=99)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(machine.device):
            return LlavaForConditionalGeneration(config).eval()
    finally:
        torch.set_default_dtype(before)


def _asked(llava: Any, batch: int, machine: Machine) -> dict[str, Any]:
    vision = llava.config.vision_config
    image = getattr(llava.config, "image_token_id", None) or llava.config.image_token_index
    n_patches = (vision.image_size // vision.patch_size) ** 2
    ids = torch.cat([torch.tensor([1]), torch.full((n_patches,), image), torch.arange(3, 23)]).expand(batch, -1)
    pixels = torch.randn(batch, 3, vision.image_size, vision.image_size, dtype=torch.bfloat16)
    found = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}
    return {name: value.to(machine.device).contiguous() for name, value in found.items()}


def _corpus(folder: Path, n: int) -> Path:
    from benchmarks.extraction import _write_memes
    from sae_lens_meme.corpus import build_corpus

    _write_memes(folder / "memes", n)
    build_corpus(folder / "corpus", folder=folder / "memes", holdout=0, progress=False)
    return folder / "corpus"


_LOADED: dict[str, Any] = {}


def _encoder(machine: Machine, dtype: torch.dtype, batch: int) -> Any:
    """One model for all parts: it takes seconds to make."""
    from sae_lens_meme.embed.encoder import Encoder, _workers
    from sae_lens_meme.embed.options import EmbedOptions
    from sae_lens_meme.hooks import HookedMemeCLIP

    name = "demo-encoder" if machine.quick else "ViT-L-14/random"
    if name not in _LOADED:
        _LOADED[name] = HookedMemeCLIP.from_pretrained(name, device=machine.device)
    dtype, workers = torch.float32 if machine.quick else dtype, _workers(EmbedOptions(), machine.device)
    return Encoder(_LOADED[name], machine.device, dtype, batch, workers)


@torch.inference_mode()
def _bare(encoder: Any, pixels: torch.Tensor, tokens: torch.Tensor) -> None:
    half = encoder.dtype != torch.float32
    with torch.autocast(encoder.device, encoder.dtype, enabled=half):
        encoder.model.towers.model.encode_image(pixels)
        encoder.model.towers.model.encode_text(tokens)


def _ms(machine: Machine, function: Callable[[], Any]) -> float:
    return round(1e3 * machine.seconds(function), 3)


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


PARTS = {part.__name__: part for part in (training, embedding, attribution, token_rows, steering)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="one part; may be repeated")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny models: that it runs, not how fast")
    arguments = parser.parse_args()
    if arguments.device != "cpu" and not torch.cuda.is_available():
        sys.exit("benchmarks.gpu: there is no CUDA here; run it where there is")
    machine = Machine(arguments.device, arguments.quick)
    name = torch.cuda.get_device_name() if machine.device != "cpu" else "cpu"
    print(json.dumps({"device": name, "torch": torch.__version__, "cores": os.cpu_count()}), flush=True)
    for part in arguments.only or PARTS:
        start = time.perf_counter()
        try:
            for found in PARTS[part](machine):
                print(json.dumps({"part": part, **found}), flush=True)
        except Exception as error:
            print(json.dumps({"part": part, "error": _line(error)}), flush=True)
        print(json.dumps({"part": part, "took_s": round(time.perf_counter() - start, 1)}), flush=True)
        machine.free()


if __name__ == "__main__":
    main()
