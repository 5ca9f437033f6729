"""Files of SAEs as other projects write them, with generated weights, beside the forward pass of the class that wrote them."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

D_IN, D_SAE, K = 24, 60, 6
Forward = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Latents and reconstruction of a batch, in plain torch, as the original class computes them."""


class Foreign(NamedTuple):
    path: Path
    forward: Forward
    format: str
    architecture: str
    options: dict[str, Any]
    hook: str | None


def weights(seed: int = 0) -> dict[str, Tensor]:
    """Decoder rows of other norms than 1, and biases that matter."""
    g = torch.Generator().manual_seed(seed)
    rows = torch.randn(D_SAE, D_IN, generator=g) * (0.5 + torch.rand(D_SAE, 1, generator=g))
    return {
        "W_enc": torch.randn(D_IN, D_SAE, generator=g) / D_IN**0.5,
        "b_enc": torch.randn(D_SAE, generator=g) / 5,
        "W_dec": rows / D_IN**0.5,
        "b_dec": torch.randn(D_IN, generator=g) / 3,
    }


def topk(hidden: Tensor, k: int = K) -> Tensor:
    kept = hidden.topk(k, dim=-1)
    return torch.zeros_like(hidden).scatter(-1, kept.indices, kept.values)


def _linear(w: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        "encoder.weight": w["W_enc"].T.contiguous(),
        "encoder.bias": w["b_enc"],
        "decoder.weight": w["W_dec"].T.contiguous(),
    }


def dictionary_learning(folder: Path, kind: str) -> Foreign:
    """One of the seven classes, with its config one folder up, in a folder named as sae-for-vlm names it."""
    w = weights()
    state, k, threshold = _linear(w), torch.tensor(K), torch.tensor(0.4)

    def encoded(x: Tensor, minus: Tensor | float) -> Tensor:
        return (x - minus) @ w["W_enc"] + w["b_enc"]

    def decoded(z: Tensor) -> tuple[Tensor, Tensor]:
        return z, z @ w["W_dec"] + w["b_dec"]

    architecture = "standard"
    if kind == "AutoEncoder":
        state["bias"] = w["b_dec"]

        def forward(x: Tensor) -> tuple[Tensor, Tensor]:
            z, out = decoded(encoded(x, w["b_dec"]).relu())
            return z * w["W_dec"].norm(dim=1), out  # from_pretrained moves the norms of the decoder into the encoder

    elif kind == "AutoEncoderNew":
        state["decoder.bias"] = w["b_dec"]

        def forward(x: Tensor) -> tuple[Tensor, Tensor]:
            return decoded(encoded(x, 0).relu())

    elif kind == "GatedAutoEncoder":
        architecture = "gated"
        g = torch.Generator().manual_seed(3)
        gate, mag, r_mag = (torch.randn(D_SAE, generator=g) / 3 for _ in range(3))
        del state["encoder.bias"]
        state |= {"decoder_bias": w["b_dec"], "r_mag": r_mag, "gate_bias": gate, "mag_bias": mag}

        def forward(x: Tensor) -> tuple[Tensor, Tensor]:
            pre = (x - w["b_dec"]) @ w["W_enc"]
            return decoded((pre + gate > 0) * (r_mag.exp() * pre + mag).relu())

    elif kind == "JumpReluAutoEncoder":
        architecture = "jumprelu"
        thresholds = torch.linspace(-0.5, 1.0, D_SAE)
        state = {**w, "threshold": thresholds}

        def forward(x: Tensor) -> tuple[Tensor, Tensor]:
            pre = encoded(x, 0)
            return decoded((pre * (pre > thresholds)).relu())

    elif kind == "AutoEncoderTopK":
        architecture = "topk"
        state |= {"b_dec": w["b_dec"], "k": k, "threshold": threshold}

        def forward(x: Tensor) -> tuple[Tensor, Tensor]:
            return decoded(topk(encoded(x, w["b_dec"]).relu()))

    else:
        architecture, threshold = "jumprelu", torch.tensor(-1.0 if kind == "never set" else 0.4)
        if kind == "MatroyshkaBatchTopKSAE":
            state = {**w, "group_sizes": torch.tensor([10, 20, 30])}
        state |= {"b_dec": w["b_dec"], "k": k, "threshold": threshold}
        kind = "BatchTopKSAE" if kind == "never set" else kind

        def forward(x: Tensor) -> tuple[Tensor, Tensor]:
            z = encoded(x, w["b_dec"]).relu()
            return decoded(z * (z > threshold))

    run = folder / "imagenet_clip_22_post_mlp_residual_matroyshka_20_x64" / "trainer_0"
    path = run / "checkpoints" / "ae_100000.pt"
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    (run / "config.json").write_text(json.dumps({"trainer": {"dict_class": kind, "k": K}, "buffer": {}}))
    return Foreign(path, forward, "dictionary_learning", architecture, {}, "hook_image_resid.22")


def saelens_v(folder: Path, state: str, *, unit: bool = False, gated: bool = False) -> Foreign:
    """What SAELens-V's trainer, on activations times s, leaves on disk before and after its fold."""
    w, s = weights(), 1.7
    if unit:
        w["W_dec"] /= w["W_dec"].norm(dim=1, keepdim=True)
    g = torch.Generator().manual_seed(3)
    more = {name: torch.randn(D_SAE, generator=g) / 3 for name in ("b_gate", "b_mag", "r_mag")} if gated else {}

    def trained(x: Tensor) -> tuple[Tensor, Tensor]:
        if gated:
            pre = x @ w["W_enc"]
            z = (pre + more["b_gate"] > 0) * (more["r_mag"].exp() * pre + more["b_mag"]).relu()
        else:
            z = (x @ w["W_enc"] + w["b_enc"]).relu()
        return z, z @ w["W_dec"] + w["b_dec"]

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        if state == "as_is":
            return trained(x)
        z, out = trained(x * s)
        return z, out / s

    saved = {**w, **more}
    if gated:
        del saved["b_enc"]
    if state == "final":
        saved |= {"W_enc": w["W_enc"] * s, "W_dec": w["W_dec"] if unit else w["W_dec"] / s}
    path = folder / {"final": "final_122880000", "checkpoint": "40960000", "as_is": "downloaded"}[state]
    path.mkdir()
    save_file({name: value.contiguous() for name, value in saved.items()}, path / "sae_weights.safetensors")
    cfg = {
        "model_name": "llava-hf/llava-v1.6-mistral-7b-hf",
        "model_class_name": "HookedLlava",
        "hook_name": "blocks.16.hook_resid_post",
        "hook_layer": 16,
        "architecture": "gated" if gated else "standard",
        "d_in": D_IN,
        "d_sae": D_SAE,
        "activation_fn": "relu",
        "apply_b_dec_to_input": False,
        "normalize_sae_decoder": unit,
        "normalize_activations": "expected_average_only_in",  # whether it was folded or not
        "dtype": "torch.float32",
        "device": "cuda:7",
        "sae_lens_version": "3.20.0",
        "model_from_pretrained_kwargs": {"n_devices": 7},
    }
    (path / "cfg.json").write_text(json.dumps(cfg))
    options = {"state": "as_is"} if state == "as_is" else {"norm_scaling_factor": s}
    architecture = "gated" if gated else "standard"
    return Foreign(path, forward, "saelens-v", architecture, options, "hook_decoder_resid.16")


def vit_gpt2(folder: Path) -> Foreign:
    """The config of gpt2-small-res-jb, from which it began."""
    w = weights()
    save_file(w, folder / "sae_weights.safetensors")
    cfg = {
        "model_name": "gpt2-small",
        "hook_point": "blocks.9.hook_resid_pre",
        "hook_point_layer": 9,
        "d_in": D_IN,
        "d_sae": D_SAE,
        "dtype": "torch.float32",
        "device": "mps",
        "model_from_pretrained_kwargs": {"center_writing_weights": True},
    }
    (folder / "cfg.json").write_text(json.dumps(cfg))
    return Foreign(folder, _standard(w, True), "vit-gpt2", "standard", {}, "hook_decoder_resid.8")


def saev(folder: Path, schema: int | None, kind: str = "Relu", b_dec_at_input: bool | None = None) -> Foreign:
    """A header of that schema; None and 1 subtract b_dec, 3 and later do not."""
    w = weights()
    subtracts = b_dec_at_input if b_dec_at_input is not None else schema in (None, 1)
    state = {**w, **({"activation.threshold": torch.tensor(0.4)} if kind == "BatchTopK" else {})}
    architecture = {"Relu": "standard", "TopK": "topk", "BatchTopK": "jumprelu"}[kind]
    params = {"key": kind, **({} if kind == "Relu" else {"top_k": K})}
    header: dict[str, Any] = {"d_vit": D_IN, "exp_factor": 2, "seed": 42, "ghost_grads": False}
    if schema == 1:
        cfg = {"d_vit": D_IN, "exp_factor": 2, **({"top_k": K} if kind == "TopK" else {})}
        header = {"schema": 1, "cfg": cfg, "cls": kind, "commit": "unknown", "lib": "0.1.0"}
    elif schema is not None:
        cfg = {"d_model": D_IN, "d_sae": D_SAE, "activation": {"cls": kind, "params": params}}
        header = {"schema": schema, "cfg": cfg, "commit": "unknown", "lib": "0.1.0"}

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        pre = (x - w["b_dec"] if subtracts else x) @ w["W_enc"] + w["b_enc"]
        if kind == "Relu":
            z = pre.relu()
        elif kind == "TopK":
            z = topk(pre)
        else:
            z = torch.where(pre > 0.4, pre, 0)
        return z, z @ w["W_dec"] + w["b_dec"]

    with open(folder / "sae.pt", "wb") as file:
        file.write(json.dumps(header).encode() + b"\n")
        torch.save(state, file)
    options = {} if b_dec_at_input is None else {"b_dec_at_input": b_dec_at_input}
    return Foreign(folder, forward, "saev", architecture, options, None)


def patchsae(folder: Path, layer: int = -2) -> Foreign:
    w = weights()
    with module_with("src.sae_training.config", "ViTSAERunnerConfig") as config_class:
        cfg = config_class()
        cfg.__dict__ |= {"block_layer": layer, "module_name": "resid", "model_name": "openai/clip-vit-base-patch16"}
        cfg.__dict__ |= {"dtype": torch.float32, "device": torch.device("cpu"), "gated_sae": False, "d_in": D_IN}
        torch.save({"cfg": cfg, "state_dict": w}, folder / "clip_imagenet.pt")
    hook = f"hook_image_resid.{layer % 12}"
    return Foreign(folder, _standard(w, True), "patchsae", "standard", {}, hook)


def vit_prisma(folder: Path, activation: str, normalised: str, *, gated: bool = False, beside: bool = False) -> Foreign:
    """Its config in the pickle, or beside it as JSON."""
    w = weights()
    g = torch.Generator().manual_seed(3)
    more = {name: torch.randn(D_SAE, generator=g) / 3 for name in ("b_gate", "b_mag", "r_mag")} if gated else {}
    given = {
        "hook_point_layer": 9,
        "layer_subtype": "hook_resid_post",
        "architecture": "gated" if gated else "standard",
        "activation_fn_str": activation,
        "activation_fn_kwargs": {"k": K} if activation == "topk" else {},
        "normalize_activations": normalised,
        "model_name": "open-clip:laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K",
        "is_transcoder": False,
        "_dtype": "float32",
    }

    def inside(x: Tensor) -> tuple[Tensor, Tensor]:
        pre = (x - w["b_dec"]) @ w["W_enc"]
        if gated:
            z = (pre + more["b_gate"] > 0) * (pre * more["r_mag"].exp() + more["b_mag"]).relu()
        else:
            z = topk(pre + w["b_enc"]).relu() if activation == "topk" else (pre + w["b_enc"]).relu()
        return z, z @ w["W_dec"] + w["b_dec"]

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        if normalised != "layer_norm":
            return inside(x)
        mean = x.mean(-1, keepdim=True)
        std = (x - mean).std(-1, keepdim=True)
        z, out = inside((x - mean) / (std + 1e-5))
        return z, out * std + mean

    state = {**w, **more}
    if beside:
        torch.save(state, folder / "weights.pt")
        (folder / "config.json").write_text(json.dumps(given))
    else:
        with module_with("vit_prisma.sae.config", "VisionModelSAERunnerConfig") as config_class:
            cfg = config_class()
            cfg.__dict__ |= given
            torch.save({"cfg": cfg, "state_dict": state}, folder / "n_images_2600058.pt")
    architecture = "gated" if gated else "topk" if activation == "topk" else "standard"
    return Foreign(folder, forward, "vit-prisma", architecture, {}, "hook_image_resid.9")


def intervlm(folder: Path, name: str = "sae_model.pth") -> Foreign:
    """In the folder of its whole run, beside latents and embeddings."""
    w, mean, std = weights(), torch.linspace(-0.1, 0.1, D_IN), torch.linspace(0.5, 2, D_IN)
    torch.save({**_linear(w), "decoder.bias": w["b_dec"]}, folder / name)
    torch.save({"mean": mean[None], "std": std[None]}, folder / "norm_stats.pt")
    for other in ("train_latents.pt", "fused_embeddings.pt"):
        torch.save(torch.zeros(3), folder / other)

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        z = topk(((x - mean) / std) @ w["W_enc"] + w["b_enc"]).relu()
        return z, (z @ w["W_dec"] + w["b_dec"]) * std + mean

    return Foreign(folder, forward, "intervlm", "topk", {"k": K}, "hook_fused")


KINDS = (
    *("AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "JumpReluAutoEncoder", "AutoEncoderTopK", "BatchTopKSAE"),
    *("never set", "MatroyshkaBatchTopKSAE"),  # as sae-for-vlm spells it
)
ALL: dict[str, Callable[[Path], Foreign]] = {
    **{f"dictionary_learning {kind}": partial(dictionary_learning, kind=kind) for kind in KINDS},
    "saelens-v final": lambda f: saelens_v(f, "final"),
    "saelens-v final, unit decoder": lambda f: saelens_v(f, "final", unit=True),
    "saelens-v checkpoint": lambda f: saelens_v(f, "checkpoint"),
    "saelens-v checkpoint, gated": lambda f: saelens_v(f, "checkpoint", gated=True),
    "saelens-v as it is": lambda f: saelens_v(f, "as_is"),
    "vit-gpt2": vit_gpt2,
    "saev before schemas": lambda f: saev(f, None),
    "saev 1 TopK": lambda f: saev(f, 1, "TopK"),
    "saev 2, before": lambda f: saev(f, 2, b_dec_at_input=True),
    "saev 5 TopK": lambda f: saev(f, 5, "TopK"),
    "saev 5 BatchTopK": lambda f: saev(f, 5, "BatchTopK"),
    "patchsae": patchsae,
    "vit-prisma layer norm": lambda f: vit_prisma(f, "relu", "layer_norm"),
    "vit-prisma TopK": lambda f: vit_prisma(f, "topk", "none"),
    "vit-prisma gated, config beside it": lambda f: vit_prisma(f, "relu", "none", gated=True, beside=True),
    "intervlm": intervlm,
}


def _standard(w: dict[str, Tensor], subtracts: bool) -> Forward:
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        z = ((x - w["b_dec"] if subtracts else x) @ w["W_enc"] + w["b_enc"]).relu()
        return z, z @ w["W_dec"] + w["b_dec"]

    return forward


@contextmanager
def module_with(name: str, class_name: str) -> Iterator[type[Any]]:
    """A class that pickles under the name of another project's, which is not installed."""
    parts = name.split(".")
    names = [".".join(parts[: i + 1]) for i in range(len(parts))]
    for each in names:
        sys.modules[each] = types.ModuleType(each)
    made = type(class_name, (), {"__module__": name})
    setattr(sys.modules[name], class_name, made)
    try:
        yield made
    finally:
        for each in names:
            del sys.modules[each]
