"""Takes flagged segments down the ladder: rewrite and verify, else mask, else remove or block."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from guardrail.engine.portions import MAX_REWRITTEN, portions, united
from guardrail.engine.scoring import CLEAN, Case, Trace, detect, score_in_context, tolerate
from guardrail.engine.steps import Embed, Rewrite, Steps, Verify
from guardrail.errors import DeadlineError, PluginError
from guardrail.outcome import Action, Span, Verdict
from guardrail.outcome.explanation import Attempt
from guardrail.policy import Policy
from guardrail.text.checks import Proposal, failed, protected_spans
from guardrail.text.masking import masked
from guardrail.text.removal import removed, removed_code
from guardrail.text.segment import Segment

__all__ = ["candidates", "examine", "resolve_flagged"]

ELLIPSIS = "..."


def resolve_flagged(policy: Policy, cases: Sequence[Case], *, max_rewrites: int) -> Steps[int]:
    """Settles every case on the first rung of the policy's ladder that holds.

    Returns how many of the ``max_rewrites`` are left for later cases.
    """
    if "rewrite" in policy.ladder:
        toxic = [case for case in cases if _may_rewrite(policy, case)]
        for case in toxic[max_rewrites:]:
            case.refuse("rewrite:budget")
            case.degrade("rewrite_budget")
        toxic = toxic[:max_rewrites]
        max_rewrites -= len(toxic)
        if not policy.enforce:
            for case in toxic:  # a model's time is not spent on what nobody will see
                case.settle(Action.LOSSY if policy.is_harm(case.verdict) else Action.REWRITTEN, "", CLEAN)
            toxic = []
        asked = iter(toxic)
        bodies = (case.body for case in toxic)
        for portion in portions(bodies, batch=policy.batch, characters=MAX_REWRITTEN):
            yield from _rewrite(policy, list(itertools.islice(asked, len(portion))))
    if "mask" in policy.ladder:
        yield from _mask(policy, [case for case in cases if not case.settled])
    for case in cases:
        if not case.settled:
            case.settle(Action.BLOCKED, "", CLEAN)
    return max_rewrites


def examine(policy: Policy, source: str, candidate: str) -> Steps[tuple[str, ...]]:
    """The names of the checks that refuse a candidate, whoever wrote it, for a source that stands alone."""
    (verdict,) = yield from detect(policy, [source])
    segment = Segment(0, source, Span(0, len(source)), "prose")
    case = Case(segment, "", Trace(len(source)), verdict=verdict)
    proposals = yield from _propose(policy, [case], [[candidate]])
    if policy.acceptable is not None:
        proposals = yield from _verify(policy, proposals)
    return failed(proposals[0][0][0], policy)


def _may_rewrite(policy: Policy, case: Case) -> bool:
    """True if the case can be rewritten; the reason is noted if it cannot."""
    if case.detector_failed:
        return False  # no candidate could be verified
    if case.segment.kind == "code":
        case.refuse("rewrite:code")
        return False
    if case.verdict.unsupported:  # the rewriter knows the languages of the detector
        case.refuse("rewrite:unsupported")
        return False
    if policy.is_harm(case.verdict) and not policy.lossy:
        case.refuse("rewrite:harm")
        return False
    untouchable = protected_spans(case.body)
    spans = case.verdict.spans
    if spans and all(any(u.start <= s.start and s.end <= u.end for u in untouchable) for s in spans):
        case.refuse("rewrite:protected")
        return False
    return True


def _rewrite(policy: Policy, cases: Sequence[Case]) -> Steps[None]:
    """Settles cases that have a verified candidate; a failure leaves them for the next rung."""
    if not cases:
        return
    try:
        if policy.early_stop is not None and policy.candidates > 1:
            yield from _attempt(policy, cases, n=1, floor=policy.early_stop)
        yield from _attempt(policy, [case for case in cases if not case.settled], n=policy.candidates)
    except PluginError as error:
        tolerate(policy, error)
        waiting = [case for case in cases if not case.settled]
        if len(cases) > 1 and not isinstance(error, DeadlineError):
            for case in waiting:
                yield from _rewrite(policy, [case])
            return
        for case in waiting:
            case.refuse(error.reason)
            case.degrade(error.reason)
            case.fail(error)


def _attempt(policy: Policy, cases: Sequence[Case], *, n: int, floor: float | None = None) -> Steps[None]:
    """Settles cases on one of ``n`` candidates; with a floor on its worth, silently or not at all."""
    if not cases:
        return
    proposed = yield from candidates(policy, cases, n=n)
    proposals = yield from _propose(policy, cases, proposed)
    if policy.acceptable is not None:
        proposals = yield from _verify(policy, proposals)
    for case, tried in zip(cases, proposals, strict=True):
        _note_rewrites(policy, case, tried)
        if floor is None:
            _accept_first(policy, case, tried)
        elif tried and not failed(tried[0][0], policy) and _worth(*tried[0]) >= floor:
            _accept_first(policy, case, tried[:1])


def candidates(policy: Policy, cases: Sequence[Case], *, n: int) -> Steps[list[list[str]]]:
    """Up to ``n`` candidates for each case, with the spans of its verdict and those of the word list."""
    bodies = tuple(case.body for case in cases)
    listed = yield from detect(policy, bodies, lexicon=True)
    spans = tuple(
        tuple(united([*case.verdict.spans, *words.spans], touching=True))
        for case, words in zip(cases, listed, strict=True)
    )
    proposed: list[list[str]] = yield Rewrite(bodies, n, spans)
    return proposed


def _propose(
    policy: Policy, cases: Sequence[Case], proposed: Sequence[Sequence[str]]
) -> Steps[list[list[tuple[Proposal, Verdict]]]]:
    """Every candidate with all that its checks need to know."""
    pairs = [
        (case, text) for case, texts in zip(cases, proposed, strict=True) for text in dict.fromkeys(texts)
    ]
    owners, texts = [case for case, _ in pairs], [text for _, text in pairs]
    if not texts:
        return [[] for _ in cases]
    verdicts = yield from detect(policy, texts)
    listed = yield from detect(policy, texts, lexicon=True)
    in_context = yield from score_in_context(policy, owners, texts)
    vectors: list[Any] = []
    for portion in portions([*(case.body for case in cases), *texts], batch=policy.batch):
        vectors.extend((yield Embed(tuple(portion))))
    sources = {id(case): vectors[i] for i, case in enumerate(cases)}
    result: dict[int, list[tuple[Proposal, Verdict]]] = {id(case): [] for case in cases}
    for i, (case, text) in enumerate(pairs):
        verdict = in_context[i] or verdicts[i]
        proposal = Proposal(
            source=case.body,
            candidate=text,
            spans=case.verdict.spans,
            similarity=float(sources[id(case)] @ vectors[len(cases) + i]),
            flagged=verdict.flagged or (policy.unsupported != "pass" and verdicts[i].unsupported),
            listed=listed[i].flagged,
            lossy=policy.is_harm(case.verdict),
        )
        result[id(case)].append((proposal, verdict))
    return [result[id(case)] for case in cases]


def _verify(
    policy: Policy, tried: Sequence[Sequence[tuple[Proposal, Verdict]]]
) -> Steps[list[list[tuple[Proposal, Verdict]]]]:
    """The same with the verifier's probability for each candidate that passes all other checks."""
    asked = [proposal for group in tried for proposal, _ in group if not failed(proposal, policy)]
    probabilities: list[float] = []
    for start in range(0, len(asked), policy.batch):
        part = asked[start : start + policy.batch]
        sources, candidates = (tuple(getattr(p, name) for p in part) for name in ("source", "candidate"))
        probabilities += yield Verify(candidates, sources)
    told = {id(proposal): told for proposal, told in zip(asked, probabilities, strict=True)}
    return [
        [(replace(proposal, acceptable=told.get(id(proposal))), verdict) for proposal, verdict in group]
        for group in tried
    ]


def _note_rewrites(policy: Policy, case: Case, tried: Sequence[tuple[Proposal, Verdict]]) -> None:
    """Keeps the candidates and what refused each, if somebody wants to know."""
    if case.attempts is None:
        return
    known = {attempt.text for attempt in case.attempts}
    case.attempts += [
        Attempt(
            text=proposal.candidate,
            failed_checks=failed(proposal, policy),
            similarity=proposal.similarity,
            acceptable=proposal.acceptable,
        )
        for proposal, _ in tried
        if proposal.candidate not in known
    ]


def _accept_first(policy: Policy, case: Case, tried: Sequence[tuple[Proposal, Verdict]]) -> None:
    """Settles the case on the rewriter's first candidate that passes every check."""
    if not tried:
        case.refuse("rewrite:none")
    passing = []
    for proposal, verdict in tried:
        for name in (names := failed(proposal, policy)):
            case.refuse(name)
        if not names:
            passing.append((proposal, verdict))
    if not passing:
        return
    proposal, verdict = passing[0]
    case.settle(
        Action.LOSSY if proposal.lossy else Action.REWRITTEN,
        proposal.candidate,
        verdict,
        similarity=proposal.similarity,
        acceptable=proposal.acceptable,
    )


def _worth(proposal: Proposal, verdict: Verdict) -> float:
    """How surely a candidate is clean, times how close it is in meaning and how acceptable, if told; 0..1."""
    acceptable = 1.0 if proposal.acceptable is None else proposal.acceptable
    return (1.0 - verdict.score) * max(0.0, proposal.similarity) * acceptable


def _mask(policy: Policy, cases: Sequence[Case]) -> Steps[None]:
    """Masks the toxic words if the rest then reads clean and says something; else removes the sentence."""
    hidden = {id(case): _hidden(policy, case) for case in cases}
    partly = [case for case in cases if hidden[id(case)] is not None]
    try:
        judged = [case for case in partly if not case.detector_failed]
        unjudged = [case for case in partly if case.detector_failed]
        verdicts = yield from _readable(policy, judged)
        verdicts |= yield from _readable(policy, unjudged, lexicon_only=True)
    except PluginError as error:
        tolerate(policy, error)
        verdicts = {}
        for case in partly:
            case.degrade(error.reason)
            case.fail(error)
    for case in cases:
        text, verdict = hidden[id(case)], verdicts.get(id(case))
        if case.attempts is not None and text is not None and verdict is not None:
            refused = ("mask:toxic",) if verdict.flagged else ()
            case.attempts.append(Attempt(text=text, failed_checks=refused, step="mask"))
        if text is not None and verdict is not None and not verdict.flagged:
            case.settle(Action.MASKED, text, verdict)
            continue
        if verdict is not None:
            case.refuse("mask:toxic")
        elif text is None and _may_mask(policy, case):
            case.refuse("mask:too_much")
        _remove(policy, case)


def _hidden(policy: Policy, case: Case) -> str | None:
    """The body with its toxic words masked; None if there are none, or a mask would not do."""
    if not _may_mask(policy, case):
        return None
    return masked(case.body, case.verdict.spans, template=policy.mask, by=policy.removal(case.verdict))


def _may_mask(policy: Policy, case: Case) -> bool:
    """False if the spans do not say what is toxic, if stars would break code, and for harm."""
    return bool(case.verdict.spans) and case.segment.kind != "code" and not policy.is_harm(case.verdict)


def _remove(policy: Policy, case: Case) -> None:
    """Puts the policy's short text in the place of all that the case says."""
    text = policy.removal(case.verdict)
    write = removed_code if case.segment.kind == "code" else removed
    case.settle(Action.REMOVED, write(case.body, by=text), CLEAN)


def _readable(
    policy: Policy, cases: Sequence[Case], *, lexicon_only: bool = False
) -> Steps[dict[int, Verdict]]:
    """Verdicts by id of case on what a reader could still read with the spans masked.

    The masked words are left out: a detector that sees through stars would only judge its own guess.
    """
    visible = [masked(case.body, case.verdict.spans, template=ELLIPSIS, by=ELLIPSIS) or "" for case in cases]
    listed = yield from detect(policy, visible, lexicon=True)
    if lexicon_only:
        return {id(case): verdict for case, verdict in zip(cases, listed, strict=True)}
    verdicts = yield from detect(policy, visible)
    in_context = yield from score_in_context(policy, cases, visible)
    strict = zip(cases, verdicts, listed, in_context, strict=True)
    return {id(case): joint or (word if word.flagged else verdict) for case, verdict, word, joint in strict}
