"""What the guard's checks refuse: references that people wrote, and rewrites that were spoilt on purpose.

References are those of ``everyday`` (train and dev), of this project's own pairs, and of a sample of
ParaDetox train. Spoilt rewrites are made of ``everyday`` train and dev, one fault each. A verdict of the
detector on a reference is counted alongside the fixed checks: what it flags is its own matter.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from guardrail import Guard, Policy, Verdict
from guardrail.detectors.lexicon import Lexicon
from guardrail.text.checks import Proposal, failed
from guardrail_training.data import load_paradetox
from guardrail_training.evaluation.tables import table
from guardrail_training.records import read_records, required_folder
from research.evaluation.settings import EvaluateSettings
from research.pairs.mixture import PairRow
from research.verifier.negatives import KINDS, make_negatives

__all__ = ["checks_tables", "measurements"]

OWN = Path(__file__).parents[2] / "data" / "rewrites.jsonl"
BY_MODELS = frozenset(["toxic", "lexicon"])
PORTION = 64


@dataclass(frozen=True, slots=True)
class CheckedSentence:
    """A source with its references; ``lossy`` where only the stance of it can be kept."""

    source: str
    references: tuple[str, ...]
    lossy: bool = False


class Readings:
    """What detector, word list and embedding say of texts; each text is read once."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._lexicon = Lexicon.shipped()
        self._verdicts: dict[str, Verdict] = {}
        self._listed: dict[str, bool] = {}
        self._vectors: dict[str, Any] = {}

    def read(self, texts: Sequence[str]) -> None:
        """Reads what was not read yet; detector and embedding share a pass of the encoder."""
        new = sorted({text for text in texts if text not in self._verdicts}, key=len)
        for start in range(0, len(new), PORTION):
            part = new[start : start + PORTION]
            self._verdicts.update(zip(part, self._guard.detect(part), strict=True))
            self._vectors.update(zip(part, self._guard.embed(part), strict=True))
            listed = (verdict.flagged for verdict in self._lexicon.detect(part))
            self._listed.update(zip(part, listed, strict=True))

    def verdict(self, text: str) -> Verdict:
        """Of the detector."""
        return self._verdicts[text]

    def proposal(self, source: str, candidate: str) -> Proposal:
        """What the checks need to know of a pair."""
        return Proposal(
            source=source,
            candidate=candidate,
            spans=self._verdicts[source].spans,
            similarity=float(self._vectors[source] @ self._vectors[candidate]),
            flagged=self._verdicts[candidate].flagged,
            listed=self._listed[candidate],
        )


def measurements(settings: EvaluateSettings) -> Mapping[str, Any]:
    """Refusals of references by set and check, each named, and the share of spoilt rewrites refused."""
    guard = Guard(rewriter=None)
    readings = Readings(guard)
    sets = {name: _limited(rows, settings.limit) for name, rows in _sets(settings).items()}
    references = {name: _refusals(rows, readings, guard.policy, settings) for name, rows in sets.items()}
    originals = [row for name in ("everyday train", "everyday dev") for row in sets[name]]
    return {
        "references": references,
        "spoilt": _spoilt(originals, readings, guard.policy, seed=settings.seed, size=settings.spoilt),
        "policy": guard.policy.digest(),
    }


def _sets(settings: EvaluateSettings) -> Mapping[str, list[CheckedSentence]]:
    data = required_folder(settings.data)
    paradetox = load_paradetox(data, split="train")
    chosen = random.Random(settings.seed).sample(paradetox, min(settings.paradetox_rows, len(paradetox)))
    return {
        "everyday train": _sentences(data / "everyday" / "train.jsonl"),
        "everyday dev": _sentences(data / "everyday" / "dev.jsonl"),
        "own pairs": _sentences(OWN),
        "paradetox train": [CheckedSentence(row.source, row.references) for row in chosen],
    }


def _limited(rows: list[CheckedSentence], limit: int) -> list[CheckedSentence]:
    return rows[:limit] if limit else rows


def _sentences(path: Path) -> list[CheckedSentence]:
    rows = (record.content for record in read_records(path))
    return [CheckedSentence(row["toxic"], tuple(row["neutral"]), bool(row["lossy"])) for row in rows]


def _refusals(
    rows: Sequence[CheckedSentence], readings: Readings, policy: Policy, settings: EvaluateSettings
) -> dict[str, Any]:
    readings.read([text for row in rows for text in (row.source, *row.references)])
    counts: Counter[str] = Counter()
    refused: list[dict[str, Any]] = []
    total = fixed = 0
    for number, row in enumerate(rows, 1):
        for reference in row.references:
            total += 1
            proposal = replace(readings.proposal(row.source, reference), lossy=row.lossy)
            names = failed(proposal, policy)
            counts.update(names)
            if names:
                fixed += not BY_MODELS.issuperset(names)
                refused.append({"row": number, "checks": names, "source": row.source, "reference": reference})
    return {
        "references": total,
        "refused": len(refused),
        "by_fixed_checks": fixed,
        "checks": dict(counts.most_common()),
        "examples": _examples(refused, per_check=settings.samples // 8),
        "rows": [[each["row"], *each["checks"]] for each in refused],
    }


def _examples(refused: Sequence[Mapping[str, Any]], *, per_check: int) -> list[Mapping[str, Any]]:
    """The first refusals of each check."""
    seen: Counter[str] = Counter()
    chosen = []
    for each in refused:
        if any(seen[name] < per_check for name in each["checks"]):
            seen.update(each["checks"])
            chosen.append(each)
    return chosen


def _spoilt(
    rows: Sequence[CheckedSentence], readings: Readings, policy: Policy, *, seed: int, size: int
) -> dict[str, Any]:
    """For each kind of fault how many of up to ``size`` spoilt rewrites are refused, and by what."""
    usable = [row for row in rows if not row.lossy and readings.verdict(row.source).flagged]
    random.Random(seed).shuffle(usable)
    pairs = [PairRow(row.source, row.references, "everyday") for row in usable]
    made: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for negative in make_negatives(pairs, lexicon=Lexicon.shipped(), seed=seed, per_pair=len(KINDS)):
        if len(made[negative.kind]) < size:
            made[negative.kind].append((negative.source, negative.candidate))
    found = {}
    for kind, candidates in made.items():
        readings.read([text for pair in candidates for text in pair])
        refusing = [failed(readings.proposal(source, candidate), policy) for source, candidate in candidates]
        missed = [pair for pair, checks in zip(candidates, refusing, strict=True) if not checks]
        found[kind] = {
            "made": len(candidates),
            "refused": len(candidates) - len(missed),
            "by_fixed_checks": sum(not BY_MODELS.issuperset(checks) for checks in refusing if checks),
            "checks": dict(Counter(name for checks in refusing for name in checks).most_common()),
            "missed": [{"source": source, "candidate": candidate} for source, candidate in missed[:5]],
        }
    return found


def checks_tables(result: Mapping[str, Any]) -> str:
    """Both measurements as Markdown."""
    references = [
        [
            name,
            each["references"],
            _share(each["refused"], each["references"]),
            _share(each["by_fixed_checks"], each["references"]),
            ", ".join(f"{check} {count}" for check, count in each["checks"].items()),
        ]
        for name, each in result["references"].items()
    ]
    spoilt_rows = [
        [
            kind,
            each["made"],
            _share(each["refused"], each["made"]),
            _share(each["by_fixed_checks"], each["made"]),
            ", ".join(f"{check} {count}" for check, count in each["checks"].items()),
        ]
        for kind, each in result["spoilt"].items()
    ]
    return (
        "### References that people wrote\n\n"
        + table(
            ["set", "references", "refused", "by other checks than toxic and lexicon", "by check"], references
        )
        + "\n### Rewrites spoilt on purpose\n\n"
        + table(
            ["fault", "made", "refused", "by other checks than toxic and lexicon", "by check"], spoilt_rows
        )
    )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "-"
