"""What an evaluation reads: an SAE from any folder, its memes, and what it is compared with."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch.nn.functional import normalize

from sae_lens_meme.attributions import STEP, Attributions
from sae_lens_meme.embed.options import HEADS
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, DataError, ModelError, StorageError
from sae_lens_meme.evaluators import registry
from sae_lens_meme.evaluators.concepts import concepts_of
from sae_lens_meme.evaluators.context import Context
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.options import EvaluateOptions
from sae_lens_meme.evaluators.scaled import require_maps_to_itself
from sae_lens_meme.hooks.names import FUSED
from sae_lens_meme.planted.answer_key import FACTORS, read_answer_key
from sae_lens_meme.provenance import SAE_CFG, SAE_WEIGHTS, recorded_widths
from sae_lens_meme.storage import (
    MANIFEST,
    SUCCESS,
    fetched,
    read_finished,
    read_json,
    read_manifest,
    sha256_file,
    sha256_json,
    verify,
)


@dataclass(frozen=True, eq=False)
class Opened:
    """What is evaluated and what it is compared with; `fingerprint` tells whether another machine has the same."""

    sae: Any
    memes: Embeddings
    options: EvaluateOptions
    reference: Embeddings | None
    other_saes: dict[str, Any]
    answer_key: Any
    fingerprint: dict[str, Any]

    @classmethod
    def of(cls, sae: str | Path, embeddings: str | Path, options: EvaluateOptions) -> Opened:
        """From the folders; an SAE of another project is converted."""
        with stock_sae(sae, options.hook, options.converter) as stock:
            return cls.of_stock(stock, embeddings, options)

    @classmethod
    def of_stock(cls, sae: Path, embeddings: str | Path, options: EvaluateOptions) -> Opened:
        """From a stock SAE: a converter that the options name is done with."""
        dictionary, memes = load_sae(sae, options.hook), Embeddings.load(embeddings)
        memes = memes.without_contaminated() if options.exclude_leaks else memes
        require_concepts_of(options, memes)
        reference = Embeddings.load(options.reference) if options.reference is not None else None
        require_same_memes(memes, reference)
        others = load_others(options.other_saes or (), dictionary.cfg.metadata.hook_name)
        loaded = {name: other for name, (_, other) in others.items()}
        require_other_seeds(dictionary, loaded)
        key_folder = None if options.answer_key is None else fetched(options.answer_key)
        key = read_answer_key(key_folder) if key_folder is not None else None
        fingerprint = {
            "sae": sae_weights(sae),
            "embeddings": memes.fingerprint,
            "reference": reference.fingerprint if reference else None,
            "other_saes": {name: sae_weights(path) for name, (path, _) in others.items()},
            "options": options.recorded(),
            "hook": dictionary.cfg.metadata.hook_name,
            "answer_key": sha256_file(key_folder / FACTORS) if key_folder else None,
            **(
                {"files": {key: sha256_file(file) for key, file in files.items()}} if (files := options.files()) else {}
            ),
        }
        if options.attribution is not None:
            fingerprint["attribution"] = _attribution_of(options.attribution, fingerprint)
        return cls(dictionary, memes, options, reference, loaded, key, fingerprint)

    def context(self, latents: Latents, **more: Any) -> Context:
        """What evaluators are made from."""
        heads = self.memes.path / HEADS if self.memes.path else None
        return Context(
            *(self.sae, self.memes, latents, self.options),
            reference=self.reference,
            other_saes=self.other_saes,
            answer_key=self.answer_key,
            attributions=Attributions.load(self.options.attribution) if self.options.attribution else None,
            heads=heads if heads is not None and heads.is_file() else None,
            **more,
        )


@contextmanager
def stock_sae(sae: str | Path, hook: str | None = None, converter: str | None = None) -> Iterator[Path]:
    """The folder itself, or that of the stock SAE which one of another project is converted to, for the time being.

    Raises:
        ModelError: no converter reads it.
        ConfigError: there is no such converter.
    """
    from sae_lens_meme.importers import converter_of, import_sae

    sae = fetched(sae)
    if (name := converter or converter_of(sae)) is None:
        yield sae
        return
    with tempfile.TemporaryDirectory() as made:
        import_sae(sae, stock := Path(made) / "sae", hook=hook, converter=name)
        yield stock


def memes_of(embeddings: Embeddings | str | Path) -> Embeddings:
    """Embeddings, or those of a folder."""
    return embeddings if isinstance(embeddings, Embeddings) else Embeddings.load(embeddings)


def sae_of(sae: Any, hook: str | None = None, converter: str | None = None) -> Any:
    """An SAE, or that of a folder; AbsTopK, whose latents have two signs, as the `topk` SAE that computes the same.

    Raises:
        ModelError: as for `require_sae`, `stock_sae` and `load_sae`.
    """
    if isinstance(sae, (str, Path)):
        with stock_sae(sae, hook, converter) as stock:
            return load_sae(stock, hook)
    if require_sae(sae, "sae").cfg.architecture() != "abstopk":
        return sae
    with tempfile.TemporaryDirectory() as made:
        sae.save_model(made)
        return sae_of(made, hook, converter)


def hook_of(sae: Any, memes: Embeddings, hook: str | None = None) -> str:
    """The hook that is given, or the one that the SAE names.

    Raises:
        ConfigError: there is neither.
    """
    if (found := hook or sae.cfg.metadata.hook_name) is None:
        raise ConfigError(f"this SAE names no hook; pass hook=, one of {', '.join(memes.hooks)}")
    return found


_NOT_STOCK = {
    "abstopk": "an AbsTopK SAE, whose latents have two signs",
    "saelens-checkpoint": "a checkpoint of a training on scaled activations, whose weights do not take raw ones",
}


def _require_sae(folder: str | Path) -> None:
    from sae_lens_meme.importers import converter_of

    if (name := converter_of(folder)) is not None:
        what = _NOT_STOCK.get(name, f"an SAE of {name}")
        raise StorageError(
            f"{folder}: is {what}; `sae-lens-meme import {name} {folder} --out SAE` makes a stock SAE folder of it"
        )
    if not (Path(folder) / SAE_CFG).is_file():
        begun = read_manifest(folder) if (Path(folder) / MANIFEST).is_file() else {}
        if begun.get("step") == "train" and not (Path(folder) / SUCCESS).exists():
            raise StorageError(f"{folder}: the train step was interrupted; run it again to finish it")
        raise StorageError(
            f"{folder}: is not an SAE folder (no {SAE_CFG}); give the folder that train wrote, or name the --converter of evaluate or import for one of another project"
        )


def load_sae(folder: str | Path, hook: str | None = None, *, unnamed: str | None = None) -> Any:
    """Any SAE that SAELens loads, with the hook that it reads.

    Args:
        hook: instead of the one that it names.
        unnamed: where it names none.

    Raises:
        StorageError: no SAE is there.
        ModelError: SAELens cannot load it.
        ConfigError: it names no hook, and none is given.
    """
    from sae_lens import SAE

    folder = fetched(folder)
    _require_sae(folder)
    verify(folder)
    try:
        sae = SAE.load_from_disk(folder)
    except Exception as error:  # SAELens, safetensors and torch raise unrelated classes here
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{folder}: SAELens cannot load this SAE ({type(error).__name__}: {reason})") from error
    if "k" in vars(sae.cfg) and "k" not in read_json(Path(folder) / SAE_CFG):  # SAELens takes 100
        raise ModelError(f"{folder}: its {SAE_CFG} names no k; write there how many latents are active at once")
    require_sae(sae, folder)
    sae.cfg.metadata.hook_name = hook or sae.cfg.metadata.hook_name or unnamed
    if (
        sae.cfg.metadata.matryoshka_widths is None
    ):  # SAELens saves Matryoshka SAEs as JumpReLU ones, without their groups
        sae.cfg.metadata.matryoshka_widths = recorded_widths(folder)
    if sae.cfg.metadata.hook_name is None:
        raise ConfigError(f"{folder}: this SAE names no hook; pass --hook, for example --hook {FUSED}")
    return sae


def require_sae(sae: Any, where: str | Path) -> Any:
    """Refuse what SAELens loads as an SAE but what does not map a meme's vector to itself.

    Raises:
        ModelError: a transcoder, or an SAE of sequences; its k is out of range, a weight is not finite, or the scale of
            its activations is not known.
    """
    require_maps_to_itself(sae, where)
    architecture = sae.cfg.architecture()
    k, d_sae = getattr(sae.cfg, "k", 1), sae.cfg.d_sae
    if architecture == "topk" and (type(k) is not int or not 1 <= k <= d_sae):
        raise ModelError(
            f"{where}: k is {k!r}, it must be a whole number of 1 to d_sae, {d_sae}; correct the SAE's config"
        )
    for name, weight in sae.named_parameters():
        if not weight.isfinite().all():
            raise ModelError(f"{where}: {name} holds NaN or infinity; train the SAE again, or fetch it again")
    return sae


def _attribution_of(folder: Path, evaluated: dict[str, Any]) -> str:
    """A hash of an attribution, which must be of this SAE on these memes."""
    manifest = read_finished(folder, STEP)
    for name in ("sae", "embeddings"):
        if manifest["fingerprint"][name] != evaluated[name]:
            what = "SAE" if name == "sae" else "set of embeddings"
            raise DataError(f"{folder}: is of another {what}; run attribute again")
    return sha256_json(manifest["files"])


def load_others(folders: Collection[str | Path], hook: str | None = None) -> dict[str, tuple[Path, Any]]:
    """By the last part of their path; the whole path where two have the same one.

    Args:
        hook: of those that name none.
    """
    paths = [Path(folder) for folder in folders]
    names = [path.name if [p.name for p in paths].count(path.name) == 1 else str(path) for path in paths]
    return {name: (path, load_sae(path, unnamed=hook)) for name, path in zip(names, paths, strict=True)}


def require_other_seeds(sae: Any, others: Mapping[str, Any]) -> None:
    """An SAE agrees with itself perfectly, and that would be taken for stability.

    Raises:
        ConfigError: one of the others is the SAE that is evaluated, or another of them.
    """
    seen = {"the SAE that is evaluated": sae}
    for name, other in others.items():
        if same := next((what for what, one in seen.items() if _same_dictionary(one, other)), None):
            raise ConfigError(
                f"other SAE {name!r}: is {same}, with which it would agree perfectly; give one that was "
                "trained with another seed"
            )
        seen[repr(name)] = other


def _same_dictionary(one: Any, other: Any) -> bool:
    """Latent by latent, up to scale and the rounding of bfloat16: a folded or converted copy is the same."""
    if one.W_dec.shape != other.W_dec.shape:
        return False
    a, b = (normalize(sae.W_dec.detach().cpu().float(), dim=-1) for sae in (one, other))
    return bool(((a - b).abs() < 1e-3).all())


def require_concepts_of(options: EvaluateOptions, memes: Embeddings) -> None:
    """Checked before an SAE is trained for a control, not after it.

    Raises:
        ConfigError: a concept of these options, or of an evaluator's own, is not one of these memes.
    """
    for name in options.names():
        if "concepts" in registry.find(name).Options.model_fields:
            concepts = options.evaluators.get(name, {}).get("concepts", options.concepts)
            if concepts is not None:
                concepts_of(memes, concepts)


def require_same_memes(memes: Embeddings, reference: Embeddings | None) -> None:
    """Checked before hours of work, not after them."""
    if reference is not None and len(missing := np.setdiff1d(memes.ids, reference.ids)):
        raise DataError(
            f"meme {str(missing[0])!r} is not in the reference ({len(missing)} such memes); embed the same corpus"
        )


def sae_weights(sae: str | Path) -> dict[str, str]:
    """Hashes of the weights and of what the config says: `export` may add the id of its pages on Neuronpedia, and write
    the file in another layout, which makes no other SAE of it."""
    sae = fetched(sae)
    _require_sae(sae)
    verify(sae)  # or a damaged SAE would be taken for another one
    content = read_json(Path(sae) / SAE_CFG)
    if isinstance(content, dict) and isinstance(metadata := content.get("metadata") or {}, dict):
        content["metadata"] = {key: value for key, value in metadata.items() if key != "neuronpedia_id"}
    cfg = hashlib.sha256(json.dumps(content).encode()).hexdigest()  # of the bytes that SAELens writes
    return {SAE_CFG: cfg, SAE_WEIGHTS: sha256_file(Path(sae) / SAE_WEIGHTS)}
