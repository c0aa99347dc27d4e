"""The table of substitutions: what aligned pairs teach, and what they do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from guardrail.detectors.lexicon import Entry, Lexicon
from guardrail.rewriters.edits.substitutions import SubstitutionTable
from research.substitutions_build import RewritePair, Substitution, _forms, build, read_pairs, write

LEXICON = Lexicon([Entry("crap", "obscene", 0.9), Entry("bloody", "obscene", 0.9)])
PAIRS = [
    RewritePair("This crap is late again today.", "This stuff is late again today."),
    RewritePair("I sold that crap to Tom on Monday.", "I sold that stuff to Tom on Monday."),
    RewritePair("The train was crap on Monday.", "The train was bad on Monday."),
    RewritePair("The bloody train is late again.", "The train is late again."),
    RewritePair("My bloody bus is late again.", "My bus is late again."),
]


def found(pairs: list[RewritePair]) -> set[tuple[str, str, str, int]]:
    entries = build(pairs, lexicon=LEXICON)
    return {(e.phrase, e.context, e.instead, e.count) for e in entries if e.context != "any"}


def test_what_stands_in_a_toxic_words_place_is_counted_by_its_context() -> None:
    assert found(PAIRS) == {
        ("bloody", "det", "-", 2),
        ("crap", "be", "bad", 1),
        ("crap", "det", "stuff", 2),
    }


@pytest.mark.parametrize(
    "neutral",
    [
        "The train was run by a bad person on Monday.",
        "The train was bloody on Monday.",
        "Something else entirely.",
    ],
)
def test_stand_ins_toxic_words_and_pairs_that_do_not_align_teach_nothing(neutral: str) -> None:
    pairs = [RewritePair("The train was run by crap on Monday.", neutral)] * 3
    assert not any(phrase == "crap" for phrase, *_ in found([*pairs, RewritePair("a bloody bus", "a bus")]))


def test_a_harmless_word_that_was_changed_is_no_substitution() -> None:
    pairs = [
        RewritePair("The old train is late.", "The new train is late."),
        RewritePair("An old train.", "An old train, yes."),
    ]
    assert found(pairs * 2) == set()


@pytest.mark.parametrize(
    ("verb", "forms"),
    [
        ("mess up", ("mess up", "messes up", "messed up", "messing up")),
        ("get wrong", ("get wrong", "gets wrong", "got wrong", "getting wrong")),
        ("annoy", ("annoy", "annoys", "annoyed", "annoying")),
        ("criticise", ("criticise", "criticises", "criticised", "criticising")),
        ("be bad", ("be bad", "is bad", "was bad", "being bad")),
        ("piss off", ("piss off", "pisses off", "pissed off", "pissing off")),
    ],
)
def test_swearing_verbs_and_their_plain_ones_are_inflected_alike(verb: str, forms: tuple[str, ...]) -> None:
    assert _forms(verb) == forms


def test_lossy_rows_and_copies_are_left_out(tmp_path: Path) -> None:
    rows = [
        {"toxic": "a", "neutral": ["b", "a"], "lossy": False},
        {"toxic": "c", "neutral": ["d"], "lossy": True},
        {"toxic": "e", "neutral": ["f"]},
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert list(read_pairs(path)) == [RewritePair("a", "b"), RewritePair("e", "f")]


def test_a_table_that_was_written_is_read_back(tmp_path: Path) -> None:
    path = write(
        [Substitution("crap", "det", "stuff", 2), Substitution("crap", "be", "-", 1)], tmp_path / "t.txt"
    )
    table = SubstitutionTable.load(path)
    assert list(table.instead_of("crap", before="the", limit=2)) == ["stuff"]
    assert list(table.instead_of("crap", before="is", limit=2)) == [""]
