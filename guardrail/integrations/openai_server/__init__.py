"""An OpenAI-compatible server that moderates what the API behind it says (extra ``server``)."""

from __future__ import annotations

from guardrail.errors import MissingExtraError

try:
    import fastapi  # noqa: F401  # only whether it is there
    import httpx  # noqa: F401
    import prometheus_client  # noqa: F401
    import uvicorn  # noqa: F401
except ImportError as error:
    raise MissingExtraError(feature="the server", extra="server") from error

from guardrail.integrations.openai_server.app import create_app
from guardrail.integrations.web.auth import Keys

__all__ = ["Keys", "create_app"]
