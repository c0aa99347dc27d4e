"""Which policy a request gets: that of the first rule which fits its key, tenant and model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from starlette.datastructures import Headers

from guardrail.config import PolicyRule
from guardrail.errors import ConfigError
from guardrail.guard import Guard
from guardrail.integrations.completions.moderator import Moderator
from guardrail.integrations.web.auth import PROXY_KEYS, Keys
from guardrail.outcome import Outcome
from guardrail.policy import Policy

__all__ = ["Moderators"]


class Moderators:
    """The moderators of a server: one for each rule, and ``default`` for requests that no rule fits.

    They share the models of one guard. Raises ConfigError for a rule that asks for a key that has no name, or
    whose policy cannot be.
    """

    def __init__(
        self,
        guard: Guard,
        rules: Sequence[PolicyRule],
        *,
        keys: Keys,
        tenant_header: str,
        on_outcome: Callable[[Outcome, Policy], object] | None = None,
    ) -> None:
        self._keys = keys
        self._tenant_header = tenant_header
        self._rules = []
        for rule in rules:
            judged = guard.with_policy(_checked(rule, keys).policy(guard.policy))
            self._rules.append((rule, Moderator(judged, on_outcome=on_outcome)))
        self.default = Moderator(guard, on_outcome=on_outcome)

    @property
    def guards(self) -> tuple[Guard, ...]:
        """Every guard that is asked, each with queues of its own."""
        moderators = (self.default, *(moderator for _, moderator in self._rules))
        return tuple(guard for moderator in moderators for guard in moderator.guards)

    def choose(self, headers: Headers, model: object) -> Moderator:
        """The moderator of a request with these headers for this model."""
        key, tenant = self._keys.name_of(headers), headers.get(self._tenant_header)
        for rule, moderator in self._rules:
            is_key = rule.key is None or rule.key == key
            if is_key and _fits(rule.tenant, tenant) and _fits(rule.model, model):
                return moderator
        return self.default


def _checked(rule: PolicyRule, keys: Keys) -> PolicyRule:
    if rule.key is not None and rule.key not in keys.names.values():
        named = ", ".join(sorted(set(keys.names.values()))) or "none"
        raise ConfigError(
            f"server policies {rule.name!r}: no key is named {rule.key!r}; write {rule.key}=KEY in "
            f"{PROXY_KEYS} (named there: {named})"
        )
    return rule


def _fits(pattern: str | None, value: object) -> bool:
    return pattern is None or (isinstance(value, str) and fnmatchcase(value, pattern))
