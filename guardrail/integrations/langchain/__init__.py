"""LangChain and LangGraph: moderated runnables, chat models and agents (extra ``langchain``).

- ``wrap(guard, runnable)``: a chat model stays a chat model, any other runnable stays a runnable.
- ``DetoxMiddleware(guard)``: for ``langchain.agents.create_agent``.

Moderation sits below the callbacks: tracers, ``astream_events`` and every stream mode of LangGraph get what
the guard released. What is not in its hands: exceptions of the wrapped runnable, which may quote text;
handlers that were attached inside a wrapped chain, by ``with_config`` or on its models; what tools return, or
write to a ``custom`` stream. Wrap a tool's function with ``guard.wrap`` to moderate what it returns.
"""

from guardrail.errors import MissingExtraError

try:
    from guardrail.integrations.langchain.middleware import DetoxMiddleware
    from guardrail.integrations.langchain.model import wrap
except ModuleNotFoundError:
    raise MissingExtraError(feature="guardrail.integrations.langchain", extra="langchain") from None

__all__ = ["DetoxMiddleware", "wrap"]
