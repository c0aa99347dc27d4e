"""Puts an exported folder on a hub. Tried against a stand-in for a hub, not yet against a real one."""

from __future__ import annotations

from pathlib import Path

from guardrail.errors import FailureError, MissingExtraError
from guardrail.manifest import FILENAME, Manifest

__all__ = ["push"]


def push(folder: str | Path, repo: str, *, private: bool = True, endpoint: str | None = None) -> str:
    """Uploads the manifest and the files it lists, in one commit, and returns the commit's URL.

    ``repo`` is ``owner/name``, made if it is not there. The client's own login is used (``hf auth login`` or
    HF_TOKEN); ``endpoint`` names another hub. Raises ManifestError, before anything is sent, where a file was
    altered; FailureError if the hub refuses.
    """
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise MissingExtraError(feature="pushing to a hub", extra="train") from error
    manifest = Manifest.load(folder)
    # Among these bases is whatever the HTTP library below the client raises, which changes with its versions;
    # names that can be none are ValueErrors.
    failures: tuple[type[Exception], ...] = (OSError, ValueError, *HfHubHTTPError.__bases__)
    try:
        api = HfApi(endpoint=endpoint)
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=[FILENAME, *manifest.files],
            commit_message=f"{manifest.name} {manifest.version}",
        )
    except failures as error:
        # The client's message may quote the request with its headers.
        raise FailureError(
            f"{repo} could not be pushed ({type(error).__name__}): check name, network and 'hf auth login'"
        ) from None
    return str(commit.commit_url)
