"""What has been read, decided and released of one text so far."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from guardrail.engine.steps import Release
from guardrail.errors import PluginError
from guardrail.outcome import Action, Edit, Failure, FrozenDict, Outcome, Verdict
from guardrail.outcome.explanation import Attempt, Sentence
from guardrail.policy import Policy
from guardrail.text.boundaries import BRACKETS, DENSE_ENDS
from guardrail.text.segment import Segment

__all__ = ["CLEAN", "Case", "Record"]

CLEAN = Verdict({}, False)
SPARE = 4
"""Contexts that segments of one text may be judged with before it has brought any allowance."""
MIN_CONTEXT = 20
"""Characters that a context counts as there: a shorter one must pay for the segment behind it, too."""


@dataclass(slots=True)
class Trace:
    """What later segments need to know of an earlier one.

    ``end`` is where it ends; ``clear`` and ``flagged`` are what the detector said of it alone; ``left_out``
    is true where it was in doubt and was not judged with earlier text all the same.
    """

    end: int
    clear: bool = False
    flagged: bool = False
    left_out: bool = False


class Allowance:
    """Characters that segments of one text may still be judged with earlier text for.

    ``start`` of them are there at first and at most kept; each segment brings ``RATE`` for each of its own.
    """

    RATE = 0.5

    def __init__(self, start: int) -> None:
        self._start = start
        self._left = float(start)

    def earn(self, characters: int) -> None:
        """Adds what a segment of this length brings."""
        self._left = min(self._left, self._start) + self.RATE * characters

    def covers(self, characters: int) -> bool:
        """True where this many are left."""
        return characters <= self._left

    def spend(self, characters: int) -> None:
        """Takes them away, even where fewer are left."""
        self._left -= characters


@dataclass(slots=True)
class Case:
    """One segment on its way through the flow.

    ``context`` is the earlier text that it is judged with once more, ``earlier`` the traces of the segments
    in it, ``trace`` the segment's own. ``tried`` collects what was refused and why, ``degraded`` why the
    segment did not get a full pass, ``failures`` which plug-ins broke; ``blind`` is true once its classifier
    failed. ``in_context`` says whether it is judged with its context, once that is decided. ``attempts`` are
    the candidates that were tried, if somebody wants to know, else None.
    """

    segment: Segment
    context: str
    trace: Trace
    earlier: tuple[Trace, ...] = ()
    allowance: Allowance | None = None
    in_context: bool | None = None
    verdict: Verdict = CLEAN
    flagged: bool = False
    blind: bool = False
    action: Action = Action.PASSED
    after: str = ""
    verdict_after: Verdict = CLEAN
    similarity: float | None = None
    acceptable: float | None = None
    tried: tuple[str, ...] = ()
    degraded: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    attempts: list[Attempt] | None = field(default=None, repr=False)

    @property
    def body(self) -> str:
        """The characters that are judged."""
        return self.segment.body

    @property
    def offset(self) -> int:
        """Where in the whole text the body begins."""
        return self.segment.start + self.segment.core.start

    @property
    def clear(self) -> bool:
        """True where neither the segment nor the text before it can be a part of something toxic."""
        return self.trace.clear and all(trace.clear for trace in self.earlier)

    @property
    def parts_word(self) -> bool:
        """True where a word may go on from the text before it: no white space is there, and no full stop."""
        return bool(self.context) and not (
            self.context[-1].isspace() or self.context.rstrip(BRACKETS)[-1:] in tuple(DENSE_ENDS)
        )

    @property
    def known(self) -> str:
        """The part of the context of which it is known what it says together."""
        begin = start = self.offset - len(self.context)
        for trace in self.earlier:
            if trace.left_out:
                return self.context[: start - begin]
            start = max(trace.end, begin)
        return self.context

    def forget_flagged(self) -> None:
        """Leaves out of the context a flagged segment and what is before it: no reader sees it as it was.

        A word that goes on from there is still read as a whole.
        """
        flagged = [i for i, trace in enumerate(self.earlier) if trace.flagged]
        if flagged and not self.parts_word:
            left = self.offset - self.earlier[flagged[-1]].end
            self.context = self.context[-left:].lstrip() if left else ""
            self.earlier = self.earlier[flagged[-1] + 1 :] if self.context else ()

    @property
    def verdict_in_text(self) -> Verdict:
        """The verdict with its spans measured from the beginning of the whole text."""
        if not self.verdict.spans:
            return self.verdict
        return replace(self.verdict, spans=tuple(span.shifted(self.offset) for span in self.verdict.spans))

    @property
    def settled(self) -> bool:
        """True once a rung of the ladder held."""
        return self.action is not Action.PASSED

    def refuse(self, reason: str) -> None:
        """Notes why something was not done."""
        if reason not in self.tried:
            self.tried += (reason,)

    def degrade(self, reason: str) -> None:
        """Notes why this is less than a full pass."""
        if reason not in self.degraded:
            self.degraded += (reason,)

    def fail(self, error: PluginError) -> None:
        """Notes which plug-in broke."""
        if error.failure is not None and error.failure not in self.failures:
            self.failures += (error.failure,)

    def settle(
        self,
        action: Action,
        after: str,
        verdict_after: Verdict,
        *,
        similarity: float | None = None,
        acceptable: float | None = None,
    ) -> None:
        """Fixes what becomes of the segment."""
        self.action, self.after, self.verdict_after = action, after, verdict_after
        self.similarity, self.acceptable = similarity, acceptable


class Record:
    """One text's cases in order, its released pieces, and in the end its outcome.

    ``told`` is called with every sentence once it was released, and all that was tried; None keeps nothing.
    """

    def __init__(self, policy: Policy, *, told: Callable[[Sentence], object] | None = None) -> None:
        self.policy = policy
        self._told = told
        self.rewrites_left = policy.max_rewrites
        self._tail = ""
        self._traces: tuple[Trace, ...] = ()
        self._released: list[str] = []
        self._edits: list[Edit] = []
        self._degraded: dict[str, None] = {}
        self._failures: dict[Failure, None] = {}
        self._allowance = Allowance(SPARE * max(policy.context, MIN_CONTEXT))
        self._before: list[Verdict] = []
        self._after: list[Verdict] = []

    def open(self, segments: Sequence[Segment]) -> list[Case]:
        """Cases for the next segments."""
        cases = []
        for segment in segments:
            earlier = self._tail + segment.text[: segment.core.start]
            context = _context(earlier, self.policy.context) if earlier else ""
            reach: tuple[Trace, ...] = ()
            if context:
                begin = segment.start + segment.core.start - len(context)
                reach = tuple(trace for trace in self._traces if trace.end > begin)
            trace = Trace(segment.end, clear=segment.core.start == segment.core.end)
            case = Case(segment, context, trace, reach, self._allowance)
            case.attempts = None if self._told is None else []
            cases.append(case)
            self._traces = (*reach, trace)
            # One character more than the context shows whether the cut falls inside a word.
            self._tail = (self._tail + segment.text)[-(self.policy.context + 1) :]
        return cases

    def release(self, case: Case) -> Release:
        """What is to be shown for a case; ``close`` takes note of it once it was."""
        if not case.settled:
            return Release(case.segment.text)
        after, text = self._replacement(case)
        edit = Edit(
            start=case.offset,
            end=case.offset + len(case.body),
            before=case.body,
            after=after,
            action=case.action,
            verdict=case.verdict_in_text,
            verdict_after=case.verdict_after,
            similarity=case.similarity,
            acceptable=case.acceptable,
            failed_checks=case.tried,
        )
        return Release(text, edit)

    def close(self, case: Case, release: Release) -> None:
        """Takes note of a case whose release was handed out."""
        if case.degraded:
            self._degraded.update(dict.fromkeys(case.degraded))
        if case.failures:
            self._failures.update(dict.fromkeys(case.failures))
        self._before.append(case.verdict_in_text)
        self._after.append(case.verdict_after if case.settled else case.verdict_in_text)
        self._released.append(release.text)
        if release.edit is not None:
            self._edits.append(release.edit)
        if self._told is not None and case.body:
            self._told(
                Sentence(
                    start=case.offset,
                    text=case.body,
                    verdict=case.verdict_in_text,
                    edit=release.edit,
                    attempts=tuple(case.attempts or ()),
                )
            )

    def _replacement(self, case: Case) -> tuple[str, str]:
        """What stands for the core, and the whole text to release for the segment."""
        text, core = case.segment.text, case.segment.core
        if case.action is not Action.BLOCKED:
            return case.after, text[: core.start] + case.after + text[core.end :]
        if self.policy.block == "raise":
            return "", ""
        return self.policy.refusal, text[: core.start] + self.policy.refusal

    def degrade(self, reason: str) -> None:
        """Notes why the text as a whole did not get a full pass."""
        self._degraded[reason] = None

    def outcome(self) -> Outcome:
        """What happened to the text as far as it was read."""
        action = max(
            (edit.action for edit in self._edits), key=lambda action: action.rank, default=Action.PASSED
        )
        refused = action is Action.BLOCKED and self.policy.block == "whole"
        before = _strongest(self._before)
        return Outcome(
            text=self.policy.refusal if refused else "".join(self._released),
            action=action,
            verdict=before,
            verdict_after=_strongest(self._after) if self._edits else before,
            edits=tuple(self._edits),
            degraded=tuple(self._degraded),
            failures=tuple(self._failures),
        )


def _context(earlier: str, limit: int) -> str:
    """The last ``limit`` characters, from a word's start on, or nothing if they are blank."""
    if limit == 0:
        return ""
    tail = earlier[-limit:]
    if len(earlier) > limit and not earlier[-limit - 1].isspace():
        head, space, rest = tail.partition(" ")
        tail = rest if space else head
    return tail if tail.strip() else ""


def _strongest(verdicts: Iterable[Verdict]) -> Verdict:
    """The highest score per label, with all flags and spans."""
    verdicts = list(verdicts)
    scores: dict[str, float] = {}
    for verdict in verdicts:
        for label, score in verdict.scores.items():
            scores[label] = max(score, scores.get(label, 0.0))
    return Verdict(
        scores=FrozenDict(scores),
        flagged=any(verdict.flagged for verdict in verdicts),
        spans=tuple(span for verdict in verdicts for span in verdict.spans),
        unsupported=any(verdict.unsupported for verdict in verdicts),
    )
