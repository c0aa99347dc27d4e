"""LiteLLM's proxy: a guardrail that rewrites answers, in streams sentence by sentence.

    guardrails:
      - guardrail_name: detox
        litellm_params:
          guardrail: guardrail.integrations.litellm.DetoxGuardrail
          mode: post_call
          default_on: true

The guard is that of the configuration (``Guard.from_config()``); a class of your own that passes ``guard``
takes another. Chat and text completions are moderated, embeddings pass, and every other answer is refused,
because it would pass unread: put ``guardrail serve`` before the model for those.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from guardrail.errors import BlockedError, FailureError
from guardrail.guard import Guard

try:
    from fastapi import HTTPException
    from litellm.integrations.custom_guardrail import CustomGuardrail
    from litellm.types.guardrails import GuardrailEventHooks
    from litellm.types.utils import EmbeddingResponse, ModelResponse, TextCompletionResponse
except ModuleNotFoundError:
    raise FailureError("guardrail.integrations.litellm needs: pip install 'litellm[proxy]'") from None

__all__ = ["DetoxGuardrail"]


class DetoxGuardrail(CustomGuardrail):  # type: ignore[misc]  # the package need not be there
    """A guardrail for the mode ``post_call``. ``options`` are LiteLLM's: name, mode, whether it is on."""

    def __init__(self, guard: Guard | None = None, **options: Any) -> None:
        self._guard = Guard.from_config() if guard is None else guard
        super().__init__(**{"supported_event_hooks": [GuardrailEventHooks.post_call], **options})

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # LiteLLM looks for it in the class itself, not in its bases.
        hook = "async_post_call_streaming_iterator_hook"
        if hook not in vars(cls):
            setattr(cls, hook, getattr(cls, hook))

    async def async_post_call_success_hook(self, data: Any, user_api_key_dict: Any, response: Any) -> Any:
        """The moderated answer; status 400 for one that is blocked under ``Policy(block="raise")``."""
        if isinstance(response, EmbeddingResponse):
            return response
        if not isinstance(response, (ModelResponse, TextCompletionResponse)):
            raise _unread(response)
        try:
            response.choices = await self._guard.amoderate(response.choices)
        except BlockedError as error:
            raise HTTPException(400, {"error": f"guardrail: {error.outcome.summary()}"}) from None
        return response

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: AsyncIterator[Any], request_data: Any
    ) -> AsyncGenerator[Any, None]:
        """The chunks of a moderated stream; an error of the model comes behind what is clean so far."""

        async def chunks() -> AsyncGenerator[Any, None]:
            async for chunk in response:
                if not hasattr(chunk, "choices"):
                    raise _unread(chunk)
                yield chunk

        async with aclosing(self._guard.wrap(chunks)()) as released:
            async for chunk in released:
                yield chunk


def _unread(answer: object) -> HTTPException:
    kind = type(answer).__name__
    told = f"guardrail: a {kind} would pass unread; put `guardrail serve` before the model for such answers"
    return HTTPException(400, {"error": told})
