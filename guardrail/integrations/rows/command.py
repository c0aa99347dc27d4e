"""``guardrail filter`` and ``guardrail detect``: a file in, the same file moderated or with verdicts out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypedDict

import typer

from guardrail.config import Config
from guardrail.errors import UsageError
from guardrail.integrations.audit.option import AuditOption, AuditTextOption, with_audit
from guardrail.integrations.config_command import ConfigOption, MonitorOption, with_monitor

if TYPE_CHECKING:
    from guardrail.integrations.ray.job import RayJob
    from guardrail.integrations.rows.job import Job, Report, Summary

__all__ = ["detect_file", "filter_file"]


class Engine(str, Enum):
    """What judges rows: this process, or a Ray cluster."""

    local = "local"
    ray = "ray"


class FileKind(str, Enum):
    jsonl = "jsonl"
    csv = "csv"
    parquet = "parquet"
    arrow = "arrow"


Source = Annotated[
    Path, typer.Argument(metavar="IN", help="JSON Lines, CSV, Parquet or Arrow, or - for standard input.")
]
Place = Annotated[
    str,
    typer.Argument(
        metavar="IN",
        help="JSON Lines, CSV, Parquet or Arrow, or - for standard input; with --engine ray a folder or URL.",
    ),
]
Target = Annotated[Path, typer.Argument(metavar="OUT", help="The same format, or - for standard output.")]
Field = Annotated[str, typer.Option(help="The field or column of the text, or a path: comments.0.body.")]
Format = Annotated[
    FileKind | None,
    typer.Option("--format", help="The format of IN; default: by its suffix.", show_default=False),
]
Delimiter = Annotated[
    str | None, typer.Option(help=r"CSV delimiter \[default: detected]", show_default=False)
]
Bad = Annotated[
    Path | None,
    typer.Option(help="Receives rows that cannot be judged; default: OUT.bad.jsonl.", show_default=False),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Start over, replacing an existing OUT.")]


def filter_file(
    source: Place,
    target: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            help="The same format, or - for standard output; with --engine ray a folder of parts.",
        ),
    ],
    *,
    field: Field = "text",
    into: Annotated[
        str | None,
        typer.Option(
            help="A field that receives action, scores and what was degraded (in CSV three columns).",
            show_default=False,
        ),
    ] = None,
    kind: Format = None,
    delimiter: Delimiter = None,
    bad: Annotated[
        str | None,
        typer.Option(
            help="Receives rows that cannot be judged; default: OUT.bad.jsonl, with --engine ray OUT.bad/.",
            show_default=False,
        ),
    ] = None,
    overwrite: Overwrite = False,
    engine: Annotated[
        Engine, typer.Option(help="Judge in this process, or on a Ray cluster (RAY_ADDRESS, or one here).")
    ] = Engine.local,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes with --engine ray; default: 1.", show_default=False),
    ] = None,
    audit: AuditOption = None,
    audit_text: AuditTextOption = False,
    monitor: MonitorOption = False,
    config: ConfigOption = None,
) -> None:
    """Moderates one text per row; what passes and every other field stay byte for byte as they were.

    Names that end in .gz or .zst are compressed files. Parquet and Arrow keep types, values and metadata.
    Rows are people's comments: toxicity is flagged, mere rudeness is not, unless the configuration says
    use = "assistant".
    With --monitor every text stays, and --into says what would be done.
    An interrupted run resumes where it stopped when it is called again. A row that cannot be judged goes to a
    file of its own with the reason, not to OUT, and the command ends with status 1.
    """
    options: _Options = {
        "field": field,
        "into": into,
        "kind": kind.value if kind else None,
        "delimiter": _unescaped(delimiter),
    }
    job: Job | RayJob
    if engine is Engine.ray:
        job = _ray_job(source, target, bad, overwrite=overwrite, workers=workers, options=options)
    else:
        job = _local_job(source, target, bad, overwrite=overwrite, workers=workers, options=options)
    settings = with_monitor(Config.load(config, use="community"), monitor=monitor)
    _run(job, with_audit(settings, audit, include_text=audit_text))


def detect_file(
    source: Source,
    target: Target,
    *,
    field: Field = "text",
    into: Annotated[
        str,
        typer.Option(help="The field that receives the verdict (in CSV four columns, VERDICT_scores first)."),
    ] = "verdict",
    batch: Annotated[int, typer.Option(min=1, help="Rows per call of the detector.")] = 256,
    kind: Format = None,
    delimiter: Delimiter = None,
    bad: Bad = None,
    overwrite: Overwrite = False,
    config: ConfigOption = None,
) -> None:
    """Adds a verdict to every row and changes no text; all else is as in guardrail filter.

    Rows are people's comments: toxicity is flagged, mere rudeness is not, unless the configuration says
    use = "assistant".
    An interrupted run resumes where it stopped when it is called again. A row that cannot be judged goes to a
    file of its own with the reason, not to OUT, and the command ends with status 1.
    """
    from guardrail.integrations.rows.job import Job

    job = Job(
        source=source,
        target=target,
        bad=bad,
        field=field,
        into=into,
        scores_only=True,
        kind=kind.value if kind else None,
        delimiter=_unescaped(delimiter),
        overwrite=overwrite,
        batch=batch,
    )
    _run(job, Config.load(config, use="community"))


class _Options(TypedDict):
    """What a job is told of its rows, whatever judges them."""

    field: str
    into: str | None
    kind: Literal["jsonl", "csv", "parquet", "arrow"] | None
    delimiter: str | None


def _local_job(
    source: str, target: str, bad: str | None, *, overwrite: bool, workers: int | None, options: _Options
) -> Job:
    from guardrail.integrations.rows.job import Job

    if workers is not None:
        raise UsageError("--workers is for --engine ray: one process judges one file")
    for where in (source, target):
        if "://" in where or Path(where).is_dir():
            raise UsageError(
                f"{where} is not a file: folders and URLs are read and written with --engine ray"
            )
    return Job(
        source=Path(source),
        target=Path(target),
        bad=Path(bad) if bad else None,
        overwrite=overwrite,
        **options,
    )


def _ray_job(
    source: str, target: str, bad: str | None, *, overwrite: bool, workers: int | None, options: _Options
) -> RayJob:
    from guardrail.integrations.ray import RayJob

    if "-" in (source, target):
        raise UsageError("with --engine ray, IN and OUT are files, folders or URLs, not -")
    if overwrite:
        raise UsageError(
            "--engine ray removes no folder: remove OUT yourself, and OUT.journal if it is there"
        )
    return RayJob(source=source, target=target, bad=bad, workers=workers or 1, **options)


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _unescaped(delimiter: str | None) -> str | None:
    return "\t" if delimiter == "\\t" else delimiter


def _run(job: Job | RayJob, config: Config) -> None:
    """Runs the job with a progress bar and a summary; status 1 if there were bad rows."""
    from guardrail.guard import Guard

    guard = Guard.from_config(config)
    try:
        with _progress(job) as report:
            summary = job.run(guard, report=report)
    except KeyboardInterrupt:
        again = "; the same command resumes here" if job.is_resumable else ""
        typer.echo(f"interrupted{again}", err=True)
        raise typer.Exit(130) from None
    _print_summary(job, summary)
    if summary.counts.bad:
        raise typer.Exit(1)


@contextmanager
def _progress(job: Job | RayJob) -> Iterator[Report]:
    """A bar on standard error with rows per second and the time left, if somebody can see it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from guardrail.integrations.rows.output import Counts
    from guardrail.integrations.rows.record import Position

    console = Console(stderr=True)
    columns = (
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]:,} rows, {task.fields[rate]:.0f}/s, left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("judging", total=job.length(), rows=0, rate=0.0)
        first: int | None = None

        def report(position: Position, counts: Counts) -> None:
            nonlocal first
            rows = counts.judged + counts.bad
            first = rows if first is None else first
            elapsed = bar.tasks[task].elapsed or 1.0
            bar.update(task, completed=position.offset, rows=rows, rate=(rows - first) / elapsed)

        yield report


def _print_summary(job: Job | RayJob, summary: Summary) -> None:
    counts = summary.counts
    done = counts.judged + counts.bad - summary.resumed
    if job.scores_only:
        lines = [f"{_rows(counts.judged)} judged, {counts.actions['flagged']} flagged"]
    else:
        actions = ", ".join(f"{number} {action}" for action, number in counts.actions.items())
        lines = [f"{_rows(counts.judged)} judged: {actions}"]
    if counts.degraded:
        lines.append(f"{counts.degraded} of them without a full pass (degraded)")
    if counts.bad:
        lines.append(f"{_rows(counts.bad)} could not be judged: see {job.bad_rows}")
    if summary.resumed:
        lines.append(f"{summary.resumed} rows were done by an earlier run")
    lines.append(f"{summary.seconds:.1f} s, {done / max(summary.seconds, 1e-9):.0f} rows per second")
    typer.echo("\n".join(lines), err=True)
