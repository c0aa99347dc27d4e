"""What was tried for each sentence of a text, kept only if somebody asks for it.

It holds candidates that no check let pass, so it is for the eyes of whoever asked: no outcome, log or audit
holds any of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from guardrail.outcome import Edit, Outcome, Verdict
from guardrail.outcome.reasons import in_words
from guardrail.outcome.summary import done, strongest

__all__ = ["Attempt", "Explanation", "Sentence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One text that was tried in a sentence's place, and what refused it: empty if nothing did.

    ``similarity`` and ``acceptable`` are those of a rewrite, as for an Edit.
    """

    text: str = field(repr=False)
    failed_checks: tuple[str, ...]
    step: Literal["rewrite", "mask"] = "rewrite"
    similarity: float | None = None
    acceptable: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """One segment of a text; ``edit`` is None if it passed.

    ``start`` is its offset in the text, in which the spans of ``verdict`` are measured, too.
    """

    start: int
    text: str = field(repr=False)
    verdict: Verdict
    edit: Edit | None = None
    attempts: tuple[Attempt, ...] = ()

    @property
    def end(self) -> int:
        """Behind its last character."""
        return self.start + len(self.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """An outcome with every sentence of its text, as far as it was read."""

    outcome: Outcome
    sentences: tuple[Sentence, ...]

    def lines(self) -> Iterator[str]:
        """The explanation in plain words, texts in quotes with unprintable characters escaped."""
        for number, sentence in enumerate(self.sentences, start=1):
            yield from _sentence_lines(number, sentence)
        for reason in self.outcome.degraded:
            yield f"no full pass: {in_words(reason)} ({reason})"


def _sentence_lines(number: int, sentence: Sentence) -> Iterator[str]:
    edit = sentence.edit
    score = strongest(sentence.verdict) or "no scores"
    action = "passed" if edit is None else done(edit)
    yield f"{number}. characters {sentence.start}-{sentence.end} ({score}): {action}"
    yield f"   {sentence.text!r}"
    if edit is None:
        return
    for count, attempt in enumerate(sentence.attempts, start=1):  # a mask comes last
        name = f"rewrite {count}" if attempt.step == "rewrite" else "mask"
        yield f"   {name}: {_result(attempt, edit)}"
        yield f"     {attempt.text!r}"
    told = {name for attempt in sentence.attempts for name in attempt.failed_checks}
    for reason in edit.failed_checks:
        if reason not in told:
            yield f"   {in_words(reason)} ({reason})"
    if edit.would is None and not any(attempt.text == edit.after for attempt in sentence.attempts):
        yield f"   in its place: {edit.after!r}"


def _result(attempt: Attempt, edit: Edit) -> str:
    """What became of an attempt, and its metrics."""
    metrics = {"similarity": attempt.similarity, "acceptable": attempt.acceptable}
    shown = ", ".join(f"{name} {value:.2f}" for name, value in metrics.items() if value is not None)
    if attempt.failed_checks:
        result = f"refused: {'; '.join(f'{in_words(name)} ({name})' for name in attempt.failed_checks)}"
    else:
        result = "taken" if attempt.text == edit.after else "passed, not taken"
    return f"{result} [{shown}]" if shown else result
