"""Fetches public data sets, from a hub or a folder, into the files that the trainers read.

    guardrail-train data pull paradetox --out data     then --data data for every trainer

A listed name is brought into this package's own fields; any other data set ``OWNER/NAME`` keeps its own. The
hub's column names are those of its documentation; no fetch from the real hub has been run here.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from guardrail.config.settings import key_error
from guardrail.errors import FailureError, MissingExtraError, UsageError
from guardrail.integrations.rows.record import to_json
from guardrail.manifest import sha256_of
from guardrail_training.outputs import require_writable
from guardrail_training.records import TrainingRowError, read_records

__all__ = ["LISTED", "ORIGIN", "PublicSet", "Pulled", "pull"]

Row = Mapping[str, Any]
ORIGIN = "origin.json"
KINDS = (".jsonl", ".csv", ".tsv", ".parquet", ".arrow", ".jsonl.gz", ".csv.gz")
PARTS = {"train": "train", "dev": "dev", "valid": "dev", "validation": "dev", "val": "dev", "test": "test"}
HELD_OUT = 20  # of a set without a dev part one row in so many


@dataclass(frozen=True, slots=True)
class PublicSet:
    """A data set by its place on the hub; ``fields`` are its columns by our names.

    ``listed`` is the field whose values are gathered in a list for equal rows otherwise; empty: none.
    """

    repo: str
    licence: str
    fields: Mapping[str, str]
    listed: str = ""


LISTED: Mapping[str, PublicSet] = {
    "paradetox": PublicSet(
        "s-nlp/paradetox",
        "openrail++",
        {"toxic": "en_toxic_comment", "neutral": "en_neutral_comment"},
        listed="neutral",
    ),
    "dialogsum": PublicSet(
        "knkarthick/dialogsum",
        "CC-BY-NC-SA-4.0",
        {"id": "id", "dialogue": "dialogue", "summary": "summary", "topic": "topic"},
        listed="summary",
    ),
    "davidson": PublicSet(
        "tdavidson/hate_speech_offensive",
        "MIT",
        {
            "text": "tweet",
            "hate": "hate_speech_count",
            "offensive": "offensive_language_count",
            "neither": "neither_count",
        },
    ),
}


@dataclass(frozen=True, slots=True)
class Pulled:
    """Where a set lies now, and how many rows each part has."""

    folder: Path
    rows: Mapping[str, int]


def pull(
    name: str, *, out: str | Path, source: str | Path | None = None, revision: str = "main", seed: int = 0
) -> Pulled:
    """Writes ``out/NAME/train.jsonl``, ``dev.jsonl`` and ``test.jsonl`` (if there is one), with their origin.

    ``source`` is a folder that holds the set's files, in place of the hub. A set without a dev part gets one:
    a twentieth of its rows, drawn by ``seed``. Raises UsageError for an unknown name, a folder without tables
    or one that exists; FailureError if the hub does not give the files.
    """
    known = LISTED.get(name)
    if known is None and "/" not in name and source is None:
        raise key_error(name, LISTED, where="data pull", kind="data set")
    folder = require_writable(Path(out) / name.rpartition("/")[2], folder=True)
    if folder.exists():
        raise UsageError(f"{folder} exists: remove it, or choose another --out")
    with tempfile.TemporaryDirectory() as staging:
        if source is None:
            files, commit = _from_hub(known.repo if known else name, revision, Path(staging))
        else:
            files, commit = Path(source), ""
            if not files.is_dir():
                raise UsageError(f"{source} is not a folder: name the one that holds the set's files")
        tables = _tables(files, where=str(source or name))
        parts = {part: _rows(paths, known) for part, paths in tables.items()}
        hashes = {
            path.relative_to(files).as_posix(): sha256_of(path) for each in tables.values() for path in each
        }
    if "train" in parts and "dev" not in parts:
        parts["train"], parts["dev"] = _held_out(parts["train"], seed=seed)
    folder.mkdir(parents=True)
    for part, rows in parts.items():
        (folder / f"{part}.jsonl").write_text("".join(to_json(row) + "\n" for row in rows), encoding="utf-8")
    counts = {part: len(rows) for part, rows in parts.items()}
    origin = {
        "name": name,
        "repo": (known.repo if known else name) if source is None else None,
        "revision": commit or None,
        "licence": known.licence if known else None,
        "files": hashes,
        "rows": counts,
        "made_by": asdict(known) if known else None,
    }
    (folder / ORIGIN).write_text(json.dumps(origin, indent=1) + "\n", encoding="utf-8")
    return Pulled(folder, counts)


def _from_hub(repo: str, revision: str, staging: Path) -> tuple[Path, str]:
    """The folder with a set's tables at a revision, and the commit that it is."""
    try:
        from huggingface_hub import HfApi, snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise MissingExtraError(feature="fetching from a hub", extra="hub") from error
    failures: tuple[type[Exception], ...] = (OSError, ValueError, *HfHubHTTPError.__bases__)
    patterns = [f"*{kind}" for kind in KINDS]
    try:
        commit = str(HfApi().dataset_info(repo, revision=revision).sha)
        snapshot_download(
            repo, repo_type="dataset", revision=commit, local_dir=staging, allow_patterns=patterns
        )
    except failures as error:
        raise FailureError(
            f"{repo} at {revision} could not be fetched ({type(error).__name__}): check name, network and "
            "'hf auth login', or give a folder with its files as --from"
        ) from None
    return staging, commit


def _tables(folder: Path, *, where: str) -> dict[str, list[Path]]:
    """The files of each part, by the words in their names; a set with one part alone is for training."""
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name.endswith(KINDS) and ".cache" not in path.relative_to(folder).parts
    )
    if not files:
        raise UsageError(f"{where} has no table: none of {', '.join(KINDS)}")
    parts: dict[str, list[Path]] = {}
    for path in files:
        words = path.name.lower().replace("-", ".").replace("_", ".").split(".")
        part = next((PARTS[word] for word in words if word in PARTS), "train")
        parts.setdefault(part, []).append(path)
    return parts


def _rows(paths: Iterable[Path], known: PublicSet | None) -> list[dict[str, Any]]:
    rows = [
        _named(record.content, record.number, path, known) for path in paths for record in read_records(path)
    ]
    return _gathered(rows, known.listed) if known and known.listed else rows


def _named(row: Row, number: int, path: Path, known: PublicSet | None) -> dict[str, Any]:
    if known is None:
        return dict(row)
    named = {}
    for ours, theirs in known.fields.items():
        found = next((name for name in (theirs, ours) if name in row), None)
        if found is None:
            raise TrainingRowError(
                f"{path.name} row {number}: no field {theirs}; its fields are {', '.join(row)}"
            )
        named[ours] = row[found]
    return named


def _gathered(rows: Sequence[dict[str, Any]], field: str) -> list[dict[str, Any]]:
    """Equal rows as one, whose field lists every value that they have, each once."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        rest = {name: value for name, value in row.items() if name != field}
        values = row[field] if isinstance(row[field], list) else [row[field]]
        kept = found.setdefault(json.dumps(rest, sort_keys=True, default=str), {**rest, field: []})
        kept[field] += [value for value in values if value not in kept[field]]
    return list(found.values())


def _held_out(rows: list[dict[str, Any]], *, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    places = set(random.Random(f"dev-{seed}").sample(range(len(rows)), len(rows) // HELD_OUT))
    return (
        [row for place, row in enumerate(rows) if place not in places],
        [row for place, row in enumerate(rows) if place in places],
    )
