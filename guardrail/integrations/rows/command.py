"""``guardrail filter``: a file in, the same file with moderated texts out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guardrail.config import Config
from guardrail.guard import Guard
from guardrail.integrations.audit.option import AuditOption, AuditTextOption, with_audit
from guardrail.integrations.config_command import ConfigOption

if TYPE_CHECKING:
    from guardrail.integrations.rows.job import Job, Report, Summary

__all__ = ["filter_file"]


class FileKind(str, Enum):
    """Formats of bulk files."""

    jsonl = "jsonl"
    csv = "csv"
    parquet = "parquet"
    arrow = "arrow"


def filter_file(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="JSON Lines, CSV, Parquet or Arrow, or - for standard input.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The same format, or - for standard output.")],
    *,
    field: Annotated[
        str, typer.Option(help="The field or column of the text, or a path: comments.0.body.")
    ] = "text",
    into: Annotated[
        str | None,
        typer.Option(
            help="A field that receives action, scores and what was degraded (in CSV three columns).",
            show_default=False,
        ),
    ] = None,
    kind: Annotated[
        FileKind | None,
        typer.Option("--format", help="The kind of file; default: by the suffix of IN.", show_default=False),
    ] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="Of a CSV file; default: found out.", show_default=False)
    ] = None,
    bad: Annotated[
        Path | None,
        typer.Option(help="Receives rows that cannot be judged; default: OUT.bad.jsonl.", show_default=False),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew in an OUT that exists.")] = False,
    audit: AuditOption = None,
    audit_text: AuditTextOption = False,
    config: ConfigOption = None,
) -> None:
    """Moderates one text per row; what passes and every other field stay byte for byte as they were.

    Names that end in .gz or .zst are compressed files. Parquet and Arrow keep types, values and metadata.
    Rows are people's comments: toxicity is flagged, mere rudeness is not, unless the configuration says
    use = "assistant".
    An interrupted run goes on where it stopped when it is called again. A row that cannot be judged goes to a
    file of its own with the reason, not to OUT, and the command ends with status 1.
    """
    from guardrail.integrations.rows.job import Job

    job = Job(
        source=source,
        target=target,
        bad=bad,
        field=field,
        into=into,
        kind=kind.value if kind else None,
        delimiter="\t" if delimiter == "\\t" else delimiter,
        overwrite=overwrite,
    )
    settings = Config.load(config, use="community")
    guard = Guard.from_config(with_audit(settings, audit, include_text=audit_text))
    try:
        with _progress(job) as report:
            summary = job.run(guard, report=report)
    except KeyboardInterrupt:
        again = "; the same command goes on from here" if job.is_resumable else ""
        typer.echo(f"interrupted{again}", err=True)
        raise typer.Exit(130) from None
    _print_summary(job, summary)
    if summary.counts.bad:
        raise typer.Exit(1)


@contextmanager
def _progress(job: Job) -> Iterator[Report]:
    """A bar on standard error with rows per second and the time left, where somebody can see it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from guardrail.integrations.rows.journal import Counts
    from guardrail.integrations.rows.record import Position

    console = Console(stderr=True)
    columns = (
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]:,} rows, {task.fields[rate]:.0f}/s, left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("filtering", total=job.length(), rows=0, rate=0.0)
        first: int | None = None

        def report(position: Position, counts: Counts) -> None:
            nonlocal first
            rows = counts.judged + counts.bad
            first = rows if first is None else first
            elapsed = bar.tasks[task].elapsed or 1.0
            bar.update(task, completed=position.offset, rows=rows, rate=(rows - first) / elapsed)

        yield report


def _print_summary(job: Job, summary: Summary) -> None:
    counts = summary.counts
    done = counts.judged + counts.bad - summary.resumed
    actions = ", ".join(f"{number} {action}" for action, number in counts.actions.items())
    lines = [f"{counts.judged} rows judged: {actions}"]
    if counts.degraded:
        lines.append(f"{counts.degraded} of them without a full pass (degraded)")
    if counts.bad:
        lines.append(f"{counts.bad} rows could not be judged: see {job.bad_rows}")
    if summary.resumed:
        lines.append(f"{summary.resumed} rows were done by an earlier run")
    lines.append(f"{summary.seconds:.1f} s, {done / max(summary.seconds, 1e-9):.0f} rows per second")
    typer.echo("\n".join(lines), err=True)
