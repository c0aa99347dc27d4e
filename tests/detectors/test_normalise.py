"""Obfuscation is undone, ordinary text is not, and every character knows where it came from."""

from __future__ import annotations

import re
import string
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.detectors.normalise import fold, normalise, second_reading
from guardrail.detectors.words import Words
from tests.linear import takes_linear_time

ANY_TEXT = st.text(st.characters(), max_size=200)
TRICKY = st.text(
    st.sampled_from("aàä idotfuckSH1t0!@$*#._-\u200b\u0301\u0361ѕһіо😀ﬁ２Ａ\ud800\0\n"), max_size=80
)


@pytest.mark.parametrize(
    ("obfuscated", "plain"),
    [
        ("You IDIOT", "you idiot"),
        ("1d10t", "idiot"),
        ("sh!t", "shit"),
        ("$hit", "shit"),
        ("@ss", "ass"),
        ("a$$", "ass"),
        ("5h1t", "shit"),
        ("ki1l", "kill"),
        ("s1ut", "slut"),
        ("d1ckh34d", "dickhead"),
        ("f**k", "f**k"),
        ("f#ck", "f*ck"),
        ("i d i o t", "idiot"),
        ("i.d.i.o.t", "idiot"),
        ("i - d - i - o - t", "idiot"),
        ("1 d 1 0 t", "idiot"),
        ("shiiiiiit", "shiit"),
        ("s\u035ch\u035ci\u035ct", "shit"),
        ("id\u200bi\u2060o\u00adt", "idiot"),
        ("\u202eidiot\u202c", "idiot"),
        ("id\ufe0fiot", "idiot"),
        ("ｉｄｉｏｔ", "idiot"),
        ("𝓲𝓭𝓲𝓸𝓽 𝕚𝕕𝕚𝕠𝕥", "idiot idiot"),
        ("🅸🅳🅸🅾🆃 ⓘⓓⓘⓞⓣ", "idiot idiot"),
        ("ɪᴅɪᴏᴛ", "idiot"),
        ("ïdîöt", "idiot"),
        ("ѕһіt", "shit"),
        ("ιdiοt", "idiot"),
        ("what an іԁіот he is", "what an idiot he is"),
        ("ﬁlthy", "filthy"),
        ("what a complete ⲓꓒⲓⲟꓔ", "what a complete idiot"),
        ("you ꮯunt", "you cunt"),
        ("&#105;diot &#x69;diot", "idiot idiot"),
        ("%69%64%69%6f%74", "idiot"),
        (r"\x69\x64iot \u0069\u0064iot", "idiot idiot"),
        ("ʇoᴉpᴉ uɐ ǝɹɐ noʎ", "you are an idiot"),
        ("toidi na era uoy", "you are an idiot"),
        ("what a toidi he is", "what a idiot he is"),
        ("youareanidiot", "you are an idiot"),
        ("#YouAreAnIdiot", "#you are an idiot"),
        ("y o u a r e a n i d i o t", "you are an idiot"),
        ("stfu", "shut the fuck up"),
        ("KYS lol", "kill yourself lol"),
        ("you pos", "you piece of shit"),
    ],
)
def test_obfuscation_is_undone(obfuscated: str, plain: str) -> None:
    assert normalise(obfuscated).text == plain


@pytest.mark.parametrize(
    "text",
    [
        "the 1st, 2nd and 3rd of 1,000 cost $5, us$5, a$5 or 5€",
        "mp3 mp3s b2b 4k 5g 1080p 3d covid19 50cent 4chan m8",
        "c++ c# f# .net node.js",
        "mail me at sh1t.head@example.com",
        "see https://example.com/a55/sh1t?x=$hit and www.example.com",
        "ask @user, @anna and @nobody42 about #topic",
        "`a$$ sh1t`",
        "call 555-1234 at 10:45 or 192.168.0.1",
        "2 * 3 * 4 = 24 and 1 2 3 4 5",
        "wow! really?! yes!!! no|maybe",
        "see 12%, 100%!",
        "an ordinary sentence, e.g. this one; i.e. nothing odd.",
        "a b",
        "book, assess, coffee, committee",
        "привет, мир",
        "γεια σου κόσμε",
        "world war iii, www.site.org, aaa, kkk",
        "wait… it‑is ½ of θυμός, ´¨¸ 5 ± β or α",
        "你好世界 مرحبا हिन्दी",
        "a pos terminal, the pos tag and text.pos",
        "stfu.js, kys_id, @kys and kys()",
        "contention, commemorated, prohibiting, intermittent and differentiate",
        "&amp; &#8220;quoted&#8221; &#128514;",
        "powershell, youtube, dumbterminal and penistone",
        "9cca6a1a-95e3-864d-ee6b-5f7d757c07af",
        "level, desserts, drawer, was, evil and live",
        "100%25, 20%50 and %2f",
        "see https://example.com/?q=%66%75%63%6b",
        "/ˈɹɛkəɹd/",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert normalise(text).text == text


def test_model_numbers_in_capitals_are_not_words() -> None:
    assert normalise("A5S, F4G and A55").text == "a5s, f4g and a55"


@settings(deadline=None)  # a shared machine may stall
@given(ANY_TEXT | TRICKY)
def test_offsets_are_inside_the_text(text: str) -> None:
    for reading in (fold(text), normalise(text)):
        assert len(reading.text) == len(reading.starts) == len(reading.ends)
        assert all(0 <= s < e <= len(text) for s, e in zip(reading.starts, reading.ends, strict=True))


@settings(deadline=None)  # a shared machine may stall
@given(ANY_TEXT | TRICKY)
def test_a_character_of_the_reading_comes_from_its_place_in_the_text(text: str) -> None:
    folded = fold(text)
    for index, character in enumerate(folded.text):
        if character in string.ascii_lowercase and text[folded.starts[index]].isascii():
            assert text[folded.starts[index]].lower() == character


@settings(deadline=None)  # a shared machine may stall
@given(st.text(string.ascii_letters + " .,;:?'\"\n", max_size=200).filter(lambda t: " a" not in t))
def test_text_of_plain_letters_keeps_its_words(text: str) -> None:
    lowered = text.lower()
    is_stretched = any(c.isalpha() and c * 3 in lowered for c in lowered)
    is_reworded = any(word[::-1] in Words.shipped() for word in re.findall("[a-z]+", lowered))
    has_single_letters = any(len(word) == 1 for word in lowered.replace(".", " ").replace(",", " ").split())
    if not is_stretched and not has_single_letters and not is_reworded:
        assert normalise(text).text == lowered


@settings(deadline=None)  # a shared machine may stall
@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_stay(number: float) -> None:
    assert normalise(f"it is {number} or ${number}").text == f"it is {number} or ${number}"


@settings(deadline=None)  # a shared machine may stall
@given(st.from_regex(r"\A[a-z]{2,8}[0-9]{1,4}\Z") | st.from_regex(r"\A[0-9]{1,4}[a-z]{1,8}\Z"))
def test_words_with_a_number_at_one_end_stay(word: str) -> None:
    if not any(c * 3 in word for c in string.ascii_lowercase):
        assert normalise(f"the {word} one").text == f"the {word} one"


def test_a_second_reading_is_offered_only_where_it_adds_something() -> None:
    assert second_reading("A naïve Café,  with\u00a0spaces — and 3 dots…") is None
    assert second_reading("привет") is None
    reading = second_reading("you 1d10t")
    assert reading is not None
    assert reading.text == "you idiot"


@pytest.mark.parametrize(
    ("text", "word", "hidden"),
    [
        ("hm, toidi!", "idiot", "toidi"),
        ("hm &#105;diot!", "idiot", "&#105;diot"),
        ("hm, youareanidiot", "idiot", "idiot"),
        ("hm, stfu now", "fuck", "stfu"),
        ("hm\nʇoᴉpᴉ uɐ ǝɹɐ noʎ", "idiot", "ʇoᴉpᴉ"),
    ],
)
def test_a_word_of_the_reading_knows_what_hid_it(text: str, word: str, hidden: str) -> None:
    reading = normalise(text)
    start = reading.text.index(word)
    span = reading.original(start, start + len(word))
    assert text[span.start : span.end] == hidden


def test_a_span_of_the_reading_covers_the_obfuscated_word() -> None:
    text = "oh i d i o o o o t!"
    reading = normalise(text)
    start = reading.text.index("idi")
    span = reading.original(start, start + len("idioot"))
    assert text[span.start : span.end] == "i d i o o o o t"


@pytest.mark.parametrize(
    "unit",
    [
        "a*",
        "a ",
        "a.b ",
        "\u0301\u0316",
        "a1",
        "a1 ",
        "@",
        "1 ",
        "aaa ",
        "й",
        "ѕt ",
        "a b cd ",
        "$",
        "www.",
        "&#1",
        "%69",
        "\\\\x69 ",
        "ʇ",
        "toidi ",
        "youarean",
        "Aa",
        "stfu ",
    ],
)
def test_time_grows_linearly_with_adversarial_text(unit: str) -> None:
    assert takes_linear_time(lambda size: partial(normalise, unit * (size // len(unit))), size=10_000)
