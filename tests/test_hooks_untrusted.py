"""Model folders of strangers: read as open_clip reads them, and nothing of them runs, whatever the environment says."""

from __future__ import annotations

import collections
import json
import sys
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from hooks_models import CONFIG, TEXTS, pictures
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from sae_lens_meme.errors import ModelError
from sae_lens_meme.hooks import load_local_towers, load_towers, untrusted

CODE = "import pathlib\npathlib.Path({!r}).touch()\nclass Evil: pass\n"


def write_folder(folder: Path, weights: str = "open_clip_model.safetensors", **text_cfg: Any) -> Path:
    """A model as `open_clip.push_to_hf_hub` writes one, with code beside it that leaves a file `ran`."""
    folder.mkdir()
    cfg = {"embed_dim": 12, "vision_cfg": CONFIG["vision_cfg"], "text_cfg": {**CONFIG["text_cfg"], "vocab_size": 49408}}
    torch.manual_seed(0)
    state = {key: value.contiguous() for key, value in open_clip.CLIP(**cfg).state_dict().items()}
    if weights.endswith("safetensors"):
        save_file(state, folder / weights)
    else:
        torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, folder / weights)
    cfg["text_cfg"] = cfg["text_cfg"] | text_cfg
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2], "resize_mode": "squash"}
    write(folder / "open_clip_config.json", {"model_cfg": cfg, "preprocess_cfg": preprocess})
    (folder / "evil.py").write_text(CODE.format(str(folder / "ran")))
    return folder


def write_tokenizer(folder: Path, **config: Any) -> None:
    tokenizer = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "cat": 2, "monday": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    tokenizer.save(str(folder / "tokenizer.json"))
    plain = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    write(folder / "tokenizer_config.json", plain | config)


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


@pytest.mark.parametrize("weights", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin", "model.pth"])
@torch.no_grad()
def test_a_folder_gives_what_open_clip_gives(tmp_path: Path, weights: str):
    folder = write_folder(tmp_path / "model", weights)
    towers = load_towers(f"local-dir:{folder}")
    theirs, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    theirs.eval()
    pixels, tokens = (
        torch.stack([preprocess(p) for p in pictures()]),
        open_clip.get_tokenizer(f"local-dir:{folder}")(  # type: ignore[operator]
            [text or "" for text in TEXTS]
        ),
    )
    assert torch.equal(torch.stack([towers.preprocess(p) for p in pictures()]), pixels)
    assert torch.equal(towers.tokenize(TEXTS), tokens)
    assert torch.equal(towers.model.encode_image(pixels), theirs.encode_image(pixels))
    assert torch.equal(towers.model.encode_text(tokens), theirs.encode_text(tokens))
    assert towers.name == "local-dir:model", "the name does not tell where on this machine the folder is"


def test_a_tokenizer_of_transformers_is_read_from_the_folder(tmp_path: Path):
    folder = write_folder(tmp_path / "model", hf_tokenizer_name="any", tokenizer_kwargs={"strip_sep_token": False})
    write_tokenizer(folder)
    assert load_local_towers(folder).tokenize(["monday cat"]).tolist() == [[3, 2] + [0] * 8]


def test_a_repository_of_the_hub_is_read_like_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = write_folder(tmp_path / "model")
    asked: list[Any] = []

    def download(repository: str, allow_patterns: list[str]) -> str:
        asked.append((repository, allow_patterns))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    weights = str(folder / "open_clip_model.safetensors")
    monkeypatch.setattr(open_clip.factory, "download_pretrained_from_hf", lambda repository: weights)
    towers = load_towers("hf-hub:someone/model")
    assert towers.weights_sha256 == load_local_towers(folder).weights_sha256
    assert asked == [("someone/model", ["*.json", "*.txt", "*.model"])]
    write(folder / "config.json", {"auto_map": {"AutoConfig": "evil.Evil"}})
    with pytest.raises(ModelError, match="auto_map"):
        load_towers("hf-hub:someone/model")


REFUSED: list[tuple[dict[str, Any], dict[str, dict[str, Any]], str]] = [
    (
        {"tokenizer_kwargs": {"trust_remote_code": True}},
        {},
        r"open_clip_config\.json: .*tokenizer_kwargs\.trust_remote",
    ),
    ({"tokenizer_kwargs": {"bpe_path": "/etc/passwd"}}, {}, r"tokenizer_kwargs\.bpe_path is '/etc/passwd'"),
    ({"tokenizer_kwargs": {"clean": ["lower"]}}, {}, r"tokenizer_kwargs\.clean is \['lower'\]"),
    ({}, {"config.json": {"auto_map": {"AutoConfig": "evil.Evil"}}}, r"config\.json: auto_map asks for code"),
    ({}, {"config.json": {"nested": [{"trust_remote_code": 1}]}}, r"config\.json: nested\.0\.trust_remote_code"),
    (
        {"hf_tokenizer_name": "x"},
        {"tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}},
        r"tokenizer_config\.json: auto_map",
    ),
    (
        {"hf_tokenizer_name": "x"},
        {"tokenizer_config.json": {"tokenizer_class": "Evil"}},
        r"tokenizer_config\.json: tokenizer_class is 'Evil'",
    ),
    (
        {"hf_tokenizer_name": "x"},
        {"tokenizer_config.json": {"tokenizer_class": "AutoModel"}},
        r"tokenizer_class is 'AutoModel', which is not a tokenizer",
    ),
    ({"hf_model_name": "../model"}, {}, r"text_cfg\.hf_model_name is '\.\./model'"),
    ({"hf_model_name": "."}, {}, r"text_cfg\.hf_model_name is '\.'"),
]


@pytest.mark.parametrize(("text_cfg", "files", "message"), REFUSED)
def test_a_folder_that_asks_for_code_is_refused(
    tmp_path: Path, text_cfg: dict, files: dict, message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # transformers would ask whether to run it
    folder = write_folder(tmp_path / "model", **text_cfg)
    write_tokenizer(folder)
    for name, content in files.items():
        write(folder / name, content)
    before = set(sys.modules)
    with pytest.raises(ModelError, match=message) as caught:
        load_towers(f"local-dir:{folder}")
    assert "\n" not in str(caught.value)
    assert not (folder / "ran").exists()
    assert not any("evil" in name for name in set(sys.modules) - before)


def test_the_tower_of_another_folder_is_refused(tmp_path: Path):
    folder = write_folder(tmp_path / "model")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"] = {"timm_model_name": f"local-dir:{folder}", "image_size": 32}
    write(folder / "open_clip_config.json", config)
    with pytest.raises(ModelError, match=r"vision_cfg\.timm_model_name is 'local-dir:"):
        load_towers(f"local-dir:{folder}")


def test_a_text_tower_of_the_hub_is_looked_at_before_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hub = tmp_path / "hub"
    hub.mkdir()
    write(hub / "config.json", {"model_type": "bert", "auto_map": {"AutoModel": "evil.Evil"}})
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(hub))
    folder = write_folder(tmp_path / "model", hf_model_name="someone/text")
    with pytest.raises(ModelError, match=r"hub/config\.json: auto_map asks for code"):
        load_towers(f"local-dir:{folder}")


class RaisesTypeError:
    """What only the restricted unpickler cannot make: open_clip then opens the file without restriction."""

    def __reduce__(self):
        return collections.OrderedDict, (), (None, {})


class Touch:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "x.pth", "x.pt", "open_clip_model.safetensors"])
def test_a_pickle_of_weights_does_not_run(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    folder = write_folder(tmp_path / "model")
    (folder / "open_clip_model.safetensors").unlink()
    torch.save([RaisesTypeError(), Touch(folder / "ran")], folder / name)
    with pytest.raises(ModelError, match=r"cannot be (read as tensors only|loaded)"):
        load_towers(f"local-dir:{folder}")
    assert not (folder / "ran").exists()


def test_a_download_by_name_does_not_run_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save([RaisesTypeError(), Touch(tmp_path / "ran")], tmp_path / "w.pt")
    small = {key: CONFIG[key] for key in ("embed_dim", "vision_cfg", "text_cfg")}
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {"tiny": small})
    monkeypatch.setattr(open_clip.pretrained, "_PRETRAINED", {"tiny": {"some": {"file": str(tmp_path / "w.pt")}}})
    with pytest.raises(ModelError, match=r"w\.pt: cannot be read as tensors only"):
        load_towers("tiny/some")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "holds a list"),
        ("{", "cannot be read as JSON"),
        ("[" * 10**5, "cannot be read as JSON"),
        ("{}", "no model_cfg"),
    ],
)
def test_a_damaged_configuration_is_one_line(tmp_path: Path, content: str, message: str):
    folder = write_folder(tmp_path / "model")
    (folder / "open_clip_config.json").write_text(content)
    with pytest.raises(ModelError, match=message):
        load_towers(f"local-dir:{folder}")


def test_a_folder_that_is_not_there_or_without_weights_is_named(tmp_path: Path):
    with pytest.raises(ModelError, match="nowhere: no such folder"):
        load_towers(f"local-dir:{tmp_path}/nowhere")
    folder = write_folder(tmp_path / "model")
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(ModelError, match="has no weights"):
        load_towers(f"local-dir:{folder}")


def test_weights_of_open_clip_come_before_those_of_another_library(tmp_path: Path):
    for name in ("model.safetensors", "open_clip_pytorch_model.bin"):
        (tmp_path / name).touch()
    assert untrusted.find_weights(tmp_path).name == "open_clip_pytorch_model.bin"
