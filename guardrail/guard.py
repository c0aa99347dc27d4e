"""Guard: detector, rewriter, embedder and word list under one policy, and the ways to ask it."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from guardrail.audit.trail import AuditLog, Origin, TextTrail, Trail
from guardrail.engine.drive import (
    WINDOW,
    adrive,
    complete,
    detect_texts,
    drive,
    drive_many,
    embed_texts,
)
from guardrail.engine.flow import moderate
from guardrail.engine.monitor import (
    AsyncMonitoredPushStream,
    AsyncMonitoredStream,
    Follower,
    MonitoredPushStream,
    MonitoredStream,
    MonitoredText,
)
from guardrail.engine.plugins import (
    Once,
    chosen_verifier,
    connect,
    download_rewriter_base,
    identities,
    require_portable,
    shipped_rewriter,
    threshold_of,
)
from guardrail.engine.runner import Runner, ThreadRunner
from guardrail.engine.steps import Detect, Flow, ModelCall, Verify
from guardrail.engine.stream import AsyncPushStream, AsyncStream, PushStream, Stream
from guardrail.errors import BlockedError, GuardrailError, PluginError, UsageError, without_frames
from guardrail.events import OutcomeHook, log_outcome
from guardrail.outcome import Action, Outcome, Verdict
from guardrail.policy import Policy
from guardrail.protocols import (
    DetectFunction,
    Detector,
    Embedder,
    Embeddings,
    EmbedFunction,
    RewriteFunction,
    Rewriter,
    Verifier,
    VerifyFunction,
)
from guardrail.structured.terms import Terms
from guardrail.wrap import wrap

if TYPE_CHECKING:
    from guardrail.config import Config
    from guardrail.engine.batching import Batcher, Statistics
    from guardrail.outcome.explanation import Explanation, Sentence

__all__ = ["Guard"]

F = TypeVar("F", bound=Callable[..., Any])
V = TypeVar("V")
C = TypeVar("C")
MISUSE = (GuardrailError, TypeError)
"""What a caller may get to see; it comes without frames that hold text."""


class Guard:
    """Moderates texts. Cheap to make: shipped models are loaded at first use and shared by all guards.

    Safe to share between threads and event loops. It can be pickled if its parts can; one that was made by
    ``from_config`` always can, because the process that receives it loads the models again.

    Args:
        policy: What is tolerated and tried; the default policy if omitted.
        detector: A Detector or a callable of its shape; default: the shipped one.
        rewriter: A Rewriter or a callable; "shipped" is the shipped adapter on its base, the name of another
            base the shipped adapter for that one; None starts at mask.
        embedder: An Embedder or a callable; default: the detector if it embeds, else the shipped detector.
        lexicon: The word list that backs the classifier up, as a Detector; default: the shipped one.
        verifier: A Verifier or a callable, which judges rewrites as a reader would; "shipped" is the shipped
            one, for the rewriters of this package alone; None: the checks alone judge.
        on_outcome: Called with every outcome before its text is returned, and when a stream has ended.
        audit: An AuditLog, or where to keep one: an SQLite file or a database URL (extra ``audit``); what was
            changed or degraded is recorded before its text is returned, or AuditError raised.
        download: Fetch the rewriter's base now if it is not on this machine.
    """

    def __init__(
        self,
        *,
        policy: Policy | None = None,
        detector: Detector | DetectFunction | None = None,
        rewriter: Rewriter | RewriteFunction | str | None = "shipped",
        embedder: Embedder | EmbedFunction | None = None,
        lexicon: Detector | DetectFunction | None = None,
        verifier: Verifier | VerifyFunction | Literal["shipped"] | None = "shipped",
        on_outcome: OutcomeHook | None = None,
        audit: AuditLog | str | Path | None = None,
        download: bool = False,
    ) -> None:
        policy = Policy() if policy is None else _require_policy(policy)
        if rewriter is None:
            policy = replace(policy, ladder=tuple(rung for rung in policy.ladder if rung != "rewrite"))
        verifier = chosen_verifier(verifier, rewriter=rewriter)
        if verifier is not None and policy.acceptable is None:
            policy = replace(policy, acceptable=threshold_of(verifier))
        if verifier is None and policy.acceptable is not None:
            raise UsageError(
                "the policy's acceptable needs a verifier: pass Guard(verifier=...), or leave it out"
            )
        if download and isinstance(rewriter, str):
            download_rewriter_base(rewriter)
        self._policy = policy
        self._recipe: partial[Guard] | None = None
        self._on_outcome = on_outcome
        self._parts: dict[str, Any] = {
            "detector": detector,
            "rewriter": rewriter,
            "embedder": embedder,
            "lexicon": lexicon,
            "verifier": verifier,
        }
        self._runner = Runner(connect(**self._parts), policy)
        self._batcher = Once(partial(_new_batcher, self._runner, policy))
        self._ask = ThreadRunner(self._runner, partial(_ask_shared, self._batcher)).ask
        self._terms = Terms()
        self._audit = _open_audit(audit) if isinstance(audit, (str, Path)) else audit
        # Made of the parts: a trail that held this guard would keep it until the garbage collector comes.
        named = {name: part for name, part in self._parts.items() if name not in ("embedder", "verifier")}
        self._origin = cache(partial(_origin, policy, named))
        self._trail = None
        if self._audit is not None:
            self._trail = Trail(self._audit, self._origin, must_record=policy.enforce)
        settle = partial(_settle_followed, self._trail, on_outcome)
        self._is_inline = False
        self._follower = Once(partial(Follower, self._runner.ask, queue=policy.queue, settle=settle))

    @classmethod
    def from_config(cls, config: str | Path | Config | None = None, **overrides: Any) -> Guard:
        """The guard of a TOML file under the environment's variables; see ``guardrail.config``.

        Configured models and the audit are opened now.

        Args:
            config: A Config, or the path of a file; None: the file that ``GUARDRAIL_CONFIG`` names, if any.
            overrides: Arguments of Guard that take precedence over the configuration.

        Raises:
            ConfigError: For a key or value that is wrong; the message names it.
            ModelMissingError: If a configured model is not on this machine.
            ManifestError: If a model's files are not what its manifest says.
            AuditError: If the audit cannot be opened.
        """
        from guardrail.config import Config

        if not isinstance(config, Config):
            config = Config.load(config)
        guard = cls(**config.arguments(**overrides))
        guard._recipe = partial(cls.from_config, config, **overrides)
        return guard

    def check(self, text: str) -> Outcome:
        """Moderates one text; threads that ask at the same time share model calls.

        Args:
            text: Any str, an empty one too.

        Returns:
            What may be shown, and what was done.

        Raises:
            TypeError: For anything but a str.
            BlockedError: If the text is blocked under ``Policy(block="raise")``.
            AuditError: If the audit cannot record it.
        """
        try:
            if not isinstance(text, str):
                raise TypeError(f"expected str, got {type(text).__name__}")
            outcome = drive(moderate(self._policy), text, self._ask)
        except MISUSE as error:
            raise without_frames(error)  # noqa: B904  # it is the same error
        finally:
            del text
        return self._settle(outcome)

    async def acheck(self, text: str) -> Outcome:
        """As ``check``, without blocking the event loop; concurrent calls share model calls."""
        try:
            outcome = await adrive(moderate(self._policy), _require_str(text), self._batcher())
        except MISUSE as error:
            raise without_frames(error)  # noqa: B904  # it is the same error
        finally:
            del text
        return await self._asettle(outcome)

    def explain(self, text: str) -> Explanation:
        """The outcome of one text, as ``check`` gives and records it, with all that was tried on the way.

        It holds candidates that checks refused; they are kept nowhere else. A blocked text does not raise.
        """
        from guardrail.outcome.explanation import Explanation

        sentences: list[Sentence] = []
        try:
            flow = moderate(self._policy, on_sentence=sentences.append)
            outcome = drive(flow, _require_str(text), self._ask)
        except MISUSE as error:
            raise without_frames(error)  # noqa: B904  # it is the same error
        finally:
            del text
        if self._trail is not None:
            TextTrail(self._trail).ended(outcome)
        self._announce(outcome)
        return Explanation(outcome=outcome, sentences=tuple(sentences))

    def check_many(self, texts: Sequence[str], *, keys: Sequence[str] | None = None) -> list[Outcome]:
        """Moderates many texts with shared model calls.

        Args:
            texts: Any number of texts.
            keys: Names of the texts in the audit, one each. What is there under its key already is not
                recorded again, so that work that is done twice after an interruption leaves one trace.

        Returns:
            One outcome per text, in order, equal to what ``check`` gives. A blocked text never raises here,
            so that the other outcomes are not lost: look at ``action``.

        Raises:
            TypeError: For a single str, and for an element that is not a str.
            AuditError: If the audit cannot record them.
        """
        try:
            outcomes = _drive_windows(texts, self._policy, self._runner)
        except MISUSE as error:
            raise without_frames(error)  # noqa: B904  # it is the same error
        finally:
            del texts
        if self._trail is not None:
            self._trail.record(outcomes, keys=keys)
        for outcome in outcomes:
            self._announce(outcome)
        return outcomes

    def stream(self, chunks: Iterable[str]) -> Stream:
        """An iterator of what may be shown of a text that comes in chunks; joined, it is ``check(...).text``.

        A sentence is handed out once it is judged, and it is judged once it is over: with the first character
        after its last mark (with the second if that is a closing quote, a bracket or an ellipsis), with a
        line break, at ``Policy.segment_max`` characters, or at the end of the text. One shorter than
        ``Policy.segment_min`` goes with the next. Under ``Policy(enforce=False)`` every chunk is handed
        out as it comes, and ``judged()`` waits for the outcome.

        Args:
            chunks: The text, cut anywhere.

        Raises:
            UsageError: Under ``Policy(block="whole")``.
            TypeError: While it is read, for a chunk that is not a str.
            BlockedError: While it is read, under ``Policy(block="raise")``; its outcome holds what was handed
                out.
        """
        try:
            if self._passes_on:
                return MonitoredStream(chunks, text=self._monitored())
            callbacks = self._stream_callbacks(self._settle)
            return Stream(self._stream_flow(), chunks, ask=self._ask, **callbacks)
        except MISUSE as error:
            raise without_frames(error)  # noqa: B904  # it is the same error
        finally:
            del chunks

    def astream(
        self,
        chunks: AsyncIterable[str] | Iterable[str],
        *,
        on_sentence: Callable[[Sentence], object] | None = None,
    ) -> AsyncStream:
        """As ``stream``, for ``async for``: without blocking the event loop, with shared model calls.

        Args:
            chunks: The text, cut anywhere.
            on_sentence: Called with each sentence once its text was handed out, and all that was tried for
                it, as ``explain`` gives it; by default no candidate is kept. Under ``Policy(enforce=False)``
                it is called after the end of the stream, from the thread that judges.
        """
        try:
            if self._passes_on:
                return AsyncMonitoredStream(chunks, text=self._monitored(on_sentence))
            callbacks = self._stream_callbacks(self._asettle)
            return AsyncStream(self._stream_flow(on_sentence), chunks, batcher=self._batcher(), **callbacks)
        except MISUSE as error:
            raise without_frames(error)  # noqa: B904  # it is the same error
        finally:
            del chunks

    def push_stream(self) -> PushStream:
        """A text that is handed in piece by piece, for streams whose chunks hold more than text."""
        if self._passes_on:
            return MonitoredPushStream(self._monitored())
        return PushStream(self._stream_flow(), ask=self._ask, **self._stream_callbacks(self._settle))

    def apush_stream(self) -> AsyncPushStream:
        """As ``push_stream``, without blocking the event loop."""
        if self._passes_on:
            return AsyncMonitoredPushStream(self._monitored())
        callbacks = self._stream_callbacks(self._asettle)
        return AsyncPushStream(self._stream_flow(), ask=self._batcher().ask_for_text, **callbacks)

    def defer(self, work: Callable[[], object]) -> None:
        """Runs work in the thread that judges streams in monitor mode, after all that was queued before."""
        self._follower().defer(work)

    def moderate(self, value: V, *, paths: Sequence[str] = ()) -> V:
        """Moderates the prose in a value.

        Prose is a str, the strings of a list, the content of chat messages, and what ``paths`` declare.
        Every other string is judged and never changed.

        Args:
            value: A str, list, tuple, set, dict, dataclass, named tuple, pydantic model, or what they hold.
            paths: Further places of prose, such as "answer" or "items[].text".

        Returns:
            A value of the same type; the very same object if nothing changed.

        Raises:
            TypeError: For an object whose text cannot be read.
            UsageError: For a path that does not exist in the value.
            BlockedError: For a flagged string outside prose and messages, or under
                ``Policy(block="raise")``.
        """
        if type(value) is str and not paths:
            try:
                text = self.check(cast("str", value)).text
                return value if text == value else cast("V", text)
            finally:
                del value
        from guardrail.structured.moderation import Task, judge  # plain texts go without it

        task: Task | None = None
        try:
            task = Task(value, paths=paths, policy=self._policy, terms=self._terms)
            outcomes = judge(task, self._runner, batch=self._policy.batch)
            noteworthy = task.noteworthy(outcomes)
            if self._trail is not None:
                self._trail.record(noteworthy)
            for outcome in noteworthy:
                self._announce(outcome)
            return cast("V", task.value(outcomes))
        except MISUSE as error:
            raise without_frames(error)  # noqa: B904  # it is the same error
        finally:
            del value, task

    async def amoderate(self, value: V, *, paths: Sequence[str] = ()) -> V:
        """As ``moderate``, without blocking the event loop."""
        if type(value) is str and not paths:
            try:
                text = (await self.acheck(cast("str", value))).text
                return value if text == value else cast("V", text)
            finally:
                del value
        import asyncio

        from guardrail.structured.moderation import Task, ajudge

        task: Task | None = None
        try:
            task = Task(value, paths=paths, policy=self._policy, terms=self._terms)
            outcomes = await ajudge(task, self._batcher())
            noteworthy = task.noteworthy(outcomes)
            if self._trail is not None and noteworthy:
                await asyncio.to_thread(self._trail.record, noteworthy)
            for outcome in noteworthy:
                self._announce(outcome)
            return cast("V", task.value(outcomes))
        except MISUSE as error:
            raise without_frames(error)  # noqa: B904  # it is the same error
        finally:
            del value, task

    def detect(self, texts: Sequence[str]) -> list[Verdict]:
        """Judges texts and changes nothing.

        The detector is called as often as it takes to keep each call small, and the deadline holds for each
        call; a text of more than 8192 characters is read in pieces that overlap.

        Args:
            texts: Any number of texts, each judged as a whole.

        Returns:
            One verdict per text, in order: scores per label, 0..1; ``flagged`` is the policy's decision.

        Raises:
            TypeError: For a single str, and for an element that is not a str.
            PluginError: If the detector fails.
        """
        try:
            verdicts = detect_texts(self._runner, _texts(texts), batch=self._policy.batch)
        except MISUSE as error:
            raise without_frames(error)  # noqa: B904  # it is the same error
        finally:
            del texts
        return [self._policy.decided(verdict) for verdict in verdicts]

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """Embeds texts.

        Args:
            texts: Any number of texts.

        Returns:
            Embeddings, shape (n, d), float32, rows of unit length: the dot product of two is their cosine.

        Raises:
            TypeError: For a single str, and for an element that is not a str.
            PluginError: If the embedder fails.
        """
        try:
            return embed_texts(self._runner, _texts(texts), batch=self._policy.batch)
        except MISUSE as error:
            raise without_frames(error)  # noqa: B904  # it is the same error
        finally:
            del texts

    def verify(self, original: str, rewrite: str) -> tuple[str, ...]:
        """Runs the checks on a rewrite, whoever wrote it. Nothing is recorded.

        Args:
            original: The text.
            rewrite: What is to be shown in its place.

        Returns:
            The names of the checks that refuse the rewrite, as in ``Edit.failed_checks``; empty if it may be
            shown.
        """
        from guardrail.engine.ladder import examine

        try:
            texts = _require_str(original), _require_str(rewrite)
            return complete(examine(self._policy, *texts), self._ask)
        except MISUSE as error:
            raise without_frames(error)  # noqa: B904  # it is the same error
        finally:
            del original, rewrite

    def wrap(self, function: F, *, paths: Sequence[str] = ()) -> F:
        """Wraps a function so that this guard moderates the text that it returns or yields.

        Args:
            function: A function, coroutine function, generator function or method.
            paths: Where in a returned structure prose is, as for ``moderate``.

        Returns:
            A function of the same kind and signature.
        """
        return wrap(function, by=self, paths=paths)

    def openai(self, client: C) -> C:
        """Copies an OpenAI or AsyncOpenAI client so that this guard moderates its answers, streams too.

        Args:
            client: The client; it stays as it is.

        Returns:
            A client of the same class that shares its connections. What would show answers that the guard
            has not seen, such as ``with_raw_response``, raises UsageError when it is used.

        Raises:
            UsageError: For an object of another class.
        """
        from guardrail.integrations.openai_client import guarded_client

        return guarded_client(client, guard=self)

    def anthropic(self, client: C) -> C:
        """As ``openai``, for an Anthropic or AsyncAnthropic client: messages, also streamed and parsed."""
        from guardrail.integrations.anthropic_client import guarded_client

        return guarded_client(client, guard=self)

    def with_adapter(self, path: str | Path) -> Guard:
        """A guard that rewrites with another adapter and shares everything else with this one.

        Args:
            path: The adapter's folder; for a RemoteRewriter the name of a model on its server.

        Raises:
            UsageError: If this guard has no rewriter, or one that cannot take an adapter.
            ManifestError: For an adapter of another base.
            ModelMissingError: If the base is missing.
        """
        current = self._parts["rewriter"]
        if current is None:
            raise UsageError(
                "this guard has no rewriter (rewriter=None) that could take an adapter; make it with "
                "Guard(rewriter='shipped') or with an OnnxRewriter"
            )
        rewriter = shipped_rewriter(current) if isinstance(current, str) else current
        take = getattr(rewriter, "with_adapter", None)
        if take is None:
            raise UsageError(
                f"{type(rewriter).__name__} cannot take an adapter; use a guard with an OnnxRewriter"
            )
        return self._with(rewriter=take(path))

    def with_policy(self, policy: Policy) -> Guard:
        """A guard under another policy that shares models, hook and audit of this one."""
        return self._with(policy=_require_policy(policy))

    def inline(self) -> Guard:
        """A guard that judges streams while they are read, in monitor mode too."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)  # deadlines and queues are shared, too
        other._is_inline = True
        return other

    @property
    def policy(self) -> Policy:
        """What is tolerated and tried; ``with_policy`` gives a guard under another."""
        return self._policy

    def load(self) -> tuple[str, ...]:
        """Loads the models now instead of at the first text; nothing is moderated or recorded.

        Returns:
            Why some of them will not work, in the words of ``degraded``; empty if all will.

        Raises:
            ModelFileError: For a file that is missing or altered.
        """
        replies = [self._runner.ask(Detect(("ready",), lexicon)) for lexicon in (False, True)]
        if not self._policy.enforce:
            return tuple(reply.reason for reply in replies if isinstance(reply, PluginError))
        if "rewrite" in self._policy.ladder:
            replies.append(self._runner.open())
        if self._policy.acceptable is not None:
            replies.append(self._runner.ask(Verify(("ready",), ("ready",))))
        return tuple(reply.reason for reply in replies if isinstance(reply, PluginError))

    def statistics(self) -> Statistics:
        """How the model calls of coroutines and of threads that ask together are shared, now and so far."""
        return self._batcher().statistics()

    def _stream_flow(self, on_sentence: Callable[[Sentence], object] | None = None) -> Flow:
        if not self._policy.can_stream:
            raise UsageError(
                "a stream cannot take back what it has shown, as Policy(block='whole') demands: "
                "use block='segment' or block='raise', or check the whole text"
            )
        return moderate(self._policy, on_sentence=on_sentence)

    @property
    def _passes_on(self) -> bool:
        """True if streams are handed out as they come, and judged behind their end."""
        return not (self._policy.enforce or self._is_inline)

    def _monitored(self, on_sentence: Callable[[Sentence], object] | None = None) -> MonitoredText:
        return MonitoredText(self._stream_flow(on_sentence), self._follower())

    def origin(self) -> Origin:
        """What decides in this guard, as an audit names it: the policy's digest, the models' identities."""
        return self._origin()

    def _stream_callbacks(self, settle: Callable[..., Any]) -> dict[str, Any]:
        """Who hears of a stream: ``settle`` of its end, the audit of each edit before it is shown, too."""
        if self._trail is None:
            return {"settle": settle}
        text = TextTrail(self._trail)
        return {"settle": partial(settle, text=text), "note": text.edited}

    def _settle(self, outcome: Outcome, *, text: TextTrail | None = None) -> Outcome:
        if self._trail is not None:
            (text or TextTrail(self._trail)).ended(outcome)
        return self._recorded(outcome)

    async def _asettle(self, outcome: Outcome, *, text: TextTrail | None = None) -> Outcome:
        import asyncio

        if self._trail is not None and (outcome.edits or outcome.degraded):
            await asyncio.to_thread((text or TextTrail(self._trail)).ended, outcome)
        return self._recorded(outcome)

    def _recorded(self, outcome: Outcome) -> Outcome:
        self._announce(outcome)
        if outcome.action is Action.BLOCKED and self._policy.block == "raise":
            raise BlockedError(outcome)
        return outcome

    def _announce(self, outcome: Outcome) -> None:
        log_outcome(outcome)
        if self._on_outcome is not None:
            self._on_outcome(outcome)

    def _with(self, **changes: Any) -> Guard:
        """A guard that differs in these arguments; what one of them warned of, the other does not repeat."""
        other = Guard(**self._arguments | changes)
        other._runner.failures = self._runner.failures
        other._is_inline = self._is_inline
        if self._recipe is not None:
            other._recipe = partial(self._recipe, **changes)
        return other

    @property
    def _arguments(self) -> dict[str, Any]:
        given = {"policy": self._policy, "on_outcome": self._on_outcome, "audit": self._audit}
        return given | self._parts

    def __copy__(self) -> Guard:
        return self  # it does not change

    def __deepcopy__(self, memo: object) -> Guard:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        recipe = self._recipe or partial(type(self), **self._arguments)
        require_portable(recipe.keywords)
        return recipe, ()

    def __repr__(self) -> str:
        chosen = ", ".join(
            f"{name}={type(part).__name__}" for name, part in self._parts.items() if part is not None
        )
        return f"Guard(policy={self._policy.digest()}, {chosen})"


def _settle_followed(trail: Trail | None, hook: OutcomeHook | None, outcome: Outcome) -> None:
    """Tells of a text that was judged behind its stream."""
    if trail is not None:
        TextTrail(trail).ended(outcome)
    log_outcome(outcome)
    if hook is not None:
        hook(outcome)


def _new_batcher(runner: Runner, policy: Policy) -> Batcher:
    from guardrail.engine.batching import Batcher  # brings asyncio, which plain calls go without

    return Batcher(runner, policy)


def _ask_shared(batcher: Callable[[], Batcher], call: ModelCall) -> Coroutine[Any, Any, Any]:
    return batcher().ask_for_text(call)


def _origin(policy: Policy, parts: dict[str, Any]) -> Origin:
    return Origin(policy=policy.digest(), policy_name=policy.name, **identities(**parts))


def _open_audit(where: str | Path) -> AuditLog:
    from guardrail.audit.store import AuditStore

    return AuditStore(where)


def _require_policy(policy: object) -> Policy:
    if isinstance(policy, Policy):
        return policy
    advice = "write Policy(**settings)" if isinstance(policy, dict) else "make one with Policy(...)"
    raise UsageError(f"expected a Policy, got {type(policy).__name__}; {advice}")


def _require_str(text: object) -> str:
    if isinstance(text, str):
        return text
    raise TypeError(f"expected str, got {type(text).__name__}")


def _drive_windows(texts: Sequence[str], policy: Policy, runner: Runner) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for window in _windows(texts):
        outcomes += drive_many([moderate(policy) for _ in window], window, runner, batch=policy.batch)
    return outcomes


def _windows(texts: Sequence[str]) -> list[tuple[str, ...]]:
    """The texts in groups of WINDOW."""
    whole = _texts(texts)
    return [whole[start : start + WINDOW] for start in range(0, len(whole), WINDOW)]


def _texts(texts: Sequence[str]) -> tuple[str, ...]:
    """The texts, once all of them are known to be str."""
    if isinstance(texts, (str, bytes)):
        raise TypeError(f"expected a sequence of str, got one {type(texts).__name__}; put it in a list")
    return tuple(_require_str(text) for text in texts)
