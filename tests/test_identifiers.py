"""Ids, codes and keys: random ones hold no words, and words in them are read however they are written."""

from __future__ import annotations

import base64
import random
import string
import uuid
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from guardrail import Guard
from guardrail.errors import BlockedError
from guardrail.structured.identifiers import is_identifier, readings, texts_of
from tests.linear import takes_linear_time

LETTERS = string.ascii_letters
BASE62 = LETTERS + string.digits
BASE64 = BASE62 + "-_"
BASE36 = string.ascii_lowercase + string.digits
UPPER36 = string.ascii_uppercase + string.digits
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
HEX = "0123456789abcdef"
EACH = 400

Draw = Callable[[str, int], str]
SHAPES: dict[str, Callable[[random.Random, Draw], str]] = {
    "fingerprint": lambda chance, draw: "fp_" + draw(HEX, 10),
    "short commit": lambda chance, draw: draw(HEX, 7),
    "crc": lambda chance, draw: draw(HEX, 8),
    "container": lambda chance, draw: draw(HEX, 12),
    "object id": lambda chance, draw: draw(HEX, 24),
    "commit": lambda chance, draw: draw(HEX, 40),
    "uuid": lambda chance, draw: str(uuid.UUID(int=chance.getrandbits(128), version=4)),
    "run": lambda chance, draw: f"run-{uuid.UUID(int=chance.getrandbits(128), version=4)}-0",
    "customer": lambda chance, draw: "cus_" + draw(BASE62, 14),
    "call": lambda chance, draw: "call_" + draw(BASE62, 24),
    "completion": lambda chance, draw: "chatcmpl-" + draw(BASE62, 29),
    "tool use": lambda chance, draw: "toolu_01" + draw(BASE62, 22),
    "response": lambda chance, draw: "resp_" + draw(HEX, 48),
    "token": lambda chance, draw: "ghp_" + draw(BASE62, 36),
    "ulid": lambda chance, draw: "01" + draw(CROCKFORD, 24),
    "ksuid": lambda chance, draw: draw(BASE62, 27),
    "cuid": lambda chance, draw: "c" + draw(BASE36, 24),
    "nanoid": lambda chance, draw: draw(BASE64, 21),
    "video": lambda chance, draw: draw(BASE64, 11),
    "short link": lambda chance, draw: draw(BASE62, 7),
    "licence": lambda chance, draw: "-".join(draw(UPPER36, 5) for _ in range(5)),
    "secret": lambda chance, draw: draw(string.ascii_uppercase + "234567", 16),
    "digest": lambda chance, draw: "sha256-" + base64.b64encode(chance.randbytes(32)).decode(),
    "sid": lambda chance, draw: "AC" + draw(HEX, 32),
    "short reference": lambda chance, draw: "#" + draw(HEX, 7),
    "instance": lambda chance, draw: "i-0" + draw(HEX, 16),
    "pod": lambda chance, draw: f"nginx-{draw('bcdf2456789', 10)}-{draw('bcdfghjklmnpqrstvwxz2456789', 5)}",
}  # fmt: skip
PREFIXES = {"", "fp", "run", "cus", "call", "chatcmpl", "toolu", "resp", "ghp", "sha", "nginx"}
TOXIC = [
    *("you_are_an_idiot", "youAreAnIdiot", "YouAreAnIdiot", "you-are-an-idiot", "you.are.an.idiot"),
    *("YOU_ARE_AN_IDIOT", "you/are/an/idiot", "id:you:are:an:idiot", "you_are_an_idiot_42"),
    *("youAreAnIdiot2", "idiot", "IDIOT", "Idiot", "idiot123", "123idiot", "x1-IDIOT-2", "a/idiot@b.c"),
    *("1d10t", "call_1d10t", "y0u_4r3_4n_1d10t", "stup1d", "b1tch", "sh1t", "moron", "scum"),
    *("callIdiotMoron", "call_soYouAreAnIdiot", "goKillYourself", "kill-yourself"),
    *("f7a9c3-you-are-an-idiot", "3f2a9c1e-idiot-4b7d", "stupid_moron_7f3a9c", "2024-07-18-you-are-a-moron"),
    *("idiot_9kXy3QzL", "call_idiot9kXy3Qz", "idiot_x8kzq9w2", "x8kzq9w2_you_are_a_moron"),
    *("Shut_Up_You_Idiot", "You-Disgusting-Pig", "call_you_are_a_moron_ad8ba1c9"),
    *("#YouAreAnIdiot", "you%20are%20an%20idiot", '"kill_yourself"', "{ugly_fat_pig}", "$ShutUpYouIdiot"),
    *("youareanidiot", "YOUAREANIDIOT", "id_youareanidiot_77", "x8kyouareanidiotzq9", "9kXyouareanidiotQz"),
    *("xqzyouareanidiotkvw", "yOuArEaNiDiOt", "yOu_ArE_aN_iDiOt", "ShUtUpIdIoT", "x7qkillyourselfzz9"),
    *("UglyFatPig99", "DumbLoser99", "a55hole", "StupidCustomerError", "SHUT_UP_IDIOT", "fuckYou2"),
]  # fmt: skip


def ids(shape: str) -> list[str]:
    chance = random.Random(shape)
    return [
        SHAPES[shape](chance, lambda alphabet, length: "".join(chance.choices(alphabet, k=length)))
        for _ in range(EACH)
    ]


@pytest.fixture(scope="module")
def shipped() -> Guard:
    return Guard(rewriter=None)


def completion(**fields: str) -> ChatCompletion:
    message = {"role": "assistant", "content": "The weather is fine."}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    answer = {"object": "chat.completion", "created": 1, "model": "m", "id": "1", "choices": [choice]}
    return ChatCompletion.model_validate(answer | fields)


def test_none_of_10_000_random_ids_is_flagged(shipped: Guard) -> None:
    values = [{"id": identity} for shape in SHAPES for identity in ids(shape)]
    assert len(values) >= 10_000
    assert shipped.moderate(values) is values


@pytest.mark.parametrize("shape", SHAPES)
def test_hardly_any_random_id_has_words_to_be_judged_by_any_detector(shape: str) -> None:
    read = [text for identity in ids(shape) for text in readings(identity) if text not in PREFIXES]
    assert len(read) <= EACH * 0.01


@pytest.mark.parametrize("name", TOXIC)
def test_words_in_an_id_are_judged(shipped: Guard, name: str) -> None:
    for value in ({"id": name}, {name: 1}, completion(system_fingerprint=name)):
        with pytest.raises(BlockedError):
            shipped.moderate(value)


def test_a_chat_completion_passes_whatever_its_fingerprint(shipped: Guard) -> None:
    for fingerprint in ids("fingerprint")[:20]:
        answer = completion(system_fingerprint=fingerprint, id=ids("completion")[0])
        assert shipped.moderate(answer) is answer


@pytest.mark.parametrize(
    ("identifier", "expected"),
    [
        ("stop", ("stop",)),
        ("idiot", ("idiot",)),
        ("youareanidiot", ("youareanidiot",)),
        ("call_soYouAgree", ("call_soYouAgree", "call so You Agree")),
        ("HTTPError-1d10t", ("HTTPError-1d10t", "HTTP Error 1d10t")),
        ("call_9kXyQ2vW7ZZ", ()),
        ("call_3475965abb4b380facfa8e1b", ()),
        ("call_idiot_3475965abb4b380facfa8e1b", ("call idiot",)),
        ("toolu_01A09q90qw90lq917835lq9", ()),
        ("fp_44709d6fcb", ()),
        ("2024-07-18", ()),
        ("dead-beef-4bad-cafe", ()),
        ("Shut_Up_7f3a9c1e", ("Shut Up",)),
        ("id_what_a_day_ad8ba1c9", ("id what a day",)),
        ("a-4bad-cafe-a", ()),
        ("x8kwhatalovelydayzq9", ("what a lovely day",)),
        ("wHaT_a_DaY", ("what_a_day", "what a day")),
    ],
)
def test_what_is_read(identifier: str, expected: tuple[str, ...]) -> None:
    assert readings(identifier) == expected


def test_a_code_with_odd_marks_is_read_as_it_stands_and_as_words() -> None:
    assert texts_of("#Go|Away") == ("#Go|Away", "Go Away")
    assert texts_of("go%20away") == ("go%20away", "go away")
    assert texts_of("9kXyQ2vW7Z|Z") == ("9kXyQ2vW7Z|Z",)
    assert texts_of("#73dd5d7") == texts_of("FUc78DQYnZ!") == ()
    assert texts_of("#GoAway now") == ("#GoAway now",)


def test_text_that_is_no_code_is_read_as_it_stands() -> None:
    assert texts_of("You are an idiot.") == ("You are an idiot.",)
    assert texts_of("idiot!") == ("idiot!", "idiot")
    assert texts_of("$hit")[0] == "$hit"
    assert texts_of("a$$hole")[0] == "a$$hole"
    assert texts_of("Schönes_Wetter") == ("Schönes_Wetter",)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.org/a.png?sig=9kXyQ2vW7ZZb&x=1", "https example org a png sig"),
        ("https://example.org/%69diot", "example org idiot"),
        ("data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ", "data image png"),
    ],
)
def test_a_url_is_read_as_its_reader_decodes_it(url: str, expected: str) -> None:
    assert texts_of(url)[-1] == expected


def test_a_url_in_another_script_is_read_decoded() -> None:
    assert texts_of("https://example.org/%D0%B4%D1%83%D1%80%D0%B0%D0%BA") == ("https://example.org/дурак",)


def test_an_identifier_is_short() -> None:
    assert is_identifier("a" * 200)
    assert not is_identifier("a" * 201)
    assert not is_identifier("two words")
    assert not is_identifier(7)


@given(st.text("abcXYZ019_-./:=+@~", max_size=60))
def test_every_reading_is_made_of_what_stands_in_the_identifier(identifier: str) -> None:
    for text in readings(identifier):
        assert all(word in identifier for word in text.split())


@pytest.mark.parametrize(
    "piece", ["aB3x", "aB", "youarex9q", "a-", "Ab", "1d10t_", "A", "9", "you_are_", "abcdefgh"]
)
def test_reading_takes_time_linear_in_the_text(piece: str) -> None:
    assert takes_linear_time(lambda size: lambda: readings(piece * size), size=500)
