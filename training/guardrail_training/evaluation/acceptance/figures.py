"""Shares of each system and set with their intervals, and paired differences between systems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from guardrail.outcome import Action
from guardrail_training.evaluation.acceptance.sentences import HostileSentence
from guardrail_training.evaluation.acceptance.sheet import ACCEPT, HOSTILE, TURNED, Key
from guardrail_training.metrics.statistics import Mean, Rate, bootstrap_mean, wilson_rate

__all__ = ["RateDifference", "SetFigures", "differences_of", "figures_of"]


@dataclass(frozen=True, slots=True)
class SetFigures:
    """What one system does with one set's sentences, all of which are hostile.

    ``flagged`` and ``missed`` are shares of the sentences; what follows is shares of the flagged ones, None
    if nothing was flagged: ``accepted`` and ``wrong`` releases, ``turned`` and ``hostile`` among the wrong
    ones, and ``actions`` for all that was not released as a rewrite. ``rewritable`` and ``lossy`` are the
    accepted among the flagged sentences that can be rewritten and that cannot. ``faults`` counts words.
    """

    system: str
    name: str
    sentences: int
    flagged: Rate
    missed: Rate
    accepted: Rate | None
    wrong: Rate | None
    turned: Rate | None
    hostile: Rate | None
    actions: Mapping[str, Rate]
    rewritable: Rate | None
    lossy: Rate | None
    faults: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class RateDifference:
    """How much more often (-1..1) the first system does something than the second, on the same sentences.

    The interval is that of a paired bootstrap over sentences.
    """

    first: str
    second: str
    name: str
    accepted: Mean
    wrong: Mean


@dataclass(frozen=True, slots=True)
class _Case:
    """One system's treatment of one sentence; ``rating`` is None if nothing was released."""

    sentence: HostileSentence
    action: Action
    rating: str | None

    @property
    def is_flagged(self) -> bool:
        return self.action is not Action.PASSED

    @property
    def is_accepted(self) -> bool:
        return self.rating == ACCEPT

    @property
    def is_wrong(self) -> bool:
        return self.rating is not None and not self.is_accepted


def figures_of(key: Key, ratings: Mapping[str, str]) -> list[SetFigures]:
    """The figures of every system on every set, by the ratings that count for each row."""
    return [
        _figures(system, name, [case for case in cases if name in case.sentence.sets])
        for system, cases in _cases(key, ratings).items()
        for name in _sets(key)
    ]


def differences_of(key: Key, ratings: Mapping[str, str], *, seed: int) -> list[RateDifference]:
    """For every two systems and every set the difference in accepted and in wrong releases, of all its
    sentences."""
    cases = _cases(key, ratings)
    found = []
    for first, second in combinations(cases, 2):
        for name in _sets(key):
            pairs = [
                (ours, theirs)
                for ours, theirs in zip(cases[first], cases[second], strict=True)
                if name in ours.sentence.sets
            ]
            accepted = [float(ours.is_accepted) - float(theirs.is_accepted) for ours, theirs in pairs]
            wrong = [float(ours.is_wrong) - float(theirs.is_wrong) for ours, theirs in pairs]
            means = (bootstrap_mean(values, seed=seed) for values in (accepted, wrong))
            found.append(RateDifference(first, second, name, *means))
    return found


def _cases(key: Key, ratings: Mapping[str, str]) -> dict[str, list[_Case]]:
    """Every system's cases, in the order of the sentences."""
    cases: dict[str, list[_Case]] = {}
    for release in sorted(key.releases, key=lambda release: release.sentence):
        rating = None if release.id is None else ratings[release.id]
        case = _Case(key.sentences[release.sentence], release.action, rating)
        cases.setdefault(release.system, []).append(case)
    return cases


def _sets(key: Key) -> list[str]:
    return list(dict.fromkeys(name for sentence in key.sentences for name in sentence.sets))


def _figures(system: str, name: str, cases: Sequence[_Case]) -> SetFigures:
    flagged = [case for case in cases if case.is_flagged]
    faults = Counter(case.rating for case in flagged if case.rating is not None and case.is_wrong)
    others = Counter(str(case.action) for case in flagged if case.rating is None)
    return SetFigures(
        system=system,
        name=name,
        sentences=len(cases),
        flagged=wilson_rate(len(flagged), len(cases)),
        missed=wilson_rate(len(cases) - len(flagged), len(cases)),
        accepted=_share(flagged, (case.is_accepted for case in flagged)),
        wrong=_share(flagged, (case.is_wrong for case in flagged)),
        turned=_share(flagged, (case.rating == TURNED for case in flagged)),
        hostile=_share(flagged, (case.rating == HOSTILE for case in flagged)),
        actions={
            str(action): wilson_rate(others[str(action)], len(flagged))
            for action in Action
            if flagged and action not in (Action.PASSED, Action.REWRITTEN)
        },
        rewritable=_accepted([case for case in flagged if not case.sentence.lossy]),
        lossy=_accepted([case for case in flagged if case.sentence.lossy]),
        faults=dict(faults.most_common()),
    )


def _accepted(cases: Sequence[_Case]) -> Rate | None:
    return _share(cases, (case.is_accepted for case in cases))


def _share(cases: Sequence[_Case], hits: Iterable[bool]) -> Rate | None:
    return wilson_rate(sum(hits), len(cases)) if cases else None
