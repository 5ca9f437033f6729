"""The command `import`: an SAE of another project as a folder like that of `train`."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from sae_lens import SAE

from sae_lens_meme.errors import ModelError
from sae_lens_meme.importers.options import STEP, ImportOptions
from sae_lens_meme.importers.table import converter_of, find, options_for
from sae_lens_meme.provenance import IMPORTED, SAE_CFG, SAE_WEIGHTS, weights_fingerprint
from sae_lens_meme.storage import StepFolder, through_stores
from sae_lens_meme.train.saelens import write_saved


@through_stores()
def import_sae(
    path: str | Path,
    out: str | Path,
    options: ImportOptions | None = None,
    *,
    converter: str | None = None,
    overwrite: bool = False,
    **given: Any,
) -> SAE[Any]:
    """Write an SAE of another project as a stock SAE folder that computes the same.

    Args:
        path: the folder with its files, or the file with its weights.
        out: the folder to write; `sae_lens.SAE.load_from_disk` and every command with `--sae` take it.
        options: or its fields as keywords, see `ImportOptions`.
        converter: the format, one of `FORMATS`; default: recognised from its files, else dictionary_learning.

    Raises:
        ModelError: the files are not those of an SAE that is known here (the message names what is missing), or are stock.
        ConfigError: there is no such format, or it does not take one of the options.
        StorageError: there is something else at `out`.
    """
    options, path = ImportOptions.of(options, given), Path(path)
    recognised = converter or converter_of(path)
    if recognised is None and all((path / name).is_file() for name in (SAE_CFG, SAE_WEIGHTS)):
        raise ModelError(
            f"{path}: is a stock SAE already; give it to evaluate --sae as it is, or name the format that it is of"
        )
    name = recognised or "dictionary_learning"
    asked = options_for(name, options.model_dump(exclude_none=True))
    sae = _load(name, path, asked)
    fingerprint = {"format": name, "weights": weights_fingerprint(sae), "cfg": sae.cfg.to_dict()}
    with StepFolder(out, STEP, fingerprint, overwrite=overwrite) as folder:
        if not folder.complete:
            with tempfile.TemporaryDirectory() as made:
                sae.save_model(made)
                write_saved(folder, made)
            facts = {"d_in": sae.cfg.d_in, "d_sae": sae.cfg.d_sae, "hook": sae.cfg.metadata.hook_name}
            folder.finish(**facts, imported=sae.cfg.metadata[IMPORTED])
    return sae


def _load(name: str, path: Path, asked: dict[str, Any]) -> SAE[Any]:
    try:
        return SAE.load_from_disk(path, converter=partial(find(name).load, **asked))
    except (
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
    ) as error:  # of SAELens, on a config that it does not know
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"{path}: is not an SAE of {name} ({type(error).__name__}: {reason})") from error
