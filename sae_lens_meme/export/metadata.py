"""The one-line files: model, set, source and release; and the five of `config/`, which must be there and may be empty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sae_lens_meme.export.names import ExportNames
from sae_lens_meme.export.text import clean_json
from sae_lens_meme.export.write import Row

CONFIG = (
    *("explanation_model_type", "explanation_type", "explanation_score_model", "explanation_score_type"),
    "eval_type",
)
WARNING = "Memes can be hateful: ids and captions are those of the data set."


@dataclass(frozen=True)
class Described:
    """What the pages say about the SAE and the memes."""

    names: ExportNames
    hook: str
    d_in: int
    n_memes: int
    sources: list[str]
    creator_name: str
    visibility: str
    cfg: dict[str, Any]
    """`cfg.json` with its Neuronpedia id."""
    lift: str
    """What `pos_str` and `neg_str` are."""
    attributed: bool
    pictures: bool
    mapped: bool
    """Explanations have places."""


def metadata_rows(about: Described) -> dict[str, Row]:
    """File name -> its row."""
    names = about.names
    shared = {"creatorId": names.creator, "visibility": about.visibility}
    what = f"SAE on {about.hook} of {names.model}, on {about.n_memes:,} memes"
    rows = {
        "release.jsonl": {
            "name": names.release,
            "description": f"{what}. {WARNING}",
            "descriptionShort": what,
            "creatorName": about.creator_name,
            "urls": [],
            **shared,
        },
        "model.jsonl": {
            "id": names.model,
            "displayName": names.model,
            "displayNameShort": names.model,
            "layers": names.layer + 1,
            "neuronsPerLayer": about.d_in,
            "dimension": about.d_in,
            "owner": about.creator_name,
            "inferenceEnabled": False,
            **shared,
        },
        "sourceset.jsonl": {
            "modelId": names.model,
            "name": names.source_set,
            "description": what,
            "type": "SAE",
            "creatorName": about.creator_name,
            "releaseName": names.release,
            "hasDashboards": True,
            "allowInferenceSearch": False,
            "defaultRange": 2,
            "defaultShowBreaks": True,
            "showDfa": False,
            "showCorrelated": False,
            "showHeadAttribution": False,
            "showUmap": about.mapped,
            **shared,
        },
        "source.jsonl": {
            "id": names.source,
            "modelId": names.model,
            "setName": names.source_set,
            "hasDashboards": True,
            "inferenceEnabled": False,
            "saelensConfig": about.cfg,
            "hasUmap": about.mapped,
            "hasUmapLogSparsity": about.mapped,
            "hasUmapClusters": False,
            "num_prompts": about.n_memes,
            "num_tokens_in_prompt": 1,
            "dataset": ", ".join(about.sources),
            "notes": notes(about),
            **shared,
        },
    }
    return {name: clean_json(row) for name, row in rows.items()}


def notes(about: Described) -> str:
    """How to read memes on a page that was made for text."""
    said = [
        "A row is a meme, not a prompt: the first token is the meme and carries its activation, then come the words of its caption.",
        "Words and the 7 x 7 patches of the picture (■) are coloured by how much the pre-activation falls without them, "
        "on one scale; what works against the latent is shown as 0."
        if about.attributed
        else "Words have no attributions.",
        about.lift,
        "Explanations are names that hold on memes not used to choose them; their notes give the class effects. "
        "Search by meaning does not find them."
        if about.mapped
        else "No latent has a name that holds.",
        "Pictures, patch boxes and signed attributions are in multimodal/ beside these files."
        if about.pictures
        else "",
        WARNING,
    ]
    return " ".join(filter(None, said))
