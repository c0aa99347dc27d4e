"""A model server over HTTP: JSON in, JSON out, with deadline, retries, bounded concurrency and a circuit.

Needs the extra ``remote``. No message of an error holds what was sent, what came back, or a key.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from guardrail.errors import ConfigError, DeadlineError, MissingExtraError, PluginError
from guardrail.outcome import Failure

if TYPE_CHECKING:
    import httpx
    from tenacity import RetryCallState

__all__ = ["Circuit", "Endpoint", "RequestError", "Session", "malformed", "require_variable_name", "together"]

T = TypeVar("T")
CONNECT_SECONDS = 10.0
FIRST_PAUSE, MAX_PAUSE = 0.5, 8.0
"""Seconds before the first retry, doubled for each further one, if the server names no time."""
MAX_FAILURES = 3
OPEN_SECONDS = 10.0
MAX_ANSWER = 4 << 20
ENDING_SECONDS = 5.0
_ANSWERING = frozenset((200, 201, 202, 203))
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_CODE = re.compile(r"[a-z_]{1,40}")


class RequestError(Exception):
    """A request without a usable answer.

    ``kind`` is a stable word for it, ``status`` the answer's if one came, ``code`` what an OpenAI-compatible
    server calls the error. A transient one is tried again, after ``pause`` seconds if the server says so.
    ``down`` says that the server is to blame and not the request.
    """

    def __init__(
        self,
        told: str,
        *,
        kind: str,
        status: int | None = None,
        code: str | None = None,
        transient: bool = False,
        pause: float | None = None,
        down: bool = False,
    ) -> None:
        super().__init__(told)
        self.kind = kind
        self.status = status
        self.code = code
        self.transient = transient
        self.pause = pause
        self.down: bool = down or transient


class Circuit:
    """Opens after a number of failures in a row; while open it lets one request try in each ``pause``.

    An answer closes it. Not safe to share between threads: everything happens in one event loop.
    """

    def __init__(
        self,
        *,
        max_failures: int = MAX_FAILURES,
        pause: float = OPEN_SECONDS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._max_failures = max_failures
        self._pause = pause
        self._clock = clock
        self._failures = 0
        self._next_trial = -math.inf

    def admits(self) -> bool:
        """Whether a request may go out now; of an open circuit's callers one at a time hears yes."""
        if self._failures < self._max_failures:
            return True
        if self._clock() < self._next_trial:
            return False
        self._next_trial = self._clock() + self._pause
        return True

    def answered(self) -> None:
        """Notes that the server works."""
        self._failures = 0

    def failed(self) -> None:
        """Notes that it does not."""
        self._failures += 1
        self._next_trial = self._clock() + self._pause


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where a server is and how it is asked, for the part ``plugin`` that has the place ``place``."""

    url: str
    place: str
    plugin: str
    key_env: str | None
    timeout: float
    retries: int
    concurrency: int

    def failure(self, kind: str) -> Failure:
        """The failure that errors and outcomes carry."""
        return Failure(self.place, self.plugin, kind)

    def failed(self, error: RequestError) -> PluginError:
        """What a guard hears of a request without a usable answer."""
        return PluginError(
            f"{self.place} {self.plugin}: {self.url} {error}",
            reason=f"{self.place}_{'invalid' if error.kind == MALFORMED else 'error'}",
            failure=self.failure(error.kind),
        )

    def late(self) -> DeadlineError:
        """What it hears of a run that took too long."""
        return DeadlineError(
            f"{self.place} {self.plugin}: {self.url} gave no answer within {self.timeout} s",
            reason=f"{self.place}_deadline",
            failure=self.failure(DeadlineError.__name__),
        )

    def circuit_open(self) -> DeadlineError:
        """What is raised in place of a request while the circuit is open."""
        return DeadlineError(
            f"{self.place} {self.plugin}: {self.url} is not asked for up to {OPEN_SECONDS:.0f} s, "
            "because its last requests failed",
            reason=f"{self.place}_circuit_open",
            failure=self.failure("CircuitOpen"),
        )


class Endpoint:
    """One server's API below ``url``, for any number of threads; in each process it has its own connections.

    ``place`` and ``plugin`` are what errors call the part that asks. Raises ConfigError for a wrong value,
    naming it as the setting of ``place``, and MissingExtraError without httpx.

    Args:
        key_env: Environment variable that holds the bearer token; it is read for each request and never kept.
        timeout: Seconds for one ``run``, with all its requests and their retries.
        retries: Further tries of a request after 429, 5xx, or a connection that broke.
        concurrency: Requests in flight at a time, of all runs together.
    """

    def __init__(
        self,
        url: str,
        *,
        place: str,
        plugin: str,
        key_env: str | None,
        timeout: float,
        retries: int,
        concurrency: int,
    ) -> None:
        try:
            import httpx
        except ImportError as error:
            raise MissingExtraError(feature=plugin.rpartition(".")[2], extra="remote") from error
        self._httpx = httpx
        if key_env is not None:
            require_variable_name(key_env, place=place)
            if not os.environ.get(key_env, "").strip():
                raise ConfigError(f"{place} key_env names a variable that is not set in this environment")
        self.server: Server = Server(
            url=_base(url, place=place),
            place=place,
            plugin=plugin,
            key_env=key_env,
            timeout=_within(timeout, 0.0, math.inf, name=f"{place} timeout", whole=False),
            retries=int(_within(retries, -1, 100, name=f"{place} retries")),
            concurrency=int(_within(concurrency, 0, 10_000, name=f"{place} concurrency")),
        )
        self._lock = threading.Lock()
        self._lines: _Lines | None = None

    def run(self, work: Callable[[Session], Coroutine[Any, Any, T]]) -> T:
        """What ``work`` gives, which makes its requests by the session it is given.

        Raises DeadlineError if it takes longer than ``timeout`` or the circuit is open, PluginError if
        the server fails. Nothing of ``work`` continues afterwards.
        """
        lines = self._opened()
        future = asyncio.run_coroutine_threadsafe(_bounded(self.server, lines, work), lines.loop)
        try:
            return future.result()
        except BaseException:  # an interrupt of this thread, say: nobody waits for the answer any more
            future.cancel()
            raise

    def _opened(self) -> _Lines:
        with self._lock:
            # In a forked child the parent's thread exists by name only.
            if self._lines is None or not self._lines.thread.is_alive():
                self._lines = _Lines(self._client(), concurrency=self.server.concurrency)
                weakref.finalize(self, self._lines.stop)
            return self._lines

    def _client(self) -> httpx.AsyncClient:
        return self._httpx.AsyncClient(
            timeout=self._httpx.Timeout(None, connect=CONNECT_SECONDS),
            limits=self._httpx.Limits(
                max_connections=None, max_keepalive_connections=self.server.concurrency
            ),
            headers={"accept-encoding": "identity"},
            follow_redirects=False,  # a redirect would carry text and key to somebody else
            auth=partial(_authorized, key_env=self.server.key_env),
        )


async def _bounded(server: Server, lines: _Lines, work: Callable[[Session], Coroutine[Any, Any, T]]) -> T:
    """What ``work`` gives before the deadline; its failures as a guard hears of them."""
    session = Session(server, lines, until=lines.loop.time() + server.timeout)
    try:
        return await asyncio.wait_for(work(session), server.timeout)
    except asyncio.TimeoutError:
        lines.circuit.failed()
        failure: PluginError = server.late()
    except RequestError as error:
        failure = server.failed(error)
    raise failure  # here, so that nothing that holds the request is its context


class Session:
    """The requests of one run; they end with it.

    It does not know the Endpoint, which therefore ends as soon as nobody has it any more.
    """

    def __init__(self, server: Server, lines: _Lines, *, until: float) -> None:
        self._server = server
        self._lines = lines
        self._until = until

    async def post(self, path: str, body: Mapping[str, Any], *, read: Callable[[Any], T]) -> T:
        """What ``read`` makes of the JSON that answers; it raises ``malformed`` for what it cannot read.

        Raises RequestError if no such answer comes, DeadlineError while the circuit is open.
        """
        from tenacity import AsyncRetrying, retry_if_exception

        content = json.dumps(body).encode()
        again = retry_if_exception(lambda error: isinstance(error, RequestError) and error.transient)
        retrying = AsyncRetrying(stop=self._is_over, wait=_pause, retry=again, reraise=True)
        circuit = self._lines.circuit
        try:
            answer = read(await retrying(self._once, path, content))
        except RequestError as error:
            if error.down:
                circuit.failed()
            else:
                circuit.answered()
            raise
        circuit.answered()
        return answer

    def _is_over(self, state: RetryCallState) -> bool:
        """True if no further try fits: a server that asks for more time than there is gets no waiting."""
        is_last = state.attempt_number > self._server.retries
        return is_last or self._lines.loop.time() + _pause(state) >= self._until

    async def _once(self, path: str, content: bytes) -> Any:
        import httpx

        broken, answer, status, headers = None, b"", 0, {}
        async with self._lines.slots:
            if not self._lines.circuit.admits():
                raise self._server.circuit_open()
            try:
                async with self._lines.client.stream(
                    "POST",
                    f"{self._server.url}{path}",
                    content=content,
                    headers={"content-type": "application/json"},
                ) as response:
                    status, headers = response.status_code, dict(response.headers)
                    answer = await _read(response.aiter_bytes())
            except httpx.HTTPError as error:
                broken = type(error).__name__
        if broken is not None:  # raised out here: the exception of httpx holds the request
            raise RequestError(f"could not be asked ({broken})", kind=broken, transient=True)
        if status not in _ANSWERING:
            raise _refusal(status, headers, answer, has_key=self._server.key_env is not None)
        return _parsed(answer)


def _authorized(request: httpx.Request, *, key_env: str | None) -> httpx.Request:
    """The request with the key, which is nowhere but in the environment until now."""
    if key_env is None:
        return request
    key = os.environ.get(key_env, "").strip()
    if not key or not (key.isascii() and key.isprintable()):
        problem = "holds characters that no header takes" if key else "is not set any more"
        raise RequestError(f"was not asked: the variable of key_env {problem}", kind="KeyMissing")
    request.headers["authorization"] = f"Bearer {key}"
    return request


class _Lines:
    """The connections of one process: an event loop in a thread of its own, in which all requests run."""

    def __init__(self, client: httpx.AsyncClient, *, concurrency: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.client = client
        self.slots = asyncio.Semaphore(concurrency)
        self.circuit = Circuit()
        self._process = os.getpid()
        self._over = asyncio.Event()
        self.thread = threading.Thread(
            target=_serve, args=(self.loop, self._over, client), daemon=True, name="guardrail-requests"
        )
        self.thread.start()

    def stop(self) -> None:
        """Ends the requests that are in flight and closes the connections."""
        if os.getpid() != self._process or self.loop.is_closed():
            return
        self.loop.call_soon_threadsafe(self._over.set)
        if threading.current_thread() is not self.thread:
            self.thread.join(ENDING_SECONDS)


def _serve(loop: asyncio.AbstractEventLoop, over: asyncio.Event, client: httpx.AsyncClient) -> None:
    try:
        loop.run_until_complete(_until(over, client))
    finally:
        loop.close()


async def _until(over: asyncio.Event, client: httpx.AsyncClient) -> None:
    await over.wait()
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    await client.aclose()


async def together(works: Sequence[Awaitable[T]]) -> list[T]:
    """The results of all; if one fails, the others end, too, before its exception is raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


MALFORMED = "MalformedAnswer"


def malformed(problem: str) -> RequestError:
    """The error for an answer that is not what was asked for; it is not asked for again."""
    return RequestError(
        f"answered with {problem}; is url that of an OpenAI-compatible API?", kind=MALFORMED, down=True
    )


async def _read(chunks: AsyncIterator[bytes]) -> bytes:
    content = bytearray()
    async for chunk in chunks:
        content += chunk
        if len(content) > MAX_ANSWER:
            raise malformed(f"more than {MAX_ANSWER} bytes")
    return bytes(content)


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        pass
    raise malformed("something that is not JSON")


def _refusal(status: int, headers: Mapping[str, str], content: bytes, *, has_key: bool) -> RequestError:
    """The error for a status; the server's own message, which may quote what it was asked, is left out."""
    if status == 429 or status >= 500:
        advice = "it is overloaded or limits requests" if status == 429 else "it failed"
    elif status in (401, 403):
        advice = "it refused the key in the variable of key_env" if has_key else "it wants a key: set key_env"
    elif status == 404:
        advice = "it has no such path or no such model: check url and model"
    elif 300 <= status < 400:
        advice = "redirects are not followed: set url to where it leads"
    else:
        advice = "it does not take the request: check model, parameters, seed and max_choices"
    return RequestError(
        f"answered with status {status}: {advice}",
        kind=f"Status{status}",
        status=status,
        code=_code_in(content),
        transient=status == 429 or status >= 500,
        pause=_retry_after(headers),
    )


def _code_in(content: bytes) -> str | None:
    """What an OpenAI-compatible server calls its error, if that is one plain word."""
    try:
        error = json.loads(content)["error"]
        code = error.get("code") or error.get("type")
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None
    return code if isinstance(code, str) and _CODE.fullmatch(code) else None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, 0 or more; None if it says nothing readable."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        try:
            seconds = float(value) * unit
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    try:
        at = parsedate_to_datetime(headers.get("retry-after", ""))
    except (TypeError, ValueError):
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=timezone.utc)
    return max(0.0, (at - datetime.now(timezone.utc)).total_seconds())


def _pause(state: RetryCallState) -> float:
    """Seconds before the next try: what the server asks for, else twice as long each time."""
    error = state.outcome.exception() if state.outcome is not None else None
    if isinstance(error, RequestError) and error.pause is not None:
        return error.pause
    return float(min(MAX_PAUSE, FIRST_PAUSE * 2 ** (state.attempt_number - 1)))


def require_variable_name(name: object, *, place: str) -> None:
    """Raises ConfigError unless this is a variable's name; it may be a key by mistake and is not repeated."""
    if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
        raise ConfigError(
            f"{place} key_env must name an environment variable in capital letters, such as MODEL_API_KEY; "
            "the key itself is never written down"
        )


def _base(url: object, *, place: str) -> str:
    """The address below which the paths of the API are; one without a path is that of a server with /v1."""
    problem = (
        f"{place} url must begin with http:// or https:// and name a host, as in http://127.0.0.1:8000/v1"
    )
    if not isinstance(url, str):
        raise ConfigError(problem)
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or not url.isprintable() or " " in url:
        raise ConfigError(problem)
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ConfigError(
            f"{place} url must be a plain address: name the variable that holds its key in key_env"
        )
    path = parts.path.rstrip("/").removesuffix("/chat/completions").rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"


def _within(value: object, above: float, below: float, *, name: str, whole: bool = True) -> float:
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not above < value < below:
        least = f"{int(above) + 1} or more" if whole else f"more than {above:g}"
        raise ConfigError(f"{name} must be a {'whole ' if whole else ''}number of {least}, got {value!r}")
    return value
