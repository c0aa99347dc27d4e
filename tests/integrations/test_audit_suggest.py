"""Monitored decisions in a real audit, what people say of them, and the thresholds that follow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from guardrail import Guard, Policy, Verdict
from guardrail.audit.store import AuditStore
from guardrail.errors import UsageError
from guardrail.integrations.audit.records import Query, page
from guardrail.integrations.audit.review import accept_all, decide, pairs
from guardrail.integrations.audit.suggest import Share, suggested
from guardrail.integrations.cli import app
from tests.fakes import WordDetector, WordGuard

MONITOR = Policy(enforce=False, name="trial", segment_min=1)


class ScoredDetector:
    """A text's score is the number in it; flagged from 0.3 on."""

    identity = "scored 1"

    def detect(self, texts: Sequence[str]) -> list[Verdict]:
        return [self.judge(text) for text in texts]

    def judge(self, text: str) -> Verdict:
        words = text.split()
        score = float(words[1]) if len(words) > 1 and words[0] in ("insult", "threat") else 0.0
        return Verdict({"insult": 0.0, "threat": 0.0} | {words[0]: score} if score else {}, score >= 0.3)


def reviewed(store: AuditStore, scores: dict[str, bool]) -> None:
    """Records texts of these scores, and has a person say whether each was rightly flagged."""
    guard = Guard(
        detector=ScoredDetector(), lexicon=WordDetector(), rewriter=None, policy=MONITOR, audit=store
    )
    guard.check_many(list(scores))
    found = page(store.database, Query(limit=200, mode="monitored")).records
    assert len(found) == len(scores)
    for record in found:
        decision: Any = "accepted" if scores[str(record.before)] else "rejected"
        decide(store.database, record.id, decision, reviewer="alice")


def sample(label: str, *, cut: float, number: int = 40) -> dict[str, bool]:
    """Texts from 0.30 on of which those above ``cut`` were rightly flagged."""
    scores = [0.3 + 0.6 * i / number for i in range(number)]
    return {f"{label} {score:.4f} times said": score >= cut for score in scores}


@pytest.fixture
def store(tmp_path: Path) -> AuditStore:
    return AuditStore(tmp_path / "audit.db", include_text=True)


def test_the_threshold_with_the_wanted_precision_and_the_fewest_misses_is_found(store: AuditStore) -> None:
    reviewed(store, sample("insult", cut=0.6))
    found = suggested(store.database, precision=1.0)
    assert found.overall.threshold == pytest.approx(0.6, abs=0.001)
    assert (found.overall.false_alarms.count, found.overall.missed.count) == (0, 0)
    assert (found.reviews, found.rightly_flagged) == (40, 20)
    looser = suggested(store.database, precision=0.8)
    assert looser.overall.threshold is not None
    assert looser.overall.threshold < 0.6
    assert looser.overall.false_alarms.share <= 0.2


def test_each_label_with_enough_reviews_gets_a_threshold_of_its_own(store: AuditStore) -> None:
    reviewed(store, sample("insult", cut=0.6) | sample("threat", cut=0.4) | {"threat 0.95 once": True})
    found = suggested(store.database, precision=1.0)
    assert found.thresholds["insult"] == pytest.approx(0.6, abs=0.001)
    assert found.thresholds["threat"] < 0.45
    assert found.together.missed.count == found.together.false_alarms.count == 0


def test_too_few_reviews_give_no_threshold(store: AuditStore) -> None:
    reviewed(store, sample("insult", cut=0.6, number=12))
    with pytest.raises(UsageError, match=r"has 12 reviewed interventions .* needs 30"):
        suggested(store.database, precision=0.9)
    assert suggested(store.database, precision=0.5, min_reviews=12).overall.threshold is not None


def test_a_precision_that_no_threshold_has_is_said(store: AuditStore) -> None:
    reviewed(store, dict.fromkeys(sample("insult", cut=0.6), False))
    with pytest.raises(UsageError, match=r"no threshold has a precision of 0\.9"):
        suggested(store.database, precision=0.9)


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (0, 0, 0.0, 1.0)],
)
def test_intervals_are_wilsons(count: int, total: int, low: float, high: float) -> None:
    share = Share.of(count, total)
    assert (share.low, share.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_the_command_prints_a_configuration_that_works(store: AuditStore, tmp_path: Path) -> None:
    reviewed(store, sample("insult", cut=0.6))
    where = ["--audit", str(tmp_path / "audit.db")]
    run = CliRunner().invoke(app, ["audit", "suggest", "--false-alarms", "0.05", *where])
    assert run.exit_code == 0, run.output
    file = tmp_path / "guardrail.toml"
    file.write_text(run.stdout[run.stdout.index("[policy]") :])
    guard = Guard(detector=ScoredDetector(), lexicon=WordDetector(), rewriter=None)
    from guardrail.config import Config

    policy = Config.load(file, environ={}).policy
    assert guard.with_policy(policy).check("insult 0.9 times said").changed
    assert not guard.with_policy(policy).check("insult 0.4 times said").changed
    as_json = json.loads(CliRunner().invoke(app, ["audit", "suggest", "--json", *where]).stdout)
    assert as_json["overall"]["reviews"] == 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision", "0.9", "--false-alarms", "0.1"], "not both"),
        (["--precision", "1.5"], "more than 0 and at most 1"),
        (["--false-alarms", "1"], "more than 0"),
        ([], "there is no audit"),
    ],
)
def test_the_command_says_what_is_wrong(options: list[str], message: str, tmp_path: Path) -> None:
    where = tmp_path / "none.db"
    if options:
        AuditStore(where).close()
    run = CliRunner().invoke(app, ["audit", "suggest", *options, "--audit", str(where)])
    assert run.exit_code == 2
    assert message in " ".join(run.output.split())
    assert where.exists() is bool(options)


def test_monitored_records_are_told_apart_and_give_no_training_pairs(store: AuditStore) -> None:
    text = "You are an idiot, they say."
    WordGuard(audit=store, policy=Policy(enforce=False, ladder=("mask", "block"))).check(text)
    WordGuard(audit=store).check(text)
    (watched,) = page(store.database, Query(mode="monitored")).records
    (done,) = page(store.database, Query(mode="enforced")).records
    assert (watched.monitored, watched.action, watched.after) == (True, "masked", text)
    assert (done.monitored, done.action) == (False, "rewritten")
    assert len(accept_all(store.database, [watched.id, done.id], reviewer="alice").records) == 2
    (pair,) = pairs(store.database)
    assert pair.neutral == (done.after,)
    decide(store.database, done.id, "rejected", reviewer="alice")
    assert list(pairs(store.database)) == []
    assert len(page(store.database, Query(review="rejected")).records) == 1


def test_records_are_found_by_the_name_of_their_policy(store: AuditStore) -> None:
    WordGuard(audit=store, policy=MONITOR).check("You are an idiot.")
    (record,) = page(store.database, Query(policy="trial")).records
    assert (record.policy_name, record.policy) == ("trial", MONITOR.digest())
    assert page(store.database, Query(policy=record.policy)).total == 1
