"""Instruction records from scored paraphrases: ParaNMT's pairs of a toxic and a clean side."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guardrail.errors import UsageError
from guardrail_training.records import RecordFile, TrainingRowError

__all__ = ["RecordCount", "clean_punctuation", "write_records"]

INSTRUCTION = "Rephrase with lower toxicity level."
TEXTS = {"reference": "ref_tox", "translation": "trn_tox"}
APART = (
    (re.compile(r"`` ?"), '"'),
    (re.compile(r" ?''"), '"'),
    (re.compile(r"\s+"), " "),
    (re.compile(r" (n['’]t|['’](?:s|m|d|re|ve|ll|t))\b", re.IGNORECASE), r"\1"),
    (re.compile(r" ([.,!?;:%)\]}…])"), r"\1"),
    (re.compile(r"([(\[{]) "), r"\1"),
    (re.compile(r"([!?,;:])\1+"), r"\1"),
    (re.compile(r"\.{4,}"), "..."),
)


@dataclass(frozen=True, slots=True)
class RecordCount:
    """How many records were written, of how many rows."""

    written: int
    read: int


def write_records(path: str | Path, out: str | Path, *, least: float = 0.9, most: float = 0.2) -> RecordCount:
    """Reads ``reference``, ``translation``, ``ref_tox`` and ``trn_tox`` and writes instruction records.

    A pair is kept if its more toxic side scores above ``least`` and the other below ``most``; the former is
    the record's ``inputs``, the latter its ``outputs``, both with clean punctuation. Raises TrainingRowError
    for a bad row, UsageError for bounds that exclude each other and if nothing is kept.
    """
    if not 0 <= most <= least <= 1:
        raise UsageError(f"bounds must be 0 <= most <= least <= 1, got most {most} and least {least}")
    out, part = Path(out), Path(f"{out}.part")
    out.parent.mkdir(parents=True, exist_ok=True)
    read = written = 0
    with part.open("w", encoding="utf-8") as file:
        for _, record in RecordFile(path).scan():
            read += 1
            paraphrase = _record(record.content, f"{path} row {record.number}", least=least, most=most)
            if paraphrase is not None:
                file.write(json.dumps(paraphrase, ensure_ascii=False) + "\n")
                written += 1
    if not written:
        part.unlink()
        raise UsageError(f"{path}: no pair has one side above {least} and the other below {most}")
    part.replace(out)
    return RecordCount(written=written, read=read)


def clean_punctuation(text: str) -> str:
    """The text as people write it: marks and contractions joined to their words, repeated marks once.

    >>> clean_punctuation("what 's that , do n't you see ? !!")
    "what's that, don't you see?!"
    """
    for pattern, replacement in APART:
        text = pattern.sub(replacement, text)
    return text.strip()


def _record(content: Mapping[str, Any], where: str, *, least: float, most: float) -> dict[str, str] | None:
    if missing := sorted({*TEXTS, *TEXTS.values()} - set(content)):
        raise TrainingRowError(f"{where}: missing field {', '.join(missing)}")
    scored = sorted(
        ((_score(content[score], f"{where}: field {score}"), content[text]) for text, score in TEXTS.items()),
        key=lambda pair: pair[0],
    )
    (low, clean), (high, toxic) = scored
    if not (high > least and low < most):
        return None
    if not all(isinstance(text, str) and text.strip() for text in (clean, toxic)):
        raise TrainingRowError(f"{where}: reference and translation must be texts, not empty")
    return {
        "instructions": INSTRUCTION,
        "inputs": clean_punctuation(toxic),
        "outputs": clean_punctuation(clean),
    }


def _score(value: Any, where: str) -> float:
    try:
        score = float(value)
    except (TypeError, ValueError):
        score = float("nan")
    if not 0 <= score <= 1:
        raise TrainingRowError(f"{where} must be a number between 0 and 1") from None
    return score
