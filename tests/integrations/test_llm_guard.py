"""Scanners with LLM Guard's three-tuple, alone and in the real ``scan_output`` where that is installed."""

from __future__ import annotations

import importlib

import pytest

from guardrail import FailureError, Policy
from guardrail.integrations.llm_guard import InputScanner, OutputScanner
from tests.streaming import CLEAN, INLINE, NEUTRAL, TOXIC, guard


def test_a_clean_text_is_valid_and_unchanged() -> None:
    text, is_valid, risk = OutputScanner(guard()).scan("Say it.", CLEAN)
    assert (text, is_valid) == (CLEAN, True)
    assert risk < 0.5


def test_a_toxic_text_is_rewritten_and_invalid_as_for_a_redacting_scanner() -> None:
    text, is_valid, risk = OutputScanner(guard()).scan("Say it.", TOXIC)
    assert (text, is_valid) == (NEUTRAL, False)
    assert risk == 0.9


def test_a_rewritten_text_may_count_as_valid_and_a_blocked_one_never() -> None:
    assert OutputScanner(guard(), rewritten_is_valid=True).scan("", TOXIC)[1]
    for policy in (Policy(ladder=("block",)), Policy(ladder=("block",), block="raise")):
        text, is_valid, risk = OutputScanner(guard(policy), rewritten_is_valid=True).scan("", TOXIC)
        assert "idiot" not in text
        assert not is_valid
        assert risk == 0.9


def test_prompts_are_scanned_alike() -> None:
    assert InputScanner(guard(INLINE)).scan(TOXIC)[:2] == (NEUTRAL, False)


def test_a_detector_that_fails_makes_a_text_invalid() -> None:
    def fails(texts: object) -> object:
        raise RuntimeError("down")

    text, is_valid, _ = OutputScanner(guard(detector=fails, lexicon=fails)).scan("", CLEAN)
    assert text != CLEAN
    assert not is_valid


def test_the_real_package_runs_them_among_its_own_scanners() -> None:
    llm_guard = pytest.importorskip("llm_guard", reason="pip install gorget (or llm-guard)")
    from llm_guard.input_scanners import BanSubstrings

    text, valid, risk = llm_guard.scan_output([OutputScanner(guard())], "Say it.", TOXIC)
    assert (text, valid, risk) == (NEUTRAL, {"OutputScanner": False}, {"OutputScanner": 0.9})
    other = BanSubstrings(substrings=["person"], redact=True)
    text, valid, _ = llm_guard.scan_prompt([InputScanner(guard()), other], TOXIC)
    assert "idiot" not in text
    assert "person" not in text
    assert valid == {"InputScanner": False, "BanSubstrings": False}


@pytest.mark.parametrize(
    ("module", "call", "package"),
    [("guardrails_ai", "detox", "guardrails-ai"), ("nemo", "register", "nemoguardrails")],
)
def test_without_the_other_package_one_sentence_says_what_to_install(
    module: str, call: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    integration = importlib.import_module(f"guardrail.integrations.{module}")
    monkeypatch.setattr(integration, "find_spec", lambda name: None)
    arguments = [object()] if call == "register" else []
    with pytest.raises(FailureError, match=f"needs: pip install '?{package}"):
        getattr(integration, call)(*arguments)
