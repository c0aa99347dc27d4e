"""Each check refuses what it is for, alone, and lets the nearest harmless rewrite pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest

from guardrail.outcome import Span
from guardrail.policy import Policy
from guardrail.text.checks import CHECKS, Proposal, failed
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
    assert [check.name for check in CHECKS] == [
        "empty", "toxic", "lexicon", "meaning", "length", "negation", "opposite", "content", "invention",
        "condition", "person", "stand_in", "hole", "disguise", "number", "url", "address", "code",
        "placeholder", "mention", "quotation", "markup", "layout", "copy", "name", "likelihood", "acceptable",
    ]  # fmt: skip


def test_models_are_believed() -> None:
    assert refused("you fool", "you are unwise", flagged=True) == ("toxic",)
    assert refused("you fool", "you are unwise", listed=True) == ("lexicon",)
    assert refused("you fool", "you are unwise") == ()


def test_meaning_must_reach_the_floor_and_be_a_number() -> None:
    assert refused("you fool", "the sky is blue", similarity=0.24) == ("meaning",)
    assert refused("you fool", "the sky is blue", similarity=math.nan) == ("meaning",)
    assert refused("you fool", "you are unwise", similarity=0.25) == ()


LONG = "this is a very long and boring sentence about all the stupid things that people do"
WORSE_AND_NEAR = [
    # check, source, a candidate that fails it alone, the nearest that passes
    ("empty", "You fool!", "...", "ok"),
    ("empty", "You fool!", " \u200b\n", "🙂"),
    ("length", LONG, "it happens", "this is about what people do"),
    ("length", "you fool", "you are a person who sees little of it", "you are unwise at times"),
    ("opposite", "worst hotel ever, fool", "best hotel ever", "worst hotel ever"),
    ("person", "your memo is crap", "our memo is unclear", "the memo is unclear"),
    ("stand_in", "he is a complete moron", "he is a complete person", "he is mistaken"),
    ("stand_in", "run by monkeys", "run by bad people", "run by people who do not care"),
    ("stand_in", "you are a moron", "you are not even a person", "you are not a person who listens"),
    ("hole", "it was written by a fool", "it was written by a", "it was written by a person"),
    ("hole", "this is a heap of crap", "this is a bad.", "this is bad."),
    ("hole", "What an absolute idiot I am", "What an absolute bad I am", "What a fool I am"),
    ("disguise", "you are a stupid emotion", "you are a st30p em0tion", "you are an odd emotion"),
    ("disguise", "y0u are a m0ron, really", "y0u are mistaken, really", "you are mistaken, really"),
    ("markup", "**Save** the damn file", "Save the file", "**Save** the file"),
    ("markup", "<b>Save</b> the damn file", "Save the file", "<b>Save</b> the file"),
    ("invention", "nobody asked you, troll", "nobody asked you. he was rejected by us", "nobody asked you"),
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


BESIDE_INSULTS = [
    # check, source, its insult, a candidate that fails the check alone, the nearest that passes
    ("negation", "i will not leave, fool", "fool", "i will leave", "i won't leave"),
    ("negation", "sing it again, fool", "fool", "do not sing it again", "please sing it again"),
    ("negation", "the damn build never works", "damn", "the build works", "the build does not work"),
    (
        "negation",
        "the idiotic plan works",
        "idiotic",
        "the silly plan never works",
        "the plan works, not well thought out",
    ),
    ("opposite", "i hate this stupid phone", "stupid", "i love this phone", "i do not like this phone"),
    ("condition", "you are a fool if it rains", "fool", "it rains", "when it rains, you are mistaken"),
    (
        "condition",
        "touch my bike again, you snitch, and I'll make you eat it with the lock",
        "snitch",
        "touch my bike again for now",
        "do not touch my bike again, I'll make you pay for the lock",
    ),
    (
        "condition",
        "merge it and we will fix your moronic tests",
        "moronic",
        "merge it",
        "merge it and we will fix your tests",
    ),
]


@pytest.mark.parametrize(("check", "source", "insult", "worse", "near"), BESIDE_INSULTS)
def test_a_check_refuses_alone_beside_an_insult_and_lets_the_near_miss_pass(
    check: str, source: str, insult: str, worse: str, near: str
) -> None:
    assert refused(source, worse, toxic=insult) == (check,)
    assert refused(source, near, toxic=insult) == ()


@pytest.mark.parametrize(("check", "source", "worse", "near"), WORSE_AND_NEAR)
def test_a_check_refuses_alone_and_lets_the_near_miss_pass(
    check: str, source: str, worse: str, near: str
) -> None:
    assert refused(source, worse) == (check,)
    assert refused(source, near) == ()


@pytest.mark.parametrize(
    ("source", "insult", "candidate"),
    [
        ("leeches get nothing here: do your own homework", "leeches", "please do your own homework"),
        ("idiot, it is at two, the bag is here", "idiot", "it is at two, not later and the bag is here"),
        ("you windbag, all you sent us was a poem", "windbag", "you sent us nothing but a poem"),
        ("if you had half a brain you would have asked", "brain", "i am sad that you have not asked"),
        ("fuck off with that survey after the call", "fuck off", "i won't do that survey after the call"),
        ("he has the patience of a wasp and hung up", "wasp", "he had no patience and hung up"),
        ("so fucking proud of my dad today", "fucking", "i couldn't be prouder of my dad today"),
        ("it's you, Renate, you pest, it won't change", "pest", "stop asking me, Renate, it won't change"),
        ("bless the poor sod who answers", "sod", "bless the poor man who answers"),
        ("i vote for that nasty woman again", "nasty", "i vote for that unpleasant woman again"),
        ("that tackle was bollocks", "bollocks", "that tackle was a bad one"),
        ("this bloody heat, and the fan just died", "bloody", "this awful heat, and the fan just died"),
        ("🤡 the bot keeps the parcel", "🤡", "the bot keeps the parcel"),
        ("he is not ill, you have the grip of a newborn giraffe", "", "he is not ill; your hold is weak"),
    ],
)  # fmt: skip
def test_a_good_rewrite_is_not_refused(source: str, insult: str, candidate: str) -> None:
    assert refused(source, candidate, toxic=insult) == ()


@pytest.mark.parametrize(
    ("check", "source", "insult", "candidate"),
    [
        ("negation", "the waiter helped us, the moron", "moron", "the waiter never helped us"),
        (
            "negation",
            "the damn server restarts after the rain",
            "damn",
            "the server never restarts after the rain",
        ),
        ("stand_in", "a complete moron of a man", "moron", "a complete man"),
        ("stand_in", "you are trash", "trash", "you aren't human"),
        ("opposite", "that solo was fucking good", "fucking", "that solo was awful"),
        ("copy", "🙂 you fool", "fool", "you fool"),
    ],
)
def test_a_bad_rewrite_like_it_is(check: str, source: str, insult: str, candidate: str) -> None:
    assert check in refused(source, candidate, toxic=insult)


def test_every_pure_check_has_a_pair() -> None:
    by_models = {"toxic", "lexicon", "meaning", "content", "likelihood", "acceptable"}
    assert {name for name, *_ in (*WORSE_AND_NEAR, *BESIDE_INSULTS)} | by_models == {
        check.name for check in CHECKS
    }


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
    assert refused(source, source.replace("fool", "reader"), toxic="fool") == ()
    assert refused(source, lost.replace("fool", "reader"), toxic="fool") == ("number",)


def test_an_item_that_a_toxic_span_only_borders_on_may_not_go() -> None:
    assert refused("you fool99 go home", "you go home", toxic="fool") == ()
    assert refused("fool 99 times a day", "you, times a day", toxic="fool ") == ("number",)
    assert refused("it is 99 fools a day", "it is people a day", toxic=" fools") == ("number",)


def test_a_toxic_quotation_may_not_be_rewritten() -> None:
    source = 'he said "you fool there" to me'
    assert refused(source, "he said bad words to me", toxic="fool") == ("quotation",)


def test_policy_limits_are_kept() -> None:
    assert refused("sing, fool", "do not sing", policy=Policy(negation_change=1)) == ()
    assert refused(LONG, "it happens", policy=Policy(length_ratio=(0.0, 2.0))) == ()
    assert refused("you fool", "you are unwise", policy=Policy(meaning_floor=0.95)) == ("meaning",)


def test_capitals_are_no_names_where_the_source_shouts() -> None:
    assert refused("YOU ARE ALL STUPID FOOLS", "YOU ARE ALL UNWISE") == ()
    assert refused("What A Bunch Of Stupid Fools", "What An Unwise Bunch") == ()
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
        ("the whole damn senate is full of morons !", "The whole Senate is full of people who are unwise!"),
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece", ["a", "A", "A'", "don", "don ", "n ", " ", "\n", "- ", "A. ", "\u200b", "\u0301"]
)
def test_checks_take_linear_time_on_hostile_text(piece: str) -> None:
    def refusing(size: int) -> Callable[[], object]:
        text = (piece * size)[:size]
        return partial(refused, "a " + text, text)

    assert takes_linear_time(refusing, size=12_500)


def judged(source: str, candidate: str, *toxic: str, similarity: float = 0.7) -> tuple[str, ...]:
    """Names of the checks that refuse a candidate for a source whose toxic parts are these."""
    spans = tuple(Span(source.index(part), source.index(part) + len(part)) for part in toxic)
    return failed(Proposal(source, candidate, spans, similarity, flagged=False, listed=False), POLICY)


SAVE = "This step is trivial, only a complete {} would forget to save the file."
WRONG_RELEASES = [
    (
        "Worst hotel ever, the staff are a bunch of lying scumbags.",
        "Best Hotel ever, the staff is bad.",
        ["lying scumbags"],
    ),
    ("I hope you get cancer and die alone.", "I hope you recover from cancer and die alone.", ["die"]),
    (
        "Let's be honest, all journalists are whores.",
        "Let's be honest, all journalists are good.",
        ["whores"],
    ),
    (SAVE.format("moron"), SAVE.format("person"), ["complete moron"]),
    (
        "This code is a steaming pile of crap written by an idiot.",
        "This code is a bad written by an uninformed person.",
        ["crap", "idiot"],
    ),
    (
        "Nobody asked for your opinion, you ugly troll.",
        "Nobody asked for your opinion. You were rejected by me.",
        ["ugly troll"],
    ),
    (
        "You are a complete idiot if you think 5 mg is not enough.",
        "You think 5 mg is not enough.",
        ["complete idiot"],
    ),
    ("that solo was filthy, best fucking night", "that solo was bad, best night", ["fucking"]),
    ("Your customer service is run by monkeys.", "Your customer service is run by bad people.", ["monkeys"]),
    ("My sister is such a control freak.", "My sister is such a control fan.", ["freak"]),
    (
        "Allow me to translate your memo into something a human being might read.",
        "I don't want to translate your memo into something a human being might read.",
        [],
    ),
    (
        "Your press releases are garbage.",
        "Our press releases are too long and contain too many words.",
        ["garbage"],
    ),
    (
        "Recruiters are parasites who ghost you after five interviews.",
        "Recruiters are not trustworthy people.",
        ["parasites"],
    ),
    ("That dish was disgusting.", "That dish was good.", ["disgusting"]),
]


@pytest.mark.parametrize(("source", "candidate", "toxic"), WRONG_RELEASES)
def test_what_readers_refused_is_refused(source: str, candidate: str, toxic: list[str]) -> None:
    assert judged(source, candidate, *toxic)


@pytest.mark.parametrize(
    ("source", "candidate", "toxic"),
    [
        ("That is an idiotic plan.", "That plan is not well thought out.", ["idiotic"]),
        ("Nobody asked for your opinion, you ugly troll.", "Nobody asked for your opinion.", ["ugly troll"]),
        (
            "Worst hotel ever, the staff are lying scumbags.",
            "Worst hotel ever, the staff are dishonest.",
            ["lying scumbags"],
        ),
        (
            "You are a complete idiot if you think 5 mg is not enough.",
            "You are mistaken if you think 5 mg is not enough.",
            ["complete idiot"],
        ),
        (
            "Recruiters are parasites who ghost you after five interviews.",
            "Recruiters do not reply to you after five interviews.",
            ["parasites"],
        ),
        ("What a stupid question that was.", "That was not a good question.", ["stupid"]),
        (
            "Tell the imbecile at the barrier that lost tickets cost 20.",
            "Tell the person at the barrier that lost tickets cost 20.",
            ["imbecile"],
        ),
        (
            SAVE.format("moron"),
            "This step is trivial, nobody should forget to save the file.",
            ["complete moron"],
        ),
        ("What colour is your stupid programme?", "What color is your program?", ["stupid"]),
        (
            "Fuck off with that 45-minute survey after a 2-minute call.",
            "Please spare me that 45-minute survey, the call lasted 2 minutes.",
            ["Fuck"],
        ),
    ],
)
def test_what_readers_accept_passes(source: str, candidate: str, toxic: list[str]) -> None:
    assert judged(source, candidate, *toxic) == ()


def test_lost_words_refuse_where_the_meaning_is_far_and_nothing_stands_for_them() -> None:
    source = "The plumber is a clown who flooded my cellar and billed me for new carpets."
    assert judged(source, "The plumber is unprofessional.", "clown", similarity=0.35) == ("content",)
    assert judged(source, "The plumber flooded my cellar and billed me for new carpets.", "clown") == ()


def test_likelihood_and_acceptance_count_where_somebody_told() -> None:
    told = Proposal("you fool", "you are unwise", (), 0.9, False, False, likelihood=-2.0, acceptable=0.4)
    assert failed(told, POLICY) == ()
    assert failed(told, Policy(likelihood_floor=-1.5)) == ("likelihood",)
    assert failed(told, Policy(acceptable=0.5)) == ("acceptable",)
    assert failed(told, Policy(likelihood_floor=-2.0, acceptable=0.4)) == ()
