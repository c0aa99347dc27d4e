"""``guardrail audit``: records and reviewed pairs into files, thresholds, and removal of old records."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guardrail.config import Config
from guardrail.errors import UsageError
from guardrail.integrations.audit.option import AuditOption, with_audit
from guardrail.integrations.config_command import ConfigOption

if TYPE_CHECKING:
    from guardrail.audit.database import Database

__all__ = ["audit_app"]

audit_app = typer.Typer(no_args_is_help=True, help="What was recorded of interventions.")


class ExportKind(str, Enum):
    jsonl = "jsonl"
    parquet = "parquet"


@audit_app.command()
def export(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="JSON Lines, Parquet if its name ends in .parquet; must not exist yet."
        ),
    ],
    *,
    records: Annotated[
        bool, typer.Option("--records", help="Every record instead, with the last decision on it.")
    ] = False,
    kind: Annotated[
        ExportKind | None,
        typer.Option("--format", help="The format of OUT; default: by its suffix.", show_default=False),
    ] = None,
    audit: AuditOption = None,
    config: ConfigOption = None,
) -> None:
    """Writes accepted and corrected interventions as pairs that 'guardrail-train sft' reads.

    Each line or row holds a toxic segment and its neutral versions: {"toxic": ..., "neutral": [...]}.
    """
    settings = with_audit(Config.load(config), audit, include_text=False).audit
    database = _existing(settings.where)
    from guardrail.integrations.audit.export import export_kind, export_pairs, export_records
    from guardrail.integrations.audit.review import corrections

    chosen = export_kind(target, None if kind is None else kind.value)
    if records:
        typer.echo(f"{export_records(database, target, kind=chosen)} records", err=True)
        return
    typer.echo(f"{export_pairs(database, target, kind=chosen)} pairs", err=True)
    found = corrections(database)
    if found.confirmed:
        typer.echo(f"corrections confirmed although checks refuse them: {found.confirmed}", err=True)
    if found.unchecked:
        typer.echo(
            f"corrections left out as nothing checked them: {found.unchecked}; save them at /audit again",
            err=True,
        )


@audit_app.command()
def suggest(
    *,
    precision: Annotated[
        float | None,
        typer.Option(help="The share of flagged texts that must be rightly flagged; 0.9 if omitted."),
    ] = None,
    false_alarms: Annotated[
        float | None, typer.Option(help="Or the share of flagged texts that may be false alarms.")
    ] = None,
    min_reviews: Annotated[
        int, typer.Option(min=1, help="Suggest no threshold from fewer reviewed interventions.")
    ] = 30,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    audit: AuditOption = None,
    config: ConfigOption = None,
) -> None:
    """Suggests thresholds from what people accepted, corrected and rejected.

    Accepted and corrected interventions were rightly flagged, rejected ones are false alarms. An audit holds
    what was flagged: misses are counted among that, and no threshold below the lowest reviewed score is
    suggested.
    """
    settings = with_audit(Config.load(config), audit, include_text=False).audit
    database = _existing(settings.where)
    from guardrail.integrations.audit.suggest import described, suggested, wanted_precision

    wanted = wanted_precision(precision, false_alarms=false_alarms)
    found = suggested(database, precision=wanted, min_reviews=min_reviews)
    typer.echo(json.dumps(found.to_dict()) if as_json else described(found))


@audit_app.command(name="prune")
def prune_audit(
    *,
    older_than: Annotated[str, typer.Option("--older-than", metavar="DAYSd", help="Such as 90d.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    audit: AuditOption = None,
    config: ConfigOption = None,
) -> None:
    """Removes interventions that are older than so many days, with the decisions on them.

    Export accepted and corrected ones before, if they are to train an adapter.
    """
    age = re.fullmatch(r"([0-9]{1,5})d", older_than)
    if age is None:
        raise UsageError(f"--older-than is a number of days such as 90d, not {older_than!r}")
    settings = with_audit(Config.load(config), audit, include_text=False).audit
    database = _existing(settings.where)
    from guardrail.integrations.audit.retention import count_before, prune

    moment = datetime.now(timezone.utc) - timedelta(days=int(age[1]))
    if dry_run:
        typer.echo(f"{count_before(database, moment)} interventions would be removed", err=True)
    else:
        typer.echo(f"{prune(database, moment)} interventions removed", err=True)


def _existing(where: str | Path) -> Database:
    """The audit that is there; UsageError for none: opened for writing it would be made."""
    from guardrail.audit.database import Database, file_of

    path = file_of(where)
    database = Database(where) if path is None or path.is_file() else None
    if database is None or not database.holds_audit():
        raise UsageError(
            f"there is no audit in {path or 'that database'}: name the one that 'guardrail serve --audit' or "
            "'guardrail filter --audit' wrote, with --audit or as url in [audit]"
        )
    return database
