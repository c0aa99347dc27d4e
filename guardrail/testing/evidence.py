"""Raises LawBrokenError, with a small example, if what a guard shows is not what it may show."""

from __future__ import annotations

from itertools import takewhile

from guardrail.testing.harness import Harness, LawBrokenError
from guardrail.testing.watching import Shown

__all__ = ["around", "described", "require_equal", "require_held"]


def require_held(
    name: str,
    harness: Harness,
    text: str,
    shown: Shown,
    *,
    path: str,
    chunks: list[str] | None = None,
    detector: str | None = None,
) -> None:
    """Raises if what is forbidden was shown, or more than half of it before the end was blocked."""
    start, end = harness.found(text)[0]
    same = alike(text, shown.text)
    if harness.found(shown.text):
        problem = f"{path} shows what is forbidden"
    elif shown.blocked and same > (start + end) / 2:
        problem = f"{path} shows a part of what is forbidden before it blocks"
    else:
        return
    evidence: dict[str, object] = {"text": text}
    if chunks is not None:
        evidence["cut"] = chunks
    if detector is not None:
        evidence["detector"] = detector
    raise LawBrokenError(name, problem, **evidence, shown=described(shown))


def require_equal(name: str, path: str, text: str, shown: Shown, *, chunks: list[str] | None) -> None:
    """Raises if what was shown is not the text."""
    if shown.text == text and not shown.blocked:
        return
    place = alike(text, shown.text)
    cut = {} if chunks is None else {"cut": chunks}
    problem = f"{path} blocks a clean text" if shown.blocked else f"{path} changes a clean text"
    raise LawBrokenError(name, problem, text=text, **cut, shown=described(shown), first_difference_at=place)


def alike(first: str, second: str) -> int:
    """How many characters two texts have in common from their beginnings on."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def described(shown: Shown) -> str:
    """What was shown, and by which kind of error the rest was blocked."""
    return shown.text if shown.error is None else f"{shown.text} <blocked by {type(shown.error).__name__}>"


def around(text: str, word: str) -> str:
    """A word with a little of what is around it."""
    place = text.index(word)
    return text[max(0, place - 60) : place + len(word) + 20]
