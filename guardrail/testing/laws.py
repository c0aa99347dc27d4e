"""The laws of a guard, each a function that raises LawBrokenError with an example if a guard breaks it."""

from __future__ import annotations

import functools
import re
import secrets
import traceback
from collections.abc import Callable, Iterator
from itertools import islice

from guardrail.testing.detectors import Hanging, Spy, answering, failing, quoting
from guardrail.testing.evidence import around, described, require_equal, require_held
from guardrail.testing.harness import Detect, Harness, LawBrokenError, NotApplicable, Subject
from guardrail.testing.timing import FACTOR, TIMES_AS_MUCH, long_texts, min_ratio
from guardrail.testing.watching import Shown, checked, cuts, in_thread, listening, smallest, streamed

__all__ = [
    "LAWS",
    "a_call_returns_though_the_detector_hangs",
    "clean_text_is_unchanged",
    "flagged_text_does_not_pass",
    "no_error_quotes_the_text",
    "no_log_holds_the_text",
    "nothing_is_shown_before_its_verdict",
    "nothing_passes_when_the_detector_answers_nonsense",
    "nothing_passes_when_the_detector_fails",
    "nothing_passes_while_the_detector_hangs",
    "rescans_are_bounded",
    "streams_equal_the_whole",
    "time_is_linear",
]

Law = Callable[[Harness], None]
LAWS: dict[str, Law] = {}
"""All laws by name, in the order in which they are reported."""

SLOW_ANSWER = 0.01
SETTLE_SECONDS = 0.2


def law(check: Law) -> Law:
    """Registers a law under its function's name."""
    LAWS[check.__name__] = check
    return check


@law
def clean_text_is_unchanged(harness: Harness) -> None:
    """Clean text comes out byte for byte as it went in, whole and streamed."""
    subject = harness.guard(harness.judge)
    for text in harness.samples.clean:
        require_equal("clean_text_is_unchanged", "check", text, checked(subject, text), chunks=None)
    if subject.stream is None:
        return
    for text in harness.samples.clean:
        for chunks in ([text], list(text)):
            require_equal("clean_text_is_unchanged", "stream", text, streamed(subject, chunks), chunks=chunks)


@law
def flagged_text_does_not_pass(harness: Harness) -> None:
    """What the detector flags is in no output: not whole, not in a stream however it is cut, not in part."""
    subject = harness.guard(harness.judge)
    for text in harness.samples.flagged:
        require_held("flagged_text_does_not_pass", harness, text, checked(subject, text), path="check")
    if subject.stream is None:
        return
    for text in harness.samples.flagged:
        for chunks in cuts(text, limit=harness.max_cuts):
            shown = streamed(subject, chunks)
            require_held("flagged_text_does_not_pass", harness, text, shown, path="stream", chunks=chunks)


@law
def streams_equal_the_whole(harness: Harness) -> None:
    """However a text is cut into chunks, its stream joined is what ``check`` gives; one blocks if both do."""
    subject = _with_streams(harness.guard(harness.judge))
    for text in (*harness.samples.flagged, *harness.samples.clean):
        whole = checked(subject, text)

        def differs(chunks: list[str], *, whole: Shown = whole) -> bool:
            shown = streamed(subject, chunks)
            return shown.blocked != whole.blocked or (not whole.blocked and shown.text != whole.text)

        for chunks in cuts(text, limit=harness.max_cuts):
            if differs(chunks):
                least = smallest(chunks, differs)
                raise LawBrokenError(
                    "streams_equal_the_whole",
                    "a stream shows something else than check for the same text",
                    text=text,
                    cut=least,
                    check=described(whole),
                    stream=described(streamed(subject, least)),
                )


@law
def nothing_is_shown_before_its_verdict(harness: Harness) -> None:
    """No word leaves a stream before the detector has answered about a text that holds the word."""
    spy = Spy(_require_pluggable(harness), slow=SLOW_ANSWER)
    subject = _with_streams(harness.guard(spy))
    chunks = [f"word{i:03} " if i % 8 else f"word{i:03}. " for i in range(1, 41)]

    def seen(shown: str) -> None:
        judged = {word for text in tuple(spy.read) for word in re.findall(r"word\d{3}", text)}
        early = [word for word in re.findall(r"word\d{3}", shown) if word not in judged]
        if early:
            raise LawBrokenError(
                "nothing_is_shown_before_its_verdict",
                "a stream shows a word before the detector has answered about it",
                shown=shown,
                word=early[0],
                answers_by_then=len(spy.read),
            )

    streamed(subject, chunks, seen=seen)


@law
def nothing_passes_when_the_detector_fails(harness: Harness) -> None:
    """A detector that raises, at once or after the first answers, lets nothing flagged pass."""
    judge = _require_pluggable(harness)
    for after in (0, 1, 3):
        name = "raises at once" if after == 0 else f"raises after {after} answers"
        make = functools.partial(failing, judge, after=after)
        _require_closed("nothing_passes_when_the_detector_fails", harness, make, detector=name)


@law
def nothing_passes_when_the_detector_answers_nonsense(harness: Harness) -> None:
    """A detector that answers what is not an answer lets nothing flagged pass."""
    _require_pluggable(harness)
    for answer in harness.nonsense:
        make = functools.partial(answering, answer)
        shown = "an object" if type(answer) is object else repr(answer)
        name = f"answers {shown}"
        _require_closed("nothing_passes_when_the_detector_answers_nonsense", harness, make, detector=name)


@law
def nothing_passes_while_the_detector_hangs(harness: Harness) -> None:
    """Nothing flagged is shown while no answer comes, or when one comes late."""
    for text, path, shown in _hung(harness, wait=SETTLE_SECONDS):
        if shown is not None:
            name = "nothing_passes_while_the_detector_hangs"
            require_held(name, harness, text, shown, path=path, detector="hangs")


@law
def a_call_returns_though_the_detector_hangs(harness: Harness) -> None:
    """A call ends within ``Harness.patience`` though the detector never answers."""
    for text, path, shown in _hung(harness, wait=harness.patience):
        if shown is None:
            raise LawBrokenError(
                "a_call_returns_though_the_detector_hangs",
                f"{path} did not return within {harness.patience} s: calls of the detector have no deadline",
                text=text,
            )


@law
def no_log_holds_the_text(harness: Harness) -> None:
    """Whatever happens, nothing of the text is logged at any level, printed or warned of."""
    canary = f"canary{secrets.token_hex(6)}"
    with listening() as heard:
        for _ in _incidents(harness, canary):
            pass
    if found := heard.places_of(canary):
        raise LawBrokenError(
            "no_log_holds_the_text",
            "a word of the text is in what the guard logs or prints",
            word=canary,
            found=around(found[0], canary),
            places=len(found),
        )


@law
def no_error_quotes_the_text(harness: Harness) -> None:
    """No error that a guard raises has a word of the text in its message, nor one that it was raised from."""
    canary = f"canary{secrets.token_hex(6)}"
    with listening():
        incidents = list(_incidents(harness, canary))
    for name, shown in incidents:
        if shown.error is None:
            continue
        message = "".join(traceback.format_exception(shown.error))
        if canary in message:
            raise LawBrokenError(
                "no_error_quotes_the_text",
                "an error, or one that it was raised from, quotes a word of the text",
                word=canary,
                detector=name,
                error=type(shown.error).__name__,
                found=around(message, canary),
            )


@law
def rescans_are_bounded(harness: Harness) -> None:
    """In a stream of single characters the detector reads each one a bounded number of times on average."""
    for kind, text in long_texts(harness.size):
        spy = Spy(_require_pluggable(harness))
        streamed(_with_streams(harness.guard(spy)), text)
        reads = sum(map(len, spy.read)) / len(text)
        if reads > harness.max_reads:
            raise LawBrokenError(
                "rescans_are_bounded",
                f"the detector reads each character {reads:.1f} times, more than {harness.max_reads}",
                text=f"{len(text)} characters, {kind}",
                calls=len(spy.read),
            )


@law
def time_is_linear(harness: Harness) -> None:
    """Eight times the text takes at most 24 times the processor time, whole and streamed."""
    subject = harness.guard(harness.judge)
    paths: dict[str, Callable[[str], object]] = {"check": lambda text: checked(subject, text)}
    if subject.stream is not None:
        paths["stream"] = lambda text: streamed(subject, (text[i : i + 8] for i in range(0, len(text), 8)))
    for path, work in paths.items():
        for kind, text in long_texts(harness.size):
            ratio = min_ratio(work, text)
            if ratio >= FACTOR:
                raise LawBrokenError(
                    "time_is_linear",
                    f"{path} takes {ratio:.0f} times as long for {TIMES_AS_MUCH} times the text",
                    text=f"{len(text)} and {TIMES_AS_MUCH * len(text)} characters, {kind}",
                )


def _incidents(harness: Harness, canary: str) -> Iterator[tuple[str, Shown]]:
    """What is shown of texts with the canary under detectors that work and ones that do not."""
    texts = [
        f"The {canary} is fine today.",
        *(f"The {canary}. {text}" for text in harness.samples.flagged[:2]),
    ]
    detectors: dict[str, Detect] = {"works": harness.judge}
    if harness.pluggable:
        detectors |= {"raises": quoting, "answers nonsense": answering(next(iter(harness.nonsense), None))}
    for name, detect in detectors.items():
        subject = harness.guard(detect)
        for text in texts:
            yield name, checked(subject, text)
            if subject.stream is not None:
                yield name, streamed(subject, text)


def _hung(harness: Harness, *, wait: float) -> Iterator[tuple[str, str, Shown | None]]:
    """What was shown by ``wait`` seconds of a detector that hangs (None: the call did not end), and later."""
    text = harness.samples.flagged[0]
    for path in ("check", "stream"):
        detector = Hanging(_require_pluggable(harness))
        subject = harness.guard(detector)
        if path == "stream" and subject.stream is None:
            continue
        shown: list[str] = []

        def work(subject: Subject = subject, path: str = path, shown: list[str] = shown) -> Shown:
            return checked(subject, text) if path == "check" else streamed(subject, text, seen=shown.append)

        thread, result = in_thread(work)
        try:
            thread.join(wait)
            yield text, path, result[0] if result else None
            if shown:
                yield text, path, Shown(shown[-1])
        finally:
            detector.release()
            thread.join(harness.patience)
        if result:
            yield text, path, result[0]


def _require_closed(name: str, harness: Harness, make: Callable[[], Detect], *, detector: str) -> None:
    for text in harness.samples.flagged:
        shown = checked(harness.guard(make()), text)
        require_held(name, harness, text, shown, path="check", detector=detector)
        subject = harness.guard(make())
        if subject.stream is None:
            continue
        for chunks in islice(cuts(text, limit=4), 4):
            shown = streamed(harness.guard(make()), chunks)
            require_held(name, harness, text, shown, path="stream", chunks=chunks, detector=detector)


def _require_pluggable(harness: Harness) -> Detect:
    if not harness.pluggable:
        raise NotApplicable("the guard takes no detector from outside")
    return harness.judge


def _with_streams(subject: Subject) -> Subject:
    if subject.stream is None:
        raise NotApplicable("the guard has no streams")
    return subject
