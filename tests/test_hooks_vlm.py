"""HookedVLM on transformers' real classes with tiny random weights: what hooks see, change and leave alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny_vlms
import torch
from hooks_models import topk_sae
from tiny_vlms import EOS, IMAGE_ID, N_PATCHES, made

from sae_lens_meme.errors import DataError, ModelError
from sae_lens_meme.hooks import HookedVLM, PositionRows, find
from sae_lens_meme.hooks.positions import IMAGE, PAD, SPECIAL, TEXT, tagged


def hooked(maker: Callable[..., Any] = tiny_vlms.llava, **changes: Any) -> HookedVLM:
    return HookedVLM(*made(maker, **changes))


def outputs(model: HookedVLM, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the model's own forward pass ends in."""
    ends: list[Any] = []
    handle = model.hf.register_forward_hook(lambda _module, _args, output: ends.append(output))
    try:
        with torch.no_grad():
            model(batch, return_type=None)
    finally:
        handle.remove()
    return _end(ends[0])


def _end(output: Any) -> torch.Tensor:
    names = ("logits", "logits_per_image", "last_hidden_state")
    return next(output[name] for name in names if output.get(name) is not None)


@pytest.mark.parametrize("maker", [*tiny_vlms.WRITING, *tiny_vlms.OTHERS], ids=lambda maker: maker.__name__)
def test_hooks_are_exact_with_no_sae_and_with_its_error_term_and_change_the_output_without(maker: Callable[..., Any]):
    bare, rows = made(maker)
    batch = rows.take(torch.arange(4).numpy())
    given = {name: x for name, x in batch.items() if name != "tags"}
    with torch.no_grad():
        plain = _end(bare(**given, **({"use_cache": False} if bare.can_generate() else {})))
    model = HookedVLM(bare, rows)
    assert torch.equal(outputs(model, batch), plain)
    for hook in model.shapes:
        if hook == "hook_image_resid.2" and model.feature_blocks == [1]:
            continue  # it is refused: another test
        sae = topk_sae(model.d(hook), hook)
        with model.saes(sae, use_error_term=True):
            torch.testing.assert_close(
                outputs(model, batch), plain, rtol=1e-6, atol=1e-6 * float(plain.abs().max() + 1)
            )
        with model.saes(sae):
            assert not torch.allclose(outputs(model, batch), plain, atol=1e-3), hook
        with pytest.raises(ZeroDivisionError), model.saes(sae):
            raise ZeroDivisionError
        assert torch.equal(outputs(model, batch), plain), f"{hook} keeps an SAE after an exception"


def test_a_float32_sae_with_its_error_term_changes_no_bit_of_a_bfloat16_model():
    bare, rows = made(tiny_vlms.llava)
    model = HookedVLM(bare.to(torch.bfloat16), rows)
    batch = rows.take(torch.arange(4).numpy())
    plain = outputs(model, batch)
    for hook in ("hook_image_resid.1", "hook_projected", "hook_decoder_resid.0"):
        with model.saes(topk_sae(model.d(hook), hook), use_error_term=True):
            assert torch.equal(outputs(model, batch), plain)


class TestReach:
    """LLaVA's text reads the last block of the tower but one."""

    def test_what_is_changed_there_reaches_the_text_after_an_earlier_pass(self):
        bare, rows = made(tiny_vlms.llava)
        batch = rows.take(torch.arange(4).numpy())
        with torch.no_grad():
            bare(**{name: x for name, x in batch.items() if name != "tags"})  # transformers puts its hooks on now
        model = HookedVLM(bare, rows)
        assert model.feature_blocks == [1]
        plain = model(batch)
        changed = model.run_with_hooks(batch, fwd_hooks=[("hook_image_resid.1", lambda x, hook: x + 1)])
        assert (changed - plain).abs().max() > 0.01

    def test_a_later_block_is_refused_and_the_tower_takes_it(self):
        model = hooked()
        sae = topk_sae(16, "hook_image_resid.2")
        with pytest.raises(ModelError, match=r"reads block 1 of the tower.*use hook_image_resid\.1 or an earlier one"):
            model.add_sae(sae)
        with model.tower().saes(sae):
            pass

    def test_of_several_blocks_only_one_is_changed_and_that_is_said(self):
        model = hooked(vision_feature_layer=[-2, -1], vision_feature_select_strategy="full")
        with pytest.warns(UserWarning, match=r"reads blocks \[1, 2\]; only what passes this one"):
            model.add_sae(topk_sae(16, "hook_image_resid.1"))

    def test_a_captioners_tower_is_read_to_its_end(self):
        assert hooked(tiny_vlms.vit_gpt2).feature_blocks == []


class TestStopping:
    def test_nothing_behind_the_last_wanted_hook_is_computed(self):
        model = hooked(tiny_vlms.vit_gpt2)
        passed: list[str] = []
        for name in ("hook_image_resid.1", "hook_image_resid.2", "hook_decoder_resid.1"):
            model.points[name].register_forward_hook(lambda *_, name=name: passed.append(name))
        tokens = torch.tensor(model.token_dataset(None)["input_ids"])
        wanted = ["hook_decoder_resid.0"]
        output, cache = model.run_with_cache(tokens, names_filter=wanted, stop_at_layer=7)
        assert output is None
        assert passed == ["hook_image_resid.1", "hook_image_resid.2"]
        _, whole = model.run_with_cache(tokens, names_filter=wanted)
        assert torch.equal(cache[wanted[0]], whole[wanted[0]])
        assert passed[-1] == "hook_decoder_resid.1"

    def test_hooks_inside_an_sae_stop_too(self):
        model = hooked(tiny_vlms.vit)
        name = "hook_image_resid.0"
        with model.saes(topk_sae(16, name)):
            batch = model.source.take(torch.arange(2).numpy())  # type: ignore[union-attr]
            _, cache = model.run_with_cache(batch, names_filter=[f"{name}.hook_sae_acts_post"], stop_at_layer=1)
        assert cache[f"{name}.hook_sae_acts_post"].shape == (2, 17, 32)

    def test_pictures_of_a_chat_model_are_no_rows_for_saelens(self):
        model = hooked()
        tokens = torch.tensor(model.token_dataset(None)["input_ids"])
        with pytest.raises(ModelError, match=r"hook_image_resid\.0 gives \(4, 17\) positions for tokens \(4, 22\)"):
            model.run_with_cache(tokens, names_filter=["hook_image_resid.0"], stop_at_layer=1)


class TestGenerating:
    def test_a_batch_padded_on_the_left_writes_what_its_rows_write_alone(self):
        model = hooked()
        rows: Any = model.source
        batch = rows.take(torch.arange(4).numpy())
        together = model.generate(batch, max_new_tokens=4, do_sample=False)[:, -4:]
        for row in range(4):
            one = rows.take(torch.tensor([row]).numpy())
            kept = one["attention_mask"][0].bool()
            one = {name: x[:, kept] if x.ndim == 2 and name != "tags" else x for name, x in one.items()} | {
                "tags": one["tags"][:, kept]
            }
            assert torch.equal(model.generate(one, max_new_tokens=4, do_sample=False)[0, -4:], together[row])

    def test_a_batch_padded_on_the_right_is_refused(self):
        model = hooked()
        batch = model.source.take(torch.arange(4).numpy())  # type: ignore[union-attr]
        batch["attention_mask"] = batch["attention_mask"].flip(1)
        with pytest.raises(ModelError, match="padded on the right"):
            model.generate(batch, max_new_tokens=1)
        with pytest.raises(ModelError, match="prompt_lookup_num_tokens: assisted decoding"):
            model.generate(batch, prompt_lookup_num_tokens=2)
        with pytest.raises(ModelError, match="ViTModel writes nothing"):
            hooked(tiny_vlms.vit).generate({"pixel_values": torch.zeros(1, 3, 32, 32)})

    def test_no_placeholder_is_written(self):
        model = hooked()
        with torch.no_grad():  # its logit is far above all others
            model.hf.lm_head.weight[IMAGE_ID] = 0
            model.hf.lm_head.weight *= 1e-3
        batch = model.source.take(torch.arange(4).numpy())  # type: ignore[union-attr]
        bias = [("hook_logits", lambda x, hook: x + 99 * (torch.arange(x.shape[-1]) == IMAGE_ID))]
        with model.hooks(fwd_hooks=bias):
            written = model.generate(batch, max_new_tokens=3, do_sample=False, suppress_tokens=[EOS])
        assert not (written[:, -3:] == IMAGE_ID).any()
        assert not (written[:, -3:] == EOS).any()

    @pytest.mark.parametrize("maker", [tiny_vlms.llava, tiny_vlms.vit_gpt2, tiny_vlms.git], ids=lambda m: m.__name__)
    @pytest.mark.parametrize("beams", [1, 2])
    def test_tags_are_those_of_the_positions_at_each_step(self, maker: Callable[..., Any], beams: int):
        """With transformers' cache and without it; a changed position then changes the same words."""
        model = hooked(maker)
        batch = model.source.take(torch.arange(2).numpy())  # type: ignore[union-attr]
        if model.vocabulary.image is None:
            batch = {"pixel_values": batch["pixel_values"]}

        def written(kind: str | None, cached: bool) -> tuple[torch.Tensor, list[list[int]]]:
            seen = []

            def change(x: torch.Tensor, hook: Any) -> torch.Tensor:
                tags = model.tags_now(hook.name, x)
                seen.append(tags[0].tolist())
                return x if kind is None else x + 3 * tagged(tags, kind)[..., None] * torch.linspace(-1, 1, x.shape[-1])

            with model.hooks(fwd_hooks=[("hook_decoder_resid.0", change)]):
                options = {"num_beams": beams, "do_sample": False, "use_cache": cached}
                return model.generate(batch, max_new_tokens=4, min_new_tokens=4, **options), seen

        _, seen = written(None, cached=True)
        assert [len(tags) for tags in seen[1:]] == [1, 1, 1]
        assert {tag for tags in seen[1:] for tag in tags} == {4}
        assert 4 not in seen[0]
        _, whole = written(None, cached=False)
        assert whole[-1] == [tag for tags in seen for tag in tags]
        for kind in ("text", "image", "special", "generated"):
            assert torch.equal(written(kind, cached=True)[0], written(kind, cached=False)[0]), kind
        if beams == 1:  # the first new word comes of the prompt alone
            plain, steered = written(None, True)[0], written("generated", True)[0]
            assert torch.equal(plain[:, :-3], steered[:, :-3])
            assert not torch.equal(plain, steered)

    def test_one_pass_over_a_caption_has_every_position_of_its_generation(self):
        model = hooked(tiny_vlms.vit_gpt2)
        pixels = model.source.columns["pixel_values"]  # type: ignore[union-attr]
        steps: list[torch.Tensor] = []
        with model.hooks(fwd_hooks=[("hook_decoder_resid.1", lambda x, hook: steps.append(x))]):
            written = model.generate({"pixel_values": pixels}, max_new_tokens=5, min_new_tokens=5, do_sample=False)
        ids = {"decoder_input_ids": written[:, :-1], "decoder_attention_mask": torch.ones_like(written[:, :-1])}
        _, cache = model.run_with_cache({"pixel_values": pixels, **ids}, names_filter=["hook_decoder_resid.1"])
        torch.testing.assert_close(torch.cat(steps, 1), cache["hook_decoder_resid.1"], rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("maker", [tiny_vlms.vit_gpt2, tiny_vlms.git], ids=lambda maker: maker.__name__)
    def test_of_position_tokens_a_captioner_takes_the_picture_and_not_its_caption(self, maker: Callable[..., Any]):
        model = hooked(maker)
        tokens = torch.tensor(model.token_dataset(None)["input_ids"])
        pixels = model.source.columns["pixel_values"]  # type: ignore[union-attr]
        asked = {"max_new_tokens": 4, "do_sample": False}
        assert torch.equal(model.generate(tokens, **asked), model.generate({"pixel_values": pixels}, **asked))


class TestPositions:
    def test_start_end_and_padding_may_be_one_id(self):
        """A mask made of `ids != pad` would hide the start token and move the logits."""
        rows: Any = made(tiny_vlms.vit_gpt2)[1]
        assert rows.columns["decoder_input_ids"][0].tolist() == [EOS, 5, 6, 7, EOS, EOS]
        assert rows.columns["decoder_attention_mask"][:2].tolist() == [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]]
        assert rows.tags[0].tolist() == [SPECIAL, TEXT, TEXT, TEXT, SPECIAL, PAD]

    def test_tags_of_a_prompt(self):
        rows: Any = made(tiny_vlms.llava)[1]
        assert rows.tags[1].tolist() == [PAD, SPECIAL, *[IMAGE] * N_PATCHES, *[TEXT] * 4]
        derived = hooked().model_tags(dict(rows.columns))
        assert torch.equal(derived, rows.tags)

    def test_pictures_come_before_the_text_of_git(self):
        model = hooked(tiny_vlms.git)
        rows: Any = model.source
        assert torch.equal(model.model_tags(dict(rows.columns)), rows.tags)
        assert rows.tags[0].tolist() == [SPECIAL, *[IMAGE] * N_PATCHES, SPECIAL, TEXT, TEXT, TEXT, SPECIAL, PAD]

    @pytest.mark.parametrize(("maker", "special"), [(tiny_vlms.dinov2, 1), (tiny_vlms.siglip_tower, 0)])
    def test_a_tower_has_cls_before_its_patches_or_none(self, maker: Callable[..., Any], special: int):
        model, seen = hooked(maker), []
        batch = model.source.take(torch.arange(2).numpy())  # type: ignore[union-attr]
        model.run_with_hooks(
            batch, fwd_hooks=[("hook_image_resid.1", lambda x, hook: seen.append(model.tags_now(hook.name, x)))]
        )
        assert seen[0][0].tolist() == [SPECIAL] * special + [IMAGE] * N_PATCHES
        assert torch.equal(seen[0], batch["tags"])

    def test_tokens_are_row_numbers_where_a_position_takes_part(self):
        model = hooked()
        tokens = torch.tensor(model.token_dataset(None, keep="text")["input_ids"])
        assert tokens[1].tolist() == [0] * 18 + [2] * 4
        assert torch.equal(model(tokens), model(model.source.take(torch.arange(4).numpy())))  # type: ignore[union-attr]
        with pytest.raises(DataError, match="no position takes part"):
            model(torch.zeros(2, 22, dtype=torch.long))
        with pytest.raises(DataError, match="has no positions of kind generated"):
            model.token_dataset(None, keep="generated")
        with pytest.raises(DataError, match="4 rows of tags and 3 of splits"):
            PositionRows({}, torch.zeros(4, 2), ["train"] * 3)

    def test_the_loss_is_of_words_alone(self):
        model = hooked(tiny_vlms.chameleon)
        batch = model.source.take(torch.arange(4).numpy())  # type: ignore[union-attr]
        losses = model(batch, return_type="loss", loss_per_token=True)
        counted = tagged(batch["tags"][:, 1:], ("text", "special"))
        assert torch.isfinite(losses).all()
        assert (losses > 0).eq(counted).all()
        torch.testing.assert_close(model(batch, return_type="loss"), losses[counted].mean())

    def test_positions_of_a_picture_that_comes_first_do_not_know_the_question(self):
        model = hooked()
        batch = model.source.take(torch.arange(1).numpy())  # type: ignore[union-attr]
        other = {**batch, "input_ids": batch["input_ids"].clone()}
        other["input_ids"][:, -3:] += 1
        _, one = model.run_with_cache(batch, names_filter=["hook_decoder_resid.1"])
        _, two = model.run_with_cache(other, names_filter=["hook_decoder_resid.1"])
        difference = (one["hook_decoder_resid.1"] - two["hook_decoder_resid.1"]).abs().amax((0, 2))
        assert difference[: 1 + N_PATCHES].max() == 0
        assert difference[-3:].min() > 0


def test_clip_runs_its_tower_where_there_are_pictures_alone():
    model = hooked(tiny_vlms.clip)
    pixels = model.source.columns["pixel_values"]  # type: ignore[union-attr]
    _, cache = model.run_with_cache({"pixel_values": pixels}, return_type=None)
    assert set(cache) == {f"hook_image_resid.{block}" for block in range(3)}
    assert "hook_text_resid.1" in model.hook_dict


@pytest.mark.parametrize("maker", [tiny_vlms.chameleon, tiny_vlms.llava])
def test_the_gradients_of_every_hook_that_the_text_reads_are_cached(maker: Callable[..., Any]):
    model = hooked(maker)
    batch = model.source.take(torch.arange(2).numpy())  # type: ignore[union-attr]
    _, cache = model.run_with_cache(batch, return_type="loss", incl_bwd=True)
    assert {f"{hook}_grad" for hook in model.shapes if hook != "hook_image_resid.2"} <= cache.keys()


def test_hooks_of_a_copy_are_those_of_the_copy():
    model = hooked()
    copied, batch = copy.deepcopy(model), model.source.take(torch.arange(2).numpy())  # type: ignore[union-attr]
    _, expected = model.run_with_cache(batch)
    _, found = copied.run_with_cache(batch)
    assert found.keys() == expected.keys()
    with copied.hooks(fwd_hooks=[("hook_decoder_resid.0", lambda x, hook: 0 * x)]):
        assert torch.equal(model(batch), expected["hook_logits"])
        assert not torch.equal(copied(batch), expected["hook_logits"])


def test_another_wrapper_may_take_the_place_of_one_that_is_closed():
    bare, rows = made(tiny_vlms.vit)
    first = HookedVLM(bare, rows)
    first.close()
    assert not any(module._forward_hooks for module in bare.modules())
    assert HookedVLM(bare, rows)(rows.take(torch.arange(2).numpy()), return_type=None) is None


class TestByName:
    def test_a_folder_of_a_model_is_loaded_by_its_class(self, tmp_path: Path):
        bare, rows = made(tiny_vlms.llava)
        bare.save_pretrained(tmp_path / "model")
        model = find("HookedVLM").from_pretrained(str(tmp_path / "model"))
        assert isinstance(model, HookedVLM)
        assert torch.equal(
            model(rows.take(torch.arange(4).numpy())), HookedVLM(bare)(rows.take(torch.arange(4).numpy()))
        )
        assert HookedVLM.from_pretrained(str(tmp_path / "model"), dtype=torch.bfloat16).cfg.dtype == torch.bfloat16
        with pytest.raises(ModelError, match="has no processor"):
            model.attach_memes([], [])

    def test_pictures_and_texts_of_pandas_are_rows_by_their_place(self, tmp_path: Path):
        model = HookedVLM.from_pretrained(tiny_vlms.save(tmp_path))
        images, names = tiny_vlms.colour_pictures(4)
        shuffled = pd.DataFrame({"picture": images, "text": names}).iloc[[2, 0, 3, 1]]
        model.attach_memes(list(shuffled["picture"]), list(shuffled["text"]))
        expected = model.source.take(np.arange(4))  # type: ignore[union-attr]
        model.attach_memes(shuffled["picture"], shuffled["text"])  # type: ignore[arg-type]
        for name, x in model.source.take(np.arange(4)).items():  # type: ignore[union-attr]
            assert torch.equal(x, expected[name]), name
        for pictures, texts, message in (
            ([], [], "no pictures were given"),
            ([None], ["a"], "row 0: has no picture"),
            (images[:1], [3], "row 0: the caption is 3"),
        ):
            with pytest.raises(DataError, match=message):
                model.attach_memes(pictures, texts)  # type: ignore[arg-type]
        # Under jaxtyping's run-time checks the annotation refuses it first.
        with pytest.raises((DataError, TypeError), match=r"is of type list; give position tokens|Type-check error"):
            model([[1]])  # type: ignore[arg-type]

    def test_code_of_a_model_is_refused(self, tmp_path: Path):
        (tmp_path / "config.json").write_text('{"model_type": "llava", "auto_map": {"AutoModel": "evil.py--Evil"}}')
        with pytest.raises(ModelError, match="auto_map asks for code"):
            HookedVLM.from_pretrained(str(tmp_path))

    def test_what_is_no_model_is_one_line(self, tmp_path: Path):
        with pytest.raises(ModelError, match="cannot be loaded"):
            HookedVLM.from_pretrained(str(tmp_path))
        (tmp_path / "config.json").write_text('{"model_type": "vit", "architectures": ["EvilModel"]}')
        with pytest.raises(ModelError, match="its class is 'EvilModel', which is not a class of transformers"):
            HookedVLM.from_pretrained(str(tmp_path))
