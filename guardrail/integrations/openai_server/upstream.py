"""The API behind the proxy: one fixed address, no redirects, its errors in a shape that clients read."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timezone
from email.utils import format_datetime, parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from urllib.parse import urlsplit

import httpx

from guardrail.config import ServerSettings
from guardrail.errors import ConfigError
from guardrail.integrations.completions.moderator import Moderator
from guardrail.integrations.openai_server.metrics import upstream_time
from guardrail.integrations.strict_json import JsonObject, MalformedError, loads, parse
from guardrail.integrations.web.errors import ApiError

__all__ = ["Upstream", "UpstreamAnswer", "malformed"]

HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"transfer-encoding upgrade".split()
)
"""RFC 9110, section 7.6.1; whatever a Connection header names comes on top."""
CONNECTION_HEADERS = frozenset(b"accept-encoding content-length cookie expect host origin referer".split())
"""Belong to the connection between client and proxy."""
CREDENTIALS = frozenset((b"api-key", b"authorization", b"x-api-key"))
PASSED_HEADERS = frozenset(("request-id", "retry-after", "retry-after-ms", "x-request-id", "x-should-retry"))
RATE_LIMITS = ("anthropic-ratelimit-", "x-ratelimit-")
ERROR_BYTES = 1 << 16
SUCCESS_STATUSES = frozenset((200, 201, 202, 203))
"""Statuses with a whole answer: some frameworks answer each POST with 201."""

Headers = Sequence[tuple[bytes, bytes]]
WITHHELD = "the upstream's message is withheld"
MAX_MESSAGE_LENGTH = 500
"""Characters of an answer that is not JSON: more is a page and not a message."""
MESSAGES = ("message", "detail", "error", "errors", "msg", "error_description", "error_msg", "title")
"""Keys of messages, the likeliest first."""
MAX_DEPTH = 5
_HTML = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class UpstreamAnswer:
    """A successful answer whose body is still to be read; ``headers`` are those that may be passed on."""

    response: httpx.Response
    headers: Mapping[str, str]
    limit: int

    async def json(self) -> JsonObject:
        """The body; ApiError if it is too long or not JSON, or if the connection breaks."""
        return parsed(await self.read())

    async def read(self) -> bytes:
        """The body's bytes; ApiError if it is too long, or if the connection breaks."""
        try:
            with upstream_time():
                return await _read(self.response, limit=self.limit)
        except MalformedError as error:
            raise malformed(error) from None
        except httpx.HTTPError as error:
            raise unreachable(error) from None

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes; the same errors."""
        size = 0
        try:
            chunks = self.response.aiter_bytes()
            while True:
                with upstream_time():
                    chunk = await anext(chunks, None)
                if chunk is None:
                    return
                size += len(chunk)
                if size > self.limit:
                    raise malformed(MalformedError("longer than this proxy reads"))
                yield chunk
        except httpx.HTTPError as error:
            raise unreachable(error) from None


def parsed(body: bytes) -> JsonObject:
    """The JSON object that a body is; ApiError if it is something else."""
    try:
        if looks_like_html(body):
            raise MalformedError("a page of HTML in place of JSON; is the upstream's address right?")
        return parse(body)
    except MalformedError as error:
        raise malformed(error) from None


class Upstream:
    """Sends requests to one API.

    ``key`` takes the place of the client's credentials if ``consumed`` says that those were the proxy's.
    Raises ConfigError for an address that is not a plain http(s) one.
    """

    def __init__(
        self, settings: ServerSettings, *, key: str | None, consumed: bool, moderator: Moderator
    ) -> None:
        self._base = _base(settings.upstream or "")
        self._key = key
        self._consumed = consumed
        self._limit = settings.max_answer
        self._moderator = moderator
        timeout = httpx.Timeout(settings.timeout, connect=min(settings.timeout, 10.0))
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        self._client = httpx.AsyncClient(timeout=timeout, limits=limits, follow_redirects=False)
        # A cookie that one client's request brought must not go out with another's.
        self._client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=()))

    async def aclose(self) -> None:
        await self._client.aclose()

    @asynccontextmanager
    async def request(
        self, method: str, path: str, *, headers: Headers = (), body: bytes = b""
    ) -> AsyncIterator[UpstreamAnswer]:
        """The answer, open until the block is left. Raises ApiError for whatever is not a success."""
        sent = self._sent(headers)
        request = self._client.build_request(method, self._base + path, headers=sent, content=body or None)
        try:
            with upstream_time():
                response = await self._client.send(request, stream=True)
        except httpx.HTTPError as error:
            raise unreachable(error) from None
        try:
            if response.status_code not in SUCCESS_STATUSES:
                raise await self._refusal(response)
            yield UpstreamAnswer(response, await self._passed_on(response.headers), self._limit)
        finally:
            await response.aclose()

    def _sent(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        dropped = HOP_BY_HOP | CONNECTION_HEADERS | _named_by_connection(headers)
        if self._consumed:
            dropped |= CREDENTIALS
        sent = [(name, value) for name, value in headers if name.lower() not in dropped]
        sent.append((b"accept-encoding", b"identity"))
        if self._consumed and self._key:
            sent.append(_credential(headers, self._key))
        return sent

    async def _refusal(self, response: httpx.Response) -> ApiError:
        """An error of the upstream as the client may see it: its message is read like any other text."""
        if not response.is_error:
            return malformed(MalformedError(f"status {response.status_code}"))
        if self._consumed and response.status_code == httpx.codes.UNAUTHORIZED:
            # Not this client's key was refused, and OpenAI's message quotes a part of the one that was.
            return ApiError(
                "the upstream refused the proxy's own key",
                status=502,
                kind="upstream_error",
                code="upstream_unauthorized",
            )
        content = await _beginning(response)
        return await self.to_api_error(
            error_in_body(content),
            status=response.status_code,
            headers=await self._passed_on(response.headers),
            otherwise=_reason(response, content),
        )

    async def to_api_error(
        self,
        error: object,
        *,
        status: int,
        headers: Mapping[str, str] | None = None,
        otherwise: str = WITHHELD,
    ) -> ApiError:
        """An error object of the upstream as one of ours: its message and its codes are kept if clean.

        ``otherwise`` is the message in place of one that is not there, or not clean.
        """
        found = error if isinstance(error, dict) else {"message": error}
        message = message_in(found)
        is_enforced = self._moderator.guard.policy.enforce
        if message is None or (is_enforced and not await self._moderator.is_clean([message])):
            message = otherwise
        code, kind, param = codes = [found.get(name) for name in ("code", "type", "param")]
        clean = await self._moderator.identifiers(codes)
        return ApiError(
            message,
            status=status,
            kind=kind if isinstance(kind, str) and kind in clean else "upstream_error",
            code=str(code) if isinstance(code, int) or (isinstance(code, str) and code in clean) else None,
            param=param if isinstance(param, str) and param in clean else None,
            headers=headers,
        )

    async def _passed_on(self, headers: httpx.Headers) -> dict[str, str]:
        """The headers that a client needs: when to try again, how much is left, what to quote."""
        named = _named_by_connection(headers.raw)
        found = {
            name: value
            for name, value in headers.items()
            if (name in PASSED_HEADERS or name.startswith(RATE_LIMITS)) and name.encode() not in named
        }
        if not self._moderator.guard.policy.enforce:  # no answer waits for a verdict
            return found
        clean = await self._moderator.identifiers(found)
        kept = {name: value for name, value in found.items() if name in clean and value in clean}
        if date := _date(found.get("retry-after", "")):
            kept["retry-after"] = date
        return kept


def _credential(headers: Headers, key: str) -> tuple[bytes, bytes]:
    """The upstream's key in the header in which the client showed the proxy's."""
    names = {name.lower() for name, _ in headers}
    if b"x-api-key" in names and b"authorization" not in names:
        return b"x-api-key", key.encode()
    return b"authorization", b"Bearer " + key.encode()


def _date(value: str) -> str | None:
    """The date of a header, written anew: a date may come with remarks."""
    try:
        return format_datetime(parsedate_to_datetime(value).astimezone(timezone.utc), usegmt=True)
    except (ValueError, OverflowError):
        return None


def malformed(error: MalformedError) -> ApiError:
    """The error for an upstream that says what this proxy cannot read, and therefore does not pass on."""
    return ApiError(
        f"the upstream's answer cannot be read, so it is withheld: {error}",
        status=502,
        kind="upstream_error",
        code="upstream_malformed",
    )


def unreachable(error: httpx.HTTPError) -> ApiError:
    """The error for an upstream that does not answer, or stops in the middle."""
    late = isinstance(error, httpx.TimeoutException)
    return ApiError(
        f"the upstream {'did not answer in time' if late else 'broke the connection'}",
        status=504 if late else 502,
        kind="upstream_error",
        code="upstream_timeout" if late else "upstream_disconnected",
    )


def _reason(response: httpx.Response, content: bytes) -> str:
    """What can be said of an error whose message is not there, or not to be shown: no word of its body."""
    status = response.status_code
    name = httpx.codes.get_reason_phrase(status)
    answered = f"the upstream answered {status}{f' {name}' if name else ''}"
    if looks_like_html(content):
        return f"{answered} with a page of HTML, whose text is withheld; is the upstream's address right?"
    return f"{answered}; {WITHHELD if content.strip() else 'no message came with it'}"


async def _beginning(response: httpx.Response) -> bytes:
    """As much of an error's body as an error needs, and as could be read of it."""
    content = bytearray()
    try:
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > ERROR_BYTES:
                break
    except httpx.HTTPError:
        pass
    return bytes(content[:ERROR_BYTES])


async def _read(response: httpx.Response, *, limit: int) -> bytes:
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > limit:
            raise MalformedError("longer than this proxy reads")
    return bytes(content)


def _named_by_connection(headers: Headers) -> frozenset[bytes]:
    values = [value for name, value in headers if name.lower() == b"connection"]
    return frozenset(token.strip().lower() for value in values for token in value.split(b","))


def _base(url: str) -> str:
    """The address without a trailing slash or ``/v1``, which belongs to the paths."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("server upstream must begin with http:// or https:// and name a host")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError("server upstream must be a plain address; its key goes into GUARDRAIL_UPSTREAM_KEY")
    return url.rstrip("/").removesuffix("/v1")


def error_in_body(content: bytes) -> object:
    """The error in an answer's body: an object, a message, or None if there is neither."""
    try:
        found = loads(content)
    except MalformedError:
        return _text_of(content)
    if isinstance(found, list):
        found = next((item for item in found if isinstance(item, dict)), None)
    if isinstance(found, dict):
        return found.get("error") or found
    return found


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
    return text if text.isprintable() and len(text) <= MAX_MESSAGE_LENGTH else None


def _title_of(page: str) -> str | None:
    start = page.lower().find("<title")
    inner = page[start:].partition(">")[2].partition("<")[0] if start >= 0 else ""
    title = " ".join(html.unescape(inner).split())
    return title if title.isprintable() and len(title) <= MAX_MESSAGE_LENGTH else None
