"""``--audit URL``: where a command records interventions, over what the configuration says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from guardrail.config import Config
from guardrail.config.settings import Url

__all__ = ["AuditOption", "AuditTextOption", "with_audit"]

AuditOption = Annotated[
    str | None,
    typer.Option(
        "--audit",
        metavar="URL",
        help="Record interventions in this SQLite file or database; default: as configured.",
        show_default=False,
    ),
]
AuditTextOption = Annotated[
    bool, typer.Option("--audit-text", help="Record the texts before and after, too.")
]


def with_audit(config: Config, where: str | None, *, include_text: bool) -> Config:
    """The configuration with the audit that the command line asks for."""
    audit = config.audit
    if where is not None:
        audit = replace(audit, url=Url(where) if "://" in where else Path(where).expanduser())
    return replace(config, audit=replace(audit, include_text=audit.include_text or include_text))
