"""OpenAI's client with moderated answers: ``guard.openai(client)``."""

from __future__ import annotations

import sys
from functools import partial, update_wrapper
from typing import Any, TypeVar

from guardrail.engine.adapters import Moderator
from guardrail.errors import UsageError
from guardrail.wrap import wrap

__all__ = ["guarded_client"]

C = TypeVar("C")

GUARDED: dict[str, tuple[str, ...]] = {
    "chat.completions": ("create", "parse", "retrieve"),
    "completions": ("create",),
    "responses": ("create", "parse", "retrieve"),
}
"""Methods whose answers are moderated; streams are those of chat completions and of completions."""
RAW = ("with_raw_response", "with_streaming_response")
REFUSED: dict[str, tuple[str, ...]] = {
    "": (*RAW, "beta", "conversations", "realtime"),
    "chat": RAW,
    "chat.completions": (*RAW, "stream", "list", "update", "messages"),
    "completions": RAW,
    "responses": (*RAW, "stream", "connect"),
}
"""Ways to answers that the guard has not seen."""


def guarded_client(client: C, *, guard: Moderator) -> C:
    """A copy of a client, of the same class, that shares its connections.

    UsageError for anything but an OpenAI or AsyncOpenAI, or a class derived from one.
    """
    openai = sys.modules.get("openai")
    if openai is None or not isinstance(client, (openai.OpenAI, openai.AsyncOpenAI)):
        raise UsageError(f"expected an OpenAI or AsyncOpenAI client, got {type(client).__name__}")
    guarded: Any = client.copy()
    for path, names in GUARDED.items():
        resource = _resource(guarded, path)
        for name in names:
            setattr(resource, name, wrap(getattr(resource, name), by=guard))
    for path, names in REFUSED.items():
        resource = _resource(guarded, path)
        for name in names:
            if hasattr(type(resource), name):
                resource.__dict__[name] = _Refused(f"{path}.{name}".lstrip("."))
    copy = update_wrapper(partial(_copied, client, guard), client.copy)
    guarded.copy = guarded.with_options = copy
    return guarded  # type: ignore[no-any-return]  # a copy is of the same class


class _Refused:
    """Stands where a way past the guard would be."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise self._error()

    def __getattr__(self, name: str) -> Any:
        raise self._error()

    def _error(self) -> UsageError:
        return UsageError(
            f"client.{self._name} gives answers that the guard has not seen: use chat.completions.create, "
            "with stream=True for a stream, or the client itself if nothing is to be moderated"
        )


def _copied(client: Any, guard: Moderator, *args: Any, **kwargs: Any) -> Any:
    return guarded_client(client.copy(*args, **kwargs), guard=guard)


def _resource(client: Any, path: str) -> Any:
    found = client
    for name in path.split(".") if path else ():
        found = getattr(found, name)
    return found
