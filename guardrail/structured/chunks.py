"""Streams of chunk objects: chunks in, chunks out, with their text moderated and everything else kept.

Two shapes, whatever holds them (dict, dataclass or pydantic model):

choices    ``choices[].delta.content`` or ``choices[].text``: chunks of OpenAI, LiteLLM and many servers
delta      ``delta`` beside the ``text`` or ``message`` so far: LlamaIndex's responses

Text goes out as soon as it is judged, in the chunk that ended a sentence. Calls of tools and other parts come
in fragments that mean nothing alone: they are held until the choice is over, judged as a whole, and go out
as they came. Log probabilities and raw copies never go out, for they spell the text as it was.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from guardrail.engine.adapters import GuardAdapter, PushedText, passed_on
from guardrail.engine.stream import RepetitionCheck
from guardrail.errors import BlockedError
from guardrail.outcome import Action
from guardrail.structured.records import elements_of, fields_of, keys_of, with_parts

__all__ = ["is_chunk", "moderated_chunks"]

PROSE = ("content", "refusal", "reasoning_content", "reasoning", "text")
"""Names of text in a delta, or in a choice of a text completion."""
KEPT = (*PROSE, "role", "index", "finish_reason", "logprobs")
"""Names that are not held until the choice is over."""
WHOLE = ("delta", "message", *PROSE)
"""Names that a chunk without choices, which says no more than usage or that it is alive, does not have."""
BLOCKED = "content_filter"


def is_chunk(value: object) -> bool:
    """True for a chunk of one of the two shapes."""
    fields = fields_of(value)
    return fields is not None and (_is_of_choices(fields) or _is_of_deltas(fields))


async def moderated_chunks(chunks: AsyncIterator[Any], adapter: GuardAdapter) -> AsyncGenerator[Any, None]:
    """What may be shown of the chunks of one answer. TypeError for a chunk of another shape."""
    moderated = _judged(chunks, adapter) if adapter.policy.enforce else passed_on(chunks, adapter, _judged)
    async with aclosing(moderated) as released:
        async for chunk in released:
            yield chunk
            del chunk  # an error of the next one shows this frame


async def _judged(chunks: AsyncIterator[Any], adapter: GuardAdapter) -> AsyncGenerator[Any, None]:
    stream: _Choices | _Deltas | None = None
    try:
        async for chunk in chunks:
            if stream is None:
                stream = (_Choices if _is_of_choices(fields_of(chunk) or {}) else _Deltas)(adapter)
            if not stream.takes(chunk):
                raise TypeError(f"expected chunks of one shape, got {type(chunk).__name__} among others")
            async with aclosing(stream.take(chunk)) as released:
                async for part in released:
                    yield part
            del chunk  # an error of the next one shows this frame
        if stream is None:
            return
        async with aclosing(stream.end()) as released:
            async for part in released:
                yield part
    finally:
        if stream is not None:
            await stream.close()


def _is_of_choices(fields: Mapping[Any, Any]) -> bool:
    return elements_of(fields.get("choices")) is not None


def _is_of_deltas(fields: Mapping[Any, Any]) -> bool:
    return "delta" in fields and ("text" in fields or "message" in fields)


class _Text:
    """One text on its way through the guard."""

    def __init__(self, adapter: GuardAdapter) -> None:
        self._fed: PushedText = adapter.push_stream()
        self._growth = RepetitionCheck()

    @property
    def is_blocked(self) -> bool:
        outcome = self._fed.outcome
        return outcome is not None and outcome.action is Action.BLOCKED

    async def push(self, text: str | None) -> tuple[str, BlockedError | None]:
        """What may be shown now, and what is to be raised behind it."""
        said = ""
        if text is not None:
            self._growth.see(text)
        try:
            async with aclosing(self._fed.push(text)) as pieces:
                async for piece in pieces:
                    said += piece
        except BlockedError as error:
            return said, error
        return said, None

    async def close(self) -> None:
        await self._fed.close()


@dataclass(slots=True)
class _Choice:
    """What is known of one choice while its chunks come."""

    name: str = ""  # of the text that is being said
    text: _Text | None = None
    carrier: Any = field(default=None, repr=False)
    held: list[Any] = field(default_factory=list, repr=False)
    fragments: dict[tuple[Any, ...], list[str]] = field(default_factory=dict, repr=False)
    said: bool = False
    blocked: bool = False
    over: bool = False
    error: BlockedError | None = None  # to be raised behind what may be shown

    def hold(self, part: _Part, bare: Any) -> None:
        """Keeps what can only be judged as a whole."""
        self.held.append(part.alone(bare))
        _collect(part.held, (), self.fragments)

    def end(self, part: _Part, bare: Any) -> list[Any]:
        """The end of the choice, unless there is something to be raised in its place."""
        self.over = True
        reason = BLOCKED if self.blocked else part.reason
        return [] if self.error is not None else [_Part.again(bare).ended(reason)]

    def has_role(self) -> None:
        """A chunk with the role went out: no other one names it."""
        if self.carrier is not None:
            self.carrier = _Part.again(self.carrier).without_role()

    def raise_error(self) -> None:
        """Raises what is to be raised."""
        if self.error is not None:
            raise self.error


class _Choices:
    """Chunks with choices."""

    def __init__(self, adapter: GuardAdapter) -> None:
        self._adapter = adapter
        self._choices: dict[object, _Choice] = {}

    def takes(self, chunk: Any) -> bool:
        """True for a chunk of this shape, and for one without choices: usage, pings."""
        fields = fields_of(chunk)
        if fields is None or _is_of_choices(fields):
            return fields is not None
        return fields.get("choices") is None and not any(fields.get(name) for name in WHOLE)

    async def take(self, chunk: Any) -> AsyncGenerator[Any, None]:
        """What may be shown now that this chunk has come."""
        choices = elements_of(_fields(chunk).get("choices")) or []
        if not choices:
            yield await self._adapter.moderate(chunk)
        for choice in choices:
            only = chunk if len(choices) == 1 else with_parts(chunk, {"choices": [choice]})
            part = _Part.of(only, choice)
            state = self._choices.setdefault(part.index, _Choice())
            for shown in await self._shown(state, part):
                yield shown
            state.raise_error()

    async def end(self) -> AsyncGenerator[Any, None]:
        """What is left of choices that never said that they were over."""
        for state in self._choices.values():
            for shown in await self._rest(state):
                yield shown
            state.raise_error()

    async def close(self) -> None:
        """Ends the texts that are not over."""
        for state in self._choices.values():
            if state.text is not None:
                await state.text.close()

    async def _shown(self, state: _Choice, part: _Part) -> list[Any]:
        bare = await self._adapter.moderate(part.bare())
        if state.over or state.blocked:
            return self._behind(state, part, bare)
        shown: list[Any] = []
        for name, text in part.texts.items():
            shown += await self._begun(state, name)
            state.carrier = _Part.again(bare).open()
            shown += await self._said(state, text)
        if part.held and not state.blocked:
            state.hold(part, bare)
        if part.reason and state.error is None:
            if state.carrier is None:
                state.carrier = _Part.again(bare).open()
            shown += await self._rest(state)
            shown += state.end(part, bare)
        elif not shown and (part.role or not (part.texts or part.held)):
            shown.append(bare)
            state.has_role()
        return shown

    def _behind(self, state: _Choice, part: _Part, bare: Any) -> list[Any]:
        """What may be shown of a chunk behind the end or the refusal."""
        if state.over:
            return [] if part.texts or part.held or part.reason else [bare]
        state.over = part.reason is not None
        return [_Part.again(bare).ended(BLOCKED)] if state.over else []

    async def _begun(self, state: _Choice, name: str) -> list[Any]:
        """What is left of another text, so that the one of this name can begin."""
        if name == state.name and state.text is not None:
            return []
        shown = await self._said(state, None)
        if not state.blocked:
            state.name, state.text = name, _Text(self._adapter)
        return shown

    async def _said(self, state: _Choice, text: str | None) -> list[Any]:
        """A chunk with what may be shown of the text that is being said; None ends it."""
        if state.text is None or state.blocked:
            return []
        said, state.error = await state.text.push(text)
        state.blocked = state.text.is_blocked
        if text is None or state.blocked:
            state.text = None
        if not said:
            return []
        state.said = True
        shown = _Part.again(state.carrier).saying(state.name, said)
        state.has_role()
        return [shown]

    async def _rest(self, state: _Choice) -> list[Any]:
        """The rest of the text, and what was held if it is clean."""
        shown = await self._said(state, None)
        held, state.held = state.held, []
        if not held or state.blocked:
            return shown
        whole = {str(number): "".join(texts) for number, texts in enumerate(state.fragments.values())}
        try:
            await self._adapter.moderate(whole)
        except BlockedError as error:
            state.blocked = True
            if self._adapter.policy.block == "raise":
                state.error = error
                return shown
            refusal = self._adapter.policy.refusal
            carrier = _Part.again(held[0] if state.carrier is None else state.carrier)
            text = f"\n\n{refusal}" if state.said else refusal
            return [*shown, carrier.open_saying(state.name or carrier.prose, text)]
        return [*shown, *held]


@dataclass(frozen=True, slots=True)
class _Part:
    """A chunk with one choice, taken apart. ``delta`` is the choice itself in a text completion."""

    chunk: Any = field(repr=False)
    choice: Any = field(repr=False)
    delta: Any = field(repr=False)

    @classmethod
    def of(cls, chunk: Any, choice: Any) -> _Part:
        """The parts of a chunk that has this choice alone."""
        fields = _fields(choice)
        return cls(chunk, choice, fields["delta"] if fields.get("delta") is not None else choice)

    @classmethod
    def again(cls, chunk: Any) -> _Part:
        """The parts of a chunk that was taken apart before."""
        (choice,) = elements_of(_fields(chunk)["choices"]) or [None]
        return cls.of(chunk, choice)

    @property
    def index(self) -> object:
        return _fields(self.choice).get("index") or 0

    @property
    def reason(self) -> Any:
        """Why the choice is over; None while it continues, whatever stands there."""
        reason = _fields(self.choice).get("finish_reason")
        return None if reason in (None, "", "null", False) else reason

    @property
    def role(self) -> bool:
        return bool(self._delta().get("role"))

    @property
    def prose(self) -> str:
        """Where text of a choice of this kind stands."""
        return "text" if self.delta is self.choice else "content"

    @property
    def texts(self) -> dict[str, str]:
        """The text that the chunk brings, by name."""
        found = self._delta()
        return {name: text for name in PROSE if isinstance(text := found.get(name), str) and text}

    @property
    def held(self) -> dict[str, Any]:
        """What else it brings."""
        names = self._delta().items()
        return {name: part for name, part in names if part and not (name in KEPT and _is_kept(part))}

    def bare(self) -> Any:
        """The chunk without its text, without what is held, without log probabilities."""
        emptied: dict[str, Any] = dict.fromkeys(self.texts, "") | dict.fromkeys(self.held)
        if _fields(self.choice).get("logprobs"):
            return self._with(emptied, {"logprobs": None})
        return self._with(emptied, {})

    def alone(self, bare: Any) -> Any:
        """A chunk with nothing but what is held."""
        part = _Part.again(bare)
        return part._with(self.held | ({"role": None} if part.role else {}), {"finish_reason": None})

    def open(self) -> Any:
        """The chunk without its end, to carry text."""
        return _without_usage(self._with({}, {"finish_reason": None}))

    def without_role(self) -> Any:
        """The chunk as one that is not the first."""
        return self._with({"role": None}, {}) if self.role else self.chunk

    def saying(self, name: str, text: str) -> Any:
        """The chunk with this text."""
        return self._with({name: text}, {})

    def open_saying(self, name: str, text: str) -> Any:
        """The chunk with this text and nothing else."""
        emptied = dict.fromkeys(self.held) | {name: text}
        return self._with(emptied, {"finish_reason": None})

    def ended(self, reason: Any) -> Any:
        """The chunk as the end of its choice."""
        return self._with({}, {"finish_reason": reason})

    def _delta(self) -> Mapping[Any, Any]:
        return _fields(self.delta)

    def _with(self, delta: dict[str, Any], choice: dict[str, Any]) -> Any:
        if self.delta is self.choice:
            choice = {**delta, **choice}
        elif changed := _changed(self.delta, delta):
            choice = {"delta": with_parts(self.delta, changed), **choice}
        changes = _changed(self.choice, choice)
        return (
            with_parts(self.chunk, {"choices": [with_parts(self.choice, changes)]}) if changes else self.chunk
        )


class _Deltas:
    """Chunks with the text so far and what is new of it; each waits for the next: the last is whole."""

    def __init__(self, adapter: GuardAdapter) -> None:
        self._adapter = adapter
        self._text: _Text | None = _Text(adapter)
        self._before = ""
        self._said = ""
        self._waiting: Any = None

    def takes(self, chunk: Any) -> bool:
        """True for a chunk of this shape."""
        return _is_of_deltas(fields_of(chunk) or {})

    async def take(self, chunk: Any) -> AsyncGenerator[Any, None]:
        """What may be shown now that this chunk has come."""
        if self._waiting is not None:
            new, error = await self._push(self._new_text(self._waiting))
            if new:
                yield await self._judged(self._waiting, new, last=False)
            if error is not None:
                raise error
        self._waiting = chunk

    async def end(self) -> AsyncGenerator[Any, None]:
        """The last chunk, with all that the others had."""
        if self._waiting is None:
            return
        new, error = await self._push(self._new_text(self._waiting))
        if error is None:
            rest, error = await self._push(None)
            new += rest
        last = self._text is not None
        yield await self._judged(self._waiting, new, last=last)
        if error is not None:
            raise error

    async def close(self) -> None:
        """Ends the text, where it is not over."""
        if self._text is not None:
            await self._text.close()

    async def _judged(self, chunk: Any, new: str, *, last: bool) -> Any:
        """The chunk with its text as it was judged, once all else in it is judged too."""
        bare = await self._adapter.moderate(_with_text(chunk, "", "", last=last))
        return _with_text(bare, new, self._said, last=last)

    def _new_text(self, chunk: Any) -> str:
        new = _fields(chunk)["delta"]
        if isinstance(new, str):
            self._before += new
            return new
        whole = _whole_text(chunk)
        new = whole[len(self._before) :] if whole.startswith(self._before) else ""
        self._before += new
        return new

    async def _push(self, text: str | None) -> tuple[str, BlockedError | None]:
        if self._text is None:
            return "", None
        new, error = await self._text.push(text)
        self._said += new
        if self._text.is_blocked:
            self._text = None
        return new, error


def _with_text(chunk: Any, new: str, said: str, *, last: bool) -> Any:
    """The chunk with what may be shown; calls of tools and the like in the last one only."""
    fields = _fields(chunk)
    changes: dict[str, Any] = {"delta": new, "raw": None, "logprobs": None}
    if "message" in fields:
        changes["message"] = _message_saying(fields["message"], said, last=last)
    if "text" in fields:
        changes["text"] = said
    if not last and fields.get("additional_kwargs"):
        changes["additional_kwargs"] = {}
    return with_parts(chunk, _changed(chunk, changes))


def _message_saying(message: Any, said: str, *, last: bool) -> Any:
    fields = _fields(message)
    changes: dict[Hashable, Any] = (
        {} if last or not fields.get("additional_kwargs") else {"additional_kwargs": {}}
    )
    blocks = elements_of(fields.get("blocks"))
    if blocks is None:
        changes["content"] = said
        return with_parts(message, _changed(message, changes))
    texts = [block for block in blocks if isinstance(_fields(block).get("text"), str)]
    others = [block for block in blocks if last and not any(block is text for text in texts)]
    changes["blocks"] = [*(with_parts(text, {"text": said}) for text in texts[:1]), *others]
    return with_parts(message, changes)


def _whole_text(chunk: Any) -> str:
    fields = _fields(chunk)
    if isinstance(fields.get("text"), str):
        return str(fields["text"])
    message = _fields(fields.get("message"))
    blocks = elements_of(message.get("blocks")) or []
    texts = [_fields(block).get("text") for block in blocks] or [message.get("content")]
    return "".join(text for text in texts if isinstance(text, str))


def _fields(value: object) -> Mapping[Any, Any]:
    fields = fields_of(value)
    return {} if fields is None else fields


def _changed(value: Any, changes: Mapping[Any, Any]) -> dict[Any, Any]:
    """The changes that are some, to fields that there are."""
    fields = _fields(value)
    return {
        name: part
        for name, part in changes.items()
        if name in fields and not (fields[name] is part or fields[name] == part)
    } | {name: part for name, part in changes.items() if name not in fields and part is not None}


def _is_kept(part: object) -> bool:
    """True for what needs not be held: one string, a number, an enum."""
    return fields_of(part) is None and elements_of(part) is None


def _without_usage(chunk: Any) -> Any:
    return with_parts(chunk, {"usage": None}) if _fields(chunk).get("usage") else chunk


def _collect(part: Any, path: tuple[Any, ...], into: dict[tuple[Any, ...], list[str]]) -> None:
    """The strings of a part by the place that they have in the whole."""
    if isinstance(part, str):
        into.setdefault(path, []).append(part)
        return
    elements = elements_of(part)
    if elements is not None:
        for position, element in enumerate(elements):
            index = _fields(element).get("index")
            _collect(element, (*path, position if index is None else index), into)
        return
    for name in keys_of(part):
        into.setdefault((*path, "name of", name), [str(name)])
    for name, inner in _fields(part).items():
        _collect(inner, (*path, name), into)
