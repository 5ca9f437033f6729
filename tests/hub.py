"""The Hugging Face Hub as the tests of uploads see it: nothing is sent."""

from __future__ import annotations

from typing import Any


class Hub:
    """In place of `HfApi`."""

    def __init__(self, error: Exception | None = None):
        self.error, self.created, self.sent = error, {}, {}

    def __call__(self, token: str | None = None) -> Hub:
        return self

    def create_repo(self, repo: str, **given: Any) -> str:
        if self.error:
            raise self.error
        self.created = {"repo": repo, **given}
        kind = "datasets/" if given["repo_type"] == "dataset" else ""
        return f"https://huggingface.co/{kind}{repo}"

    def upload_folder(self, **given: Any) -> None:
        self.sent = given
