"""The command ``guardrail-train``."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    help="Train and measure the models of guardrail.",
)

Recipe = Annotated[Optional[str], typer.Option(help="TOML file with the settings of the run.")]  # noqa: UP045
Text = Annotated[Optional[str], typer.Option()]  # noqa: UP045


@app.callback()
def main() -> None:
    """Train and measure the models of guardrail."""


@app.command()
def sft(
    recipe: Recipe = None,
    base: Text = None,
    data: Text = None,
    out: Text = None,
    threads: Annotated[Optional[int], typer.Option()] = None,  # noqa: UP045
) -> None:
    """Train a rewriter adapter on parallel sentences, or continue an interrupted run."""
    from guardrail_training import sft as trainer
    from guardrail_training.recipe import read_recipe

    overrides = {"base": base, "data": data, "out": out, "threads": threads}
    report = trainer.run(read_recipe(recipe, settings=trainer.SftSettings, overrides=overrides))
    typer.echo(f"step {report.step} of {report.steps}, dev loss {report.dev_loss}")
    if not report.finished:
        raise typer.Exit(130)
