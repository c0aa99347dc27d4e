"""What a client asks of a language model, as far as the proxy must understand it."""

from __future__ import annotations

from dataclasses import dataclass, field

from guardrail.integrations.completions.completion import AnswerShape, CompletionKind
from guardrail.integrations.strict_json import JsonObject, MalformedError, parse
from guardrail.integrations.web.errors import ApiError

__all__ = ["CompletionRequest", "read_json"]

JSON_FORMATS = ("json_object", "json_schema")


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """A request for a completion; ``body`` goes upstream as it came.

    ``choices_wanted`` is the number of choices that are of use: None if the answer's end is wanted in any
    case, for the usage report behind them, or if nobody can tell.
    """

    path: str
    headers: list[tuple[bytes, bytes]] = field(repr=False)
    body: bytes = field(repr=False)
    shape: AnswerShape
    streamed: bool
    choices_wanted: int | None

    @classmethod
    def read(
        cls,
        body: bytes,
        *,
        path: str,
        headers: list[tuple[bytes, bytes]],
        kind: CompletionKind,
        allowed: tuple[str, ...],
    ) -> CompletionRequest:
        """The request in a body; ApiError if that is not a JSON object."""
        content = read_json(body)
        wanted_format = content.get("response_format")
        model = content.get("model")
        document = isinstance(wanted_format, dict) and wanted_format.get("type") in JSON_FORMATS
        return cls(
            path=path,
            headers=headers,
            body=body,
            shape=AnswerShape(kind, allowed, document, model if isinstance(model, str) else None),
            streamed=content.get("stream") is True,
            choices_wanted=_choices_wanted(content),
        )


def read_json(body: bytes) -> JsonObject:
    """The JSON object in a body; ApiError if it is something else."""
    try:
        return parse(body)
    except MalformedError as error:
        raise ApiError(f"the body is {error}", status=400) from None


def _choices_wanted(content: JsonObject) -> int | None:
    options = content.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage"):
        return None
    prompts = content.get("prompt")
    batch = len(prompts) if isinstance(prompts, list) and all(isinstance(p, str) for p in prompts) else 1
    n = content.get("n") or 1
    return n * max(batch, 1) if type(n) is int else None
