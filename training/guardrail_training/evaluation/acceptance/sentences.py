"""The sentences that acceptance is read on, drawn from the dev sets."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from guardrail.errors import UsageError
from guardrail_training.data import read_texts
from guardrail_training.evaluation.acceptance.settings import AcceptanceSettings
from guardrail_training.records import read_records

__all__ = ["EVERYDAY", "PARADETOX", "REGISTER", "HostileSentence", "draw"]

EVERYDAY, PARADETOX, REGISTER = "everyday", "paradetox", "register: {}"
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class HostileSentence:
    """A hostile sentence, the sets that it was drawn for, and whether nothing civil can carry it."""

    text: str = field(repr=False)
    sets: tuple[str, ...]
    lossy: bool = False


def draw(data: Path, settings: AcceptanceSettings) -> tuple[HostileSentence, ...]:
    """The sentences of all sets, each once; the same for the same files, sizes and seed."""
    generator = random.Random(f"acceptance-{settings.seed}")
    rows: list[HostileSentence] = []
    if settings.texts:
        texts = [text.content for text in read_texts(data / settings.texts, field=settings.field)]
        name = Path(settings.texts).parent.name or Path(settings.texts).stem
        chosen = _sample(texts, settings.limit or len(texts), generator)
        return _each_once(HostileSentence(text, (name,)) for text in chosen)
    if settings.everyday or settings.register:
        rows += _everyday(data / "everyday" / "dev.jsonl", settings, generator)
    if settings.paradetox:
        path = data / "paradetox" / "dev.jsonl"
        texts = [record["toxic"] for record in read_records(path, fields={"toxic": str})]
        rows += [
            HostileSentence(text, (PARADETOX,)) for text in _sample(texts, settings.paradetox, generator)
        ]
    found = _each_once(rows)
    if not found:
        raise UsageError("no sentence to read: everyday, paradetox and register are all 0")
    return found


def _everyday(path: Path, settings: AcceptanceSettings, generator: random.Random) -> list[HostileSentence]:
    records = read_records(path, fields={"toxic": str, "register": str, "lossy": bool})
    drawn = [(EVERYDAY, _sample(records, settings.everyday, generator))]
    for register in sorted({record["register"] for record in records}):
        of_it = [record for record in records if record["register"] == register]
        drawn.append((REGISTER.format(register), _sample(of_it, settings.register, generator)))
    return [
        HostileSentence(record["toxic"], (name,), record["lossy"])
        for name, chosen in drawn
        for record in chosen
    ]


def _sample(items: Sequence[_Item], count: int, generator: random.Random) -> list[_Item]:
    return generator.sample(items, min(count, len(items)))


def _each_once(rows: Iterable[HostileSentence]) -> tuple[HostileSentence, ...]:
    found: dict[str, HostileSentence] = {}
    for row in rows:
        earlier = found.get(row.text, row)
        sets = tuple(dict.fromkeys((*earlier.sets, *row.sets)))
        found[row.text] = HostileSentence(row.text, sets, earlier.lossy or row.lossy)
    return tuple(found.values())
