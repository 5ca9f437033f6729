"""Sends a finished folder to the Hugging Face Hub: private unless asked otherwise."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id

from sae_lens_meme.errors import ConfigError, StorageError
from sae_lens_meme.storage import LOCK, MANIFEST, SUCCESS, read_finished, through_stores


@through_stores("folder")
def push_folder(
    folder: str | Path, step: str, *, repo_type: str, message: str, private: bool = True, token: str | None = None
) -> str:
    """Upload the result of a step with the token that `hf auth login` or HF_TOKEN gives.

    Returns:
        The address of the repository.

    Raises:
        ConfigError: there is no token.
        StorageError: the folder is not finished, or the Hub refuses it.
    """
    repo = read_finished(folder, step)["facts"]["repo"]
    api = HfApi(token=token)
    try:
        address = api.create_repo(repo, repo_type=repo_type, private=private, exist_ok=True)
        ours = [MANIFEST, SUCCESS, LOCK]  # of this folder; those of an evaluation in it make it readable
        api.upload_folder(
            repo_id=repo, repo_type=repo_type, folder_path=folder, ignore_patterns=ours, commit_message=message
        )
    except LocalTokenNotFoundError:
        raise _no_token() from None
    except (HfHubHTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise StorageError(f"{folder}: could not be uploaded to {repo} ({reason})") from None
    return str(address)


def require_token() -> None:
    """What `push_folder` will need, checked before a folder is written for it; nothing is sent.

    Raises:
        ConfigError: there is no token.
    """
    if get_token() is None:
        raise _no_token()


def _no_token() -> ConfigError:
    return ConfigError("there is no token for the Hugging Face Hub; run `hf auth login` or set HF_TOKEN")


def require_repo(repo: str) -> None:
    """Raises ConfigError unless it is OWNER/NAME."""
    try:
        validate_repo_id(repo)
        known = repo.count("/") == 1
    except HFValidationError:
        known = False
    if not known:
        raise ConfigError(f"the repository is {repo!r}; give OWNER/NAME, such as someone/memes")
