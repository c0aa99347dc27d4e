"""The rows of the rewriting table: what each system makes of the same toxic sentences."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from guardrail.errors import UsageError
from guardrail.outcome import Action, Outcome
from guardrail.protocols import Detector, Rewriter
from guardrail_training.data import SourceRow
from guardrail_training.evaluation.rewriting_report import SystemOutputs
from guardrail_training.records import FileRecord, read_records

__all__ = [
    "COPY",
    "DELETE",
    "GREEDY",
    "GUARD",
    "HUMAN",
    "MASKED",
    "PILOT",
    "ROWS",
    "EvaluatedGuard",
    "Sentences",
    "copied",
    "deleted",
    "faults_of",
    "greedy",
    "guarded",
    "read_outputs",
    "second_references",
    "write_outputs",
]

COPY, DELETE, MASKED, GREEDY = "copy", "delete", "masked", "greedy"
PILOT = "pilot's recipe, greedy"
GUARD = "n-best + verify (the guard)"
HUMAN = "second human reference"
ROWS = frozenset((COPY, DELETE, MASKED, PILOT, GREEDY, GUARD, HUMAN))
"""Names of the table's own rows."""
WORD = re.compile(r"\S+")
FAULT = re.compile(r".*_(error|invalid|deadline|circuit_open|missing)")


class EvaluatedGuard(Protocol):
    """The part of ``guardrail.Guard`` that an evaluation needs."""

    def check_many(self, texts: Sequence[str]) -> list[Outcome]: ...


@dataclass(frozen=True, slots=True)
class Sentences:
    """Toxic sentences with people's neutral references, in the order of the dev file."""

    rows: tuple[int, ...]
    sources: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, rows: Iterable[SourceRow]) -> Sentences:
        """The sentences of parallel rows, numbered as in their file."""
        chosen = list(rows)
        return cls(
            rows=tuple(row.number for row in chosen),
            sources=tuple(row.source for row in chosen),
            references=tuple(row.references for row in chosen),
        )

    def answered(
        self, name: str, outputs: Sequence[str], *, actions: Sequence[Action] | None = None
    ) -> SystemOutputs:
        """These sentences with one system's outputs."""
        return SystemOutputs(
            name=name,
            rows=self.rows,
            sources=self.sources,
            references=self.references,
            outputs=tuple(outputs),
            actions=tuple(actions) if actions is not None else None,
        )


def copied(sentences: Sentences) -> SystemOutputs:
    """Every sentence unchanged: what overlap and meaning are worth on their own."""
    return sentences.answered(COPY, sentences.sources)


def deleted(sentences: Sentences, *, lexicon: Detector) -> SystemOutputs:
    """Every sentence without the words in which the word list finds something."""
    verdicts = lexicon.detect(list(sentences.sources))
    outputs = []
    for source, verdict in zip(sentences.sources, verdicts, strict=True):
        kept = [
            word.group()
            for word in WORD.finditer(source)
            if not any(span.start < word.end() and word.start() < span.end for span in verdict.spans)
        ]
        outputs.append(" ".join(kept))
    return sentences.answered(DELETE, outputs)


def greedy(sentences: Sentences, *, name: str, rewriter: Rewriter) -> SystemOutputs:
    """The rewriter's first candidate, unverified; empty if it proposes none."""
    candidates = rewriter.rewrite(list(sentences.sources), 1)
    return sentences.answered(name, [proposed[0] if proposed else "" for proposed in candidates])


def guarded(sentences: Sentences, *, name: str, guard: EvaluatedGuard) -> SystemOutputs:
    """What the whole guard lets out, with the action it took for each sentence.

    Raises UsageError if a model failed: the figures would be those of the error policy.
    """
    outcomes = guard.check_many(list(sentences.sources))
    if faults := faults_of(outcomes):
        raise UsageError(f"system {name!r} did not run with all its models: {', '.join(faults)}")
    return sentences.answered(
        name, [outcome.text for outcome in outcomes], actions=[outcome.action for outcome in outcomes]
    )


def faults_of(outcomes: Iterable[Outcome]) -> list[str]:
    """Why outcomes are those of the error policy: models that failed or are missing; empty if none did."""
    return sorted({reason for outcome in outcomes for reason in outcome.degraded if FAULT.fullmatch(reason)})


def second_references(sentences: Sentences) -> SystemOutputs | None:
    """A second person's rewrite measured against the others' wherever there is one; None if nowhere."""
    places = [place for place, several in enumerate(sentences.references) if len(several) > 1]
    if not places:
        return None
    references = [sentences.references[place] for place in places]
    return SystemOutputs(
        name=HUMAN,
        rows=tuple(sentences.rows[place] for place in places),
        sources=tuple(sentences.sources[place] for place in places),
        references=tuple((several[0], *several[2:]) for several in references),
        outputs=tuple(several[1] for several in references),
    )


def write_outputs(path: str | Path, systems: Iterable[SystemOutputs]) -> None:
    """One JSON line per system and sentence, so that sheets and samples need no model."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for system in systems:
            for place, row in enumerate(system.rows):
                content = {
                    "system": system.name,
                    "row": row,
                    "source": system.sources[place],
                    "references": system.references[place],
                    "output": system.outputs[place],
                    "action": str(system.actions[place]) if system.actions is not None else None,
                }
                file.write(json.dumps(content, ensure_ascii=True) + "\n")


def read_outputs(path: str | Path) -> list[SystemOutputs]:
    """The systems of a file that ``write_outputs`` made; UsageError names a row it cannot use."""
    fields: dict[str, type | tuple[type, ...]] = {
        "system": str,
        "row": int,
        "source": str,
        "references": list,
        "output": str,
        "action": (str, type(None)),
    }
    grouped: dict[str, list[FileRecord]] = {}
    for record in read_records(path, fields=fields):
        grouped.setdefault(record["system"], []).append(record)
    return [_from_records(name, records) for name, records in grouped.items()]


def _from_records(name: str, records: Sequence[FileRecord]) -> SystemOutputs:
    actions = [record["action"] for record in records]
    return SystemOutputs(
        name=name,
        rows=tuple(record["row"] for record in records),
        sources=tuple(record["source"] for record in records),
        references=tuple(tuple(record["references"]) for record in records),
        outputs=tuple(record["output"] for record in records),
        actions=None if None in actions else tuple(Action(action) for action in actions),
    )
