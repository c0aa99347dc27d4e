"""What commands share: every setting is an option of the command line, and a run ends with its report."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin

import typer

from guardrail.config.settings import hints_of
from guardrail_training.outputs import require_writable
from guardrail_training.recipe import parse_changes, read_recipe
from guardrail_training.settings import Setting, former_names

if TYPE_CHECKING:
    from guardrail_training.run import Report

__all__ = ["Base", "Changes", "Data", "Out", "Recipe", "end", "settings_of", "with_settings"]

Kind = TypeVar("Kind")

Recipe = Annotated[
    str | None,
    typer.Option(help="Settings of the run: a name in 'guardrail-train recipes list', or a TOML file."),
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting, its value as in TOML; repeatable."),
]
Base = Annotated[
    str | None, typer.Option(help="Folder of the base model, or its name in 'guardrail models list'.")
]
Data = Annotated[str | None, typer.Option(help="Folder of the sources; else GUARDRAIL_DATA, else the hub.")]
Out = Annotated[str | None, typer.Option(help="Folder that receives the result.")]


def settings_of(kind: type[Any], recipe: str | None, changes: list[str] | None, **options: Any) -> Any:
    """Settings from a recipe, under ``--set``, under options that were given."""
    given = {name: value for name, value in options.items() if value is not None}
    return _writable(read_recipe(recipe, settings=kind, overrides=parse_changes(changes or []) | given))


def _writable(settings: Kind) -> Kind:
    """The settings, if a result can be written into their folder."""
    if out := getattr(settings, "out", None):
        require_writable(out, folder=True)
    return settings


def end(report: Report) -> None:
    """Prints how a run ended; status 130 if a signal stopped it."""
    typer.echo(str(report), err=True)
    if not report.finished:
        typer.echo(f"stopped by {report.stopped_by}; the same command continues", err=True)
        raise typer.Exit(130)


def with_settings(kind: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The decorator of a command whose first argument is the settings of that kind.

    What is given on the command line lies over the recipe, an option over ``--set``. Fields without
    ``setting`` are options too, by type and default alone.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        hints = hints_of(kind)
        options = [_option(one, hints[one.name]) for one in fields(kind)]
        present = former_names(kind)
        options += [_former(name, hints[present[name]]) for name in present]
        names = [*hints, *present]

        def run(**given: Any) -> None:
            values = {name: given.pop(name) for name in names}
            overrides = {name: value for name, value in values.items() if value not in (None, [])}
            overrides = parse_changes(given.pop("changes") or []) | overrides
            settings = read_recipe(given.pop("recipe"), settings=kind, overrides=overrides)
            command(_writable(settings), **given)

        shared = [_parameter("recipe", Recipe), _parameter("changes", Changes)]
        parameters = [*shared, *options, *own]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # inspect reads it
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate


def _option(one: Field[Any], hint: Any) -> inspect.Parameter:
    """The option of a setting; None if it is not given, so that the recipe's value holds."""
    known: Setting | None = one.metadata.get("setting")
    bounds = f" Range: {known.bounds}." if known is not None and known.bounds else ""
    kind = _plain(hint)
    flag = f"--{one.name.replace('_', '-')}"
    names = (f"{flag}/--no{flag[1:]}",) if kind is bool else (flag,)
    described = typer.Option(
        *names,
        help=f"{known.help if known is not None else ''}{bounds}".strip(),
        show_default=_shown(one.default),
        rich_help_panel=known.group if known is not None else "Settings",
    )
    return _parameter(
        one.name, Annotated[(list[str] if get_origin(kind) is tuple else kind) | None, described]
    )


def _former(name: str, hint: Any) -> inspect.Parameter:
    """The option by a setting's former name: it is understood, and not shown."""
    hidden = typer.Option(f"--{name.replace('_', '-')}", hidden=True)
    return _parameter(name, Annotated[_plain(hint) | None, hidden])


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _plain(hint: Any) -> Any:
    """The type of a value that is given: a setting that may be None takes another one."""
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    return kinds[0] if type(None) in get_args(hint) else hint


def _shown(default: Any) -> str | bool:
    if default is MISSING:
        return False
    if default in (None, "", ()):
        return "none"
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, tuple):
        return ", ".join(default)
    return json.dumps(default)[1:-1] if isinstance(default, str) else str(default)
