"""What a client asks of a language model, as far as the proxy must understand it."""

from __future__ import annotations

from dataclasses import dataclass, field

from guardrail.integrations.completions.completion import Kind, Terms
from guardrail.integrations.strict_json import JsonObject, MalformedError, parse
from guardrail.integrations.web.errors import ApiError

__all__ = [
    "Question",
    "asked",
]

JSON_FORMATS = ("json_object", "json_schema")


@dataclass(frozen=True, slots=True)
class Question:
    """A request for a completion; ``body`` goes upstream as it came.

    ``wanted`` is the number of choices that are of use: None where the answer's end is wanted in any case,
    for the usage report behind them, or where nobody can tell.
    """

    path: str
    headers: list[tuple[bytes, bytes]] = field(repr=False)
    body: bytes = field(repr=False)
    terms: Terms
    streamed: bool
    wanted: int | None

    @classmethod
    def read(
        cls,
        body: bytes,
        *,
        path: str,
        headers: list[tuple[bytes, bytes]],
        kind: Kind,
        allowed: tuple[str, ...],
    ) -> Question:
        """The question in a request's body; ApiError where that is no JSON object."""
        content = asked(body)
        shape = content.get("response_format")
        model = content.get("model")
        document = isinstance(shape, dict) and shape.get("type") in JSON_FORMATS
        return cls(
            path=path,
            headers=headers,
            body=body,
            terms=Terms(kind, allowed, document, model if isinstance(model, str) else None),
            streamed=content.get("stream") is True,
            wanted=_wanted(content),
        )


def asked(body: bytes) -> JsonObject:
    """The request's JSON object; ApiError where it is none."""
    try:
        return parse(body)
    except MalformedError as error:
        raise ApiError(f"the body is {error}", status=400) from None


def _wanted(content: JsonObject) -> int | None:
    options = content.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage"):
        return None
    prompts = content.get("prompt")
    batch = len(prompts) if isinstance(prompts, list) and all(isinstance(p, str) for p in prompts) else 1
    n = content.get("n") or 1
    return n * max(batch, 1) if type(n) is int else None
