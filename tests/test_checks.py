"""Each check refuses what it is for, alone, and lets the nearest harmless rewrite pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest

from guardrail.checks import CHECKS, Proposal, failed
from guardrail.outcome import Span
from guardrail.policy import Policy
from tests.linear import takes_linear_time

POLICY = Policy()


def refused(
    source: str,
    candidate: str,
    *,
    toxic: str = "",
    similarity: float = 0.9,
    flagged: bool = False,
    listed: bool = False,
    policy: Policy = POLICY,
) -> tuple[str, ...]:
    """Names of the checks that refuse ``candidate``; ``toxic`` is the part of ``source`` that has a span."""
    start = source.index(toxic)
    spans = (Span(start, start + len(toxic)),) if toxic else ()
    return failed(Proposal(source, candidate, spans, similarity, flagged, listed), policy)


def test_checks_have_their_names_in_fixed_order() -> None:
    assert [name for name, _ in CHECKS] == [
        "empty", "toxic", "lexicon", "meaning", "length", "negation", "number", "url", "address", "code",
        "placeholder", "mention", "quotation", "layout", "copy", "name",
    ]  # fmt: skip


def test_models_are_believed() -> None:
    assert refused("you fool", "you are unwise", flagged=True) == ("toxic",)
    assert refused("you fool", "you are unwise", listed=True) == ("lexicon",)
    assert refused("you fool", "you are unwise") == ()


def test_meaning_must_reach_the_floor_and_be_a_number() -> None:
    assert refused("you fool", "the sky is blue", similarity=0.49) == ("meaning",)
    assert refused("you fool", "the sky is blue", similarity=math.nan) == ("meaning",)
    assert refused("you fool", "you are unwise", similarity=0.5) == ()


LONG = "this is a very long and boring sentence about all the stupid things that people do"
WORSE_AND_NEAR = [
    # check, source, a candidate that fails it alone, the nearest that passes
    ("empty", "You fool!", "...", "ok"),
    ("empty", "You fool!", " \u200b\n", "🙂"),
    ("length", LONG, "it happens", "this is about what people do"),
    ("length", "you fool", "you are a person who sees little of it", "you are unwise at times"),
    ("negation", "i will not go, fool", "i will go", "i won't go"),
    ("negation", "go away, fool", "do not go away", "please go away"),
    ("negation", "dont be a fool", "be good", "don't be unwise"),
    ("negation", "it isn 't your shit", "it is yours", "it isn't yours"),
    ("negation", "nobody likes you, never did", "nobody likes you", "no one likes you, not once"),
    ("number", "take 5 kg of this shit", "take 6 kg of this", "take 5kg of this"),
    ("number", "take 5 kg of this shit", "take 5 g of this", "take 5 kilos of this"),
    ("number", "pay $1,000 you fool", "pay you", "pay 1000 dollars please"),
    ("number", "you fool came late", "you came 2 hours late", "you came two hours late"),
    ("number", "2 idiots and 2 fools", "2 people and others", "2 people and 2 others"),
    ("url", "see example.com/a you fool", "see example.com/b please", "please see example.com/a."),
    ("url", "look at it you fool", "look at it on www.example.com", "look at it on the web"),
    ("address", "ask bob@example.com you fool", "ask bobby@example.com please", "ask bob@example.com."),
    ("address", "call 555-010-1234 you fool", "call 555-010-1235 please", "please call 555-010-1234"),
    ("address", "ping the damn 10.0.0.1", "ping the 10.0.0.2", "ping 10.0.0.1 please"),
    ("code", "run `rm -r x` you fool", "run `rm x` please", "please run `rm -r x`"),
    ("placeholder", "hey {name} you fool", "hey you there", "hello {name}, dear"),
    ("placeholder", "you fool, listen", "[NAME], please listen", "please listen (name)"),
    ("mention", "@bob you fool #wtf", "@bobby please #wtf", "please @bob #wtf"),
    ("mention", "@bob you fool #wtf", "@bob please", "@Bob please #WTF"),
    ("quotation", 'she said "go home now" fool', 'she said "go away now"', "she said “go home now” to us"),
    ("quotation", "she told us to go home, fool", 'she told us "to go home"', 'she told us to go "home"'),
    ("layout", "you fool\nand you", "you and you", "you there\r\nand you"),
    ("layout", "you fool, go away", "- you should go away", "you should - go away"),
    ("copy", "You fool!", "you  FOOL .", "you foo"),
    ("copy", "🖕", "🖕", "🙂"),
    ("name", "that man is a fool", "that man Peter is unwise", "That man is unwise. He is"),
    ("name", "ask that fool peter, i say", "ask that man, Paul, I say", "ask Peter's friend, I'm sure"),
    ("name", "the americans are fools", "the Russians are unwise", "the American people are unwise"),
    ("name", "he is a fool", "he is like Mr. Smith", "he is unwise. Sometimes"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "source", "worse", "near"), WORSE_AND_NEAR)
def test_a_check_refuses_alone_and_lets_the_near_miss_pass(
    check: str, source: str, worse: str, near: str
) -> None:
    assert refused(source, worse) == (check,)
    assert refused(source, near) == ()


def test_every_pure_check_has_a_pair() -> None:
    by_models = {"toxic", "lexicon", "meaning"}
    assert {name for name, *_ in WORSE_AND_NEAR} | by_models == {check.name for check in CHECKS}


@pytest.mark.parametrize(
    ("source", "toxic", "candidate"),
    [
        ("give me 99 fucks about it", "99 fucks", "i care about it"),
        ("@idiotbob is here to help", "@idiotbob", "he is here to help"),
        ("go to idiots.com for the news", "idiots.com", "go there for the news"),
    ],
)
def test_items_inside_toxic_spans_may_go_and_no_others(source: str, toxic: str, candidate: str) -> None:
    assert refused(source, candidate, toxic=toxic) == ()
    assert len(refused(source, candidate)) == 1


@pytest.mark.parametrize(
    "lost", ["give me books, you fool, for 7 days", "give me 99 books, you fool, for days"]
)
def test_items_beside_a_toxic_span_may_not_go(lost: str) -> None:
    source = "give me 99 books, you fool, for 7 days"
    assert refused(source, source.replace("fool", "friend"), toxic="fool") == ()
    assert refused(source, lost.replace("fool", "friend"), toxic="fool") == ("number",)


def test_an_item_that_a_toxic_span_only_borders_on_may_not_go() -> None:
    assert refused("you fool99 go home", "you go home", toxic="fool") == ()
    assert refused("fool 99 times a day", "you, times a day", toxic="fool ") == ("number",)
    assert refused("it is 99 fools a day", "it is people a day", toxic=" fools") == ("number",)


def test_a_toxic_quotation_may_not_be_rewritten() -> None:
    source = 'he said "you fool there" to me'
    assert refused(source, "he said bad words to me", toxic="fool") == ("quotation",)


def test_policy_limits_are_kept() -> None:
    assert refused("go away, fool", "do not go away", policy=Policy(negation_change=1)) == ()
    assert refused(LONG, "it happens", policy=Policy(length_ratio=(0.0, 2.0))) == ()
    assert refused("you fool", "you are unwise", policy=Policy(meaning_floor=0.95)) == ("meaning",)


def test_capitals_are_no_names_where_the_source_shouts() -> None:
    assert refused("YOU ARE ALL STUPID FOOLS", "YOU ARE ALL UNWISE PEOPLE") == ()
    assert refused("What A Bunch Of Stupid Fools", "What A Bunch Of Unwise People") == ()
    assert refused("Ask Donald Trump", "Please ask Barack Obama") == ("name",)
    assert refused("Ask Donald Trump about money", "Please ask Barack Obama about money") == ("name",)


@pytest.mark.parametrize(
    ("source", "candidate"),
    [
        ("why dont you shut the hell up , man ?", "Why don't you be quiet, man?"),
        ("im so damn tired of this crap .", "I'm so tired of this."),
        ("those 2 idiots lost $50 again !", "Those 2 people lost $50 again!"),
        ("obama didn 't do shit for us in 8 years", "Obama didn't do anything for us in 8 years."),
        ("this is bullshit , they can 't even play", "This is nonsense, they cannot even play."),
        ("the war ended 51 fucking years ago .", "The war ended 51 years ago."),
        ("rt @sam : the damn bus is late again #monday", "RT @sam: the bus is late again #monday"),
        ("get your ass over here by 10:30 , jen", "Please get over here by 10:30, Jen."),
        ("who the hell eats that garbage in new york ?", "Who eats that in New York?"),
        ("i couldnt give a shit less about the nfl", "I couldn't care less about the NFL."),
        ("the whole damn senate is full of morons !", "The whole Senate is full of unwise people!"),
        ("nobody asked for your stupid opinion .", "Nobody asked for your opinion."),
        ("hell yeah , that was some crazy shit . lol", "Yeah, that was crazy. lol"),
        ("i 've been working my ass off since 7 am", "I've been working hard since 7 a.m."),
        ("you idiots broke the `main` branch again", "You broke the `main` branch again."),
        ("she is a lying bitch and i ain 't sorry", "She is a liar and I'm not sorry."),
    ],
)
def test_rewrites_as_people_write_them_pass(source: str, candidate: str) -> None:
    assert refused(source, candidate) == ()


def test_a_proposal_does_not_show_its_texts() -> None:
    assert "fool" not in repr(Proposal("fool", "fool too", (), 1.0, False, False))


@pytest.mark.parametrize(
    "piece", ["a", "A", "A'", "don", "don ", "n ", " ", "\n", "- ", "A. ", "\u200b", "\u0301"]
)
def test_checks_take_linear_time_on_hostile_text(piece: str) -> None:
    def refusing(size: int) -> Callable[[], object]:
        text = (piece * size)[:size]
        return partial(refused, "a " + text, text)

    assert takes_linear_time(refusing, size=12_500)
