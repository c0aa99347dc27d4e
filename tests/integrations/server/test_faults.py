"""A short campaign of faults: every kind twice, against the real proxy under load."""

from __future__ import annotations

from pathlib import Path

from benchmarks.faults import KINDS, Campaign, Request, run


def test_no_fault_leaks_hangs_or_costs_anybody_else_a_text() -> None:
    campaign = run(7, kinds=(*KINDS, *reversed(KINDS)), seconds=20.0)
    found = campaign.found
    assert found["leaks"] == found["hangs"] == found["shown without a record"] == 0
    assert all(fault.recovery is not None for fault in campaign.faults)
    assert found["hit"] < found["requests"]


def test_the_oracle_sees_a_toxic_word_anywhere_in_an_answer() -> None:
    assert Request(100_001, True, False, raw=b'{"error": "what an idiot"}').leaks


def test_the_oracle_sees_the_text_of_another_request() -> None:
    assert Request(100_001, True, False, text="Parcel 100002 leaves").leaks


def test_the_oracle_sees_a_clean_text_that_no_fault_hit_and_that_did_not_come(tmp_path: Path) -> None:
    campaign = Campaign(1, tmp_path)
    campaign.requests = [Request(100_001, False, False, started=1.0, ended=2.0)]
    assert campaign.counts()["clean texts lost"] == 1
