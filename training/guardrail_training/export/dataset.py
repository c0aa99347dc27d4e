"""Publishes a data set: files of rows with a card, on a hub or in a folder: ``guardrail-train data push``."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from guardrail.errors import FailureError, MissingExtraError, UsageError
from guardrail.manifest import sha256_of
from guardrail_training.records import read_records

__all__ = ["card_of", "push_data"]

CARD = "README.md"


def card_of(files: Sequence[Path], *, name: str, licence: str, about: str) -> str:
    """The card of a data set; every file is read through, and a row that is none is an error."""
    lines = [f"| {path.name} | {len(read_records(path))} | `{sha256_of(path)}` |" for path in files]
    return "\n".join(
        [
            "---",
            f"license: {licence.lower()}",
            "---",
            f"# {name}",
            "",
            about or "Rows written by `guardrail-train`.",
            "",
            "| file | rows | sha256 |",
            "| --- | --- | --- |",
            *lines,
            "",
        ]
    )


def push_data(
    files: Sequence[str | Path],
    to: str,
    *,
    licence: str,
    about: str = "",
    private: bool = True,
    endpoint: str | None = None,
) -> str:
    """Puts files of rows and their card into ``to``, in one commit; returns the commit's URL or the folder.

    ``to`` is ``owner/name`` on a hub, made if it is not there, or a folder, told by a leading ``.`` or ``/``.
    The client's own login is used. Raises UsageError for two files of one name and for a folder that is not
    empty, TrainingRowError for a file that holds no rows, FailureError if the hub refuses.
    """
    paths = [Path(path) for path in files]
    if not paths or len({path.name for path in paths} | {CARD}) <= len(paths):
        raise UsageError(f"data push needs files, each with a name of its own and none called {CARD}")
    card = card_of(paths, name=to.rpartition("/")[2], licence=licence, about=about)
    if to.startswith((".", "/")):
        folder = Path(to)
        if folder.is_dir() and any(folder.iterdir()):
            raise UsageError(f"{folder} is not empty: name a new folder")
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            shutil.copyfile(path, folder / path.name)
        (folder / CARD).write_text(card, encoding="utf-8")
        return str(folder)
    return _to_hub(paths, card, to, private=private, endpoint=endpoint)


def _to_hub(paths: Sequence[Path], card: str, repo: str, *, private: bool, endpoint: str | None) -> str:
    try:
        from huggingface_hub import CommitOperationAdd, HfApi
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise MissingExtraError(feature="pushing to a hub", extra="train") from error
    # What the HTTP library below the client raises is among these bases; bad names are ValueErrors.
    failures: tuple[type[Exception], ...] = (OSError, ValueError, *HfHubHTTPError.__bases__)
    try:
        api = HfApi(endpoint=endpoint)
        api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
        added = [CommitOperationAdd(path.name, str(path)) for path in paths]
        commit = api.create_commit(
            repo,
            operations=[*added, CommitOperationAdd(CARD, card.encode())],
            commit_message=f"{len(paths)} files of rows",
            repo_type="dataset",
        )
    except failures as error:
        # The client's message may quote the request with its headers.
        raise FailureError(
            f"{repo} could not be pushed ({type(error).__name__}): check name, network and 'hf auth login'"
        ) from None
    return str(commit.commit_url)
