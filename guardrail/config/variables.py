"""Which environment variables hold settings; one that is misspelt is named and never silently left out."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import NamedTuple

from guardrail.config.settings import key_error
from guardrail.errors import ConfigError, GuardrailWarning

__all__ = ["OTHER_VARIABLES", "Variable", "variables_of"]

PREFIX = "GUARDRAIL_"
SETTING = re.compile(r"GUARDRAIL_(?P<section>[A-Z]+)__(?P<key>\w+)")
OTHER_VARIABLES = tuple(
    PREFIX + name
    for name in ("AUDIT_KEYS", "CACHE", "CONFIG", "DATA", "DEBUG", "HMAC_KEY", "PROXY_KEYS", "UPSTREAM_KEY")
)
"""Names that other parts of this project read from the environment."""
# Orchestrators set GUARDRAIL_PORT, GUARDRAIL_SERVER_SERVICE_HOST and the like for services of such names.
ORCHESTRATED = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_[A-Z]+)?)")
ORCHESTRATED_PORT = re.compile(r"(tcp|udp|sctp)://")
ALIKE = 0.8
"""From this similarity, 0..1, an unknown name is taken for a misspelt one."""


class Variable(NamedTuple):
    """An environment variable that holds a setting."""

    name: str
    value: str


def variables_of(
    environ: Mapping[str, str], sections: Mapping[str, type], *, key_env: str | None
) -> dict[str, dict[str, Variable]]:
    """The variables that hold settings, by section and key: GUARDRAIL_SECTION__KEY or GUARDRAIL_SECTION_KEY.

    Raises ConfigError for an unknown section, for a setting that two variables set, and for a name that is
    nearly a known one; warns of any other GUARDRAIL_ name but ``key_env``, which holds the rewriter's key.
    """
    settings = {
        f"{PREFIX}{section}_{each.name}".upper(): (section, each.name)
        for section, kind in sections.items()
        for each in fields(kind)
    }
    found: dict[str, dict[str, Variable]] = {}
    unknown = []
    for name, value in sorted(environ.items()):
        if not name.startswith(PREFIX) or name in OTHER_VARIABLES:
            continue
        if match := SETTING.fullmatch(name):
            section, key = match["section"].lower(), match["key"].lower()
            if section not in sections:
                raise key_error(section, sections, where=f"environment variable {name}")
        elif name in settings and not _is_orchestrated(name, value):
            section, key = settings[name]
        else:
            unknown += [] if _is_orchestrated(name, value) else [name]
            continue
        other = found.setdefault(section, {}).setdefault(key, Variable(name, value))
        if other.name != name:
            raise ConfigError(f"environment variables {other.name} and {name} set the same: leave one out")
    if variable := found.get("rewriter", {}).get("key_env"):
        key_env = variable.value
    for name in unknown:
        if name != key_env:
            _tell_of_unknown(name, settings)
    return found


def _is_orchestrated(name: str, value: str) -> bool:
    is_port = name.endswith("_PORT") and ORCHESTRATED_PORT.match(value)
    return bool(is_port or ORCHESTRATED.fullmatch(name))


def _nearest(bare: str, known: Iterable[str]) -> str | None:
    """The known name that is nearly this one; where sections agree, the rest must be alike."""
    section, _, key = bare.partition("_")
    in_section = {each.removeprefix(f"{section}_"): each for each in known if each.startswith(f"{section}_")}
    names = in_section or {each: each for each in known}
    near = difflib.get_close_matches(key.strip("_") if in_section else bare, names, n=1, cutoff=ALIKE)
    return names[near[0]] if near else None


def _tell_of_unknown(name: str, settings: Mapping[str, tuple[str, str]]) -> None:
    """ConfigError for a name that is nearly a known one, else a warning."""
    known = {
        plain.removeprefix(PREFIX): f"{PREFIX}{section}__{key}".upper()
        for plain, (section, key) in settings.items()
    }
    known |= {other.removeprefix(PREFIX): other for other in OTHER_VARIABLES}
    bare = name.upper().removeprefix(PREFIX)
    if near := _nearest(bare, known):
        raise ConfigError(f"unknown environment variable {name}; did you mean {known[near]}?")
    of_key = [full for full in known.values() if full.endswith(f"__{bare}")]
    advice = (
        f"did you mean {' or '.join(of_key)}?"
        if of_key
        else "settings are written GUARDRAIL_SECTION__KEY, and 'guardrail config show' lists them"
    )
    warnings.warn(
        f"environment variable {name} is not known and changes nothing; {advice}",
        GuardrailWarning,
        stacklevel=4,
    )
