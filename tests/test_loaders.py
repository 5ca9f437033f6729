"""Every loader, whatever bytes it is given, returns data or raises one of our errors; nothing in a file runs."""

from __future__ import annotations

import copy
import functools
import io
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
import yaml
from arrays import make_embeddings
from foreign_saes import patchsae, saelens_v, saev, vit_prisma
from hooks_models import write_encoder
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from tiny_sae import tiny_sae

from sae_lens_meme.config import read_concepts, read_yaml
from sae_lens_meme.corpus import build_corpus, load_corpus
from sae_lens_meme.corpus.tables import read_table
from sae_lens_meme.embed import embed_arrays
from sae_lens_meme.embed.arrays import read_array
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import MemeError
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.opened import load_sae
from sae_lens_meme.evaluators.user_study import UserStudy, read_scores
from sae_lens_meme.hooks import MemeCLIPHeads, load_local_towers, read_memeclip_checkpoint, save_memeclip_heads
from sae_lens_meme.hooks.checkpoint import MemeCLIPCheckpoint
from sae_lens_meme.images import open_image
from sae_lens_meme.importers import dictionary_learning_loader, import_sae, intervlm_loader
from sae_lens_meme.planted import read_answer_key
from sae_lens_meme.storage import StepFolder, read_finished
from sae_lens_meme.train.checkpoint import Checkpoints

ARROW = "data-00000-of-00001.arrow"
X = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
ROWS = [{"id": str(i), "text": 'a, "b"\nc', "hate": i % 2} for i in range(3)]


class Loader(NamedTuple):
    """`write` makes a good folder, `file` is the one of its files that is damaged, `load` reads it."""

    write: Callable[[Path], object]
    file: str
    load: Callable[[Path], Any]


def tensors(folder: Path) -> None:
    torch.save({"x": torch.from_numpy(X), "y": 3}, folder / "x.pt")
    save_file({"x": torch.from_numpy(X)}, folder / "x.safetensors")
    np.save(folder / "x.npy", X)


def dataset(folder: Path) -> None:
    make_embeddings({"hook_fused": X}).dataset.save_to_disk(folder / "d")


def embeddings(folder: Path) -> None:
    np.save(folder / "x.npy", X)
    (folder / "rows.csv").write_text("id,hate\n" + "".join(f"{i},{i % 2}\n" for i in range(len(X))))
    embed_arrays(folder / "e", fused_embeds=folder / "x.npy", table=folder / "rows.csv")


def read_embeddings(folder: Path) -> Any:
    read = Embeddings.load(folder)
    return [read.take(hook, range(len(read))) for hook in read.hooks], read.ids, read.texts, read.splits


def corpus(folder: Path) -> None:
    (folder / "memes").mkdir()
    for i in range(3):
        PIL.Image.new("RGB", (4, 4), (i, 0, 0)).save(folder / "memes" / f"{i}.png")
    lines = [json.dumps({"file_name": f"{i}.png", "text": f"caption {i}"}) for i in range(3)]
    (folder / "memes" / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    build_corpus(folder / "c", folder=folder / "memes", holdout=0, progress=False)


def read_corpus(folder: Path) -> Any:
    return [part.select_columns(["id", "text"])[:] for part in load_corpus(folder).values()]


def picture(format: str) -> Callable[[Path], object]:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    return lambda folder: PIL.Image.fromarray(pixels).save(folder / f"x.{format}")


def checkpoints(folder: Path) -> None:
    torch.manual_seed(0)
    heads = MemeCLIPHeads(3, 4, 2, 4)
    torch.save({"state_dict": heads.state_dict()}, folder / "x.ckpt")
    save_memeclip_heads(MemeCLIPCheckpoint(heads, "hate", (0, 1)), folder / "x.safetensors")


def read_ckpt(path: Path) -> Any:
    path.with_suffix(".safetensors").unlink(missing_ok=True)  # or the conversion of an earlier file is read
    return read_memeclip_checkpoint(path)


def sae_of_saelens(folder: Path) -> None:
    tiny_sae(X, d_sae=8, k=2).save_model(folder)


def foreign_saes(folder: Path) -> None:
    linear = {"encoder": torch.nn.Linear(4, 8), "decoder": torch.nn.Linear(8, 4)}
    state = {f"{name}.{key}": value for name, layer in linear.items() for key, value in layer.state_dict().items()}
    torch.save({"model": state, "k": 2}, folder / "sae.pt")
    torch.save({"mean": torch.zeros(4), "std": torch.ones(4)}, folder / "norm_stats.pt")
    for name, k in (("with_k", {"k": torch.tensor(2)}), ("dictionary", {})):
        (folder / name).mkdir()
        torch.save({**state, "b_dec": torch.zeros(4), **k}, folder / name / "ae.pt")
    (folder / "dictionary" / "config.json").write_text(json.dumps({"trainer": {"k": 2}}))


def latents(folder: Path) -> None:
    Latents(np.zeros((3, 2), np.int32), np.ones((3, 2), np.float32), 5).save(folder / "x.safetensors")


def tables(folder: Path) -> None:
    (folder / "x.csv").write_text('id,text,hate\n1,"a, ""b""\nc",0\n2,,1\n')
    (folder / "x.tsv").write_text("id\ttext\n1\ta\n2\t\n")
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), folder / "x.parquet", compression="none")


def recipes(folder: Path) -> None:
    (folder / "x.yaml").write_text(yaml.safe_dump({"out": "o", "train": {"sae": {"k": 3}, "epochs": [1, 2.5, None]}}))
    (folder / "c.yaml").write_text("concepts:\n  mocking: humor>=2\n  hateful: hate=1\n")


def step(folder: Path) -> None:
    with StepFolder(folder, "embed", {"model": "m", "d": [1, 2]}) as made:
        made.write("x.bin", lambda path: path.write_bytes(b"x"))
        made.finish(n=1)


def checkpoint_of_training(folder: Path) -> None:
    (folder / "1").mkdir()
    (folder / "1" / "hashes.json").write_text(json.dumps({"session.json": "0" * 64}))
    (folder / "1" / "session.json").write_text("{}")


def answer_key(folder: Path) -> None:
    rows = [{"id": str(i), "dog": bool(i % 2), "true_target": i} for i in range(3)]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), folder / "factors.parquet", compression="none")
    (folder / "causes.json").write_text(json.dumps({"factors": {"dog": "visual"}, "labels": {}}))


def model(folder: Path) -> None:
    write_encoder(folder / "m")


def imported(format: str, path: Path, **options: Any) -> Any:
    """As the command reads it."""
    with TemporaryDirectory() as made:
        return import_sae(path, Path(made) / "out", converter=format, **options)


def prisma(folder: Path) -> None:
    vit_prisma(folder, "topk", "layer_norm", beside=True)


def user_study(folder: Path) -> None:
    (folder / "pairs.csv").write_text("k_x,k_y,R_user,MS_x_a,MS_y_a\n1,2,1,.5,.25\n2,3,y,.25,.75\n")
    (folder / "activations.csv").write_text("k,a_1,a_2\n1,0,2\n2,1,0.5\n3,1e3,0\n")
    (folder / "top16_images.csv").write_text("k,x_1,x_2\n1,a.jpg,b.jpg\n")
    (folder / "scores.csv").write_text("k,score\n1,0.5\n2,\n")


def read_study(path: Path) -> Any:
    study = UserStudy.read(path.parent)
    return study.neurons, dict(study.activations())


def open_clip_model(folder: Path) -> None:
    from test_hooks_untrusted import write_folder

    write_folder(folder / "m")


LOADERS = {
    "npy": Loader(tensors, "x.npy", read_array),
    "pt": Loader(tensors, "x.pt", read_array),
    "safetensors": Loader(tensors, "x.safetensors", read_array),
    **{
        f"dataset, {file}": Loader(dataset, f"d/{file}", lambda path: read_array(f"{path.parent}:hook_fused"))
        for file in ("state.json", "dataset_info.json", ARROW)
    },
    **{
        f"embeddings, {file}": Loader(embeddings, f"e/{file}", lambda path: read_embeddings(path.parent))
        for file in ("state.json", "dataset_info.json", ARROW)
    },
    **{
        f"corpus, {file}": Loader(corpus, f"c/{file}", lambda path: read_corpus(path.parents[1]))
        for file in ("train/state.json", "train/dataset_info.json", f"train/{ARROW}")
    },
    "corpus, splits": Loader(corpus, "c/dataset_dict.json", lambda path: read_corpus(path.parent)),
    **{
        f"picture {format}": Loader(picture(format), f"x.{format}", lambda path: open_image(path).load())
        for format in ("png", "jpeg", "gif", "webp", "bmp")
    },
    "checkpoint": Loader(checkpoints, "x.ckpt", read_ckpt),
    "converted checkpoint": Loader(checkpoints, "x.safetensors", read_memeclip_checkpoint),
    "SAE configuration": Loader(sae_of_saelens, "cfg.json", lambda path: load_sae(path.parent, "hook_fused")),
    "SAE weights": Loader(sae_of_saelens, "sae_weights.safetensors", lambda path: load_sae(path.parent, "hook_fused")),
    "InterVLM's SAE": Loader(foreign_saes, "sae.pt", intervlm_loader),
    "InterVLM's statistics": Loader(
        foreign_saes, "norm_stats.pt", lambda path: intervlm_loader(path.with_name("sae.pt"))
    ),
    "dictionary": Loader(foreign_saes, "with_k/ae.pt", dictionary_learning_loader),
    "dictionary's configuration": Loader(
        foreign_saes, "dictionary/config.json", lambda path: dictionary_learning_loader(path.parent)
    ),
    "saev's SAE": Loader(lambda folder: saev(folder, 5, "BatchTopK"), "sae.pt", lambda path: imported("saev", path)),
    "PatchSAE's SAE": Loader(patchsae, "clip_imagenet.pt", lambda path: imported("patchsae", path)),
    "Prisma's SAE": Loader(prisma, "weights.pt", lambda path: imported("vit-prisma", path)),
    "Prisma's configuration": Loader(prisma, "config.json", lambda path: imported("vit-prisma", path.parent)),
    **{
        f"SAELens-V's {file}": Loader(
            lambda folder: saelens_v(folder, "final"),
            f"final_122880000/{file}",
            lambda path: imported("saelens-v", path.parent, norm_scaling_factor=2.0),
        )
        for file in ("cfg.json", "sae_weights.safetensors")
    },
    **{
        f"user study's {file}": Loader(user_study, file, read_study)
        for file in ("pairs.csv", "activations.csv", "top16_images.csv")
    },
    "scores of neurons": Loader(user_study, "scores.csv", read_scores),
    "latents": Loader(latents, "x.safetensors", Latents.load),
    **{f"table {kind}": Loader(tables, f"x.{kind}", read_table) for kind in ("csv", "tsv", "jsonl", "parquet")},
    "recipe": Loader(recipes, "x.yaml", read_yaml),
    "concepts": Loader(recipes, "c.yaml", read_concepts),
    "manifest": Loader(step, "manifest.json", lambda path: read_finished(path.parent, "embed")),
    "manifest of a step": Loader(step, "manifest.json", lambda path: _enter(path.parent)),
    "training checkpoint": Loader(
        checkpoint_of_training, "1/hashes.json", lambda path: Checkpoints(path.parents[1]).newest()
    ),
    "answer key": Loader(answer_key, "factors.parquet", lambda path: read_answer_key(path.parent)),
    "causes": Loader(answer_key, "causes.json", lambda path: read_answer_key(path.parent)),
    "encoder's configuration": Loader(model, "m/config.json", lambda path: load_local_towers(path.parent)),
    "encoder's words": Loader(model, "m/merges.txt.gz", lambda path: load_local_towers(path.parent)),
    "encoder's weights": Loader(model, "m/weights.safetensors", lambda path: load_local_towers(path.parent)),
    "open_clip's configuration": Loader(
        open_clip_model, "m/open_clip_config.json", lambda path: load_local_towers(path.parent)
    ),
}


def _enter(folder: Path) -> None:
    with StepFolder(folder, "embed", {"model": "m", "d": [1, 2]}) as entered:
        assert entered.complete in (True, False)


def damaged(good: bytes) -> st.SearchStrategy[bytes]:
    """The good bytes with some written over, cut off or put in; or any bytes at all."""
    places, edits = st.integers(0, len(good)), st.binary(min_size=1, max_size=8)

    def apply(changes: list[tuple[int, bytes, str]]) -> bytes:
        data = bytearray(good)
        for place, edit, kind in changes:
            end = {"over": place + len(edit), "in": place, "cut": place + 64, "end": len(data)}[kind]
            data[place:end] = b"" if kind in ("cut", "end") else edit
        return bytes(data)

    kinds = st.sampled_from(["over", "over", "in", "cut", "end"])
    changed = st.lists(st.tuples(places, edits, kinds), max_size=4).map(apply)
    return st.one_of(changed, changed_values(good), st.binary(max_size=400))


PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2), st.integers(), st.floats(), st.text(max_size=5), st.just("../x")
)
VALUES = st.recursive(
    PLAIN, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3))
)


def changed_values(good: bytes) -> st.SearchStrategy[bytes]:
    """The same JSON or YAML with one value replaced or left out; nothing where it is neither."""
    try:
        content = yaml.safe_load(good)
    except (yaml.YAMLError, UnicodeDecodeError):
        return st.nothing()
    places = list(_places(content))

    def replace(place: tuple[Any, ...], value: Any, leave_out: bool) -> bytes:
        changed = copy.deepcopy(content)
        holder = functools.reduce(lambda inside, key: inside[key], place[:-1], changed)
        holder[place[-1]] = value
        if leave_out:
            del holder[place[-1]]
        return json.dumps(changed).encode()

    return st.builds(replace, st.sampled_from(places), VALUES, st.booleans()) if places else st.nothing()


def _places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*before, key)
        yield from _places(inner, (*before, key))


def load_or_refuse(loader: Loader, path: Path) -> None:
    message = "one line"
    try:
        loader.load(path)
    except MemeError as error:
        message = str(error)
    assert len(message.splitlines()) == 1, message


def check(name: str, tmp_path: Path, n_examples: int, part: int = 0) -> None:
    loader = LOADERS[name]
    loader.write(tmp_path)
    path = tmp_path / loader.file
    good = path.read_bytes()
    loader.load(path)

    @seed(part)
    @settings(max_examples=n_examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(damaged(good))
    def returns_or_refuses(content: bytes) -> None:
        path.unlink()  # what was mapped before is not to change under its reader
        path.write_bytes(content)
        load_or_refuse(loader, path)

    returns_or_refuses()


@pytest.mark.parametrize("name", LOADERS)
def test_any_bytes_give_data_or_our_error(name: str, tmp_path: Path):
    check(name, tmp_path, 50)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(1, 11), ids=lambda part: f"part-{part}")
@pytest.mark.parametrize("name", LOADERS)
def test_ten_thousand_files_give_data_or_our_error(name: str, part: int, tmp_path: Path):
    """In parts of a thousand, each of a seed of its own: who was stopped goes on with -k 'part-7 or part-8'."""
    check(name, tmp_path, 1_000, part)


class Touch:
    """A pickle that makes a file where it is opened in full."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def malicious(ran: Path) -> dict[str, bytes]:
    """Files that run code where a reader lets them."""
    zipped, array, tagged = io.BytesIO(), io.BytesIO(), f"!!python/object/apply:os.mkdir [{ran}]\n"
    torch.save({"state_dict": Touch(ran), "x": Touch(ran)}, zipped)
    np.save(array, np.array([Touch(ran)], dtype=object), allow_pickle=True)
    code = {"auto_map": {"AutoModel": "evil.Evil"}, "trust_remote_code": True, "schema": 1, "k": 2}
    return {
        "pickle": pickle.dumps(Touch(ran)),
        "torch": zipped.getvalue(),
        "numpy": array.getvalue(),
        "yaml": tagged.encode(),
        "json": json.dumps(code).encode(),
    }


@pytest.mark.parametrize("name", LOADERS)
def test_nothing_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    loader = LOADERS[name]
    loader.write(tmp_path)
    (tmp_path / loader.file).with_name("evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: ...\n")
    for content in malicious(tmp_path / "ran").values():
        (tmp_path / loader.file).unlink()
        (tmp_path / loader.file).write_bytes(content)
        load_or_refuse(loader, tmp_path / loader.file)
        assert not (tmp_path / "ran").exists()


def test_the_malicious_files_do_run_where_they_are_let(tmp_path: Path):
    files = malicious(tmp_path / "ran")
    readers: dict[str, Callable[[bytes], Any]] = {
        "pickle": pickle.loads,
        "torch": lambda content: torch.load(io.BytesIO(content), weights_only=False),
        "numpy": lambda content: np.load(io.BytesIO(content), allow_pickle=True),
        "yaml": yaml.unsafe_load,
    }
    for kind, read in readers.items():
        read(files[kind])
        assert (tmp_path / "ran").exists(), kind
        (tmp_path / "ran").rename(tmp_path / kind)
