"""The way of a sentence from the decorator to the detector is short enough to be read in one sitting."""

from __future__ import annotations

from collections.abc import Sequence

from guardrail import Verdict
from tests.path import path_of, summary

MAX_FILES = 9
MAX_FUNCTIONS = 35


def clean(texts: Sequence[str]) -> list[Verdict]:
    return [Verdict({"toxicity": 0.0}, flagged=False, clear=True) for _ in texts]


def test_a_clean_sentence_gets_to_the_detector_through_few_files_and_functions() -> None:
    steps, reached = path_of(clean)
    way = steps[:reached]
    listed = "\n".join(f"{step.file} {step.function}" for step in dict.fromkeys(way))
    assert len({step.file for step in way}) <= MAX_FILES, listed
    assert len(set(way)) <= MAX_FUNCTIONS, listed
    assert way[0].file == "wrap/__init__.py"
    assert summary(way) == f"{len({s.file for s in way})} files, {len(set(way))} functions, {len(way)} frames"


def test_a_plain_str_does_not_go_through_the_reader_of_structures() -> None:
    steps, _ = path_of(clean)
    assert not any(step.file.startswith("structured/") for step in steps)
