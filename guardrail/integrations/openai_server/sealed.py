"""The outermost layer: no error shows text, and browsers are told what a page may do."""

from __future__ import annotations

import logging
import traceback

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guardrail.errors import FailureError
from guardrail.integrations.openai_server.replies import ApiError, unable

__all__ = ["Sealed"]

logger = logging.getLogger("guardrail.server")

BROWSER_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
        "trusted-types 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


class Sealed:
    """Answers what failed unforeseen with an error that says nothing, and logs where it failed.

    The exception itself goes no further: its message may quote a text, and servers log what they catch.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def dressed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in BROWSER_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self.app(scope, receive, dressed)
        except Exception as error:  # noqa: BLE001  # whatever it is, its message stays here
            reply = unable(error) if isinstance(error, FailureError) else _unforeseen(error)
            if not started:
                await reply.reply()(scope, receive, dressed)


def _unforeseen(error: Exception) -> ApiError:
    where = traceback.extract_tb(error.__traceback__)[-1]
    logger.error("%s in %s, line %s", type(error).__name__, where.name, where.lineno)
    return ApiError("the server failed; its log names the place", status=500, kind="server_error")
