"""How a guard, of this package or another, is put under the checks of ``guardrail.testing``."""

from __future__ import annotations

import asyncio
import re
import unittest
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass

__all__ = ["Detect", "Harness", "LawBrokenError", "NotApplicable", "Samples", "Subject", "from_async"]

Detect = Callable[[str], object]
"""What a guard asks about a text that it reads; the answer is in the guard's own form."""


class LawBrokenError(AssertionError):
    """A guard breaks a law; the message says which, and shows a small example.

    ``law`` is the law's name and ``evidence`` the example: what went in, what came out.
    """

    def __init__(self, law: str, problem: str, **evidence: object) -> None:
        width = max(map(len, evidence), default=0) + 1
        shown = [f"  {name + ':':{width}} {value!r}" for name, value in evidence.items()]
        super().__init__("\n".join([f"law broken: {law.replace('_', ' ')}", f"  {problem}", *shown]))
        self.law = law
        self.problem = problem
        self.evidence = evidence


class NotApplicable(unittest.SkipTest):
    """A law says nothing of this guard, for example of streams if it has none; pytest skips the test."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Texts to try a guard with: ``clean`` ones, and ``flagged`` ones with a ``forbidden`` piece in each."""

    clean: tuple[str, ...]
    flagged: tuple[str, ...]
    forbidden: tuple[str, ...]

    @classmethod
    def around(cls, forbidden: str) -> Samples:
        """Plain sentences, with and without one forbidden piece of text."""
        flagged = (
            f"Oh, {forbidden}!",
            f"The driver of that bus is {forbidden} and he knows it.",
            f"It is a fine day. What about {forbidden} then? See you at nine.",
            f"First line\n{forbidden}\nlast line, and nothing more",
            f"Here the text ends with {forbidden}",
        )
        return cls(CLEAN, flagged, (forbidden,))

    def found(self, text: str) -> list[tuple[int, int]]:
        """Where a text holds something forbidden: start and end of each place, in any letter case."""
        pattern = "|".join(re.escape(piece) for piece in self.forbidden)
        return [match.span() for match in re.finditer(pattern, text, re.IGNORECASE)]


CLEAN = (
    "The weather in the valley is fine today.",
    "  Two spaces,\ta tab,\r\nand line breaks of two kinds.  \n\n",
    "# Heading\n\n- **bold** item\n- `code_1 = 2`\n\n> quoted, with a \u2014 and \u201cquotes\u201d\u2026\n",
    "Accents \u00e9 and e\u0301, an emoji \U0001f44d\U0001f3fd, and a zero\u200bwidth space.",
    'The answer is {"a": [1, 2.50], "b": null}, as said.',
    "See https://example.com/a?b=1&c=%20d on page 12.",
    "no mark at the end of this one",
)


@dataclass(frozen=True, slots=True)
class Subject:
    """A guard as its caller sees it.

    Args:
        check: The text that may be shown in place of a text; an exception blocks it.
        stream: The pieces that may be shown of a text that comes in chunks; an exception ends it; None for a
            guard without streams.
    """

    check: Callable[[str], str]
    stream: Callable[[Iterator[str]], Iterable[str]] | None = None


class Harness:
    """Makes the guard under test. Two methods, ``judge`` and ``guard``, are all that a guard needs.

    Args:
        samples: Texts to try; the defaults have the word "idiot" as what is forbidden.
        pluggable: False for a guard that brings its own detector: laws about detectors do not apply then.
        nonsense: Answers of a detector that are nonsense in the guard's own form.
        max_cuts: Cuts in two that are tried per text; None: all.
        max_reads: Times that a character may be read by the detector, on average, however small the chunks
            are.
        patience: Seconds after which a call is taken to hang.
        size: Characters of the smaller text whose time is compared with one of eight times as many.
    """

    samples: Samples = Samples.around("idiot")
    pluggable: bool = True
    nonsense: tuple[object, ...] = (None, "nonsense", 17, [], object())
    max_cuts: int | None = None
    max_reads: float = 8.0
    patience: float = 10.0
    size: int = 4000

    def judge(self, text: str) -> object:
        """What a working detector says of a text, in the guard's own form; ``self.found`` helps."""
        raise NotImplementedError("say what a detector of this guard answers")

    def guard(self, detect: Detect) -> Subject:
        """A new guard that asks ``detect`` about every text that it reads."""
        raise NotImplementedError("make the guard under test")

    def found(self, text: str) -> list[tuple[int, int]]:
        """Where a text holds something forbidden: start and end of each place."""
        return self.samples.found(text)


def from_async(
    stream: Callable[[AsyncIterator[str]], AsyncIterable[str]],
) -> Callable[[Iterator[str]], Iterator[str]]:
    """A plain stream from an asynchronous one, for ``Subject``; each has an event loop of its own."""

    async def feed(chunks: Iterable[str]) -> AsyncIterator[str]:
        for chunk in chunks:
            await asyncio.sleep(0)  # lets the guard's other tasks run, as a network does
            yield chunk

    def run(chunks: Iterator[str]) -> Iterator[str]:
        loop = asyncio.new_event_loop()

        async def start() -> AsyncIterator[str]:
            return aiter(stream(feed(chunks)))

        async def step(pieces: AsyncIterator[str]) -> str:
            return await anext(pieces)

        try:
            pieces = loop.run_until_complete(start())
            while True:
                try:
                    piece = loop.run_until_complete(step(pieces))
                except StopAsyncIteration:
                    return
                yield piece
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    return run
