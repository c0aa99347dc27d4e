"""Masks and removals help readers and leave markup whole."""

from __future__ import annotations

import pytest

from guardrail.outcome import Span
from guardrail.text.masking import masked
from guardrail.text.removal import removed, removed_code


def mask(text: str, *toxic: str) -> str | None:
    spans = [Span(text.index(part), text.index(part) + len(part)) for part in toxic]
    return masked(text, spans, template=None, by="[removed]")


@pytest.mark.parametrize(
    ("text", "toxic", "shown"),
    [
        ("He is a worthless idiot.", ["a worthless idiot"], "He is a w******** i****."),
        ("**Save** the damn file, you moron", ["damn", "you moron"], "**Save** the d*** file, you m****"),
        ("See [the plan](http://x.org/idiot/1) now.", ["idiot"], "See [the plan]([removed]) now."),
        ("Please run `idiot --fast` right now.", ["idiot"], "Please run `[removed]` right now."),
        ("It is <b>idiot</b> proof, they say.", ["idiot"], "It is <b>i****</b> proof, they say."),
    ],
)
def test_a_mask_leaves_grammar_and_markup_alone(text: str, toxic: list[str], shown: str) -> None:
    assert mask(text, *toxic) == shown


@pytest.mark.parametrize(
    ("text", "toxic"),
    [
        ("You and I, you know.", ["You"]),
        ("As a critic you have the range of a doorbell.", ["a"]),
        ("Those people are lazy filthy thieving rats and liars.", ["lazy filthy thieving rats and liars"]),
        ("Idiot!", ["Idiot"]),
        ('Look at <img alt="idiot"> on this page.', ["idiot"]),
        ("We saw that lazy old drunk useless clown today at the station.", ["lazy old drunk useless clown"]),
    ],
)
def test_no_mask_where_it_would_hide_most_or_break_a_tag(text: str, toxic: list[str]) -> None:
    assert mask(text, *toxic) is None


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("You idiot.", "[removed]"),
        ("**You** are an idiot.", "[removed]"),
        ("**You idiot.", "**[removed]"),
        ("You idiot.**", "[removed]**"),
        ("<p>You idiot</p>", "<p>[removed]</p>"),
        ('<a href="http://x.org">You</a> idiot', "<a>[removed]</a>"),
        ("<p>You <b>stupid</b> clown, see <a>this</a>.</p>", "<p><b><a>[removed]</a></b></p>"),
        ("<i>You</i> clown <b>there", "<b><i>[removed]</i>"),
        ("You</b> clown <i>there</i>", "<i>[removed]</i></b>"),
        ("<br/>You clown", "<br/>[removed]"),
        ("Idiot\n- fool\n> moron", "[removed]\n- [removed]\n> [removed]"),
        ("[You idiot.", "[[removed]"),
        ("| idiot | 5 |", "| [removed] ||"),
        ("- - -", "- - -"),
        ("You <!-- dumb --> idiot.", "[removed]"),
        ("See [you idiot](http://x.org/idiot) there.", "[removed]"),
        ("you idiot](http://x.org/idiot) there.", "[removed]](#)"),
        ("f**k you **idiot", "**[removed]"),
        ("(You [idiot) there].", "[removed]"),
        ("*You (idiot* there.", "([removed]"),
    ],
)
def test_removed_text_keeps_the_markup_around_it(body: str, left: str) -> None:
    assert removed(body, by="[removed]") == left


def test_removed_code_keeps_its_fences() -> None:
    assert removed_code("```py\nidiot = 1\n```", by="[removed]") == "```py\n[removed]\n```"
    assert removed_code("idiot = 1\nmore = 2", by="[removed]") == "[removed]"
