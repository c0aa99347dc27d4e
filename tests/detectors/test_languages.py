"""Foreign sentences are told from English of every kind, and the policy decides what becomes of them."""

from __future__ import annotations

import random
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail import Action, Guard, Policy
from guardrail.detectors.languages import SHA256, TABLE, Languages, shipped
from guardrail.detectors.onnx import OnnxDetector
from guardrail.errors import BlockedError, ConfigError, ManifestError
from guardrail.manifest import sha256_of
from tests.linear import takes_linear_time
from tests.streaming import cut, read

HERE = Path(__file__).parent
ENGLISH = (HERE / "english.txt").read_text(encoding="utf-8").splitlines()
FOREIGN: dict[str, list[str]] = defaultdict(list)
for _line in (HERE / "foreign.tsv").read_text(encoding="utf-8").splitlines():
    _language, _, _sentence = _line.partition("\t")
    FOREIGN[_language].append(_sentence)

NEIGHBOURS = [
    "Jeg hader dig og hele din familie, din idiot",
    "Painu helvettiin siitä, senkin ääliö",
    "Jsi úplný idiot a nikdo tě nemá rád",
    "Ești un idiot și nimeni nu te place",
    "Te egy hülye barom vagy és mindenki utál",
    "Kamu bodoh sekali dan semua orang membencimu",
    "Mày là một thằng ngu và ai cũng ghét mày",
    "Ets un imbècil i ningú t'estima gens",
    "Ti si glup kao noć i svi te mrze",
]
BEFORE, AFTER = "The parcel arrived this morning, thank you. ", " I will write to you again tomorrow."
INSULT = "Je sais où tu habites, fais attention à toi ce soir."
KNOWN = ("en",)


def guard(detector: OnnxDetector, **fields: object) -> Guard:
    fast = {"detect_timeout": None, "rewrite_timeout": None}
    return Guard(policy=Policy(**{**fast, **fields}), detector=detector, rewriter=None)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def detector() -> OnnxDetector:
    return OnnxDetector.shipped(threads=2)


@pytest.mark.parametrize("language", FOREIGN)
def test_at_least_97_percent_of_a_languages_sentences_are_foreign(language: str) -> None:
    sentences = FOREIGN[language]
    assert len(sentences) >= 40
    assert all(len(sentence.split()) >= 5 for sentence in sentences)
    found = [sentence for sentence in sentences if shipped().is_foreign(sentence, known=KNOWN)]
    assert len(found) >= 0.97 * len(sentences)


@pytest.mark.parametrize("change", [str.lower, str.upper, lambda text: text.replace(" ", "  ")])
def test_case_and_blanks_hide_no_language(change: object) -> None:
    sentences = [change(sentence) for of_one in FOREIGN.values() for sentence in of_one]  # type: ignore[operator]
    found = [sentence for sentence in sentences if shipped().is_foreign(sentence, known=KNOWN)]
    assert len(found) >= 0.97 * len(sentences)


@pytest.mark.parametrize("text", NEIGHBOURS)
def test_languages_that_nobody_named_are_foreign_too(text: str) -> None:
    assert shipped().is_foreign(text, known=KNOWN)


def test_slang_names_typos_code_and_terms_are_not_foreign() -> None:
    assert len(ENGLISH) > 100
    marked = [text for text in ENGLISH if shipped().is_foreign(text, known=KNOWN)]
    assert len(marked) <= 0.04 * len(ENGLISH), marked  # bare lists of foreign words, such as Greek letters


@pytest.mark.parametrize("text", ["meta llama Llama Instruct", "Buena Vista", "merci beaucoup", "guten Tag"])
def test_two_words_and_names_are_not_foreign(text: str) -> None:
    assert not shipped().is_foreign(text, known=KNOWN)


def test_a_language_that_the_model_knows_is_not_foreign() -> None:
    assert not shipped().is_foreign(INSULT, known=("en", "fr"))
    assert shipped().is_foreign("Thank you for your help, the parcel is here.", known=("fr",))


def test_a_known_language_that_the_table_lacks_is_an_error() -> None:
    with pytest.raises(ManifestError, match="xx"):
        shipped().is_foreign(INSULT, known=("xx",))


def test_an_altered_table_is_refused(tmp_path: Path) -> None:
    copy = tmp_path / "languages.npz"
    copy.write_bytes(TABLE.read_bytes()[:-1])
    with pytest.raises(ManifestError, match="altered"):
        Languages.load(copy, sha256=SHA256)


def test_a_saved_table_says_the_same(tmp_path: Path) -> None:
    weights = np.array([[127, -5], [3, 90]], dtype=np.int8)
    table = Languages(["ab", "cé "], ["fr", "de"], weights, scale=0.05, threshold=2.5)
    table.save(tmp_path / "table.npz")
    again = Languages.load(tmp_path / "table.npz", sha256=sha256_of(tmp_path / "table.npz"))
    for text in ("ab cé xy", "a CÉ b c", "nothing to say", ""):
        assert again.margin(text, known=KNOWN) == pytest.approx(table.margin(text, known=KNOWN), abs=1e-5)
    assert again.threshold == 2.5


@settings(deadline=None)  # a shared machine may stall
@given(st.text(max_size=200))
def test_any_text_has_a_finite_margin(text: str) -> None:
    assert np.isfinite(shipped().margin(text, known=KNOWN))


@settings(deadline=None)  # a shared machine may stall
@given(st.text("abcdefghijklmnopqrstuvwxyzäéñ'", max_size=60))
def test_no_single_word_is_foreign(word: str) -> None:
    assert not shipped().is_foreign(word, known=KNOWN)


@pytest.mark.parametrize("unit", ["mot ", "a", "é", "wwww.", "@", "&#", "<a", "'a", "a1", "a=", "x/"])
def test_time_grows_linearly_with_the_text(unit: str) -> None:
    table = shipped()
    takes = partial(table.is_foreign, known=KNOWN)
    assert takes_linear_time(lambda size: partial(takes, unit * (size // len(unit))), size=10_000)


def test_a_detector_marks_foreign_text_and_no_english(detector: OnnxDetector) -> None:
    first = [sentences[0] for sentences in FOREIGN.values()]
    assert all(verdict.unsupported for verdict in detector.detect(first))
    assert not any(verdict.unsupported for verdict in detector.detect([BEFORE, AFTER, "ｃａｔ", "1d10t"]))


def test_foreign_text_passes_marked_by_default(detector: OnnxDetector) -> None:
    outcome = guard(detector).check(BEFORE + INSULT + AFTER)
    assert outcome.text == BEFORE + INSULT + AFTER
    assert outcome.degraded == ("unsupported_text",)


def test_masking_hides_the_words_of_the_foreign_segment_alone(detector: OnnxDetector) -> None:
    outcome = guard(detector, unsupported="mask", mask="[removed]").check(BEFORE + INSULT + AFTER)
    assert outcome.action is Action.MASKED
    assert outcome.text.startswith(BEFORE)
    assert outcome.text.endswith(AFTER)
    assert "habites" not in outcome.text
    assert outcome.degraded == ("unsupported_text",)
    (edit,) = outcome.edits
    assert (edit.before, edit.failed_checks) == (INSULT, ("unsupported_text",))


def test_blocking_ends_the_text_at_the_foreign_segment(detector: OnnxDetector) -> None:
    policy = {"unsupported": "block", "refusal": "[withheld]"}
    outcome = guard(detector, **policy).check(BEFORE + INSULT + AFTER)
    assert outcome.action is Action.BLOCKED
    assert outcome.text == BEFORE + "[withheld]"
    assert guard(detector, **policy, block="whole").check(BEFORE + INSULT).text == "[withheld]"
    with pytest.raises(BlockedError):
        guard(detector, **policy, block="raise").check(BEFORE + INSULT)


@pytest.mark.parametrize(
    "text", ["привет, как дела сегодня у тебя", "東京は今日晴れています。明日も晴れるでしょう。"]
)
def test_other_scripts_meet_the_same_policy(detector: OnnxDetector, text: str) -> None:
    assert guard(detector, unsupported="block").check(text).action is Action.BLOCKED
    assert guard(detector, unsupported="mask").check(text).action is Action.MASKED
    assert guard(detector).check(text).action is Action.PASSED


def test_what_is_flagged_as_well_goes_no_milder_way_than_the_ladder(detector: OnnxDetector) -> None:
    text = "Du bist so ein fucking idiot und das weiß hier wirklich jeder."
    assert detector.detect([text])[0].unsupported
    assert detector.detect([text])[0].flagged
    assert guard(detector, unsupported="mask", ladder=("block",)).check(text).action is Action.BLOCKED
    outcome = guard(detector, unsupported="mask", mask="[removed]").check(text)
    assert outcome.action is Action.MASKED
    assert "weiß" not in outcome.text


@pytest.mark.slow
@pytest.mark.parametrize("unsupported", ["pass", "mask", "block"])
def test_streams_equal_whole_texts_for_every_way_of_cutting(detector: OnnxDetector, unsupported: str) -> None:
    reader = guard(detector, unsupported=unsupported)
    drawn = random.Random(5)
    pool = [
        *(sentence for of_one in FOREIGN.values() for sentence in of_one[:3]),
        BEFORE.strip(),
        AFTER.strip(),
    ]
    for _ in range(25):
        text = " ".join(drawn.choices([*pool, *pool[-2:] * 6], k=4))
        expected = reader.check(text)
        pieces, outcome = read(reader.stream(cut(text, drawn.choices(range(len(text) + 1), k=12))))
        assert "".join(pieces) == outcome.text == expected.text
        assert (outcome.action, outcome.degraded) == (expected.action, expected.degraded)


def test_a_wrong_value_of_the_policy_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match="unsupported must be pass, mask or block"):
        Policy(unsupported="drop")  # type: ignore[arg-type]
