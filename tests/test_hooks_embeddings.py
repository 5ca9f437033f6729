"""Cached embeddings through the model: real CLIP vectors, the linear head, and labels that are missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from arrays import make_embeddings
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError, MissingHookError, ModelError, NonFiniteError
from sae_lens_meme.hooks import HookedMemeCLIP

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parents[2] / "shared" / "data" / "clip_golden" / "data"


def labelled(n: int = 300, n_classes: int = 3, seed: int = 0) -> Embeddings:
    rng = np.random.default_rng(seed)
    image, text = rng.standard_normal((2, n, 8)).astype(np.float32)
    image[:, 7] = text[:, 7] = 0  # a constant dimension of the fused vectors
    score = 40 * (image * text)[:, :n_classes] + rng.standard_normal((n, n_classes))
    values: list[int | None] = [int(v) * 10 for v in score.argmax(1)]
    values[::7] = [None] * len(values[::7])
    labels = {"nothing": [None] * n, "constant": [1] * n, "humor": values}
    return make_embeddings({"hook_image_embed": image, "hook_text_embed": text}, labels=labels)


@pytest.mark.skipif(not GOLDEN.exists(), reason="shared/data/clip_golden is not beside this checkout")
@torch.no_grad()
def test_real_clip_vectors_give_the_published_similarities():
    image, text = np.load(GOLDEN / "image_features.npy"), np.load(GOLDEN / "text_features.npy")
    hooks = {"hook_image_embed": np.repeat(image, 3, axis=0), "hook_text_embed": text}
    model = HookedMemeCLIP.from_embeddings(make_embeddings(hooks))
    _, cache = model.run_with_cache(torch.arange(3)[:, None], names_filter="hook_fused")
    similarity = cache["hook_fused"].sum(-1)[:, 0]
    np.testing.assert_allclose(similarity, [0.25553, 0.20090, 0.19749], atol=5e-6)
    np.testing.assert_allclose((100 * similarity).softmax(0), [0.99279, 0.00421, 0.00300], atol=5e-6)


@pytest.mark.parametrize("n_classes", [2, 3])
@torch.no_grad()
def test_the_linear_head_is_the_logistic_regression(n_classes: int):
    embeddings = labelled(n_classes=n_classes)
    model = HookedMemeCLIP.from_embeddings(embeddings)
    assert model.task == "humor"  # the first label with two classes
    assert model.classes == [0, 10, 20][:n_classes]
    image, text = (embeddings.take(hook, np.arange(300)).astype(np.float64) for hook in embeddings.hooks)
    fused = image / np.linalg.norm(image, axis=1, keepdims=True) * text / np.linalg.norm(text, axis=1, keepdims=True)
    label, train = embeddings.label("humor"), embeddings.rows("train")
    rows = train[label.known[train]]
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(fused[rows], label.values[rows])
    logits = model(torch.arange(300)[:, None])
    np.testing.assert_allclose(logits[:, 0].softmax(-1), probe.predict_proba(fused), atol=2e-3)
    assert (logits[:, 0].argmax(-1).numpy() * 10 == probe.predict(fused)).mean() > 0.99


@torch.no_grad()
def test_losses_are_those_of_labelled_rows_and_a_missing_label_is_no_class():
    embeddings = labelled()
    model = HookedMemeCLIP.from_embeddings(embeddings, "humor")
    rows = torch.tensor(model.token_dataset("test")["input_ids"])
    known = embeddings.label("humor").known
    assert rows[:, 0].tolist() == [r for r in embeddings.rows("test") if known[r]]
    logits, losses = model(rows, return_type="both", loss_per_token=True)
    assert losses.shape == (len(rows), 1)
    for row, logit, loss in zip(rows[:, 0].tolist(), logits[:, 0].double().numpy(), losses[:, 0].tolist(), strict=True):
        truth = embeddings.label("humor").values[row] // 10
        assert loss == pytest.approx(np.log(np.exp(logit).sum()) - logit[truth], abs=1e-5)
    assert model(rows, return_type="loss").item() == pytest.approx(losses.mean().item())
    with pytest.raises(DataError, match="row 7: has no humor label"):
        model(torch.tensor([[8], [7]]), return_type="loss")
    everything = model.token_dataset(None, labelled=False)
    assert len(everything) == 300
    with pytest.raises(DataError, match="needs labels="):
        model({"hook_fused": torch.ones(1, 1, 8)}, return_type="loss")
    assert model({"hook_fused": torch.ones(1, 1, 8)}, return_type="loss", labels=torch.tensor([0])) > 0


def test_inputs_of_other_shapes_are_refused_and_not_broadcast():
    x = np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32)
    labels = {"hate": (x[:, 0] > 0).astype(int).tolist()}
    model: Any = HookedMemeCLIP.from_embeddings(
        make_embeddings({"hook_image_embed": x, "hook_text_embed": x[::-1].copy()}, labels=labels)
    )

    def sides(image: Any, text: Any) -> dict[str, Any]:
        return {"hook_image_embed": image, "hook_text_embed": text}

    whole = torch.ones(3, 1, 8)
    wrong: dict[str, Any] = {
        "the input is of type list": [[1], [2]],
        "the input is of type ndarray": np.arange(3)[:, None],
        "hook_text_embed is of type ndarray": sides(whole, whole.numpy()),
        r"shape \(3, 8\); give \(batch, 1, 8\)": sides(whole[:, 0], whole[:, 0]),
        r"hook_text_embed has shape \(3, 1, 1\)": sides(whole, whole[..., :1]),
        r"shape \(3, 1, 4\)": sides(whole[..., :4], whole[..., :4]),
        r"shape \(3, 2, 8\)": {"hook_fused": torch.ones(3, 2, 8)},
        r"here there are .*hook_text_embed': \(1,\)": sides(whole, whole[:1]),
        r"here there are \{\}": {},
    }
    for message, given in wrong.items():
        with pytest.raises(DataError, match=message):
            model(given)
    for target in (torch.tensor([-100, 0, 1]), torch.tensor([0, 1, 2]), torch.tensor([0, 1]), torch.ones(3)):
        for rows in (sides(whole, whole), torch.arange(3)[:, None]):
            with pytest.raises(DataError, match=r"labels= takes a whole number of 0 to 1.* for each of the 3 rows"):
                model(rows, return_type="loss", labels=target)
    assert model(sides(whole, whole), return_type="loss", labels=torch.tensor([[0], [1], [1]])) > 0


def test_a_class_that_train_lacks_has_no_loss():
    x = np.random.default_rng(0).random((8, 4), np.float32)
    splits = ["train"] * 6 + ["test"] * 2
    embeddings = make_embeddings({"hook_fused": x}, splits=splits, labels={"hate": [0, 1, 0, 1, 0, 1, 2, 1]})
    model = HookedMemeCLIP.from_embeddings(embeddings)
    assert model.token_dataset("test")["input_ids"] == [[7]]
    with pytest.raises(DataError, match=r"row 6: hate is .*2.*not one of the head's classes \[0, 1\]"):
        model(torch.tensor([[6]]), return_type="loss")
    with pytest.raises(DataError, match="split 'validation' has no labelled rows"):
        model.token_dataset("validation")


@torch.no_grad()
def test_fused_vectors_alone_have_no_hooks_before_them():
    x = np.random.default_rng(0).random((6, 4), np.float32)
    model = HookedMemeCLIP.from_embeddings(make_embeddings({"hook_fused": x}))
    _, cache = model.run_with_cache(torch.tensor([[5], [1]]))
    np.testing.assert_array_equal(cache["hook_fused"][:, 0], x[[5, 1]])
    assert list(cache) == ["hook_fused"]
    with pytest.raises(MissingHookError, match="'hook_image_embed' is not a hook"):
        model.run_with_cache(torch.tensor([[5]]), names_filter=["hook_image_embed"])


@pytest.mark.parametrize("hook", ["hook_image_embed", "hook_text_embed"])
@torch.no_grad()
def test_one_side_alone_is_the_model(hook: str):
    x = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)
    labels = {"hate": (x[:, 0] > 0).astype(int).tolist()}
    model = HookedMemeCLIP.from_embeddings(make_embeddings({hook: x}, labels=labels))
    logits, cache = model.run_with_cache(torch.arange(60)[:, None])
    assert list(cache) == [hook, "hook_logits"]
    np.testing.assert_array_equal(cache[hook][:, 0], x)
    assert (logits[:, 0].argmax(-1).numpy() == labels["hate"]).mean() > 0.9
    with pytest.raises(MissingHookError, match="'hook_fused' is not a hook"):
        model.run_with_cache(torch.arange(2)[:, None], names_filter="hook_fused")


@torch.no_grad()
def test_unprojected_text_without_heads_has_its_two_hooks_and_no_head():
    rng = np.random.default_rng(0)
    hooks = {"hook_image_embed": rng.random((6, 4)), "hook_text_embed": rng.random((6, 5))}
    made = make_embeddings(hooks, labels={"hate": [0, 1] * 3}, splits=["train"] * 6)
    embeddings = Embeddings.from_dataset(made.dataset, fusion="memeclip")
    _, cache = HookedMemeCLIP.from_embeddings(embeddings).run_with_cache(torch.tensor([[2]]))
    assert list(cache) == list(hooks)
    with pytest.raises(ModelError, match="nothing to fuse: un-projected text needs MemeCLIP's heads"):
        HookedMemeCLIP.from_embeddings(embeddings, "hate")


@torch.no_grad()
def test_memeclip_embeddings_without_heads_take_the_fused_vectors_as_they_are():
    rng = np.random.default_rng(0)
    hooks = {
        "hook_image_embed": rng.random((6, 4)),
        "hook_text_embed": rng.random((6, 5)),
        "hook_fused": rng.random((6, 7)),
    }
    embeddings = Embeddings.from_dataset(make_embeddings(hooks).dataset, fusion="memeclip")
    _, cache = HookedMemeCLIP.from_embeddings(embeddings).run_with_cache(torch.tensor([[2]]))
    assert list(cache) == list(hooks)
    for hook in hooks:
        np.testing.assert_array_equal(cache[hook][:, 0], embeddings.take(hook, [2]))


@pytest.mark.parametrize("width", [4, 7])
def test_fused_vectors_that_are_no_product_of_the_sides_are_read_as_they_are_stored(width: int):
    rng = np.random.default_rng(0)
    hooks = {"hook_image_embed": rng.random((6, 4)), "hook_text_embed": rng.random((6, 4))}
    embeddings = make_embeddings({**hooks, "hook_fused": rng.random((6, width))})
    _, cache = HookedMemeCLIP.from_embeddings(embeddings).run_with_cache(torch.tensor([[2]]))
    assert list(cache) == [*hooks, "hook_fused"]
    for hook in cache:
        np.testing.assert_array_equal(cache[hook][:, 0], embeddings.take(hook, [2]))


def test_embeddings_that_do_not_go_together_are_refused():
    x = np.ones((4, 3), np.float32)
    with pytest.raises(ModelError, match="width 3, text embeddings 2"):
        HookedMemeCLIP.from_embeddings(make_embeddings({"hook_image_embed": x, "hook_text_embed": x[:, :2]}))
    with pytest.raises(ModelError, match="have none of hook_image_embed"):
        HookedMemeCLIP.from_embeddings(make_embeddings({"hook_other": x}))
    # Under jaxtyping's run-time checks the annotation refuses it first.
    with pytest.raises((DataError, TypeError), match=r"Embeddings.from_dataset|Type-check error"):
        HookedMemeCLIP.from_embeddings(make_embeddings({"hook_fused": x}).dataset)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="'constant' has only the class 1 in split train"):
        HookedMemeCLIP.from_embeddings(labelled(), "constant")


@pytest.mark.parametrize(("weight", "bias", "classes"), [((1, 5), 1, 2), ((1, 4), 1, 3), ((2, 4), 1, 2), ((4,), 1, 2)])
def test_a_head_of_other_classes_or_another_width_is_refused(weight: tuple[int, ...], bias: int, classes: int):
    model = HookedMemeCLIP("clip", widths={"hook_fused": 4})
    # Under jaxtyping's run-time checks the annotation refuses a vector first.
    with pytest.raises(
        (ModelError, TypeError), match=r"a head of \d classes on 4 dimensions has weight|Type-check error"
    ):
        model.set_head(np.zeros(weight), np.zeros(bias), "hate", range(classes))


def test_importing_the_package_of_hooks_imports_no_torch():
    code = "import sys, sae_lens_meme.hooks; assert not {'torch', 'sae_lens', 'datasets'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_hooks_is_no_package_of_its_own():
    done = subprocess.run([sys.executable, "-c", "import hooks"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "sae_lens_meme.hooks" in done.stderr


def test_every_public_name_is_there():
    import sae_lens_meme.hooks as hooks

    assert all(getattr(hooks, name).__name__ == name for name in hooks.__all__)
    with pytest.raises(AttributeError, match="nope"):
        _ = hooks.nope


def test_a_head_is_not_fitted_to_vectors_without_a_direction():
    x = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
    y = x.copy()
    y[3] = 0
    hooks = {"hook_image_embed": x, "hook_text_embed": y}
    with pytest.raises(NonFiniteError, match="row 3: its fused vector holds NaN"):
        HookedMemeCLIP.from_embeddings(make_embeddings(hooks, labels={"hate": [0, 1] * 10}))
