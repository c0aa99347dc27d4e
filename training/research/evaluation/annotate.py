"""Blinded sheets for human rating, and how far two raters agree.

A sheet shows sources and outputs under ids that do not tell the system; the key that does lies in a second
file that raters are not given. Three questions, each with the numbers allowed:

``neutral``  0 still toxic, 1 not toxic
``meaning``  0 another meaning, 1 in part the same, 2 the same as far as it is not toxic
``fluency``  0 broken, 1 understandable with errors, 2 reads well
"""

from __future__ import annotations

import csv
import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from guardrail.errors import UsageError
from guardrail_training.evaluation.acceptance.sheet import inert, key_path
from guardrail_training.evaluation.rewriting_report import SystemOutputs

__all__ = ["QUESTIONS", "Agreement", "agreement", "write_sheet"]

QUESTIONS: Mapping[str, tuple[int, ...]] = {"neutral": (0, 1), "meaning": (0, 1, 2), "fluency": (0, 1, 2)}
COLUMNS = ("id", "source", "output", *QUESTIONS)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two raters on one sheet.

    ``kappa`` is Cohen's kappa per question, with quadratic weights if there are more than two answers; it
    is None if both raters gave one and the same answer throughout, which leaves chance agreement
    undefined. ``means`` is per system and question the mean of both raters.
    """

    items: int
    kappa: Mapping[str, float | None]
    agreed: Mapping[str, float]
    means: Mapping[str, Mapping[str, float]]


def write_sheet(sheet: str | Path, systems: Sequence[SystemOutputs], *, sentences: int, seed: int) -> Path:
    """Writes a CSV sheet of random sentences with every system's output, shuffled, and its key; returns the
    key.

    Only sentences that all systems answered are drawn. Equal outputs for one source are one row, so that they
    get one rating. Raises UsageError if there are no such sentences.
    """
    shared = sorted(set.intersection(*(set(system.rows) for system in systems))) if systems else []
    if not shared or sentences < 1:
        raise UsageError(
            f"no sheet: {len(systems)} systems share {len(shared)} sentences, {sentences} asked for"
        )
    generator = random.Random(f"sheet-{seed}")
    chosen = generator.sample(shared, min(sentences, len(shared)))
    shown: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for system in systems:
        for row in chosen:
            place = system.rows.index(row)
            shown.setdefault((system.sources[place], system.outputs[place]), []).append((system.name, row))
    items = list(shown.items())
    generator.shuffle(items)
    key = {}
    with Path(sheet).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for (source, output), origins in items:
            identity = hashlib.sha256(
                f"{seed}\0{source}\0{output}".encode(errors="surrogatepass")
            ).hexdigest()[:12]
            key[identity] = origins
            writer.writerow([identity, inert(source), inert(output), *[""] * len(QUESTIONS)])
    path = key_path(sheet)
    path.write_text(json.dumps({"seed": seed, "ids": key}, indent=1) + "\n", encoding="utf-8")
    return path


def agreement(first: str | Path, second: str | Path, *, key: str | Path) -> Agreement:
    """How far two filled sheets agree, and each system's mean ratings.

    Raises UsageError for a sheet with missing columns, ids that differ, or an answer that is not allowed
    (with the sheet, the row number from 2 as a spreadsheet counts, and the column).
    """
    from sklearn.metrics import cohen_kappa_score

    left, right = _ratings(first), _ratings(second)
    if set(left) != set(right):
        raise UsageError(
            f"{first} and {second} differ in {len(set(left) ^ set(right))} ids: rate the same sheet twice"
        )
    origins = _origins(key)
    if unknown := set(left) - set(origins):
        raise UsageError(
            f"{key} does not know {len(unknown)} ids of the sheets: it is the key of another sheet"
        )
    ids = sorted(left)
    kappa: dict[str, float | None] = {}
    agreed = {}
    for question, allowed in QUESTIONS.items():
        ours, theirs = ([ratings[identity][question] for identity in ids] for ratings in (left, right))
        agreed[question] = float(np.mean(np.array(ours) == np.array(theirs)))
        varied = len({*ours, *theirs}) > 1
        weights = "quadratic" if len(allowed) > 2 else None
        kappa[question] = float(cohen_kappa_score(ours, theirs, weights=weights)) if varied else None
    return Agreement(items=len(ids), kappa=kappa, agreed=agreed, means=_means(ids, (left, right), origins))


def _means(
    ids: Sequence[str],
    sheets: Sequence[Mapping[str, Mapping[str, int]]],
    origins: Mapping[str, Sequence[str]],
) -> dict[str, dict[str, float]]:
    by_system: dict[str, dict[str, list[int]]] = {}
    for identity in ids:
        for system in origins[identity]:
            answers = by_system.setdefault(system, {question: [] for question in QUESTIONS})
            for ratings in sheets:
                for question in QUESTIONS:
                    answers[question].append(ratings[identity][question])
    return {
        system: {question: float(np.mean(values)) for question, values in answers.items()}
        for system, answers in sorted(by_system.items())
    }


def _origins(key: str | Path) -> dict[str, list[str]]:
    """Per id the systems behind it, once for every sentence."""
    try:
        content = json.loads(Path(key).read_text(encoding="utf-8"))
        return {identity: [system for system, _ in origins] for identity, origins in content["ids"].items()}
    except FileNotFoundError as error:
        raise UsageError(f"no key {key}: it is written alongside the sheet") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{key} is not the key of a sheet ({type(error).__name__})") from None


def _ratings(sheet: str | Path) -> dict[str, dict[str, int]]:
    try:
        with Path(sheet).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = sorted({"id", *QUESTIONS} - set(reader.fieldnames or ()))
            if missing:
                raise UsageError(f"{sheet}: missing columns {', '.join(missing)}")
            return {row["id"]: _answers(row, number, sheet) for number, row in enumerate(reader, 2)}
    except FileNotFoundError as error:
        raise UsageError(f"no sheet {sheet}") from error


def _answers(row: Mapping[str, str], number: int, sheet: str | Path) -> dict[str, int]:
    answers = {}
    for question, allowed in QUESTIONS.items():
        given = (row[question] or "").strip()
        if given not in {str(answer) for answer in allowed}:
            expected = ", ".join(map(str, allowed))
            raise UsageError(f"{sheet} row {number}: column {question!r} must be one of {expected}")
        answers[question] = int(given)
    return answers
