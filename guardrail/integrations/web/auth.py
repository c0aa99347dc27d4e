"""Who may use a server: API keys, reviewers' keys, and without keys only programs on this machine."""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from guardrail.errors import ConfigError
from guardrail.integrations.web.errors import ApiError

__all__ = ["AUDIT_KEYS", "AuthMiddleware", "Keys", "Reviewers", "require_safe_address"]

PROXY_KEYS = "GUARDRAIL_PROXY_KEYS"
UPSTREAM_KEY = "GUARDRAIL_UPSTREAM_KEY"
AUDIT_KEYS = "GUARDRAIL_AUDIT_KEYS"
MIN_KEY_LENGTH = 16
NAMED_KEY = re.compile(rf"(?P<name>[\w.-]{{1,64}})=(?P<key>.{{{MIN_KEY_LENGTH},}})", re.ASCII)
API = "/v1/"
LOCKED_PATHS = frozenset(("/metrics", "/request", "/response"))


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys that clients may show, and the one that the upstream wants; neither is ever printed.

    ``names`` has the name of each key that was given one.
    """

    proxy: tuple[str, ...] = field(default=(), repr=False)
    upstream: str | None = field(default=None, repr=False)
    names: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        _require_long_keys(self.proxy, variable=PROXY_KEYS)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Keys:
        """The keys in GUARDRAIL_PROXY_KEYS, separated by commas, and the one in GUARDRAIL_UPSTREAM_KEY.

        ``name=key`` gives a key a name. A key that happens to look like that is good as a whole, too.
        """
        proxy = environ.get(PROXY_KEYS)
        keys = tuple(key.strip() for key in proxy.split(",") if key.strip()) if proxy is not None else ()
        names: dict[str, str] = {}
        for entry in keys:
            if named := NAMED_KEY.fullmatch(entry):
                names |= dict.fromkeys((named["key"], entry), named["name"])
        if proxy is not None and not keys:
            raise ConfigError(f"{PROXY_KEYS} is set and holds no key; unset it to serve this machine alone")
        return cls(
            (*keys, *(key for key in names if key not in keys)), environ.get(UPSTREAM_KEY) or None, names
        )

    def admit(self, authorization: str | None) -> bool:
        """True for ``Bearer KEY`` with one of the keys."""
        return any(_bearer_matches(authorization, self.proxy))

    def name_of(self, headers: Headers) -> str | None:
        """The name of the key that a client shows; None if it has none."""
        matches = _bearer_matches(_shown(headers), self.names)
        return next((name for name, fits in zip(self.names.values(), matches, strict=True) if fits), None)


@dataclass(frozen=True, slots=True)
class Reviewers:
    """Keys of an audit's reviewers by the name of their owner; decisions carry the name. Never printed."""

    keys: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        _require_long_keys(self.keys.values(), variable=AUDIT_KEYS)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Reviewers:
        """Those in GUARDRAIL_AUDIT_KEYS, written ``name=key`` and separated by commas."""
        keys: dict[str, str] = {}
        for entry in environ.get(AUDIT_KEYS, "").split(","):
            name, equals, key = (part.strip() for part in entry.partition("="))
            if not entry.strip():
                continue
            if not (name and equals) or name in keys:
                raise ConfigError(f"{AUDIT_KEYS} must be name=key, each name once, separated by commas")
            keys[name] = key
        return cls(keys)

    def admit(self, authorization: str | None) -> str | None:
        """The name of the owner of ``Bearer KEY``, None if no reviewer has this key."""
        matches = _bearer_matches(authorization, self.keys.values())
        return next((name for name, matched in zip(self.keys, matches, strict=True) if matched), None)


def _bearer_matches(authorization: str | None, keys: Iterable[str]) -> list[bool]:
    """For each key whether a header shows it as ``Bearer KEY``; takes the same time for every wrong key."""
    scheme, _, shown = (authorization or "").partition(" ")
    matches = [hmac.compare_digest(shown.strip().encode(), key.encode()) for key in keys]
    return matches if scheme.lower() == "bearer" else [False] * len(matches)


def _require_long_keys(keys: Iterable[str], *, variable: str) -> None:
    if any(len(key) < MIN_KEY_LENGTH for key in keys):
        raise ConfigError(f"every key in {variable} must have at least {MIN_KEY_LENGTH} characters")


class AuthMiddleware:
    """Refuses requests without a valid key, or, if there are no keys, what somebody else's web page sends.

    A browser on this machine reaches a server on 127.0.0.1 from any page. Such a request carries an Origin
    that is not ours, or, once the page's name was pointed to this machine, a Host that is not. Pages of
    ``origins`` may ask for what is under ``/v1/``.
    """

    def __init__(self, app: ASGIApp, *, keys: Keys, origins: Collection[str] = ()) -> None:
        self.app = app
        self._keys = keys
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or passes it on."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal.reply() if refusal else self.app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        origin, host = headers.get("origin"), headers.get("host", "")
        listed = origin in self._origins and scope["path"].startswith(API)
        if origin is not None and not listed and origin.partition("://")[2] != host:
            return ApiError("requests from other web pages are not answered", status=403, code="origin")
        if not self._keys.proxy:
            if not _is_loopback(_hostname(host)):
                return ApiError("this server answers to its own address alone", status=403, code="host")
        elif _needs_key(scope["path"]) and not self._keys.admit(_shown(headers)):
            return ApiError(
                "no valid key: send one of the proxy's keys as Authorization: Bearer KEY, or as x-api-key",
                status=401,
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )
        return None


def _shown(headers: Headers) -> str | None:
    """What a client shows as its key, in the words of Authorization."""
    key = headers.get("x-api-key")
    return headers.get("authorization") or (None if key is None else f"Bearer {key}")


def _needs_key(path: str) -> bool:
    """True for all that holds text or metrics; what else is mounted has keys of its own."""
    return path in LOCKED_PATHS or path.startswith((API, "/beta/"))


def _hostname(host: str) -> str:
    """A Host header without its port; empty if it is malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def require_safe_address(host: str, keys: Keys) -> None:
    """Raises ConfigError for an address that others can reach while there are no proxy keys."""
    if not keys.proxy and not _is_loopback(host):
        raise ConfigError(
            f"server host {host} can be reached from other machines: set {PROXY_KEYS} to one or more keys, "
            "separated by commas, or listen on 127.0.0.1"
        )


def _is_loopback(host: str) -> bool:
    """True for names of this machine that never lead elsewhere."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
