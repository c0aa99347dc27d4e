"""Each law finds the guard that breaks it, with a small example, and lets a right one be."""

from __future__ import annotations

import logging
import os
import queue
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from guardrail.testing import LAWS, Detect, Harness, LawBrokenError, Samples, Subject, examine

SENTENCE = re.compile(r"[^.!?\n]*[.!?\n]\s*")


class Held(Harness):
    """A right guard, which replaces whole sentences; other guards here differ from it in one way."""

    patience = 0.2

    def judge(self, text: str) -> object:
        return bool(self.found(text))

    def guard(self, detect: Detect) -> Subject:
        def decide(sentence: str) -> str:
            return self.decide(detect, sentence)

        def stream(chunks: Iterable[str]) -> Iterator[str]:
            return sentences(chunks, decide)

        return Subject(lambda text: "".join(stream([text])), stream)

    def decide(self, detect: Detect, sentence: str) -> str:
        return sentence if self.within(lambda: detect(sentence)) is False else "[removed]"

    def within(self, call: Callable[[], object]) -> object:
        """What the call answers, None where it fails or takes too long."""
        answer: queue.SimpleQueue[object] = queue.SimpleQueue()

        def work() -> None:
            try:
                answer.put(call())
            except Exception:  # noqa: BLE001  # a guard fails closed
                answer.put(None)

        threading.Thread(target=work, daemon=True).start()
        try:
            return answer.get(timeout=self.patience / 2)
        except queue.Empty:
            return None


def sentences(chunks: Iterable[str], decide: Callable[[str], str]) -> Iterator[str]:
    """Each sentence after it was decided on, one of at most 200 characters or what is left at the end."""
    held = ""
    for chunk in chunks:
        for character in chunk:
            held += character
            # The sentence is over with the first character after its marks and spaces.
            if len(held) > 200 or (SENTENCE.fullmatch(held[:-1]) and not held[-1].isspace()):
                yield decide(held[:-1])
                held = held[-1]
    if held:
        yield decide(held)


class Right(Held):
    """The same with a patience that a busy machine does not use up."""

    patience = 4.0


def test_a_right_guard_keeps_all_laws() -> None:
    assert [finding for finding in examine(Right()) if finding.result != "holds"] == []
    assert len(LAWS) == 12


class NoDeadline(Held):
    def within(self, call: Callable[[], object]) -> object:
        try:
            return call()
        except Exception:  # noqa: BLE001  # a guard fails closed
            return None


class Strips(NoDeadline):
    def decide(self, detect: Detect, sentence: str) -> str:
        return super().decide(detect, sentence).rstrip()


class ChunkByChunk(NoDeadline):
    def guard(self, detect: Detect) -> Subject:
        def stream(chunks: Iterable[str]) -> Iterator[str]:
            for chunk in chunks:
                yield self.decide(detect, chunk)

        return Subject(lambda text: self.decide(detect, text), stream)


class KeepsAFewCharacters(NoDeadline):
    """Looks back at the chunk before, whose text it has shown already."""

    def guard(self, detect: Detect) -> Subject:
        def stream(chunks: Iterable[str]) -> Iterator[str]:
            before = ""
            for chunk in chunks:
                if detect(before + chunk) is not False:
                    raise ValueError("blocked")
                yield chunk
                before += chunk

        def check(text: str) -> str:
            if detect(text) is not False:
                raise ValueError("blocked")
            return text

        return Subject(check, stream)


class Eager(NoDeadline):
    def guard(self, detect: Detect) -> Subject:
        def stream(chunks: Iterable[str]) -> Iterator[str]:
            shown = ""
            for chunk in chunks:
                yield chunk
                shown += chunk
                self.decide(detect, shown)

        return Subject(lambda text: self.decide(detect, text), stream)


class Open(Held):
    def decide(self, detect: Detect, sentence: str) -> str:
        return "[removed]" if self.within(lambda: detect(sentence)) is True else sentence


class OpenOnError(NoDeadline):
    def decide(self, detect: Detect, sentence: str) -> str:
        try:
            return sentence if detect(sentence) is False else "[removed]"
        except RuntimeError:
            return sentence


class Truthy(NoDeadline):
    def decide(self, detect: Detect, sentence: str) -> str:
        return "[removed]" if self.within(lambda: detect(sentence)) else sentence


class Talks(NoDeadline):
    say: Callable[[str], object]

    def decide(self, detect: Detect, sentence: str) -> str:
        type(self).say(sentence)
        return super().decide(detect, sentence)


class Logs(Talks):
    say = staticmethod(lambda text: logging.getLogger("a.guard").debug("read %s", text))


class LogsAnError(NoDeadline):
    def within(self, call: Callable[[], object]) -> object:
        try:
            return call()
        except Exception:
            logging.getLogger("a.guard").exception("the detector failed")
            return None


class Prints(Talks):
    say = staticmethod(print)


class WritesToAnOldHandle(Talks):
    say = staticmethod(lambda text: os.write(1, text.encode()))


class Warns(Talks):
    say = staticmethod(lambda text: warnings.warn(text, stacklevel=2))


class Quotes(NoDeadline):
    def within(self, call: Callable[[], object]) -> object:
        try:
            return call()
        except Exception as error:
            raise RuntimeError("the detector failed") from error


class ReadsAllAgain(NoDeadline):
    def guard(self, detect: Detect) -> Subject:
        def stream(chunks: Iterable[str]) -> Iterator[str]:
            whole = ""
            for chunk in chunks:
                whole += chunk
                detect(whole)
            yield self.decide(detect, whole)

        return Subject(lambda text: self.decide(detect, text), stream)


class Quadratic(NoDeadline):
    size = 800

    def guard(self, detect: Detect) -> Subject:
        def check(text: str) -> str:
            for i in range(len(text)):
                sum(1 for _ in range(i))
            return self.decide(detect, text)

        return Subject(check)


@pytest.mark.parametrize(
    ("law", "harness", "problem"),
    [
        ("clean_text_is_unchanged", Strips, "check changes a clean text"),
        ("flagged_text_does_not_pass", ChunkByChunk, "stream shows what is forbidden"),
        ("flagged_text_does_not_pass", KeepsAFewCharacters, "a part of what is forbidden before it blocks"),
        ("streams_equal_the_whole", ChunkByChunk, "something else than check"),
        ("nothing_is_shown_before_its_verdict", Eager, "a word before the detector has answered"),
        ("nothing_passes_when_the_detector_fails", Open, "check shows what is forbidden"),
        ("nothing_passes_when_the_detector_fails", OpenOnError, "check shows what is forbidden"),
        ("nothing_passes_when_the_detector_answers_nonsense", Open, "check shows what is forbidden"),
        ("nothing_passes_when_the_detector_answers_nonsense", Truthy, "check shows what is forbidden"),
        ("nothing_passes_while_the_detector_hangs", Open, "check shows what is forbidden"),
        ("a_call_returns_though_the_detector_hangs", NoDeadline, "have no deadline"),
        ("no_log_holds_the_text", Logs, "logs or prints"),
        ("no_log_holds_the_text", LogsAnError, "logs or prints"),
        ("no_log_holds_the_text", Prints, "logs or prints"),
        ("no_log_holds_the_text", WritesToAnOldHandle, "logs or prints"),
        ("no_log_holds_the_text", Warns, "logs or prints"),
        ("no_error_quotes_the_text", Quotes, "quotes a word of the text"),
        ("rescans_are_bounded", ReadsAllAgain, "reads each character"),
        ("time_is_linear", Quadratic, "times as long for 8 times the text"),
    ],
)
def test_a_law_finds_the_guard_that_breaks_it(law: str, harness: type[Harness], problem: str) -> None:
    with pytest.raises(LawBrokenError, match=re.escape(problem)) as caught:
        LAWS[law](harness())
    assert caught.value.law == law
    assert str(caught.value).startswith(f"law broken: {law.replace('_', ' ')}\n")


def test_every_law_has_a_guard_that_breaks_it() -> None:
    (mark,) = test_a_law_finds_the_guard_that_breaks_it.pytestmark  # type: ignore[attr-defined]  # set by pytest
    assert {law for law, *_ in mark.args[1]} == set(LAWS)


def test_the_example_of_a_wrong_cut_is_as_small_as_it_can_be() -> None:
    with pytest.raises(LawBrokenError) as caught:
        LAWS["streams_equal_the_whole"](ChunkByChunk())
    evidence: Any = caught.value.evidence
    assert len(evidence["cut"]) == 2
    assert "".join(evidence["cut"]) == evidence["text"] == Samples.around("idiot").flagged[0]
    assert evidence["check"] != evidence["stream"]


class WholeOnly(NoDeadline):
    pluggable = False

    def guard(self, detect: Detect) -> Subject:
        return Subject(lambda text: self.decide(self.judge, text))


def test_laws_of_streams_and_detectors_are_not_applied_to_a_guard_that_has_neither() -> None:
    results = {finding.law: finding for finding in examine(WholeOnly())}
    assert results["clean_text_is_unchanged"].result == "holds"
    assert results["streams_equal_the_whole"].result == "not applicable"
    assert results["streams_equal_the_whole"].reason == "the guard has no streams"
    assert results["rescans_are_bounded"].reason == "the guard takes no detector from outside"


def test_a_check_that_returns_no_text_is_a_mistake_of_the_harness() -> None:
    class Wrong(NoDeadline):
        def guard(self, detect: Detect) -> Subject:
            return Subject(lambda text: None)  # type: ignore[arg-type,return-value]  # the mistake under test

    with pytest.raises(TypeError, match="must return a str or raise, got NoneType"):
        examine(Wrong())


SUITE = """
from guardrail.testing import GuardLaws, Subject

class TestMine(GuardLaws):
    pluggable = False

    def judge(self, text):
        return bool(self.found(text))

    def guard(self, detect):
        return Subject(lambda text: text.replace("idiot", "person"))
"""


def test_pytest_collects_one_test_per_law_and_skips_what_does_not_apply(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(SUITE, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "5 passed, 7 skipped" in done.stdout, done.stdout + done.stderr
