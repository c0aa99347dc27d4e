"""Asks plug-ins: under deadlines, once for many askers, and with failures told of once.

Everything that asks has one verb: ``ask(call)`` gives the reply, with a PluginError in its place if the
plug-in failed or is late. ``Runner`` asks in this thread, ``ThreadRunner`` for threads that share calls, and
``guardrail.engine.batching.Batcher`` for coroutines.
"""

from __future__ import annotations

import itertools
import logging
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from guardrail.engine.contract import UNTOUCHED, Plugin
from guardrail.engine.deadline import Deadline
from guardrail.engine.portions import MAX_CHARACTERS, MAX_REWRITTEN
from guardrail.engine.steps import Detect, Embed, ModelCall, Rewrite, Verify
from guardrail.errors import DeadlineError, PluginError
from guardrail.policy import Policy

if TYPE_CHECKING:
    import asyncio

__all__ = ["Models", "Runner", "ThreadRunner", "batches", "fits", "kind_of"]

T = TypeVar("T")

logger = logging.getLogger("guardrail")


@dataclass(frozen=True, slots=True)
class Models:
    """The plug-ins of one guard; each takes a batch and returns one of equal length.

    ``open_rewriter`` is called before each ``rewrite`` and outside its deadline: loading takes as long
    as it takes. It may raise PluginError(reason="rewriter_missing"), which takes the flow to the next rung.
    """

    detect: Plugin
    lexicon: Plugin
    rewrite: Plugin
    embed: Plugin
    verify: Plugin
    open_rewriter: Callable[[], object] | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A plug-in with the deadline of its calls; the word list is pure and quick, so it has none."""

    plugin: Plugin
    deadline: Deadline | None


class FailureLog:
    """Warns of each failing plug-in once per place and kind of error, however often it fails there.

    A place is the part that the plug-in plays and the line where it fails. Safe to share between threads.
    """

    def __init__(self) -> None:
        self._places: dict[object, object] = {}

    def add(self, error: PluginError) -> None:
        """Logs a plug-in's failure at WARNING if it was not logged yet."""
        failure = error.failure
        if failure is None:
            return
        mine = object()
        place = (failure.place, failure.plugin, failure.error, failure.module, failure.line)
        if self._places.setdefault(place, mine) is mine:
            logger.warning("%s", error)


class Runner:
    """Asks plug-ins in this thread, under the deadlines of a policy.

    Raises ConfigError if the detector says that it does not score a label of the policy's thresholds.
    """

    def __init__(self, models: Models, policy: Policy, *, failures: FailureLog | None = None) -> None:
        self.models = models
        self.failures: FailureLog = failures or FailureLog()
        self.is_open: bool = models.open_rewriter is None
        self._thresholds = policy.thresholds
        self._labels_known = not policy.thresholds or models.detect.require_labels(policy.thresholds)
        self._detector = _timed(models.detect, policy.detect_timeout)
        self._lexicon = Place(models.lexicon, None)
        self._places = {
            Rewrite: _timed(models.rewrite, policy.rewrite_timeout),
            Embed: _timed(models.embed, policy.detect_timeout),
            Verify: _timed(models.verify, policy.detect_timeout),
        }

    def place(self, call: ModelCall) -> Place:
        """Whom this call asks, and in what time."""
        if isinstance(call, Detect):
            return self._lexicon if call.lexicon else self._detector
        return self._places[type(call)]

    def open(self) -> PluginError | None:
        """Loads the rewriter, however long that takes; the error if it cannot run."""
        if self.models.open_rewriter is not None:
            try:
                self.models.open_rewriter()
            except UNTOUCHED:
                raise
            except BaseException as error:  # noqa: BLE001  # whatever a plug-in raises
                return self._failed(self.models.rewrite, error)
        self.is_open = True
        return None

    def wait_until_ready(self, call: ModelCall) -> None:
        """Waits until this call would be made, if an open circuit will try one."""
        if (deadline := self.place(call).deadline) is not None:
            deadline.wait_until_ready()

    def ask(self, call: ModelCall) -> Any:
        """The reply to a call; a PluginError in its place for any failure of the plug-in.

        Raises ModelFileError, which says what to do, and ConfigError if a verdict shows that the
        detector does not score a label of the thresholds.
        """
        if isinstance(call, Rewrite) and (failure := self.open()) is not None:
            return failure
        place = self.place(call)
        # What a plug-in yields bit by bit is read under its deadline too.
        work = partial(_checked_reply, place.plugin, call)
        try:
            reply = work() if place.deadline is None else place.deadline.run(work)
        except UNTOUCHED:
            raise
        except BaseException as error:  # noqa: BLE001  # asyncio's CancelledError of a plug-in too
            return self._failed(place.plugin, error)
        if not self._labels_known and place is self._detector:
            self._labels_known = place.plugin.require_labels(self._thresholds, reply)
        return reply

    def ask_together(self, calls: Sequence[ModelCall]) -> list[Any]:
        """One reply for each of several calls of one kind, by one model call for all.

        If the shared call fails each gets its own, so that a bad text fails alone; but a missed deadline
        applies to all that waited for it.
        """
        if len(calls) == 1:
            return [self.ask(calls[0])]
        reply = self.ask(_merged(calls))
        if isinstance(reply, DeadlineError):
            return [reply] * len(calls)
        if isinstance(reply, PluginError):
            return [self.ask(call) for call in calls]
        ends = itertools.accumulate((len(call.texts) for call in calls), initial=0)
        return [reply[start:end] for start, end in itertools.pairwise(ends)]

    def _failed(self, plugin: Plugin, error: BaseException) -> PluginError:
        failure = plugin.failed(error)
        self.failures.add(failure)
        return failure


def _timed(plugin: Plugin, seconds: float | None) -> Place:
    failure = plugin.failure(DeadlineError.__name__)
    return Place(plugin, Deadline(seconds, name=plugin.place, failure=failure))


def _checked_reply(plugin: Plugin, call: ModelCall) -> Any:
    """What the plug-in returns for a call, once it keeps the contract."""
    if isinstance(call, Detect):
        return plugin.verdicts(plugin.function(call.texts), call.texts)
    if isinstance(call, Verify):
        return plugin.probabilities(plugin.function(call.sources, call.texts), len(call.texts))
    if isinstance(call, Embed):
        return plugin.vectors(plugin.function(call.texts), len(call.texts))
    if plugin.marked is None:
        reply = plugin.function(call.texts, call.n)
    else:  # asked in one way alone, whatever is known of other texts
        reply = plugin.marked(call.texts, call.spans or ((),) * len(call.texts), call.n)
    return plugin.candidates(reply, len(call.texts), call.n)


class ThreadRunner:
    """Asks for plain threads, which share model calls if several want one at the same time.

    A thread that is alone with its kind of call makes it by itself: no other thread is involved and nothing
    is waited for. Those that come while it does so go to ``shared``, a Batcher's ``ask_for_text``, in an
    event loop that is started for them; deadlines and bounds are then the Batcher's.
    """

    def __init__(self, runner: Runner, shared: Callable[[ModelCall], Coroutine[Any, Any, Any]]) -> None:
        self._runner = runner
        self._shared = shared
        self._lock = threading.Lock()
        self._alone: set[object] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def ask(self, call: ModelCall) -> Any:
        """The reply to a call; a PluginError in its place if the plug-in failed or is late."""
        kind = kind_of(call)
        with self._lock:
            joins = kind in self._alone
            self._alone.add(kind)
        if joins:
            return self._ask_with_others(call)
        try:
            return self._runner.ask(call)
        finally:
            self._alone.discard(kind)

    def _ask_with_others(self, call: ModelCall) -> Any:
        import asyncio  # takes half as long as numpy; threads that are alone go without it

        reply = asyncio.run_coroutine_threadsafe(self._shared(call), self._running_loop())
        try:
            return reply.result()
        except BaseException:  # an interrupt of this thread, say: nobody waits for the reply any more
            reply.cancel()
            raise

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        import asyncio

        with self._lock:
            # In a forked child the parent's thread exists by name only.
            if self._loop is None or self._thread is None or not self._thread.is_alive():
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_serve, args=(self._loop,), daemon=True, name="guardrail-batching"
                )
                self._thread.start()
                weakref.finalize(self, _stop, self._loop)
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop) -> None:
    with suppress(RuntimeError):  # it was closed already
        loop.call_soon_threadsafe(loop.stop)


def kind_of(call: ModelCall) -> object:
    """Equal for calls that one model call can answer together."""
    return type(call), getattr(call, "lexicon", None), getattr(call, "n", None)


def fits(group: Sequence[ModelCall], call: ModelCall, *, batch: int) -> bool:
    """True if one model call may answer this call too: it then stays within its texts and characters."""
    together = [text for one in (*group, call) for text in one.texts]
    limit = MAX_REWRITTEN if isinstance(call, Rewrite) else MAX_CHARACTERS
    return not group or (len(together) <= batch and sum(map(len, together)) <= limit)


def batches(asked: Iterable[tuple[T, ModelCall]], batch: int) -> Iterator[list[tuple[T, ModelCall]]]:
    """The askers in groups of one kind of call that one model call may answer."""
    kinds: dict[object, list[tuple[T, ModelCall]]] = {}
    for pair in asked:
        kinds.setdefault(kind_of(pair[1]), []).append(pair)
    for alike in kinds.values():
        group: list[tuple[T, ModelCall]] = []
        for pair in alike:
            if not fits([call for _, call in group], pair[1], batch=batch):
                yield group
                group = []
            group.append(pair)
        yield group


def _merged(calls: Sequence[ModelCall]) -> ModelCall:
    """One call for several of one kind."""
    first = calls[0]
    texts = tuple(text for call in calls for text in call.texts)
    if isinstance(first, Detect):
        return Detect(texts, first.lexicon)
    if isinstance(first, Verify):
        return Verify(texts, tuple(source for call in calls for source in call.sources))  # type: ignore[union-attr]  # all are of one kind
    if isinstance(first, Rewrite):
        alike = [call for call in calls if isinstance(call, Rewrite)]
        spans = tuple(spans for call in alike for spans in (call.spans or ((),) * len(call.texts)))
        return Rewrite(texts, first.n, spans)
    return Embed(texts)
