"""Any runnable, moderated: what it returns and what it streams."""

# ruff: noqa: A002  # LangChain names its parameters ``input``

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tracers.context import tracing_v2_callback_var
from langgraph.pregel.protocol import PregelProtocol
from langsmith.run_helpers import tracing_context

from guardrail.engine.adapters import AsyncGuardAdapter, SyncGuardAdapter, as_async, run_sync
from guardrail.errors import UsageError, WithoutFrames
from guardrail.guard import Guard
from guardrail.integrations.langchain.streaming import moderated

__all__ = ["GuardedRunnable"]

Input = TypeVar("Input")
Output = TypeVar("Output")
T = TypeVar("T")


class GuardedRunnable(Runnable[Input, Output]):
    """A runnable around another one, which runs without the callbacks: they hear of moderated values only."""

    def __init__(self, bound: Runnable[Input, Output], *, guard: Guard, paths: Sequence[str] = ()) -> None:
        self.bound = bound
        self._guard = guard
        self._paths = tuple(paths)

    @property
    def InputType(self) -> Any:  # noqa: N802  # LangChain's name
        return self.bound.InputType

    @property
    def OutputType(self) -> Any:  # noqa: N802  # LangChain's name
        return self.bound.OutputType

    @property
    def config_specs(self) -> list[Any]:
        """What the other runnable can be configured with."""
        return self.bound.config_specs

    def get_input_schema(self, config: RunnableConfig | None = None) -> Any:
        """As for the other runnable."""
        return self.bound.get_input_schema(config)

    def get_output_schema(self, config: RunnableConfig | None = None) -> Any:
        """As for the other runnable."""
        return self.bound.get_output_schema(config)

    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        """The other runnable's name."""
        return self.bound.get_name(suffix, name=name)

    def invoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Output:

        def run(value: Input, run_manager: CallbackManagerForChainRun, config: RunnableConfig) -> Output:
            with _untraced():
                output = [self.bound.invoke(value, _quiet(config), **kwargs)]
            with WithoutFrames():  # popped, so that this frame does not hold it either
                return self._guard.moderate(output.pop(), paths=self._paths)

        return self._call_with_config(run, input, config)

    async def ainvoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Output:
        """The same without blocking the event loop."""

        async def run(
            value: Input, run_manager: AsyncCallbackManagerForChainRun, config: RunnableConfig
        ) -> Output:
            with _untraced():
                output = [await self.bound.ainvoke(value, _quiet(config), **kwargs)]
            with WithoutFrames():
                return await self._guard.amoderate(output.pop(), paths=self._paths)

        return await self._acall_with_config(run, input, config)

    def stream(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Output]:
        """Moderated chunks, each as soon as it is judged."""
        return self.transform(iter([input]), config, **kwargs)

    def astream(
        self, input: Input, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Output]:
        """The same without blocking the event loop."""
        return self.atransform(as_async([input]), config, **kwargs)

    def transform(
        self, input: Iterator[Input], config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Output]:
        """Moderated chunks of the output for an input that comes in chunks."""

        def run(
            values: Iterator[Input], run_manager: CallbackManagerForChainRun, config: RunnableConfig
        ) -> Iterator[Output]:
            source = _pulled(self.bound.transform(values, _quiet(config), **kwargs))
            with WithoutFrames():
                yield from run_sync(
                    moderated(as_async(source), SyncGuardAdapter(self._guard), paths=self._paths)
                )

        self._require_no_graph()
        return self._transform_stream_with_config(input, run, config)

    def atransform(
        self, input: AsyncIterator[Input], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Output]:
        """The same without blocking the event loop."""

        async def run(
            values: AsyncIterator[Input], run_manager: AsyncCallbackManagerForChainRun, config: RunnableConfig
        ) -> AsyncIterator[Output]:
            source = _apulled(self.bound.atransform(values, _quiet(config), **kwargs))
            with WithoutFrames():
                async with aclosing(
                    moderated(source, AsyncGuardAdapter(self._guard), paths=self._paths)
                ) as chunks:
                    async for chunk in chunks:
                        yield chunk
                        del chunk  # an error of the next one shows this frame

        self._require_no_graph()
        return self._atransform_stream_with_config(input, run, config)

    def _require_no_graph(self) -> None:
        if isinstance(self.bound, PregelProtocol):
            raise UsageError(
                "a graph streams events of many kinds: wrap the chat models in it, or give DetoxMiddleware "
                "to create_agent, and stream the graph itself"
            )


def _quiet(config: RunnableConfig) -> RunnableConfig:
    """The configuration without its callbacks, which would hear of what is not moderated yet."""
    return {**config, "callbacks": []}


@contextmanager
def _untraced() -> Iterator[None]:
    """Switches off the tracers that LangChain adds by itself."""
    token = tracing_v2_callback_var.set(None)
    try:
        with tracing_context(enabled=False):
            yield
    finally:
        tracing_v2_callback_var.reset(token)


def _pulled(chunks: Iterator[T]) -> Iterator[T]:
    """The chunks, each computed untraced; their iterator is closed with this one."""
    try:
        while True:
            with _untraced():
                try:
                    chunk = next(chunks)
                except StopIteration:
                    return
            yield chunk
    finally:
        if (close := getattr(chunks, "close", None)) is not None:
            close()


async def _apulled(chunks: AsyncIterator[T]) -> AsyncIterator[T]:
    try:
        while True:
            with _untraced():
                try:
                    chunk = await anext(chunks)
                except StopAsyncIteration:
                    return
            yield chunk
    finally:
        if (aclose := getattr(chunks, "aclose", None)) is not None:
            await aclose()
