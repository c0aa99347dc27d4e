"""Errors of upstreams in whatever shape they come: OpenAI's, other JSON, a page of HTML, plain text."""

from __future__ import annotations

import html
import re

from guardrail.integrations.openai_server.wire import JsonObject, MalformedError, loads

__all__ = ["error_beside", "error_of", "looks_like_html", "message_in"]

LONGEST_TEXT = 500
"""Characters of an answer that is no JSON: more is a page and no message."""
MESSAGES = ("message", "detail", "error", "errors", "msg", "error_description", "error_msg", "title")
"""Keys of messages, the likeliest first."""
MAX_DEPTH = 5
_HTML = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)


def error_of(content: bytes) -> object:
    """The error in an answer's body: an object, a message, or None where there is neither."""
    try:
        found = loads(content)
    except MalformedError:
        return _text_of(content)
    if isinstance(found, list):
        found = next((item for item in found if isinstance(item, dict)), None)
    if isinstance(found, dict):
        return found.get("error") or found
    return found


def error_beside(answer: JsonObject) -> object:
    """The error in an answer that was to hold choices, in one of the shapes that upstreams use, or None."""
    if not answer.get("choices") and "error" in (answer.get("object"), answer.get("type")):
        return answer.get("error") or answer
    error = answer.get("error")
    return None if not error or (isinstance(error, dict) and not any(error.values())) else error


def message_in(error: object, *, depth: int = 0) -> str | None:
    """The first message in an error, in whichever shape it stands."""
    if isinstance(error, str):
        return error.strip() or None
    parts: list[object] = []
    if depth < MAX_DEPTH:
        parts = error if isinstance(error, list) else []
        parts = [*map(error.get, MESSAGES)] if isinstance(error, dict) else parts
    return next((found for part in parts if (found := message_in(part, depth=depth + 1))), None)


def looks_like_html(content: bytes) -> bool:
    """True for a page, as gateways and proxies send it."""
    return _HTML.match(content) is not None


def _text_of(content: bytes) -> str | None:
    text = content.decode("utf-8", "replace")
    if looks_like_html(content):
        title = _title_of(text)
        return f"the upstream answered with a page of HTML: {title}" if title else None
    text = " ".join(text.split())
    return text if text.isprintable() and len(text) <= LONGEST_TEXT else None


def _title_of(page: str) -> str | None:
    start = page.lower().find("<title")
    inner = page[start:].partition(">")[2].partition("<")[0] if start >= 0 else ""
    title = " ".join(html.unescape(inner).split())
    return title if title.isprintable() and len(title) <= LONGEST_TEXT else None
