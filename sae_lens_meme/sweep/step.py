"""The `sweep` step: train every setting of a grid with every seed, measure all SAEs alike, say which setting to choose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from sae_lens import SAE

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.engines import MakeWorker, ShardEngine, engine_of
from sae_lens_meme.errors import ConfigError, DataError, ShardError
from sae_lens_meme.evaluators.contest.targets import Key
from sae_lens_meme.figures.style import FORMATS
from sae_lens_meme.planted.answer_key import FACTORS, read_answer_key
from sae_lens_meme.progress import progress_bar
from sae_lens_meme.storage import (
    StepFolder,
    fetched,
    read_finished,
    read_json,
    sha256_file,
    through_stores,
    to_json,
    url_of,
)
from sae_lens_meme.sweep.figure import write_figure
from sae_lens_meme.sweep.findings import Findings
from sae_lens_meme.sweep.grid import Setting, settings_of
from sae_lens_meme.sweep.options import SweepOptions
from sae_lens_meme.sweep.scores import ScoredSetting, SweepScorer
from sae_lens_meme.train import TrainConfig, load_train_config, train

STEP, RUNS = "sweep", "runs"
CONTENT, SETTINGS, TABLE, FIGURE = "sweep.json", "settings.parquet", "runs.parquet", "sweep"


@dataclass(frozen=True)
class Sweep:
    """A finished sweep."""

    folder: Path
    settings: pd.DataFrame
    """A row per setting; `content["columns"]` says what each column is."""
    runs: pd.DataFrame
    """A row per SAE."""
    content: dict[str, Any]
    """As in `sweep.json`: `recommendation`, `caution`, `headline`, `columns`."""

    @classmethod
    def load(cls, folder: str | Path) -> Sweep:
        """Raises StorageError if the folder is not a finished sweep."""
        read_finished(folder, STEP)
        folder = Path(folder)
        settings, runs = pd.read_parquet(folder / SETTINGS), pd.read_parquet(folder / TABLE)
        return cls(folder, settings, runs, read_json(folder / CONTENT))


def sweep(
    recipe: str | Path | Mapping[str, Any],
    options: SweepOptions | None = None,
    *,
    embeddings: Embeddings | str | Path,
    out: str | Path,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    progress: bool = True,
    **given: Any,
) -> Sweep:
    """Train and compare the settings of a grid; a trained SAE is not trained again.

    The setting is chosen on validation memes and reported on test memes. The folder holds the SAEs
    (`runs/SETTING/seed_N`, ordinary results of `train`), `settings.parquet`, `runs.parquet`, `sweep.json` and the figure.

    Args:
        recipe: see `load_train_config`.
        options: see `SweepOptions`; or give them by keyword: `sweep(..., grid=["sae.k=16,32"], seeds=3)`.
        embeddings: the result of `embed`, or its folder.
        overrides: `epochs=10`, ..., for every setting.

    Raises:
        ConfigError: a setting is wrong (all are checked before the first is trained), or the recipe has several hooks.
        DataError: there are no validation or no test memes, or nothing to compare settings by.
    """
    options = SweepOptions.of(options, given)
    if options.engine != "local" and url_of(out) is not None:
        raise ConfigError(
            f"{out}: the workers of a sweep train in the folder of the result, which a store is not; choose an --out that all see"
        )
    return _sweep(recipe, options, embeddings, out=out, overrides=overrides, overwrite=overwrite, progress=progress)


@through_stores()
def _sweep(
    recipe: str | Path | Mapping[str, Any],
    options: SweepOptions,
    embeddings: Embeddings | str | Path,
    *,
    out: str | Path,
    overrides: Sequence[str],
    overwrite: bool,
    progress: bool,
) -> Sweep:
    memes = embeddings if isinstance(embeddings, Embeddings) else Embeddings.load(embeddings)
    plan = _Plan.of(recipe, options, overrides)
    _require_splits(memes)
    key_folder = fetched(options.answer_key) if options.answer_key else None
    key = read_answer_key(key_folder) if key_folder else None
    scorer = SweepScorer(memes, plan.hook, Key(key.factors, key.kinds) if key else None, options.bootstrap)
    with StepFolder(
        out, STEP, _fingerprint(plan, options, memes, key_folder), overwrite=overwrite, keep=(RUNS,)
    ) as folder:
        if not folder.complete:
            with engine_of(options.engine, options, _maker(embeddings, memes, options, overwrite)) as engine:
                scored = list(_scored(plan, engine, folder.home / RUNS, scorer, progress))
            _write(folder, Findings([one for one, _ in scored], scorer.neurons(scored[0][1]), scorer.yardsticks))
    return Sweep.load(out)


@dataclass(frozen=True)
class _Plan:
    """Every setting with its checked recipe, and the seeds."""

    configs: list[tuple[Setting, TrainConfig]]
    seeds: range

    @classmethod
    def of(cls, recipe: Any, options: SweepOptions, overrides: Sequence[str]) -> _Plan:
        configs = [
            (setting, load_train_config(recipe, [*overrides, *setting.overrides]))
            for setting in settings_of(options.grid)
        ]
        first = configs[0][1]
        if first.recipe.hook_names or len({next(iter(config.hooks.values())) for _, config in configs}) > 1:
            raise ConfigError("sweep: the SAEs of a sweep read one hook; give hook_name, not hook_names or several")
        return cls(configs, range(first.seed, first.seed + options.seeds))

    def tasks(self, runs: Path) -> list[_Task]:
        return [
            _Task(TrainConfig({**config.section, "seed": seed}, config.recipe), runs / setting.folder / f"seed_{seed}")
            for setting, config in self.configs
            for seed in self.seeds
        ]

    @property
    def hook(self) -> str:
        return next(iter(self.configs[0][1].hooks.values()))


def _require_splits(memes: Embeddings) -> None:
    for split, use in (("validation", "chosen"), ("test", "reported")):
        if not len(memes.rows(split)):
            raise DataError(f"sweep: no {split} memes, on which settings are {use}; name splits in the embeddings")


def _fingerprint(plan: _Plan, options: SweepOptions, memes: Embeddings, key: Path | None) -> dict[str, Any]:
    return {
        "embeddings": memes.fingerprint,
        "settings": {
            setting.folder: [dict(config.section), config.recipe.recorded()] for setting, config in plan.configs
        },
        "seeds": list(plan.seeds),
        "bootstrap": options.bootstrap,
        "answer_key": sha256_file(key / FACTORS) if key else None,
    }


def _maker(given: Embeddings | str | Path, memes: Embeddings, options: SweepOptions, overwrite: bool) -> MakeWorker:
    if options.engine == "local":
        return lambda: _Trainer(memes, overwrite)
    if memes.path is None:
        raise ConfigError(f"sweep: engine {options.engine} reads embeddings from a folder; give the result of embed")
    in_store = not isinstance(given, Embeddings) and url_of(given) is not None
    return partial(_Trainer, given if in_store else memes.path.absolute(), overwrite)


class _Task(NamedTuple):
    """An SAE and its folder."""

    config: TrainConfig
    out: Path


class _Trainer:
    """Trains one SAE after the other."""

    def __init__(self, embeddings: Embeddings | str | Path, overwrite: bool):
        self._memes = embeddings if isinstance(embeddings, Embeddings) else Embeddings.load(embeddings)
        self._overwrite, self.facts = overwrite, {"embeddings": self._memes.fingerprint}

    def __call__(self, tasks: Iterable[_Task], advance: Callable[[int], None]) -> Iterator[None]:
        for config, out in tasks:
            train(config, out=out, embeddings=self._memes, overwrite=self._overwrite, progress=False)
            advance(1)
            yield


def _scored(
    plan: _Plan, engine: ShardEngine, runs: Path, scorer: SweepScorer, progress: bool
) -> Iterator[tuple[ScoredSetting, Any]]:
    """Setting by setting, each measured when its last SAE is trained.

    Raises:
        ShardError: SAEs that no worker could train, all of them named; the others are trained.
    """
    tasks = plan.tasks(runs.absolute())
    failed: list[str] = []
    with progress_bar("sweep", len(tasks), unit="SAEs", show=progress) as advance:
        trained = engine.map_shards(tasks, advance, lambda task: 1)
        for setting, _ in plan.configs:
            for seed in plan.seeds:
                advance(0, f"{setting.name} seed={seed}")
                try:
                    next(trained)
                except ShardError as error:
                    failed.append(f"{setting.name} seed={seed} {error}")
            if not failed:
                folders = {seed: runs / setting.folder / f"seed_{seed}" for seed in plan.seeds}
                yield scorer.score(setting, {seed: SAE.load_from_disk(one) for seed, one in folders.items()})
    if failed:
        raise ShardError(f"sweep: {len(failed)} of {len(tasks)} SAEs could not be trained ({'; '.join(failed)})")


def _write(folder: StepFolder, findings: Findings) -> None:
    folder.write_table(SETTINGS, findings.table())
    folder.write_table(TABLE, findings.runs())
    content = {
        "recommendation": findings.recommendation,
        "caution": findings.caution,
        "headline": findings.yardsticks["test"].name,
        "keys": list(findings.chosen.setting.values),
        "columns": findings.columns(),
    }
    folder.write_text(CONTENT, to_json(content))
    for kind in FORMATS:
        folder.write(f"{FIGURE}.{kind}", partial(write_figure, findings, kind))
    folder.finish(recommendation=findings.recommendation)
