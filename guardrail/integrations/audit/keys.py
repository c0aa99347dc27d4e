"""Who may read an audit: reviewers, each with a name and a key from the environment."""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from guardrail.errors import ConfigError

__all__ = ["Reviewers"]

VARIABLE = "GUARDRAIL_AUDIT_KEYS"
LEAST_KEY = 16


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
