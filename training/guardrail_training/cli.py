"""The command ``guardrail-train``: every trainer is a recipe (TOML) plus a few settings on top of it.

An error of this package is one line: status 2 where other arguments mend it, status 1 otherwise.
"""

from __future__ import annotations

import json
import logging
from typing import Annotated

import typer

from guardrail.errors import UsageError
from guardrail.integrations.cli import Commands
from guardrail_training.commands import commands, data
from guardrail_training.evaluation.gate_settings import GateSettings
from guardrail_training.options import Base, Changes, Data, Out, Recipe, end, settings_of, with_settings
from guardrail_training.outputs import require_writable
from guardrail_training.preference.settings import PreferenceSettings
from guardrail_training.recipe import copy_recipe, recipe_file, shipped_recipes
from guardrail_training.regularized.settings import RegularizedSettings
from guardrail_training.reinforcement.settings import PpoSettings
from guardrail_training.supervised.settings import SftSettings

__all__ = ["app"]

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="Trains and measures the models that guardrail serves.",
)

recipes = typer.Typer(cls=Commands, no_args_is_help=True, help="The settings that come with this package.")
app.add_typer(recipes, name="recipes")
app.add_typer(commands)

# At every start it asks for a kernel of another package, without which it works as well.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

MEASUREMENTS = ("rewriter", "generation", "acceptance")


@app.command()
@with_settings(SftSettings)
def sft(settings: SftSettings) -> None:
    """Trains a rewriter's adapter on parallel sentences; the same command continues an interrupted run.

    Ends with status 130 if a signal stopped it: its checkpoint is written then.
    """
    from guardrail_training import sft as trainer

    end(trainer.run(settings))


@app.command()
def records(
    file: Annotated[str, typer.Argument(help="ParaNMT's scored pairs: TSV, CSV or JSON Lines.")],
    *,
    out: Annotated[str, typer.Option(help="JSON Lines file that receives the records.")],
    least: Annotated[float, typer.Option(help="Toxicity above which a side is toxic.")] = 0.9,
    most: Annotated[float, typer.Option(help="Toxicity below which the other side is clean.")] = 0.2,
) -> None:
    """Writes instruction records to train on: pairs with one toxic and one clean side."""
    from guardrail_training.supervised.paranmt import write_records

    require_writable(out)
    count = write_records(file, out, least=least, most=most)
    typer.echo(f"{count.written} records of {count.read} pairs written to {out}", err=True)


@app.command()
@with_settings(PpoSettings)
def ppo(settings: PpoSettings) -> None:
    """Trains an adapter on rewards by PPO, RLOO or GRPO; the same command continues an interrupted run.

    Ends with status 130 if a signal stopped it: its checkpoint is written then.
    """
    from guardrail_training.reinforcement import ppo as trainer

    end(trainer.run(settings))


@app.command()
@with_settings(PreferenceSettings)
def preference(settings: PreferenceSettings) -> None:
    """Tunes an adapter on its own candidates by DPO or ORPO; the same command continues an interrupted run.

    Ends with status 130 if a signal stopped it: what it has done so far is on disk then.
    """
    from guardrail_training.preference import tuning as trainer

    end(trainer.run(settings))


@app.command()
@with_settings(RegularizedSettings)
def regularized(settings: RegularizedSettings) -> None:
    """Fine-tunes a language model under a constraint; the same command continues an interrupted run.

    Ends with status 130 if a signal stopped it: its checkpoint is written then.
    """
    from guardrail_training.regularized import trainer

    end(trainer.run(settings))


@recipes.command("list")
def list_recipes() -> None:
    """Names every recipe with its trainer and what it is for."""
    for each in shipped_recipes():
        typer.echo(f"{each.trainer:12} {each.name:30} {each.purpose}")


@recipes.command("show")
def show_recipe(name: Annotated[str, typer.Argument(help="A name of 'recipes list'.")]) -> None:
    """Prints a recipe."""
    typer.echo(recipe_file(name).read_text(encoding="utf-8"), nl=False)


@recipes.command("copy")
def copy(
    name: Annotated[str, typer.Argument(help="A name of 'recipes list'.")],
    to: Annotated[str, typer.Argument(help="New file, to be changed and given as --recipe.")],
) -> None:
    """Writes a recipe into a file of your own."""
    typer.echo(f"written to {copy_recipe(name, to)}", err=True)


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="Folder of a run, or one of its step-N folders.")],
    *,
    out: Annotated[str, typer.Option(help="New folder that receives the model.")],
    form: Annotated[
        str, typer.Option(help="merged (the adapter in the base's weights) or adapter.")
    ] = "merged",
    step: Annotated[int | None, typer.Option(help="Step to take; else the last.")] = None,
    base: Base = None,
    dtype: Annotated[str, typer.Option(help="Of merged weights: float32 or bfloat16.")] = "float32",
    temperature: Annotated[
        float | None,
        typer.Option(help="At which the adapter is sampled, which a guard does not do; else its own."),
    ] = None,
    results: Annotated[str | None, typer.Option(help="JSON of evaluate rewriter, for the card.")] = None,
    push: Annotated[str | None, typer.Option(metavar="OWNER/NAME", help="Uploads it to a hub.")] = None,
    public: Annotated[bool, typer.Option("--public", help="Makes a new repository public.")] = False,
) -> None:
    """Writes a run's result as one folder: weights, manifest, model card."""
    from guardrail_training.export import hub, release

    require_writable(out, folder=True)

    chosen = release.ExportSettings(
        run=run,
        out=out,
        form=form,
        step=step,
        base=base,
        dtype=dtype,
        temperature=temperature,
        results=results,
    )
    typer.echo(f"written to {release.export(chosen)}", err=True)
    if push is not None:
        typer.echo(f"pushed to {hub.push(out, push, private=not public)}", err=True)


@app.command("import")
def import_(
    adapter: Annotated[str, typer.Argument(help="Folder that peft wrote.")],
    *,
    template: Annotated[str, typer.Option(help="The prompt it was trained with, {text} for the text.")],
    out: Annotated[str, typer.Option(help="New folder that receives the adapter.")],
    base: Annotated[
        str, typer.Option(help="Its base: a folder, or a name in 'guardrail models list'.")
    ] = "smollm2-135m-instruct",
    name: Annotated[str | None, typer.Option(help="What it is called; else as its folder.")] = None,
    licence: Annotated[str, typer.Option(help="Its licence, as SPDX.")] = "NOASSERTION",
) -> None:
    """Takes a plain peft adapter over, checked and with a manifest, as a start for every trainer."""
    from guardrail_training.imported import import_adapter

    path = import_adapter(
        adapter, base=base, out=out, template=template.replace("\\n", "\n"), name=name, licence=licence
    )
    typer.echo(f"written to {path}", err=True)


@data.command("pull")
def pull_data(
    name: Annotated[str, typer.Argument(help="A name of 'data list', or OWNER/NAME on a hub.")],
    *,
    out: Annotated[str, typer.Option(help="Data folder; the set goes into OUT/NAME.")] = "data",
    source: Annotated[str | None, typer.Option("--from", help="Folder with the set's files.")] = None,
    revision: Annotated[str, typer.Option(help="Branch, tag or commit on the hub.")] = "main",
) -> None:
    """Fetches a public data set into the files that the trainers read (train.jsonl, dev.jsonl)."""
    from guardrail_training.public_sets import pull

    pulled = pull(name, out=out, source=source, revision=revision)
    parts = ", ".join(f"{part} {rows}" for part, rows in pulled.rows.items())
    typer.echo(f"written to {pulled.folder}: {parts}", err=True)


@data.command("list")
def list_data() -> None:
    """Names the public sets that are brought into this package's fields, with hub id and licence."""
    from guardrail_training.public_sets import LISTED

    for name, each in LISTED.items():
        typer.echo(f"{name:12} {each.repo:34} {each.licence}")


@app.command()
@with_settings(GateSettings)
def gate(settings: GateSettings) -> None:
    """Ends with status 1 if the guard would release fewer rewrites than with the adapter in use."""
    from guardrail_training.evaluation.gate import run

    path = run(settings)
    typer.echo(json.loads(path.read_text(encoding="utf-8"))["reason"])
    typer.echo(f"written to {path}", err=True)


@app.command()
def evaluate(
    what: Annotated[str, typer.Argument(help="rewriter, generation or acceptance.")],
    *,
    recipe: Recipe = None,
    data: Data = None,
    out: Out = None,
    adapter: Annotated[str | None, typer.Option(help="Adapter folder; else the shipped one.")] = None,
    checkpoints: Annotated[str | None, typer.Option(help="Run with step-N folders.")] = None,
    dev: Annotated[str | None, typer.Option(help="rewriter: file of sentences and references.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="rewriter: NAME=BASE or NAME=BASE,ADAPTER of any architecture; repeatable."),
    ] = None,
    changes: Changes = None,
) -> None:
    """Measures what models write, and writes the tables as JSON and Markdown.

    rewriter puts models of any architecture side by side: BLEU, ROUGE and chrF of their likeliest rewrites
    against references, alongside the untouched input, as tables and bars. Fields of the file with --set
    source=NAME and target=NAME, the prompt of a model without an adapter with --set template=PROMPT.

    generation compares what a run's adapter writes with what the model wrote before; it leaves its figures
    and every sample in the run's folder, for the report.

    acceptance writes a blinded sheet of what systems release (--set 'systems=["NAME=PLACE", ...]'), or reads
    filled copies back (--set 'ratings=["FIRST", "SECOND"]').
    """
    if what == "rewriter":
        from guardrail_training.evaluation import models_report

        given = {"dev": dev, "out": out, "model": tuple(model) if model else None}
        path = models_report.run(settings_of(models_report.ModelsSettings, recipe, changes, **given))
        typer.echo((path.parent / models_report.TABLES).read_text(encoding="utf-8"))
    elif what == "generation":
        from guardrail_training.evaluation.generation import compare

        options = {"data": data, "out": out, "adapter": adapter, "run": checkpoints}
        path = compare.run(settings_of(compare.GenerationSettings, recipe, changes, **options))
    elif what == "acceptance":
        from guardrail_training.evaluation.acceptance import run as acceptance

        chosen = settings_of(acceptance.AcceptanceSettings, recipe, changes, data=data, out=out)
        path = acceptance.run(chosen)
        if chosen.ratings:
            typer.echo(path.with_suffix(".md").read_text(encoding="utf-8"))
    else:
        raise UsageError(f"evaluate what must be one of {', '.join(MEASUREMENTS)}, got {what!r}")
    typer.echo(f"written to {path}", err=True)


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="Folder of a run, finished or not.")],
    *,
    out: Annotated[str | None, typer.Option(help="The page; else RUN/report.html.")] = None,
    rows: Annotated[int, typer.Option(help="At most so many samples in the table.")] = 100,
    results: Annotated[
        list[str] | None,
        typer.Option(help="JSON of evaluate select, gate or rewriter that is not in RUN; repeatable."),
    ] = None,
) -> None:
    """Writes one HTML page about a run: curves, bars over models, samples, settings, hashes.

    Nothing in it is loaded from elsewhere. What 'evaluate select', 'gate' and 'rewriter' left in RUN is in it
    as bars of J, non-toxic and SIM. Where 'evaluate generation' has left samples, the page holds their
    texts, folded away.
    """
    from guardrail_training.report.write import write_report

    if out is not None:
        require_writable(out)
    path = write_report(run, out=out, rows=rows, results=results or ())
    typer.echo(f"written to {path}", err=True)
