"""What a rewrite must not touch is found, exactly, in linear time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.text.protected import blanked, find, protected_spans
from tests.linear import takes_linear_time

KINDS = ["code", "url", "address", "placeholder", "mention", "number", "quotation"]


def found(kind: str, text: str) -> list[str]:
    return [text[item.span.start : item.span.end] for item in find(kind, text)]


def keys(kind: str, text: str) -> list[str]:
    return [item.key for item in find(kind, text)]


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("code", "run `a b` or ``c ` d``, not ` alone", "`a b` | ``c ` d``"),
        ("url", "see https://a.b/c?d=e, or (www.x.org).", "https://a.b/c?d=e | www.x.org"),
        ("url", "example.com! t.co/x foo.bar/baz", "example.com | t.co/x | foo.bar/baz"),
        ("url", "you are stupid.go away, e.g. now, and/or later, me@example.com", ""),
        ("address", "bob.x@example.co.uk or 10.0.0.1 or fe80::1", "bob.x@example.co.uk | 10.0.0.1 | fe80::1"),
        ("address", "+44 20 7946 0958, (555) 010-1234", "+44 20 7946 0958 | (555) 010-1234"),
        ("address", "at 10:30:45 in 2019 2020 2021 of 1.2.3", ""),
        ("placeholder", "{name} {{x y}} {0} %s %(n)d", "{name} | {{x y}} | {0} | %s | %(n)d"),
        ("placeholder", "${X} <USER> [NAME]", "${X} | <USER> | [NAME]"),
        ("placeholder", "50% sure, <b>bold</b>, [sic], {a: b}, a < B", ""),
        ("mention", "@user and #tag2, not a@b, #1 or &#39;", "@user | #tag2"),
        ("number", "3D and b2b and `5` and example.com/7 and @user8", ""),
        ("number", "5 or 1,000 or 3.14 or .5 or 10:30 or 3-4", "5 | 1,000 | 3.14 | .5 | 10:30 | 3 | 4"),
        ("quotation", '“go to hell”, "you fool", «sale con»', '“go to hell” | "you fool" | «sale con»'),
        ("quotation", 'it\'s \'not a quote\', a "word", 5" by 6"', ""),
        ("quotation", '""" " so no more " for " it', ""),
    ],
)
def test_each_kind_is_found_and_look_alikes_are_not(kind: str, text: str, expected: str) -> None:
    assert " | ".join(found(kind, text)) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,000", "1000"),
        ("5 kg", "5kgs"),
        ("$ 3.50", "3.50 dollars"),
        ("10%", "10 percent"),
        ("2 a.m.", "2 am"),
        ("−5", "-5"),
        ("51 damned years ago", "51 years ago"),
        ("6 inches", "6 inch"),
    ],
)
def test_two_spellings_of_a_number_are_equal(one: str, other: str) -> None:
    assert keys("number", one) == keys("number", other) != []


@pytest.mark.parametrize(
    ("one", "other"),
    [("5 kg", "5 g"), ("5", "-5"), ("$5", "€5"), ("3.5", "35"), ("5 days", "5"), ("1st", "1")],
)
def test_another_unit_sign_or_value_makes_another_number(one: str, other: str) -> None:
    assert keys("number", one) != keys("number", other)


def test_what_stands_in_code_or_an_address_is_no_item_of_its_own() -> None:
    text = "`https://a.b/1 @x` and https://a.b/{x}?n=5"
    assert [kind for kind in KINDS if find(kind, text)] == ["code", "url"]


def test_protected_spans_are_merged_and_in_order() -> None:
    text = 'He said "go to example.com now" and `x`'
    assert [text[span.start : span.end] for span in protected_spans(text)] == [
        '"go to example.com now"', "`x`"
    ]  # fmt: skip


def test_an_item_does_not_show_its_text() -> None:
    assert "fool" not in repr(find("quotation", '"you fool"'))


@given(st.text(alphabet='ab1. `"“”@#{}%<>[]$/:-+(),\n', max_size=80))
def test_blanking_keeps_every_offset(text: str) -> None:
    left = blanked(text)
    assert len(left) == len(text)
    assert all(new in (old, " ") for old, new in zip(text, left, strict=True))


@given(st.sampled_from(KINDS), st.text(alphabet='ab1. `"“”@#{}%<>[]$/:-+(),\n', max_size=80))
def test_items_are_in_order_and_do_not_overlap(kind: str, text: str) -> None:
    spans = [item.span for item in find(kind, text)]
    assert all(0 <= span.start < span.end <= len(text) for span in spans)
    assert all(one.end <= two.start for one, two in pairwise(spans))


HOSTILE = [
    *("a", "1", " ", "`", '"', "“", "{", "<A", "[A", "@", "#", "#1", "%(", "-", "+1", ":", "a:", "::", "1,"),
    *("1.", "$1 ", "a.", "a-.", "a@", "a.b@", "@a.", "www.", "http://", "a/", "(555) ", "1 a ", "` ``", '"a'),
    *('"a ', "{{", "${", "5 ab day", "a.b-", "1 ab "),
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_finding_takes_linear_time_on_hostile_text(piece: str) -> None:
    def finding(size: int) -> Callable[[], object]:
        text = (piece * size)[:size]
        return lambda: [find(kind, text) for kind in KINDS]

    assert takes_linear_time(finding, size=12_500)
