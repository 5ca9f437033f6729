"""The `evaluate` step: every evaluator on one SAE, its controls beside it, results as JSON and Parquet."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd

from sae_lens_meme.config import check_keys
from sae_lens_meme.embed.memeclip import HEADS
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, ModelError, StorageError
from sae_lens_meme.evaluators.result import Result
from sae_lens_meme.figure import draw_figure
from sae_lens_meme.hooks.names import FUSED
from sae_lens_meme.labels import SPLITS
from sae_lens_meme.planted import AnswerKey, read_answer_key
from sae_lens_meme.progress import progress_bar
from sae_lens_meme.report import report_html, report_rows
from sae_lens_meme.storage import StepFolder, read_finished, read_json, sha256_file, to_json

SCHEMA = 1
EVALUATORS = ("reconstruction", "stock_evals", "concept_alignment", "baselines", "probes", "influence", "answer_key")
NEED_LABELS = ("stock_evals", "concept_alignment", "baselines", "probes", "influence")
CONTROL = "control_shuffled"
LATENTS, EVALUATION = "latents.safetensors", "evaluation.json"
PAGE, FIGURE = "evaluation.html", "evaluation.png"


@dataclass(frozen=True)
class Options:
    """What an evaluation was asked for; part of its fingerprint."""

    protocol: str
    concepts: list[str] | None
    tasks: list[str] | None
    evaluators: list[str]
    bootstrap: int
    seed: int


def evaluate(
    sae: str | Path,
    embeddings: str | Path,
    *,
    out: str | Path,
    protocol: str = "both",
    concepts: Collection[str] | None = None,
    tasks: Collection[str] | None = None,
    only: Collection[str] | None = None,
    skip: Collection[str] | None = None,
    hook: str | None = None,
    answer_key: str | Path | None = None,
    bootstrap: int = 200,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Evaluate an SAE on embeddings; what is done is not done again.

    The folder holds `evaluation.json` (every number with its control), the same tables as a page
    (`evaluation.html`), a figure of it (`evaluation.png`), `latents.safetensors`, and one Parquet file an evaluator with a table
    (`concept_alignment.parquet`, `influence.parquet`, ...).

    Args:
        sae: an SAE folder, ours or any that `sae_lens.SAE.load_from_disk` reads.
        embeddings: the result of `embed`.
        out: the result folder.
        protocol: `corrected`, `published` or `both`.
        concepts: such as `hate=1`; default InterVLM's thirteen, or every class of every label.
        tasks: labels for probes and influence; default every label with two classes or more.
        only, skip: names of evaluators.
        hook: the hook to read, for an SAE whose metadata names none.
        answer_key: the folder with the factors of planted memes.
        bootstrap: resamples of the memes for intervals.

    Returns:
        The content of `evaluation.json`.
    """
    options = Options(protocol, _listed(concepts), _listed(tasks), _chosen(only, skip, answer_key), bootstrap, seed)
    key = read_answer_key(answer_key) if answer_key is not None else None
    dictionary, memes = _load_sae(sae, hook), Embeddings.load(embeddings)
    fingerprint = {
        "sae": {name: sha256_file(Path(sae) / name) for name in ("cfg.json", "sae_weights.safetensors")},
        "embeddings": memes.fingerprint,
        "options": vars(options),
        "hook": dictionary.cfg.metadata.hook_name,
        "answer_key": sha256_file(Path(answer_key) / "factors.parquet") if answer_key else None,
    }
    with StepFolder(out, "evaluate", fingerprint, overwrite=overwrite, keep=(CONTROL,)) as folder:
        if not folder.complete:
            _Evaluation(dictionary, Path(sae), memes, options, key, folder, progress).run()
    return read_json(Path(out) / EVALUATION)


class _Evaluation:
    def __init__(
        self,
        sae: Any,
        sae_path: Path,
        embeddings: Embeddings,
        options: Options,
        answer_key: AnswerKey | None,
        folder: StepFolder,
        progress: bool,
    ):
        from sae_lens_meme.evaluators.latents import Latents, encode

        self.sae, self.sae_path, self.embeddings, self.options = sae, sae_path, embeddings, options
        self.answer_key, self.folder, self.progress = answer_key, folder, progress
        self.skipped: dict[str, str] = {}
        file = folder.write(LATENTS, lambda path: encode(sae, embeddings).save(path))
        self.latents = Latents.load(file)

    def run(self) -> None:
        results: dict[str, Result] = {}
        steps: dict[str, Callable[[], Result]] = {name: getattr(self, f"_{name}") for name in self._possible()}
        with progress_bar("evaluate", len(steps), unit="evaluators", show=self.progress) as advance:
            for name, step in steps.items():
                results[name] = step()
                advance(1)
        for name, result in results.items():
            if result.table is not None:
                self.folder.write(f"{name}.parquet", partial(_write_table, result.table))
        content = self._content(results)
        self.folder.write(EVALUATION, lambda path: path.write_text(to_json(content), encoding="utf-8"))
        self.folder.write(PAGE, lambda path: path.write_text(report_html(content), encoding="utf-8"))
        self._draw(content)
        self.folder.finish(evaluators=list(results))

    def _draw(self, content: dict[str, Any]) -> None:
        with tempfile.TemporaryDirectory() as drawn:
            picture = Path(drawn) / FIGURE
            if draw_figure(content, picture):
                self.folder.write(FIGURE, lambda path: path.write_bytes(picture.read_bytes()))

    def _possible(self) -> list[str]:
        """The evaluators that these memes allow; the others are listed as skipped, with the reason."""
        if any(len(self.embeddings.label(name).classes) > 1 for name in self.embeddings.label_names):
            return self.options.evaluators
        reason = "no label has two classes; add label columns to the corpus or to the table"
        self.skipped |= {name: reason for name in self.options.evaluators if name in NEED_LABELS}
        return [name for name in self.options.evaluators if name not in NEED_LABELS]

    def _content(self, results: dict[str, Result]) -> dict[str, Any]:
        cfg = self.sae.cfg
        content = {
            "schema": SCHEMA,
            "sae": {
                "architecture": cfg.architecture(),
                "training_architecture": cfg.metadata.training_architecture,
                "hook": cfg.metadata.hook_name,
                "d_in": cfg.d_in,
                "d_sae": cfg.d_sae,
                "k": getattr(cfg, "k", None),
            },
            "embeddings": {
                **{key: self.embeddings.facts.get(key) for key in ("model", "fusion", "dtype")},
                "n_samples": len(self.embeddings),
                "splits": {split: len(self.embeddings.rows(split)) for split in SPLITS},
                "fingerprint": self.embeddings.fingerprint,
            },
            "options": vars(self.options),
            "skipped": self.skipped,
            "results": {name: result.to_dict() for name, result in results.items()},
        }
        if self.answer_key is not None:
            content["answer_key"] = dict(self.answer_key.kinds)
        return {**content, "table": report_rows(content)}

    def _reconstruction(self) -> Result:
        from sae_lens_meme.evaluators.reconstruction import Reconstruction

        return Reconstruction(self.embeddings).evaluate(self.sae, latents=self.latents)

    def _stock_evals(self) -> Result:
        from sae_lens_meme.evaluators.probes.tasks import tasks_of
        from sae_lens_meme.evaluators.stock import stock_evals
        from sae_lens_meme.hooks import HookedMemeCLIP

        tasks, _ = tasks_of(self.embeddings, self.options.tasks)
        return stock_evals(self.sae, (HookedMemeCLIP.from_embeddings(self.embeddings, task.name) for task in tasks))

    def _concept_alignment(self) -> Result:
        from sae_lens_meme.evaluators.concept_alignment import ConceptAlignment

        asked = self.options
        evaluator = ConceptAlignment(
            self.embeddings, asked.concepts, protocol=asked.protocol, n_bootstrap=asked.bootstrap, seed=asked.seed
        )
        return evaluator.evaluate(self.sae, latents=self.latents)

    def _baselines(self) -> Result:
        from sae_lens_meme.evaluators.concept_alignment.baselines import baselines

        others = {}
        try:
            others["shuffled_data"] = train_control(self.sae_path, self.embeddings, self.folder.path / CONTROL)
        except ControlUnavailable as error:
            self.skipped["baselines/shuffled_data"] = str(error)
        options = self.options
        return baselines(
            self.sae, self.embeddings, self.latents, concepts=options.concepts, others=others, seed=options.seed
        )

    def _probes(self) -> Result:
        from sae_lens_meme.evaluators.probes import Probes

        evaluator = Probes(
            self.embeddings, tasks=self.options.tasks, seed=self.options.seed, fitted=self._embedding_probes
        )
        return evaluator.evaluate(self.sae, latents=self.latents)

    def _influence(self) -> Result:
        from sae_lens_meme.evaluators.influence import Influence

        asked, heads = self.options, self._model_heads()
        evaluator = Influence(
            self.embeddings,
            tasks=asked.tasks,
            heads=heads,
            n_bootstrap=asked.bootstrap,
            seed=asked.seed,
            fitted=self._embedding_probes,
        )
        return evaluator.evaluate(self.sae, latents=self.latents)

    @cached_property
    def _embedding_probes(self) -> Any:
        """Fitted once for `probes` and `influence`."""
        from sae_lens_meme.evaluators.probes.probe import EmbeddingProbes

        return EmbeddingProbes(seed=self.options.seed)

    def _model_heads(self) -> list[Any]:
        """MemeCLIP's own classifier, where the embeddings were made with one."""
        from sae_lens_meme.evaluators.influence.steering import head_of
        from sae_lens_meme.hooks import HookedMemeCLIP

        heads = self.embeddings.path / HEADS if self.embeddings.path else None
        if heads is None or not heads.is_file() or self.sae.cfg.metadata.hook_name != FUSED:
            return []
        return [head_of(HookedMemeCLIP.from_embeddings(self.embeddings, heads=heads))]

    def _answer_key(self) -> Result:
        from sae_lens_meme.evaluators.answer_key import score_answer_key

        assert self.answer_key is not None
        key = self.answer_key
        return score_answer_key(self.latents, self.embeddings, key.factors, key.kinds, self.options.seed)


class ControlUnavailable(Exception):
    """The recipe of an SAE is not known, so that its control cannot be trained."""


def train_control(sae: Path, embeddings: Embeddings, out: Path) -> Any:
    """The same recipe trained on embeddings whose dimensions are permuted independently.

    Raises:
        ControlUnavailable: the SAE was not trained by `train`, or on several hooks at once.
    """
    from sae_lens_meme.train import TrainConfig, train
    from sae_lens_meme.train.config import Recipe

    if (sae.parent / "runner_cfg.json").is_file() and not (sae / "manifest.json").is_file():
        raise ControlUnavailable("this SAE was trained together with others; train it alone to have this control")
    try:
        fingerprint = read_finished(sae, "train")["fingerprint"]
    except StorageError:
        raise ControlUnavailable("this SAE was not trained by `train`: its recipe is not known") from None
    config = TrainConfig(fingerprint["config"], Recipe(**fingerprint["recipe"]))
    return train(config, out=out, embeddings=embeddings, shuffled=True, overwrite=True, progress=False)


def _load_sae(folder: str | Path, hook: str | None) -> Any:
    from sae_lens import SAE

    if not (Path(folder) / "cfg.json").is_file():
        raise StorageError(f"{folder}: is not an SAE folder (no cfg.json); give the folder that train wrote")
    try:
        sae = SAE.load_from_disk(folder)
    except Exception as error:  # SAELens, safetensors and torch raise unrelated classes here
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{folder}: SAELens cannot load this SAE ({type(error).__name__}: {reason})") from error
    sae.cfg.metadata.hook_name = hook or sae.cfg.metadata.hook_name
    if sae.cfg.metadata.hook_name is None:
        raise ConfigError(f"{folder}: this SAE names no hook; pass --hook, for example --hook {FUSED}")
    return sae


def _chosen(only: Collection[str] | None, skip: Collection[str] | None, answer_key: object) -> list[str]:
    only, skip = _listed(only), _listed(skip) or []
    check_keys("evaluators", [*(only or []), *skip], EVALUATORS)
    if only and "answer_key" in only and answer_key is None:
        raise ConfigError("evaluator 'answer_key' needs --answer-key FOLDER")
    names = [n for n in only or EVALUATORS if n not in skip and (n != "answer_key" or answer_key is not None)]
    if not names:
        raise ConfigError(f"no evaluator is left; there are {', '.join(EVALUATORS)}")
    return names


def _listed(values: Collection[str] | None) -> list[str] | None:
    return list(values) if values else None


def _write_table(table: pd.DataFrame, path: Path) -> None:
    table.to_parquet(path, index=False)
