"""One question for each source's dev rows: which of these texts are toxic by the source's own words?

Training masks labels that a source cannot know; here every dev row counts, as its source decided.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from research.detection.dev_sets import LabelledSet, lower_detached
from research.detection.sources import readings

__all__ = ["TASKS", "dev_tasks", "everyday_by_severity", "measured_sets"]

Row = Mapping[str, Any]
Judged = tuple[str, bool]


def dev_tasks(data: Path) -> list[LabelledSet]:
    """A set for each source whose folder has a dev part, with the label whose score ranks it."""
    sets = []
    for (source, name), (label, judge) in TASKS.items():
        path = data / source / "dev.jsonl"
        if path.is_file():
            judged = dict(pair for row in _rows(path) for pair in judge(row))
            sets.append(LabelledSet(name, label, tuple(judged), tuple(judged.values())))
    return sets


def everyday_by_severity(data: Path) -> dict[str, tuple[str, ...]]:
    """Hostile dev sentences of ``everyday`` as its readers rated them, and its harmless ones."""
    groups: dict[str, list[str]] = {
        "everyday hostile, severity 1-3": [],
        "everyday hostile, severity 2-3": [],
        "everyday hostile, severity 3": [],
        "everyday hostile, without swear words": [],
        "everyday look-alikes": [],
        "everyday neutral": [],
    }
    for row in _rows(data / "everyday" / "dev.jsonl"):
        said = readings()[row["toxic"]]
        if said.severity >= 0.5:
            groups["everyday hostile, severity 1-3"].append(row["toxic"])
            if not said.swear:
                groups["everyday hostile, without swear words"].append(row["toxic"])
        if said.severity >= 1.5:
            groups["everyday hostile, severity 2-3"].append(row["toxic"])
        if said.severity >= 2.5:
            groups["everyday hostile, severity 3"].append(row["toxic"])
        groups["everyday look-alikes"].append(row["lookalike"])
        groups["everyday neutral"] += row["neutral"]
    return {name: tuple(dict.fromkeys(texts)) for name, texts in groups.items()}


def measured_sets(*, hostile: bool) -> dict[str, tuple[str, ...]]:
    """Sentences of this project that no training reads: hostile ones without swear words, or harmless ones.

    "friendly swearing" stands with the harmless ones; it is uncivil all the same, and counted apart.
    """
    sets: dict[str, list[str]] = {}
    folder = resources.files("research.detection").joinpath("sentences")
    for line in folder.joinpath("measured.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["hostile"] == hostile:
            sets.setdefault(row["set"], []).append(row["text"])
    return {name: tuple(texts) for name, texts in sets.items()}


def _rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _one(positive: Callable[[Row], bool | None]) -> Callable[[Row], Iterator[Judged]]:
    def judge(row: Row) -> Iterator[Judged]:
        if (said := positive(row)) is not None:
            yield row["text"], said

    return judge


def _everyday(row: Row) -> Iterator[Judged]:
    yield row["toxic"], True
    for text in (*row["neutral"], row["lookalike"]):
        yield text, False


def _paradetox(row: Row) -> Iterator[Judged]:
    """Both sides in one style: lower case, punctuation between blanks."""
    for text in row["neutral"]:
        yield lower_detached(text), False
    yield lower_detached(row["toxic"]), True


def _sbic(row: Row) -> bool | None:
    return None if row["offensive"] is None else row["offensive"] >= 0.5


TASKS: dict[tuple[str, str], tuple[str, Callable[[Row], Iterator[Judged]]]] = {
    ("everyday", "everyday: hostile against neutral and look-alike"): ("incivility", _everyday),
    ("implicit_hate", "implicit_hate: implicit or explicit hate"): (
        "toxicity",
        _one(lambda row: row["label"] != "not_hate"),
    ),
    ("dynahate", "dynahate: hate"): ("toxicity", _one(lambda row: bool(row["hate"]))),
    ("hatemoji_build", "hatemoji_build: hate"): ("toxicity", _one(lambda row: bool(row["hate"]))),
    ("sbic", "sbic: offensive"): ("toxicity", _one(_sbic)),
    ("gab_hate", "gab_hate: any of the three"): (
        "toxicity",
        _one(lambda row: bool(row["hd"] or row["cv"] or row["vo"])),
    ),
    ("edos", "edos: sexist"): ("toxicity", _one(lambda row: bool(row["sexist"]))),
    ("online_misogyny", "online_misogyny: misogynistic"): (
        "toxicity",
        _one(lambda row: bool(row["misogynistic"])),
    ),
    ("convabuse", "convabuse: abusive by most"): (
        "toxicity",
        _one(lambda row: 2 * sum(severity < 0 for severity in row["severities"]) > len(row["severities"])),
    ),
    ("diasafety", "diasafety: offending user"): (
        "incivility",
        _one(lambda row: bool(row["unsafe"]) if row["category"] == "Offending User" else None),
    ),
    ("paradetox", "paradetox: toxic against neutral"): ("toxicity", _paradetox),
    ("stormfront", "stormfront: hate"): ("toxicity", _one(lambda row: row["label"] == "hate")),
    ("davidson", "davidson: hate or offensive"): (
        "toxicity",
        _one(lambda row: row["hate"] + row["offensive"] > row["neither"]),
    ),
}
