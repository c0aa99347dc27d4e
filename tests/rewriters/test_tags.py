"""Tags of words made into text: what is kept, mended and refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.rewriters.edits.repair import has_hole
from guardrail.rewriters.edits.tags import Tag, realised, words

"""In a pattern ``⟦word⟧`` goes, ``⟦word|other⟧`` becomes another, ``⟦word+other⟧`` gets one behind it."""


def edited(pattern: str) -> str | None:
    """The text of a pattern with its edits done."""
    text, spans = "", []
    for place, piece in enumerate(pattern.replace("⟧", "⟦").split("⟦")):
        if place % 2:
            word, mark, other = piece.partition("|") if "|" in piece else piece.partition("+")
            kind = {"|": "replace", "+": "append", "": "delete"}[mark]
            spans.append((len(text), len(text) + len(word), Tag(kind, other)))  # type: ignore[arg-type]  # one of three
            text += word
        else:
            text += piece
    tags = []
    for word in words(text):
        inside = [(start, tag) for start, end, tag in spans if start <= word.start < end]
        started = [tag for start, tag in inside if start == word.start]
        if started:
            tags.append(started[0])
        elif inside and inside[0][1].kind != "append":
            tags.append(Tag("delete"))
        else:
            tags.append(Tag("keep"))
    return realised(text, words(text), tags)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("Can you ⟦fucking⟧ help me?", "Can you help me?"),
        ("Your code is slow⟦, you plonker⟧.", "Your code is slow."),
        ("Read it⟦, you absolute chump⟧: I asked to cancel.", "Read it: I asked to cancel."),
        ("⟦You muppet⟧. Fix the build.", "Fix the build."),
        ("Fix the build. ⟦You muppet⟧. Thanks, Ann.", "Fix the build. Thanks, Ann."),
        ("⟦WTF|what⟧ is `tmp`?", "What is `tmp`?"),
        ("⟦wtf|what⟧ is up with it", "what is up with it"),
        ("it broke. ⟦ffs dude⟧ learn git", "it broke. learn git"),
        ("I ate a ⟦damn⟧ apple.", "I ate an apple."),
        ("It was an ⟦awful+very⟧ apple.", "It was an awful very apple."),
        ("I ate ⟦the|a⟧ apple.", "I ate an apple."),
        ("This is ⟦shit|bad, and⟧ it broke.", "This is bad, and it broke."),
        ("Nobody ⟦gives a shit|cares⟧ about it.", "Nobody cares about it."),
        ("⟦i think|i don't think⟧ so, Tom", "I don't think so, Tom"),
        ("He isn’t ⟦daft|i'm⟧ ok.", "He isn’t I’m ok."),
        ("THAT ⟦DAMN|bad⟧ PORT", "THAT BAD PORT"),
        ("I told the ⟦idiot|person⟧ twice.", "I told the person twice."),
        ("That is un-⟦fucking-⟧believable.", "That is unbelievable."),
        ("re-⟦damn-⟧run it", "re-run it"),
        ("It (⟦the damn thing⟧) broke.", "It broke."),
    ],
)
def test_an_edit_mends_what_it_leaves(pattern: str, expected: str) -> None:
    assert edited(pattern) == expected


@pytest.mark.parametrize(
    ("pattern", "kept"),
    [
        ("It's  ⟦damn⟧ slow:  `i += 1  # add` now.", "slow:  `i += 1  # add` now."),
        ("> **Result:** the ⟦damn⟧ build  broke\n> - see [it](http://a.example/x_y)  \n", None),
        ("He said “no  way” and ⟦fucking⟧ left", "He said “no  way” and left"),
        ("é̂ 日本語 😀😀 ⟦damn⟧ ok", "é̂ 日本語 😀😀 ok"),
    ],
)
def test_characters_outside_an_edit_stay_as_they_are(pattern: str, kept: str | None) -> None:
    result = edited(pattern)
    assert result is not None
    assert (kept or pattern.replace("⟦damn⟧ ", "").rstrip()) in result


@pytest.mark.parametrize(
    "pattern",
    [
        "The foreman's ⟦a spineless little weasel⟧!",
        "My ex is ⟦a lying piece of shit⟧ and he still has my air fryer.",
        "The tool is a pain in ⟦the arse⟧ and takes clicks.",
        "The owner has ⟦a foul mouth⟧.",
        "This library is a ⟦marvel⟧: forty pages.",
        "You're ⟦incompetent⟧. **Fix:** mock the clock.",
        "It was your ⟦shit⟧, and I left.",
        "Just found out, thank ⟦fuck⟧",
        "You ⟦idiot⟧!",
        "⟦You idiot⟧!",
        "The ⟦stupid⟧ `name` is ⟦shit|the⟧",
        "See ⟦https://a.example/x⟧ now, you",
        "Call ⟦Bob|him⟧ at ⟦5⟧ now.",
        "You are **⟦a moron⟧** again.",
        "You are ⟦**a⟧ moron** again.",
        'He said ⟦"no⟧ way" again.',
        'He called it "⟦shit⟧" again.',
        "He [sic⟦]⟧ broke it",
        "Rename `⟦shit⟧` to x.",
    ],
)
def test_what_leaves_a_hole_or_touches_what_is_protected_is_refused(pattern: str) -> None:
    assert edited(pattern) is None


@pytest.mark.parametrize(
    "pattern",
    [
        "Come on⟦, you muppets⟧!",
        "What is it for⟦, moron⟧?",
        "The worst I ever had⟦, honestly⟧.",
        "Tell me who you are⟦, clown⟧.",
        "That is ⟦damn⟧ what it is.",
    ],
)
def test_what_led_to_nothing_in_the_source_may_do_so_still(pattern: str) -> None:
    assert edited(pattern) is not None


def test_a_word_that_cannot_be_said_leaves_the_text_alone() -> None:
    text = "You damn fool"
    tags = [Tag("keep"), Tag("delete"), Tag.parse("unknown")]
    assert realised(text, words(text), tags) is None
    assert realised(text, words(text), [Tag("keep")] * 3) is None


@pytest.mark.parametrize("label", ["", "replace", "append ", "delete it", "Keep"])
def test_what_is_not_a_tag_is_refused(label: str) -> None:
    with pytest.raises(ValueError, match="is not a tag"):
        Tag.parse(label)


@given(st.text(alphabet="ab .,!?'’*\"`(\n", max_size=40), st.data())
def test_the_first_and_last_kept_words_stay_whatever_is_deleted_between(
    text: str, data: st.DataObject
) -> None:
    tagged = words(text)
    tags = [data.draw(st.sampled_from([Tag("keep"), Tag("delete"), Tag("replace", "x")])) for _ in tagged]
    result = realised(text, tagged, tags)
    if result is not None:
        assert not has_hole(text, result)
        kept = [
            text[word.start : word.end]
            for word, tag in zip(tagged, tags, strict=True)
            if tag.kind == "keep" and text[word.start].isalnum() and len(text[word.start : word.end]) > 3
        ]
        assert all(word.casefold() in result.casefold() for word in kept)
