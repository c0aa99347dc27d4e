"""DSPy: a module around a program whose predictions the guard moderates, and its streams.

    program = GuardedModule(dspy.ChainOfThought("question -> answer"), guard=guard)
    stream = streamify(program, stream_listeners=[StreamListener(signature_field_name="answer")])

Fields that are text are rewritten; fields of other types, such as lists and models, as ``Guard.moderate``
does: BlockedError is raised for a flagged string that is not prose.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Hashable, Sequence
from contextlib import aclosing
from typing import Any

from guardrail.errors import FailureError, UsageError
from guardrail.guard import Guard
from guardrail.integrations.completions.speech import Said, Speech

try:
    import dspy
    from dspy.streaming import StatusMessage, StreamListener, StreamResponse
except ModuleNotFoundError:
    raise FailureError("guardrail.integrations.dspy needs: pip install dspy") from None

__all__ = ["GuardedModule", "streamify"]


class GuardedModule(dspy.Module):  # type: ignore[misc]  # the package need not be there
    """A program whose predictions a guard moderates; default: ``Guard()``.

    Other candidates of a prediction (``completions``) are dropped. Inside ``dspy.streamify`` nothing of the
    program is streamed, because its chunks would pass unread: ``streamify`` of this module streams.
    """

    def __init__(self, program: Any, *, guard: Guard | None = None) -> None:
        super().__init__()
        self.program = program
        self.guard = Guard() if guard is None else guard

    def forward(self, **asked: Any) -> Any:
        """The program's prediction, moderated."""
        with dspy.context(send_stream=None):
            prediction = self.program(**asked)
        fields = {name: self.guard.moderate(value) for name, value in prediction.items()}
        return _prediction(prediction, fields)

    async def aforward(self, **asked: Any) -> Any:
        """The same without blocking the event loop."""
        with dspy.context(send_stream=None):
            prediction = await self.program.acall(**asked)
        return await _amoderated(self.guard, prediction)


def streamify(
    program: GuardedModule, *, stream_listeners: Sequence[StreamListener], **options: Any
) -> Callable[..., AsyncGenerator[Any, None]]:
    """What ``dspy.streamify`` makes of the program inside, moderated: the fields that the listeners name.

    ``options`` are those of ``dspy.streamify``; the stream is an asynchronous one.
    """
    if not isinstance(program, GuardedModule):
        raise UsageError(f"expected a GuardedModule, got {type(program).__name__}; wrap the program in one")
    if not stream_listeners:
        raise UsageError("name the fields to be streamed: stream_listeners=[StreamListener(...)]")
    program.guard.stream(())  # a policy that no stream can keep is refused here and now
    inner = dspy.streamify(program.program, stream_listeners=list(stream_listeners), **options)

    async def stream(**asked: Any) -> AsyncGenerator[Any, None]:
        async with aclosing(inner(**asked)) as values, aclosing(_moderated(values, program.guard)) as shown:
            async for value in shown:
                yield value

    return stream


async def _moderated(values: AsyncIterator[Any], guard: Guard) -> AsyncGenerator[Any, None]:
    speech = Speech(guard)
    try:
        async for value in values:
            if isinstance(value, StreamResponse):
                name = (value.predict_name, value.signature_field_name)
                async for shown in _responses(speech.say(".".join(name), name, value.chunk)):
                    yield shown
            elif isinstance(value, dspy.Prediction):
                async for shown in _ended(speech):
                    yield shown
                yield await _amoderated(guard, value)
            elif isinstance(value, StatusMessage):
                yield StatusMessage(await guard.amoderate(value.message))
            else:
                raise UsageError(f"a {type(value).__name__} in a stream of DSPy would pass unread")
    except Exception:
        async for shown in _responses(speech.pause()):
            yield shown
        raise
    async for shown in _ended(speech):
        yield shown


def _place(key: Hashable) -> tuple[Any, ...]:
    """The predictor and the field that a text belongs to."""
    assert isinstance(key, tuple)
    return key


async def _ended(speech: Speech) -> AsyncGenerator[Any, None]:
    async for shown in _responses(speech.pause(), last=True):
        yield shown
    for name in speech.refused():
        yield StreamResponse(*_place(name), speech.refusal(), is_last_chunk=True)


async def _responses(
    released: AsyncIterator[Said], *, last: bool = False
) -> AsyncGenerator[StreamResponse, None]:
    async for said in released:
        yield StreamResponse(*_place(said.key), said.text, is_last_chunk=last)


async def _amoderated(guard: Guard, prediction: Any) -> Any:
    return _prediction(prediction, {name: await guard.amoderate(value) for name, value in prediction.items()})


def _prediction(prediction: Any, fields: dict[str, Any]) -> Any:
    """The prediction with these fields; the same one if nothing in it changed."""
    others = prediction.completions is not None and len(prediction.completions) > 1
    if not others and all(value is prediction[name] for name, value in fields.items()):
        return prediction
    made = dspy.Prediction(**fields)
    made.set_lm_usage(prediction.get_lm_usage())
    return made
