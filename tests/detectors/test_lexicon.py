"""Listed words are found whole, plain or obfuscated, and nowhere else."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.detectors.lexicon import Entry, Lexicon
from guardrail.errors import ConfigError, ModelMissingError
from tests.linear import takes_linear_time

LEXICON = Lexicon(
    [
        Entry("idiot", "insult", 0.7),
        Entry("idiots", "insult", 0.7),
        Entry("shit", "obscene", 0.9),
        Entry("ass", "obscene", 0.6),
        Entry("cock", "obscene", 0.6),
        Entry("faggot", "identity_attack", 0.95),
        Entry("fag", "identity_attack", 0.9),
        Entry("raping", "sexual_explicit", 0.5),
    ]
)


def hits(text: str) -> list[str]:
    return [text[span.start : span.end] for span in LEXICON.detect([text])[0].spans]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("You idiot, you IDIOTS!", ["idiot", "IDIOTS"]),
        ("idiot's", ["idiot"]),
        ("a dumb-ass plan", ["ass"]),
        ("such a 1d10t!", ["1d10t"]),
        ("what an i d i o t he is", ["i d i o t"]),
        ("you are a f a g", ["f a g"]),
        ("s*** and sh*t and s**t", ["s***", "sh*t", "s**t"]),
        ("fag**t", ["fag**t"]),
        ("shiiiiit", ["shiiiiit"]),
        ("ffffaaaggggot", ["ffffaaaggggot"]),
        ("ѕһit", ["ѕһit"]),
        ("id\u200biot", ["id\u200biot"]),
        ("**idiot** _shit_ `ass`", ["idiot", "shit", "ass"]),
        ("un**shit**able", ["shit"]),
        ("idiot!you", ["idiot"]),
        ("𝓈𝒽𝒾𝓉", ["𝓈𝒽𝒾𝓉"]),
    ],
)
def test_listed_words_are_found_with_their_exact_place(text: str, found: list[str]) -> None:
    assert hits(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "class, assess, assassin, passage",
        "a cocktail in Scunthorpe with Shital Cockburn",
        "wrapping and rapping",
        "**plan as** and ***bold s*** footnote as*",
        "a*s + b*s",
        "A$5, A55 and the mp3s",
        "https://example.com/sh1t",
        "",
        "\ud800\0",
    ],
)
def test_words_that_only_contain_a_listed_one_are_not_hits(text: str) -> None:
    verdict = LEXICON.detect([text])[0]
    assert not verdict.flagged
    assert verdict.spans == ()
    assert set(verdict.scores.values()) == {0.0}


def test_scores_are_the_highest_weight_per_label_and_toxicity_the_highest_of_all() -> None:
    verdict = LEXICON.detect(["you idiot, you ass, you shit"])[0]
    assert verdict.flagged
    assert verdict.scores == {
        "toxicity": 0.9,
        "insult": 0.7,
        "obscene": 0.9,
        "identity_attack": 0.0,
        "sexual_explicit": 0.0,
    }


def test_verdicts_come_in_order_and_do_not_depend_on_companions() -> None:
    texts = ["fine", "shit", "", "1d10t"]
    assert LEXICON.detect(texts) == [LEXICON.detect([text])[0] for text in texts]
    assert LEXICON.detect([]) == []


@settings(deadline=None)  # a shared machine may stall
@given(st.text(max_size=60), st.sampled_from(["idiot", "1d10t", "sh*t", "SHIT"]), st.text(max_size=60))
def test_a_listed_word_between_spaces_is_found_wherever_it_stands(before: str, word: str, after: str) -> None:
    # Spaced letters next to it would make the word part of a longer one only if it were one letter itself.
    text = f"{before} {word} {after}"
    verdict = LEXICON.detect([text])[0]
    assert verdict.flagged
    assert any(s.start <= len(before) + 1 and s.end >= len(before) + 1 + len(word) for s in verdict.spans)


@settings(deadline=None)  # a shared machine may stall
@given(st.text(st.sampled_from("aidots shf*g1.$@\u0301\u200bѕ\n"), max_size=80))
def test_spans_are_disjoint_ordered_and_inside_the_text(text: str) -> None:
    spans = LEXICON.detect([text])[0].spans
    assert all(0 <= s.start < s.end <= len(text) for s in spans)
    assert all(a.end <= b.start for a, b in itertools.pairwise(spans))


def test_a_file_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("# comment\n\nidiot\tinsult\t0.7\nidiot\tobscene\t0.2\n", encoding="utf-8")
    lexicon = Lexicon.load(path)
    assert len(lexicon) == 1
    assert lexicon.detect(["Idiot"])[0].scores == {"toxicity": 0.7, "insult": 0.7, "obscene": 0.2}


@pytest.mark.parametrize(
    "line",
    [
        "idiot",
        "idiot\tinsult",
        "idiot\trude\t0.5",
        "idiot\tinsult\t1.5",
        "idiot\tinsult\thigh",
        "two words\tinsult\t1",
    ],
)
def test_a_wrong_line_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "words.txt"
    path.write_text(f"# comment\n{line}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 2"):
        Lexicon.load(path)


def test_a_missing_file_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError, match="no lexicon"):
        Lexicon.load(tmp_path / "none.txt")


@pytest.mark.parametrize(
    "unit", ["a*", "a*a* ", "s*** ", "sh*t ", "a ", "s h ", "shiiit ", "a", "***a ", "f***g"]
)
def test_time_grows_linearly_with_adversarial_text(unit: str) -> None:
    assert takes_linear_time(lambda size: partial(LEXICON.detect, [unit * (size // len(unit))]), size=10_000)


def test_a_megabyte_of_stars_takes_linear_time() -> None:
    assert takes_linear_time(lambda size: partial(LEXICON.detect, ["a*" * (size // 2)]), size=125_000)
