"""One configuration for command line and server: a TOML file, under environment variables, into a Guard.

    [policy]                    # every field of Policy
    threshold = 0.8
    thresholds = { threat = 0.5 }
    ladder = ["mask", "block"]
    [models]
    rewriter = "adapters/mine"  # a folder; relative ones are taken from this file's folder
    [rewriter]                  # a chat model on a server, in place of [models] rewriter
    url = "http://127.0.0.1:8000/v1"
    model = "my-adapter"        # or, alone, the base whose shipped adapter rewrites:
                                # base = "smollm2-135m-instruct"
    [audit]
    url = "sqlite:///audit.db"
    [server]
    upstream = "https://llm.example/v1"
    [[server.policies]]         # for some requests, every field of Policy over those above
    name = "forum"
    tenant = "forum-*"
    use = "community"
    enforce = false

``GUARDRAIL_POLICY__THRESHOLD=0.8``, or with one underscore ``GUARDRAIL_POLICY_THRESHOLD``, sets the same as
``threshold`` in ``[policy]`` and goes before the file; a list is written ``mask,block``. A name that is
nearly one of these is an error, any other GUARDRAIL_ name a warning. ``GUARDRAIL_CONFIG`` names the file if
no path is given. Secrets (``GUARDRAIL_PROXY_KEYS``, ``GUARDRAIL_UPSTREAM_KEY``, ``GUARDRAIL_AUDIT_KEYS``,
``GUARDRAIL_HMAC_KEY``) are read from the environment by the part that needs them and never from the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from guardrail.config.settings import Url, hints_of, key_error, typed, value_of
from guardrail.config.variables import Variable, variables_of
from guardrail.errors import ConfigError, UsageError
from guardrail.models.files import read_toml
from guardrail.policy import Policy, Use

if TYPE_CHECKING:
    from guardrail.audit.store import AuditStore
    from guardrail.rewriters.remote import RemoteRewriter

__all__ = [
    "SECTIONS",
    "AuditSettings",
    "Config",
    "LogLevel",
    "ModelSettings",
    "PolicyRule",
    "RewriterSettings",
    "ServerSettings",
]

LogLevel = Literal["debug", "info", "warning", "error", "critical"]
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:]+\]|[a-z0-9_.-]+)(:\d{1,5})?", re.ASCII)
HEADER = re.compile(r"[A-Za-z0-9-]+")
MAX_THREADS = 1024
SERVER_RANGES = (
    ("port", 0, 65535),
    ("workers", 1, 1024),
    ("max_body", 1, 1 << 40),
    ("max_answer", 1, 1 << 40),
    ("max_requests", 1, 1 << 20),
    ("body_timeout", 0.001, 86400),
    ("timeout", 0.001, 86400),
    ("max_seconds", 0.001, 86400),
    ("max_model_seconds", 0.001, 86400),
    ("max_wait", 0.001, 86400),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Which models a guard uses.

    Args:
        detector: "shipped", a detector folder with a manifest, or a folder with a transformers classifier.
        rewriter: "shipped", an adapter folder, or None (written "none"): the ladder starts at mask.
        lexicon: "shipped", or a file with ``word<TAB>label<TAB>weight`` per line.
        verifier: "shipped", a verifier folder, or None (written "none"): the checks alone judge rewrites.
        download: Fetch the rewriter's base if it is not on this machine.
        spinning: Whether the threads of an ONNX detector wait for work in a loop: a little faster on a quiet
            machine, more processor time.
        threads: Threads of an ONNX detector's pass, 1..1024; None: as many as physical cores, with several
            workers their share of the cores.
    """

    detector: Literal["shipped"] | Path = "shipped"
    rewriter: Literal["shipped"] | Path | None = "shipped"
    lexicon: Literal["shipped"] | Path = "shipped"
    verifier: Literal["shipped"] | Path | None = "shipped"
    download: bool = False
    spinning: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and not 1 <= self.threads <= MAX_THREADS:
            raise ConfigError(f"models threads must be between 1 and {MAX_THREADS}, got {self.threads}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriterSettings:
    """A chat model behind an OpenAI-compatible API that rewrites, or a base of this package by its name.

    Either ``url`` and ``model`` are set, or ``base`` alone.

    Args:
        url: The API's address, as its clients take it.
        model: The model's name there.
        key_env: The environment variable that holds the key; the key itself is in no file.
        prompt: The file of a ChatPrompt; None: the prompt of this package for chat models.
        parameters: Further fields of a request, sent as they are; None: temperature 0.7, max_tokens 512.
        seed: Send a seed made of the segment.
        max_choices: Choices that the server gives in one request; None: all are asked for at once.
        concurrency: Requests in flight at a time.
        timeout: Seconds for one call of ``rewrite``, with all its requests and their retries.
        retries: Further tries of a request after status 429 or 5xx, or a connection that broke.
        base: The name of a base for which this package has an adapter; it runs on this machine.
    """

    url: Url | None = None
    model: str | None = None
    key_env: str | None = None
    prompt: Path | None = None
    parameters: Mapping[str, Any] | None = None
    seed: bool = True
    max_choices: int | None = None
    concurrency: int = 8
    timeout: float = 60.0
    retries: int = 3
    base: str | None = None

    def __post_init__(self) -> None:
        if self.base is not None and replace(self, base=None) != RewriterSettings():
            raise ConfigError(
                "[rewriter] takes base, or what a server needs (url, model, ...): leave one out"
            )
        if self.key_env is not None:
            from guardrail.models.endpoint import require_variable_name

            require_variable_name(self.key_env, place="rewriter")  # before anyone prints the key itself

    def open(self) -> RemoteRewriter:
        """The rewriter; ConfigError for a value that is missing or wrong, MissingExtraError without httpx."""
        from guardrail.rewriters.remote import RemoteRewriter

        given = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "base"}
        if missing := [name for name in ("url", "model") if given[name] is None]:
            raise ConfigError(f"[rewriter] needs {' and '.join(missing)}")
        return RemoteRewriter(given.pop("url"), **given)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """Where interventions are recorded.

    Args:
        url: A database URL, or the path of an SQLite file; None: nowhere.
        include_text: Record the texts before and after, too; without it only HMACs, scores and lengths.
        on_error: "closed": a text whose record cannot be written is not returned; "open": it is, with a log.
    """

    url: Url | Path | None = None
    include_text: bool = False
    on_error: Literal["closed", "open"] = "closed"

    @property
    def where(self) -> str | Path:
        """The database; ConfigError if none is configured."""
        if self.url is None:
            raise ConfigError("no audit is configured: set url in [audit], or GUARDRAIL_AUDIT__URL")
        return self.url

    def open(self) -> AuditStore:
        """The store; ConfigError if none is configured, AuditError if it cannot be opened."""
        where = self.where
        from guardrail.audit.store import AuditStore

        return AuditStore(where, include_text=self.include_text, on_error=self.on_error)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRule:
    """Whose requests get another policy: ``[[server.policies]]``, of which the first that fits counts.

    A condition that is left out always holds; a request without tenant or model fits no pattern.

    Args:
        name: What audit and metrics call the policy; none twice.
        key: The name of a key in GUARDRAIL_PROXY_KEYS, written ``name=key``.
        tenant: A pattern for the header ``tenant_header``, such as "acme" or "acme-*".
        model: A pattern for the model that a request names, such as "gpt-4*".
        changes: The fields of Policy that differ from ``[policy]``; in a file they are keys of the rule.
    """

    name: str
    key: str | None = None
    tenant: str | None = None
    model: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_table(cls, table: Mapping[str, Any], *, where: str) -> PolicyRule:
        """The rule of a TOML table; ConfigError for a key or value that is wrong."""
        own = [each.name for each in fields(cls) if each.name != "changes"]
        known = (*own, *(each.name for each in fields(Policy)))
        for key in table:
            if key not in known:
                raise key_error(key, known, where=where)
        if "name" not in table:
            raise ConfigError(f"{where}: each needs a name, for audit and metrics")
        given = {key: value for key, value in table.items() if key in own}
        changes = {key: value for key, value in table.items() if key not in own}
        rule = cls(
            **typed(cls, given, where=where, folder=Path()),
            changes=typed(Policy, changes, where=where, folder=Path()),
        )
        rule.policy(Policy())
        return rule

    def policy(self, base: Policy) -> Policy:
        """The policy of this rule; ConfigError, which names the rule, for one that cannot be."""
        try:
            return replace(base, **self.changes, name=self.name)
        except ConfigError as error:
            raise ConfigError(f"server policies {self.name!r}: {error}") from None

    def as_table(self) -> dict[str, Any]:
        """The rule as it stands in a file."""
        own = {name: getattr(self, name) for name in ("name", "key", "tenant", "model")}
        return {name: value for name, value in own.items() if value is not None} | dict(self.changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How the server listens and what it lets through; its keys come from the environment alone.

    Args:
        upstream: The OpenAI-compatible API behind the proxy, with or without ``/v1``.
        host: The address to listen on; one that other machines can reach needs proxy keys.
        port: The port to listen on, 0..65535; 0 takes a free one.
        workers: Processes that serve, on one socket, 1..1024; one for each processor core is enough.
        max_body: Bytes of a request's body.
        max_answer: Bytes that are read of an answer of the upstream.
        max_requests: Requests in flight, of all workers together; more get status 429.
        max_wait: Seconds that a text may have waited for the detector before further requests get status 429.
        body_timeout: Seconds in which a request's body must have arrived.
        timeout: Seconds that the upstream may be silent.
        max_seconds: Seconds for a whole request.
        max_model_seconds: Seconds that models may work for one request; an answer that takes more is an
            error.
        allowed_fields: Fields of messages that pass although the proxy does not know them: numbers as they
            are, strings and lists of parts moderated like ``content``.
        cors: Origins whose web pages may ask for ``/v1/...``, such as "https://app.example.org".
        report: Add a field "guardrail" to proxied answers that says what was changed, without text.
        policies: Whose requests get another policy than ``[policy]``; see PolicyRule.
        tenant_header: The header in which a gateway says for whom a request is.
        access_log: Log a line for each request, without text.
        log_level: Lowest level that is logged: "debug", "info", "warning", "error" or "critical", and above.
        log_json: Log one JSON object per line.
        otel: Send spans and metrics by OTLP, as the OTEL_ variables say; needs the extra "otel".
    """

    upstream: Url | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    max_body: int = 4 << 20
    max_answer: int = 16 << 20
    max_requests: int = 512
    max_wait: float = 2.0
    body_timeout: float = 30.0
    timeout: float = 120.0
    max_seconds: float = 900.0
    max_model_seconds: float = 600.0
    allowed_fields: tuple[str, ...] = ()
    cors: tuple[str, ...] = ()
    report: bool = False
    policies: tuple[PolicyRule, ...] = ()
    tenant_header: str = "x-guardrail-tenant"
    access_log: bool = True
    log_level: LogLevel = "info"
    log_json: bool = False
    otel: bool = False

    def __post_init__(self) -> None:
        for origin in self.cors:
            if not ORIGIN.fullmatch(origin):
                raise ConfigError(
                    f"server cors must list origins such as https://app.example.org, got {origin!r}: scheme, "
                    "host and port in lower case, no path, no *"
                )
        names = [rule.name for rule in self.policies]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"server policies: {', '.join(twice)} appears twice")
        if not HEADER.fullmatch(self.tenant_header):
            raise ConfigError(f"server tenant_header must be a header's name, got {self.tenant_header!r}")
        for name, low, high in SERVER_RANGES:
            if not low <= getattr(self, name) <= high:
                raise ConfigError(
                    f"server {name} must be between {low} and {high}, got {getattr(self, name)}"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of everything, by section.

    Args:
        policy: ``[policy]``, a Policy.
        models: ``[models]``: which models a guard uses.
        rewriter: ``[rewriter]``: a chat model on a server, or a base of this package.
        audit: ``[audit]``: where interventions are recorded.
        server: ``[server]``: how the server listens and what it lets through.
        origins: For each setting that was made ("policy.mask") the file or variable that made it.
    """

    policy: Policy = field(default_factory=Policy)
    models: ModelSettings = field(default_factory=ModelSettings)
    rewriter: RewriterSettings = field(default_factory=RewriterSettings)
    audit: AuditSettings = field(default_factory=AuditSettings)
    server: ServerSettings = field(default_factory=ServerSettings)
    origins: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        use: Use = "assistant",
    ) -> Config:
        """The configuration of a file under the environment's variables.

        Args:
            path: The file; None: the one that ``GUARDRAIL_CONFIG`` names, or none at all. No file is looked
                for in the current folder.
            environ: Environment variables; None: those of this process.
            use: What ``policy.use`` is if neither file nor variable sets it.

        Raises:
            ConfigError: For an unknown section or key, with the nearest known one, and for a value that does
                not fit.
        """
        environ = os.environ if environ is None else environ
        chosen = path or environ.get("GUARDRAIL_CONFIG")
        file = Path(chosen).expanduser() if chosen else None
        loaded: dict[str, Any] = {}
        origins: dict[str, str] = {}
        written = _checked_file(read_toml(file), where=str(file)) if file else {}
        variables = variables_of(environ, SECTIONS, key_env=written.get("rewriter", {}).get("key_env"))
        for section, kind in SECTIONS.items():
            from_file, from_variables = written.get(section, {}), variables.get(section, {})
            origins |= {f"{section}.{key}": str(file) for key in from_file}
            origins |= {f"{section}.{key}": variable.name for key, variable in from_variables.items()}
            loaded[section] = _section(kind, section, from_file, from_variables, file)
        if "policy.use" not in origins:
            loaded["policy"] = replace(loaded["policy"], use=use)
        return cls(**loaded, origins=origins)

    def arguments(self, **overrides: Any) -> dict[str, Any]:
        """The arguments of Guard. Configured models and the audit are opened now.

        Args:
            overrides: Arguments of Guard that take precedence over the configuration.

        Raises:
            ModelMissingError: If a configured model is not on this machine.
            ManifestError: If a model's files are not what its manifest says.
            AuditError: If the audit cannot be opened.
        """
        chosen = self._models()
        if "audit" not in overrides and self.audit.url is not None:
            chosen["audit"] = self.audit.open()
        return chosen | overrides

    def _models(self) -> dict[str, Any]:
        """Arguments of Guard for policy and models that differ from its defaults."""
        models, chosen = self.models, dict[str, Any](policy=self.policy)
        if isinstance(models.detector, Path):
            from guardrail.detectors.opening import open_detector

            chosen["detector"] = open_detector(
                models.detector, threads=models.threads, spinning=models.spinning
            )
        elif models.spinning or models.threads is not None:
            from guardrail.detectors.onnx import OnnxDetector

            chosen["detector"] = OnnxDetector.shipped(threads=models.threads, spinning=models.spinning)
        if isinstance(models.lexicon, Path):
            from guardrail.detectors.lexicon import Lexicon

            chosen["lexicon"] = Lexicon.load(models.lexicon)
        if isinstance(models.rewriter, Path):
            from guardrail.rewriters.opening import open_rewriter

            chosen["rewriter"] = open_rewriter(models.rewriter)
        elif models.rewriter is None:
            chosen["rewriter"] = None
        if self.rewriter != RewriterSettings():
            if "models.rewriter" in self.origins:
                raise ConfigError("both [models] rewriter and [rewriter] say who rewrites: leave one out")
            chosen["rewriter"] = self.rewriter.open() if self.rewriter.base is None else self._base()
        chosen |= self._verifier()
        if models.download:
            chosen["download"] = True
        return chosen

    def _base(self) -> str:
        from guardrail import models

        try:
            return models.base_of(str(self.rewriter.base))
        except UsageError as error:
            raise ConfigError(f"[rewriter] base: {error}") from error

    def _verifier(self) -> dict[str, Any]:
        if isinstance(self.models.verifier, Path):
            from guardrail.rewriters.verifier import OnnxVerifier

            return {"verifier": OnnxVerifier(self.models.verifier)}
        return {"verifier": None} if self.models.verifier is None else {}


SECTIONS: dict[str, type] = {
    "policy": Policy,
    "models": ModelSettings,
    "rewriter": RewriterSettings,
    "audit": AuditSettings,
    "server": ServerSettings,
}
"""The name of each section and its dataclass, in the order in which they are shown."""


def _checked_file(content: Mapping[str, Any], *, where: str) -> Mapping[str, Mapping[str, Any]]:
    for section, values in content.items():
        if section not in SECTIONS:
            raise key_error(section, SECTIONS, where=where)
        if not isinstance(values, dict):
            raise ConfigError(f"{where}: {section} must be a section, written [{section}] on its own line")
    return content


def _section(
    kind: type,
    section: str,
    written: Mapping[str, Any],
    variables: Mapping[str, Variable],
    file: Path | None,
) -> Any:
    """One section's settings; the file's types are checked even if a variable takes a value's place."""
    values = typed(
        kind, written, where=f"{file} [{section}]", folder=file.absolute().parent if file else Path()
    )
    hints = hints_of(kind)
    for key, (name, value) in variables.items():
        where = f"environment variable {name}"
        values |= typed(kind, {key: value_of(value, hints.get(key))}, where=where, folder=Path())
    return kind(**values)
