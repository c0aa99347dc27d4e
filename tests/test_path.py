"""The recorded way of a sentence from the decorator to the detector."""

from __future__ import annotations

from collections.abc import Sequence

from guardrail import Verdict
from tests.path import path_of, summary


def clean(texts: Sequence[str]) -> list[Verdict]:
    return [Verdict({"toxicity": 0.0}, flagged=False, clear=True) for _ in texts]


def test_the_way_leads_from_the_decorator_to_the_detector_and_back() -> None:
    steps, reached = path_of(clean)
    assert steps[0].file == "wrap/__init__.py"
    assert any(step.file.startswith("engine/") for step in steps[:reached])
    assert reached < len(steps)
    assert summary(steps) == (
        f"{len({step.file for step in steps})} files, {len(set(steps))} functions, {len(steps)} frames"
    )


def test_a_plain_str_does_not_go_through_the_reader_of_structures() -> None:
    steps, _ = path_of(clean)
    assert not any(step.file.startswith("structured/") for step in steps)
