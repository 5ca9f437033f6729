"""The only module that imports TransformerLens: hook points, caching, and attaching SAEs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from difflib import get_close_matches
from typing import Any

from sae_lens.analysis.hooked_sae_transformer import HookedSAETransformer
from sae_lens.saes.sae import SAE
from transformer_lens.hook_points import HookPoint
from transformer_lens.HookedRootModule import HookedRootModule

from sae_lens_meme.errors import MissingHookError, ModelError

__all__ = ["HookPoint", "SAEAttachable", "listed"]

_BORROWED = HookedSAETransformer.__dict__
Hooks = list[tuple[str | Callable[..., Any], Callable[..., Any]]]


class SAEAttachable(HookedRootModule):
    """A hooked model to which SAEs attach as they do to SAELens' `HookedSAETransformer`.

    Its methods are borrowed, not written again: they touch only `_acts_to_saes`, `hook_dict` and
    `setup()`. Two things differ: a name that is not a hook raises, and so does an SAE of another width.
    """

    acts_to_saes: Any = _BORROWED["acts_to_saes"]
    run_with_saes: Any = _BORROWED["run_with_saes"]
    run_with_cache_with_saes: Any = _BORROWED["run_with_cache_with_saes"]
    run_with_hooks_with_saes: Any = _BORROWED["run_with_hooks_with_saes"]
    _attach: Any = _BORROWED["add_sae"]
    _detach: Any = _BORROWED["reset_saes"]
    _attached: Any = _BORROWED["saes"]
    _reset_sae: Any = _BORROWED["_reset_sae"]
    _token_masks: Any = _BORROWED["_token_masks"]
    _compute_exclusion_mask: Any = _BORROWED["_compute_exclusion_mask"]

    def __init__(self) -> None:
        super().__init__()
        self._acts_to_saes: dict[str, Any] = {}
        self._transcoder_output_hooks: dict[str, str] = {}
        self.shapes: dict[str, Any] = {}
        """The declared `Hook` of each hook: width and positions."""

    def d(self, hook: str) -> int:
        """The width of the activations at `hook`."""
        return self._shape(hook).width

    def positions(self, hook: str) -> int:
        """The positions of the activations at `hook`: 1 for a meme, the patches or tokens inside a tower, 0 where the input decides."""
        return self._shape(hook).positions

    def is_hooked(self, stem: str) -> bool:
        """Whether a hook or an SAE sees what passes where the names begin with `stem`."""
        points = (point for name, point in self.hook_dict.items() if name.startswith(stem))
        return any(name.startswith(stem) for name in self._acts_to_saes) or any(
            point._forward_hooks for point in points
        )

    def add_sae(
        self, sae: SAE[Any], use_error_term: bool | None = None, exclude_special_tokens: bool | list[int] = False
    ) -> None:
        """Splice an SAE in at the hook its metadata name, until `reset_saes`.

        Raises:
            MissingHookError: the SAE's hook is not a hook of this model.
            ModelError: the SAE's d_in is not the width of that hook.
        """
        self._require_fit(sae)
        self._attach(sae, use_error_term, exclude_special_tokens)

    def reset_saes(self, act_names: str | list[str] | None = None) -> None:
        """Remove the SAEs at these hooks (default: all)."""
        for name in [act_names] if isinstance(act_names, str) else act_names or []:
            if name not in self._acts_to_saes:
                attached = ", ".join(self._acts_to_saes) or "none"
                raise MissingHookError(f"no SAE is attached at {name!r}; attached: {attached}")
        self._detach(act_names)

    def saes(
        self,
        saes: SAE[Any] | list[SAE[Any]] = [],  # noqa: B006  SAELens' signature; it is not changed
        reset_saes_end: bool = True,
        use_error_term: bool | None = None,
        exclude_special_tokens: bool | list[int] = False,
    ) -> AbstractContextManager[Any]:
        """SAEs attached inside a `with`; what was attached before comes back, also after an exception."""
        saes = [saes] if isinstance(saes, SAE) else saes
        hooks = [sae.cfg.metadata.hook_name for sae in saes]
        if len(set(hooks)) < len(hooks):  # SAELens would leave the first one attached at the end
            raise ModelError(f"two SAEs at one hook ({', '.join(hooks)}); attach one per hook")
        for sae in saes:
            self._require_fit(sae)
        return self._attached(saes, reset_saes_end, use_error_term, exclude_special_tokens)

    def hooks(
        self,
        fwd_hooks: Hooks = [],  # noqa: B006  TransformerLens' signature; it is not changed
        bwd_hooks: Hooks = [],  # noqa: B006
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
    ) -> Any:
        self._require_hooks(name for name, _ in [*fwd_hooks, *bwd_hooks] if isinstance(name, str))
        return super().hooks(fwd_hooks, bwd_hooks, reset_hooks_end, clear_contexts)

    def add_hook(self, name: Any, *args: Any, **kwargs: Any) -> None:
        self._require_hooks([name] if isinstance(name, str) else [])
        super().add_hook(name, *args, **kwargs)

    def get_caching_hooks(self, names_filter: Any = None, *args: Any, **kwargs: Any) -> Any:
        self._require_hooks(listed(names_filter))
        return super().get_caching_hooks(names_filter, *args, **kwargs)

    def add_caching_hooks(self, names_filter: Any = None, *args: Any, **kwargs: Any) -> dict[str, Any]:
        self._require_hooks(listed(names_filter))
        return super().add_caching_hooks(names_filter, *args, **kwargs)

    def run_with_cache(
        self, *args: Any, return_cache_object: bool = False, **kwargs: Any
    ) -> tuple[Any, dict[str, Any]]:
        """One forward pass and `{hook: activations}` of the hooks that `names_filter` names (default: all).

        `return_cache_object` is SAELens' and has no effect: `ActivationCache` knows only decoder-only language models.

        Raises:
            MissingHookError: a name is not a hook of this model, or this input does not pass it.
        """
        output, cache = super().run_with_cache(*args, **kwargs)
        if passed_by := [name for name in listed(kwargs.get("names_filter")) if name not in cache]:
            raise MissingHookError(
                f"hook {passed_by[0]!r} is not reached in this pass: cached embeddings start after the towers, "
                "and without a head there are no logits"
            )
        return output, cache

    def _shape(self, hook: str) -> Any:
        if hook not in self.shapes:
            raise MissingHookError(self._no_hook(hook))
        return self.shapes[hook]

    def _require_fit(self, sae: SAE[Any]) -> None:
        metadata = sae.cfg.metadata
        for name in {metadata.hook_name, metadata.hook_name_out or metadata.hook_name}:
            if name not in self._acts_to_saes and name not in self._transcoder_output_hooks.values():
                self._require_hooks([name])
        if (shape := self.shapes.get(metadata.hook_name)) is None:
            return
        if sae.cfg.d_in != shape.width:
            raise ModelError(
                f"the SAE has d_in {sae.cfg.d_in}, {metadata.hook_name} of this model has width {shape.width}; "
                "take an SAE that was trained on this model"
            )
        if shape.positions != 1 and any(bound is not None for bound in metadata.seqpos_slice or ()):
            raise ModelError(
                f"the SAE was trained on only some positions of {metadata.hook_name} alone, and would replace all; "
                "take one that was trained on all of them"
            )

    def _require_hooks(self, names: Iterable[Any]) -> None:
        for name in names:
            if name not in self.hook_dict:
                raise MissingHookError(self._no_hook(name))

    def _no_hook(self, name: object) -> str:
        if name in self._acts_to_saes:
            return f"an SAE is attached at {name!r}; its hooks are {name}.hook_sae_input, {name}.hook_sae_acts_post, {name}.hook_sae_output, ..."
        near = get_close_matches(str(name), [*self._acts_to_saes, *self.hook_dict], n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(self.hook_dict)}"
        return f"hook {name!r} is not a hook of this model; {hint}"


def listed(names_filter: Any) -> list[str]:
    """The names of a filter that names hooks; none where it is a function."""
    if isinstance(names_filter, str):
        return [names_filter]
    return list(names_filter) if isinstance(names_filter, (list, tuple)) else []
