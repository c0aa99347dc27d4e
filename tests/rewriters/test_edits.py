"""Edits keep what lies outside the toxic stretch, mend what surrounds it, and leave no hole."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.errors import ConfigError, ModelMissingError
from guardrail.outcome import Span
from guardrail.rewriters.edits.candidates import _partly
from guardrail.rewriters.edits.propose import MAX_EDITS, edits
from guardrail.rewriters.edits.repair import Change, apply
from guardrail.rewriters.edits.substitutions import FILENAME, SHIPPED, SubstitutionTable, context_of
from guardrail.text.protected import find

EMPTY = SubstitutionTable({})


def spans(text: str, *words: str) -> list[Span]:
    return [Span(text.index(word), text.index(word) + len(word)) for word in words]


def proposed(text: str, *words: str, table: SubstitutionTable = EMPTY) -> list[str]:
    return edits(text, spans(text, *words), table)


# ---- deletions, and what is mended around them


@pytest.mark.parametrize(
    ("text", "toxic", "edited"),
    [
        ("Nobody asked for your opinion, you ugly troll.", "ugly troll", "Nobody asked for your opinion."),
        ("Turn that racket down, you inconsiderate oaf.", "oaf", "Turn that racket down."),
        ("Stop calling me, moron!", "moron", "Stop calling me!"),
        ("Have you read it, you dolt?", "dolt", "Have you read it?"),
        ("you absolute muppet, put `a.py` back", "muppet", "put `a.py` back"),
        ("You absolute muppet, put `a.py` back.", "muppet", "Put `a.py` back."),
        ("Idiots! The bus left at 9.", "Idiots", "The bus left at 9."),
        ("Hey genius, read the docs.", "genius", "Hey, read the docs."),
        ("Hey, genius, read the docs.", "genius", "Hey, read the docs."),
        ("But you clowns, the door is locked.", "clowns", "But the door is locked."),
        ("The door is locked (you clown).", "clown", "The door is locked."),
        ("It broke again. Poetry. Fix it by 9.", "Poetry", "It broke again. Fix it by 9."),
        ("I met Ms. Kim, you clown. She left.", "clown", "I met Ms. Kim. She left."),
        ("THE SERVICE IS SLOW, YOU IDIOTS.", "IDIOTS", "THE SERVICE IS SLOW."),
        ("- Put it back, you clown\n- Lock the door", "clown", "- Put it back\n- Lock the door"),
    ],
)
def test_an_address_goes_with_its_commas_wherever_it_stands(text: str, toxic: str, edited: str) -> None:
    assert edited in proposed(text, toxic)


def test_commas_on_both_sides_may_stay_or_go() -> None:
    found = proposed("and morale, you clueless prigs, will not be lifted.", "clueless prigs")
    assert found[:2] == ["and morale, will not be lifted.", "and morale will not be lifted."]


@pytest.mark.parametrize(
    ("text", "toxic", "edited"),
    [
        ("It was a stupid idea.", "stupid", "It was an idea."),
        ("It was an idiotic plan.", "idiotic", "It was a plan."),
        ("A stupid hour later it broke.", "stupid", "An hour later it broke."),
        ("It is an asinine user name.", "asinine", "It is a user name."),
        ("AN IDIOTIC PLAN", "IDIOTIC", "A PLAN"),
        ("An idiotic one-off.", "idiotic", "A one-off."),
    ],
)
def test_an_article_agrees_with_the_word_that_follows_now(text: str, toxic: str, edited: str) -> None:
    assert edited in proposed(text, toxic)


@pytest.mark.parametrize(
    ("text", "toxic", "edited"),
    [
        ("He drives like an idiot.", "idiot", "He drives."),
        ("The train is late and stupid.", "stupid", "The train is late."),
        ("The book is long, dumb and loud.", "dumb", "The book is long and loud."),
        ("The train is fucking late again.", "fucking", "The train is late again."),
        ("You clowns broke the build.", "clowns", "You broke the build."),
        ("you bunch of wankers have cancelled my train", "wankers", "you have cancelled my train"),
    ],
)
def test_what_led_to_the_toxic_word_goes_with_it(text: str, toxic: str, edited: str) -> None:
    assert edited in proposed(text, toxic)


@pytest.mark.parametrize(
    ("text", "toxic", "hole"),
    [
        ("They are idiots.", "idiots", "They are."),
        ("He is such a complete idiot.", "idiot", "He is such a."),
        ("Your boss is a liar.", "liar", "Your boss is a."),
        ("It was written by idiots.", "idiots", "It was written by."),
        ("Their idiots, as always, were late.", "idiots", "Their, as always, were late."),
    ],
)
def test_an_edit_that_leaves_a_hole_is_not_proposed(text: str, toxic: str, hole: str) -> None:
    assert hole not in proposed(text, toxic)


def test_a_text_that_is_toxic_as_a_whole_has_no_edit() -> None:
    assert proposed("Useless pricks.", "Useless pricks") == []


def test_a_word_of_grammar_that_a_span_caught_alone_is_no_reason_to_edit() -> None:
    assert proposed("Nobody at this table has a pen.", "a pen"[:1]) == []


# ---- turns of speech


@pytest.mark.parametrize(
    ("text", "toxic", "edited"),
    [
        ("It was written by an idiot who left.", "idiot", "It was written by someone who left."),
        ("I want the moron who wrote this fired.", "moron", "I want whoever wrote this fired."),
        ("The morons who run this shop are late.", "morons", "The people who run this shop are late."),
        ("My landlord is a crook who kept the deposit.", "crook", "My landlord kept the deposit."),
        ("He's a liar who sold us a broken van.", "liar", "He sold us a broken van."),
        ("Only an utter moron would book it twice.", "moron", "It makes no sense to book it twice."),
        ("Which idiot deleted the table?", "idiot", "Who deleted the table?"),
        ("Whichever cretin merged it broke it.", "cretin", "Whoever merged it broke it."),
        ("WHAT KIND OF MORON DOES THAT", "MORON", "WHO DOES THAT"),
        ("It is full of frat boys who can't spell.", "frat boys", "It is full of people who can't spell."),
        ("What kind of moron deletes the table?", "moron", "Who deletes the table?"),
        ("Guess which lazy clown left it on.", "lazy clown", "Guess who left it on."),
        ("You're an idiot if you think 5 mg will do.", "idiot", "You're wrong if you think 5 mg will do."),
        ("Some idiot parked on the grass.", "idiot", "Someone parked on the grass."),
        ("Why lend money to that wastrel?", "wastrel", "Why lend money to that person?"),
        ("It was sold to an idiot at the counter.", "idiot", "It was sold to someone at the counter."),
        ("Idiots like you never read the manual.", "Idiots", "People like you never read the manual."),
    ],
)  # fmt: skip
def test_an_insult_for_a_person_becomes_a_plain_word(text: str, toxic: str, edited: str) -> None:
    assert edited in proposed(text, toxic)


@pytest.mark.parametrize(
    "text", ["Only an idiot would have known.", "Only an idiot would not know.", "Only an idiot knows."]
)
def test_the_turn_only_an_idiot_would_needs_a_plain_verb(text: str) -> None:
    assert not any("makes no sense" in edited for edited in proposed(text, "idiot"))


# ---- substitutions


TABLE = SubstitutionTable(
    {
        "crap": {"det": {"stuff": 4}, "be": {"bad": 6, "-": 1}},
        "fucked up": {"any": {"messed up": 3}},
        "a liar": {"be": {"not honest": 2}},
        "dumb": {"word": {"odd": 1}},
    }
)


def test_what_was_written_in_the_same_context_comes_first() -> None:
    assert list(TABLE.instead_of("crap", before="the", limit=1)) == ["stuff"]
    assert list(TABLE.instead_of("Crap", before="is", limit=2)) == ["bad", "stuff"]


def test_what_was_written_once_in_another_context_is_not_proposed() -> None:
    assert list(TABLE.instead_of("dumb", before="the", limit=3)) == []
    assert list(TABLE.instead_of("dumb", before="very", limit=3)) == ["odd"]


@pytest.mark.parametrize(
    ("text", "toxic", "edited"),
    [
        ("You fucked up my order.", "fucked", "You messed up my order."),
        ("YOU FUCKED UP MY ORDER.", "FUCKED", "YOU MESSED UP MY ORDER."),
        ("He is a liar, and late.", "liar", "He is not honest, and late."),
        ("Crap is all I got.", "Crap", "Stuff is all I got."),
    ],
)
def test_listed_stretches_around_a_toxic_word_are_replaced(text: str, toxic: str, edited: str) -> None:
    table = TABLE if "Crap" not in text else SubstitutionTable({"crap": {"open": {"stuff": 1}}})
    assert edited in proposed(text, toxic, table=table)


@pytest.mark.parametrize(
    ("before", "context"),
    [
        ("the", "det"),
        ("is", "be"),
        ("they’re", "be"),
        ("you", "you"),
        ("", "open"),
        ("well,", "open"),
        ("run", "word"),
    ],
)
def test_the_word_before_gives_the_context(before: str, context: str) -> None:
    assert context_of(before) == context


def test_a_line_that_is_wrong_is_named(tmp_path: Path) -> None:
    path = tmp_path / "table.txt"
    path.write_text("# head\ncrap\tdet\tstuff\tmany\n")
    with pytest.raises(ConfigError, match=r"table.txt, line 2"):
        SubstitutionTable.load(path)
    with pytest.raises(ModelMissingError, match="no table of substitutions"):
        SubstitutionTable.load(tmp_path / "none.txt")


def test_the_shipped_table_is_small_and_knows_common_words() -> None:
    table = SubstitutionTable.shipped()
    assert (SHIPPED / FILENAME).stat().st_size < 100_000
    assert "" in table.instead_of("fucking", before="so", limit=3)
    assert "messing up" in table.instead_of("fucking up", before="keep", limit=3)


# ---- laws


def test_two_toxic_phrases_are_edited_together() -> None:
    text = "You fucked up my order, you worthless clowns."
    assert "You messed up my order." in proposed(text, "fucked", "worthless clowns", table=TABLE)


PIECES = st.sampled_from(
    ["you", "idiot", "a", "stupid", "the", "is", "broke", "it", "and", ",", ".", "!", "`x.py`", "5 mg", "who",
     "would", "only", "like", "http://a.io/b", "\n", "moron", "(", ")", "—", "He's"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=14).map(" ".join))
def test_no_edit_loses_what_must_stay_or_grows_without_bound(text: str) -> None:
    toxic = [
        Span(i, i + len(w))
        for w in ("idiot", "stupid", "moron")
        for i in range(len(text))
        if text.startswith(w, i)
    ]
    found = edits(text, toxic, TABLE)
    assert len(found) == len(set(found)) <= MAX_EDITS
    for edited in found:
        assert edited.strip()
        assert len(edited) <= len(text) + 40
        for kind in ("number", "url", "code"):
            assert {item.key for item in find(kind, text)} <= {item.key for item in find(kind, edited)}
    assert found == edits(text, toxic, TABLE)


@given(st.text(max_size=60), st.data())
def test_any_text_and_any_spans_can_be_edited(text: str, data: st.DataObject) -> None:
    ends = st.integers(0, len(text))
    drawn = data.draw(st.lists(st.tuples(ends, ends), max_size=3))
    toxic = [Span(min(pair), max(pair)) for pair in drawn if pair[0] != pair[1]]
    for edited in edits(text, toxic, TABLE):
        assert edited != text


def test_a_change_inside_a_text_leaves_the_rest_byte_for_byte() -> None:
    text = "Well —  the \t damn  bus is late,  again."
    start = text.index("damn")
    assert apply(text, [Change(start, start + 4, "old")]) == text.replace("damn", "old")


# ---- free rewrites, in part


def test_a_free_rewrite_is_taken_over_near_the_toxic_words_only() -> None:
    text = "This plan is crap and Anna wrote it in 2 days."
    rewrite = "This plan is weak and somebody wrote it in days."
    assert _partly(text, spans(text, "crap"), [rewrite]) == ["This plan is weak and Anna wrote it in 2 days."]
