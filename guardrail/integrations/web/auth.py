"""Who may use a server: keys of clients and reviewers, and without keys this machine's programs alone."""

from __future__ import annotations

import hmac
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from guardrail.errors import ConfigError
from guardrail.integrations.web.errors import ApiError

__all__ = [
    "Doorkeeper",
    "Keys",
    "Reviewers",
    "require_safe_address",
]

PROXY_KEYS = "GUARDRAIL_PROXY_KEYS"

UPSTREAM_KEY = "GUARDRAIL_UPSTREAM_KEY"


VARIABLE = "GUARDRAIL_AUDIT_KEYS"

LEAST_KEY = 16


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys that clients may show, and the one that the upstream wants; neither is ever printed."""

    proxy: tuple[str, ...] = field(default=(), repr=False)
    upstream: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if any(len(key) < LEAST_KEY for key in self.proxy):
            raise ConfigError(f"every key in {PROXY_KEYS} must have at least {LEAST_KEY} characters")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Keys:
        """The keys in GUARDRAIL_PROXY_KEYS, separated by commas, and the one in GUARDRAIL_UPSTREAM_KEY."""
        proxy = environ.get(PROXY_KEYS)
        keys = tuple(key.strip() for key in proxy.split(",") if key.strip()) if proxy is not None else ()
        if proxy is not None and not keys:
            raise ConfigError(f"{PROXY_KEYS} is set and holds no key; unset it to serve this machine alone")
        return cls(keys, environ.get(UPSTREAM_KEY) or None)

    def admit(self, authorization: str | None) -> bool:
        """True for ``Bearer KEY`` with one of the keys; takes the same time for every wrong one."""
        scheme, _, shown = (authorization or "").partition(" ")
        matches = [hmac.compare_digest(shown.strip().encode(), key.encode()) for key in self.proxy]
        return scheme.lower() == "bearer" and any(matches)


class Doorkeeper:
    """Turns away who shows no key, or, without keys, what somebody else's web page sends.

    A browser on this machine reaches a server on 127.0.0.1 from any page. Such a request carries an Origin
    that is not ours, or, once the page's name was pointed to this machine, a Host that is not.
    """

    def __init__(self, app: ASGIApp, *, keys: Keys) -> None:
        self.app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or passes it on."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal.reply() if refusal else self.app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        origin, host = headers.get("origin"), headers.get("host", "")
        if origin is not None and origin.partition("://")[2] != host:
            return ApiError("requests from other web pages are not answered", status=403, code="origin")
        if not self._keys.proxy:
            if not is_loopback(_hostname(host)):
                return ApiError("this server answers to its own address alone", status=403, code="host")
        elif _wants_key(scope["path"]) and not self._keys.admit(headers.get("authorization")):
            return ApiError(
                "no valid key: send one of the proxy's keys as Authorization: Bearer KEY",
                status=401,
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )
        return None


def _hostname(host: str) -> str:
    """A Host header without its port; empty where it is malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _wants_key(path: str) -> bool:
    """True for all that holds text or figures; what else is mounted has keys of its own."""
    return path == "/metrics" or path.startswith("/v1/")


def require_safe_address(host: str, keys: Keys) -> None:
    """Raises ConfigError for an address that others can reach while there are no proxy keys."""
    if not keys.proxy and not is_loopback(host):
        raise ConfigError(
            f"server host {host} can be reached from other machines: set {PROXY_KEYS} to one or more keys, "
            "separated by commas, or listen on 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """True for names of this machine that never lead elsewhere."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, slots=True)
class Reviewers:
    """Keys by the name of their owner; decisions carry the name. Never printed."""

    keys: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if any(len(key) < LEAST_KEY for key in self.keys.values()):
            raise ConfigError(f"every key in {VARIABLE} must have at least {LEAST_KEY} characters")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Reviewers:
        """Those in GUARDRAIL_AUDIT_KEYS, written ``name=key`` and separated by commas."""
        keys: dict[str, str] = {}
        for entry in environ.get(VARIABLE, "").split(","):
            name, equals, key = (part.strip() for part in entry.partition("="))
            if not entry.strip():
                continue
            if not (name and equals) or name in keys:
                raise ConfigError(f"{VARIABLE} must be name=key, each name once, separated by commas")
            keys[name] = key
        return cls(keys)

    def admit(self, authorization: str | None) -> str | None:
        """The name of whoever shows ``Bearer KEY``, else None; takes the same time for every wrong key."""
        scheme, _, shown = (authorization or "").partition(" ")
        found = [
            name
            for name, key in self.keys.items()
            if hmac.compare_digest(shown.strip().encode(), key.encode())
        ]
        return found[0] if scheme.lower() == "bearer" and found else None
