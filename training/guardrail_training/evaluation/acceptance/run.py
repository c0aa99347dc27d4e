"""Whether careful readers accept what systems release.

    guardrail-train evaluate acceptance --data DIR --out OUT
        --set 'systems=["shipped=", "new=runs/sft/step-600", "other=outputs.jsonl"]'
    guardrail-train evaluate acceptance --out OUT --set 'ratings=["OUT/anna.csv", "OUT/ben.csv"]'

The first writes ``acceptance.csv``, a blinded sheet with the rule on top, and its key, which readers are not
given. Each reader fills a copy. The second prints how far they agree, and where they do not, writes
``settle.csv`` for a third reader, whose copy is named with ``settled`` in a further call. Figures go to
``acceptance.json`` and ``acceptance.md``.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from guardrail.manifest import sha256_of
from guardrail_training.evaluation.acceptance.answers import answers_of
from guardrail_training.evaluation.acceptance.figures import differences_of, figures_of
from guardrail_training.evaluation.acceptance.ratings import ReaderRatings, agreement_of, read_ratings, settle
from guardrail_training.evaluation.acceptance.sentences import draw
from guardrail_training.evaluation.acceptance.settings import AcceptanceSettings
from guardrail_training.evaluation.acceptance.sheet import Key, items_of, key_path, rule_of, write_items
from guardrail_training.evaluation.acceptance.tables import acceptance_tables
from guardrail_training.provenance import plain
from guardrail_training.records import required_folder
from guardrail_training.runlog import git_commit, package_versions

__all__ = ["AcceptanceSettings", "run"]

SETTLE = "settle"


def run(settings: AcceptanceSettings) -> Path:
    """Writes a sheet and its key, or reads ratings and writes figures; returns the path of the sheet or of
    the JSON."""
    return _write(settings) if settings.systems else _read(settings)


def _write(settings: AcceptanceSettings) -> Path:
    data = required_folder(settings.data)
    sentences = draw(data, settings)
    texts = [sentence.text for sentence in sentences]
    answers = [answers_of(place, texts, settings) for place in settings.places]
    items, releases = items_of(sentences, answers, seed=settings.seed)
    sheet = Path(settings.out) / settings.sheet
    write_items(sheet, items, task=settings.task)
    used = (
        [settings.texts]
        if settings.texts
        else [
            f"{name}/dev.jsonl"
            for name, size in (
                ("everyday", settings.everyday + settings.register),
                ("paradetox", settings.paradetox),
            )
            if size
        ]
    )
    made = {
        **_provenance(settings),
        "task": settings.task,
        "data": {name: sha256_of(data / name) for name in used},
        "systems": {system.name: dict(system.made_of) for system in answers},
    }
    Key(sentences, releases, plain(made)).save(key_path(sheet))
    return sheet


def _read(settings: AcceptanceSettings) -> Path:
    out = Path(settings.out)
    place = Path(settings.key) if settings.key else key_path(out / settings.sheet)
    key = Key.load(place)
    task = str(key.made.get("task", settings.task))
    first, second = (read_ratings(path, key) for path in settings.ratings)
    third = _third(settings, key, first, second)
    settled = settle(first, second, third)
    out.mkdir(parents=True, exist_ok=True)
    if settled.open:
        write_items(
            (out / SETTLE).with_suffix(Path(settings.sheet).suffix),
            [first.items[each] for each in settled.open],
            task=task,
        )
    settled_file = [settings.settled] if settings.settled else []
    files: tuple[str | Path, ...] = (*settings.ratings, *settled_file, place)
    result = {
        "rule": rule_of(task),
        "agreement": agreement_of(first, second),
        "differing": settled.differing,
        "open": settled.open,
        "figures": figures_of(key, settled.ratings),
        "differences": differences_of(key, settled.ratings, seed=settings.seed),
        **_provenance(settings),
        "files": {Path(path).name: sha256_of(path) for path in files},
        "sheet": key.made,
    }
    content = json.dumps(plain(result), indent=1, allow_nan=False)
    path = out / "acceptance.json"
    path.write_text(content + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(acceptance_tables(json.loads(content)), encoding="utf-8")
    return path


def _third(
    settings: AcceptanceSettings, key: Key, first: ReaderRatings, second: ReaderRatings
) -> ReaderRatings | None:
    if not settings.settled:
        return None
    differing = settle(first, second, None).differing
    return read_ratings(settings.settled, key, wanted=frozenset(differing))


def _provenance(settings: AcceptanceSettings) -> dict[str, Any]:
    """Settings, versions and commit; of paths the last part alone: they are those of one machine."""
    return {
        "settings": {field.name: _short(getattr(settings, field.name)) for field in fields(settings)},
        "versions": package_versions(),
        "git": git_commit(),
    }


def _short(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_short(each) for each in value]
    if not isinstance(value, str):
        return value
    name, equals, place = value.rpartition("=")
    return f"{name}{equals}{Path(place).name}" if "/" in place else value
