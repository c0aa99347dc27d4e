"""What a guard shows of a text, whole or streamed, and all that it says meanwhile."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import random
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from guardrail.testing.harness import LawBrokenError, NotApplicable, Subject

__all__ = ["Captured", "Shown", "apart", "checked", "cuts", "in_thread", "listening", "smallest", "streamed"]

RANDOM_CUTS = 10


@dataclass(frozen=True, slots=True)
class Shown:
    """What was shown of a text, and the error that blocked the rest."""

    text: str
    error: Exception | None = None

    @property
    def blocked(self) -> bool:
        """True if an error ended it."""
        return self.error is not None


def checked(subject: Subject, text: str) -> Shown:
    """What ``check`` shows."""
    try:
        result: object = subject.check(text)
    except Exception as error:  # noqa: BLE001  # a guard blocks with errors of its own
        return Shown("", error)
    if not isinstance(result, str):
        raise TypeError(f"Subject.check must return a str or raise, got {type(result).__name__}")
    return Shown(result)


def streamed(subject: Subject, chunks: Iterable[str], *, seen: Callable[[str], None] | None = None) -> Shown:
    """What the stream shows; ``seen`` is called after each piece with all that was shown by then."""
    if subject.stream is None:
        raise NotApplicable("the guard has no streams")
    shown = ""
    try:
        for piece in subject.stream(iter(chunks)):
            shown += piece
            if seen is not None:
                seen(shown)
    except Exception as error:  # a guard blocks with errors of its own
        if isinstance(error, LawBrokenError):  # ``seen`` raised it
            raise
        return Shown(shown, error)
    return Shown(shown)


def apart(text: str, places: Iterable[int]) -> list[str]:
    """The text cut at these places."""
    ends = sorted(places)
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]


def cuts(text: str, *, limit: int | None) -> Iterator[list[str]]:
    """Ways to cut a text: not at all, in two at every place, at random places, into characters.

    ``limit`` is the number of cuts in two, evenly spaced; None: all.
    """
    yield [text]
    step = 1 if limit is None else max(1, len(text) // limit)
    for place in range(1, len(text), step):
        yield apart(text, [place])
    drawn = random.Random(len(text))
    for _ in range(RANDOM_CUTS):
        yield apart(text, [drawn.randint(0, len(text)) for _ in range(drawn.randint(2, 8))])
    yield list(text)


def smallest(chunks: Sequence[str], fails: Callable[[list[str]], bool]) -> list[str]:
    """Joins neighbouring chunks while the cut still fails."""
    chunks = list(chunks)
    i = 0
    while i + 1 < len(chunks):
        joined = [*chunks[:i], chunks[i] + chunks[i + 1], *chunks[i + 2 :]]
        if fails(joined):
            chunks = joined
        else:
            i += 1
    return chunks


def in_thread(work: Callable[[], Shown]) -> tuple[threading.Thread, list[Shown]]:
    """A thread, started, that does the work, and where its result will be."""
    result: list[Shown] = []
    thread = threading.Thread(target=lambda: result.append(work()), daemon=True)
    thread.start()
    return thread, result


@dataclass(slots=True)
class Captured:
    """Everything that was logged, printed or given as a warning."""

    records: list[str] = field(default_factory=list)
    printed: io.StringIO = field(default_factory=io.StringIO)
    written: list[str] = field(default_factory=list)
    warned: list[warnings.WarningMessage] = field(default_factory=list)

    def places_of(self, word: str) -> list[str]:
        """Where a word turns up."""
        found = [record for record in self.records if word in record]
        lines = "\n".join([self.printed.getvalue(), *self.written]).splitlines()
        found += [f"printed: {line}" for line in lines if word in line]
        return found + [f"warning: {warned.message}" for warned in self.warned if word in str(warned.message)]


class _Handler(logging.Handler):
    def __init__(self, records: list[str]) -> None:
        super().__init__(logging.NOTSET)
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        error = "" if record.exc_info is None else "".join(traceback.format_exception(record.exc_info[1]))
        self._records.append(f"log of {record.name}: {record.getMessage()} {vars(record)!r} {error}")


@contextlib.contextmanager
def _written(found: list[str]) -> Iterator[None]:
    """What goes to the two files themselves, as from a logger that took hold of ``sys.stdout`` before."""
    with tempfile.TemporaryFile() as file:
        kept = {number: os.dup(number) for number in (1, 2)}
        try:
            for number in kept:
                os.dup2(file.fileno(), number)
            yield
        finally:
            for number, copy in kept.items():
                os.dup2(copy, number)
                os.close(copy)
            file.seek(0)
            found.append(file.read().decode("utf-8", "replace"))


@contextlib.contextmanager
def listening() -> Iterator[Captured]:
    """Captures all loggers at every level, standard output, standard error and warnings."""
    captured = Captured()
    handler = _Handler(captured.records)
    found = [
        logger for logger in logging.root.manager.loggerDict.values() if isinstance(logger, logging.Logger)
    ]
    loggers = [logging.root, *found]
    before = [(logger, logger.level, logger.propagate, logger.disabled) for logger in loggers]
    disabled = logging.root.manager.disable
    logging.root.addHandler(handler)
    try:
        logging.disable(logging.NOTSET)
        for logger in loggers:
            logger.setLevel(logging.DEBUG if logger is logging.root else logging.NOTSET)
            logger.propagate, logger.disabled = True, False
        with (
            warnings.catch_warnings(record=True) as captured.warned,
            _written(captured.written),
            contextlib.redirect_stdout(captured.printed),
            contextlib.redirect_stderr(captured.printed),
        ):
            warnings.simplefilter("always")
            yield captured
    finally:
        logging.disable(disabled)
        for logger, level, propagate, was_disabled in before:
            logger.setLevel(level)
            logger.propagate, logger.disabled = propagate, was_disabled
        logging.root.removeHandler(handler)
