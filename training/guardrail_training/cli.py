"""The command ``guardrail-train``: every trainer is a recipe (TOML) plus a few settings on top of it.

An error of this package is one line: status 2 where other arguments mend it, status 1 otherwise.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guardrail.integrations.cli import Commands
from guardrail_training.commands import commands
from guardrail_training.options import with_settings
from guardrail_training.preference.settings import PreferenceSettings
from guardrail_training.recipe import copy_recipe, recipe_file, shipped_recipes
from guardrail_training.regularized.settings import RegularizedSettings
from guardrail_training.reinforcement.settings import PpoSettings
from guardrail_training.supervised.settings import SftSettings

if TYPE_CHECKING:
    from guardrail_training.run import Report

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

Recipe = Annotated[str | None, typer.Option(help="TOML file with the settings of the run.")]
Base = Annotated[
    str | None, typer.Option(help="Folder of the base model, or its name in 'guardrail models list'.")
]
Data = Annotated[str | None, typer.Option(help="Folder of the sources; else GUARDRAIL_DATA, else the hub.")]
Out = Annotated[str | None, typer.Option(help="Folder that receives the result.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any other setting, its value as in TOML; repeatable."),
]


@app.command()
@with_settings(SftSettings)
def sft(settings: SftSettings) -> None:
    """Trains a rewriter's adapter on parallel sentences; the same command continues an interrupted run.

    Ends with status 130 if a signal stopped it: its checkpoint is written then.
    """
    from guardrail_training import sft as trainer

    _end(trainer.run(settings))


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

    count = write_records(file, out, least=least, most=most)
    typer.echo(f"{count.written} records of {count.read} pairs written to {out}", err=True)


@app.command("rewriter-data")
def rewriter_data(
    out: Annotated[str, typer.Argument(help="JSON Lines file that receives the pairs.")],
    *,
    refused: Annotated[
        str | None, typer.Option(help="File for sentences not to be rewritten; else beside OUT.")
    ] = None,
    data: Data = None,
    own: Annotated[
        list[str] | None,
        typer.Option(help="Hand-written pairs; repeatable. Else training/data/rewrites*.jsonl."),
    ] = None,
    paradetox: Annotated[int, typer.Option(help="At most so many rows of ParaDetox; 0: all.")] = 0,
    clean: Annotated[float, typer.Option(help="Share of rows that are their own rewrite.")] = 0.12,
    seed: Annotated[int, typer.Option(help="Of samples, styles and order.")] = 0,
) -> None:
    """Mixes the pairs that a rewriter is trained on: hand-written ones, ParaDetox cleaned, clean sentences.

    Prints how many references each rule refused.
    """
    from pathlib import Path

    from guardrail_training.pairs.mixture import MixtureSettings, write_mixture

    files = own or sorted(map(str, Path("training/data").glob("rewrites*.jsonl")))
    chosen = MixtureSettings(data=data or "", own=tuple(files), paradetox=paradetox, clean=clean, seed=seed)
    beside = Path(refused) if refused else Path(out).with_suffix(".not.jsonl")
    mixture = write_mixture(chosen, out, beside)
    for title, counts in mixture.counts().items():
        typer.echo(f"{title}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    typer.echo(f"written to {out} and {beside}", err=True)


@app.command()
@with_settings(PpoSettings)
def ppo(settings: PpoSettings) -> None:
    """Trains an adapter on rewards by PPO, RLOO or GRPO; the same command continues an interrupted run.

    Ends with status 130 if a signal stopped it: its checkpoint is written then.
    """
    from guardrail_training.reinforcement import ppo as trainer

    _end(trainer.run(settings))


@app.command()
@with_settings(PreferenceSettings)
def preference(settings: PreferenceSettings) -> None:
    """Tunes an adapter on its own candidates by DPO or ORPO; the same command continues an interrupted run.

    Ends with status 130 if a signal stopped it: what it has done so far is on disk then.
    """
    from guardrail_training.preference import tuning as trainer

    _end(trainer.run(settings))


@app.command()
@with_settings(RegularizedSettings)
def regularized(
    settings: RegularizedSettings,
    *,
    row: Annotated[str | None, typer.Option(help="Trains and measures a row of the comparison.")] = None,
) -> None:
    """Fine-tunes a language model under a constraint; the same command continues an interrupted run.

    Ends with status 130 if a signal stopped it: its checkpoint is written then. With --row it writes
    training/results/regularized/ROW-SEED.json and the table of all rows there; ROW is base, best-of-n, sft,
    filtering, rl, decoding, regularized, regularized-adaptive, regularized-sequential, classify-sft or
    classify-regularized.
    """
    if row is not None:
        from guardrail_training.comparison import experiment, table

        try:
            path = experiment.run_row(row, settings)
        except experiment.RowStoppedError as stopped:
            typer.echo(str(stopped), err=True)
            raise typer.Exit(130) from None
        typer.echo(f"written to {path} and {table.write_comparison(path.parent)}", err=True)
        return
    from guardrail_training.regularized import trainer

    _end(trainer.run(settings))


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
def detector(
    *, recipe: Recipe = None, base: Base = None, data: Data = None, out: Out = None, changes: Changes = None
) -> None:
    """Trains, calibrates and exports the detector."""
    from guardrail_training.detection import detector as trainer

    path = trainer.run(_settings(trainer.DetectorSettings, recipe, changes, base=base, data=data, out=out))
    typer.echo(f"written to {path}", err=True)


@app.command()
def verifier(
    *, recipe: Recipe = None, base: Base = None, data: Data = None, out: Out = None, changes: Changes = None
) -> None:
    """Trains, calibrates and exports the verifier, which judges rewrites as a reader would."""
    from guardrail_training.verifier import verifier as trainer

    path = trainer.run(_settings(trainer.VerifierSettings, recipe, changes, base=base, data=data, out=out))
    typer.echo(f"written to {path}", err=True)


@app.command()
def tagger(
    *, recipe: Recipe = None, base: Base = None, data: Data = None, out: Out = None, changes: Changes = None
) -> None:
    """Trains and exports the tagger, which says of each word whether it stays, goes or is replaced."""
    from guardrail_training.tagger import tagger as trainer

    path = trainer.run(_settings(trainer.TaggerSettings, recipe, changes, base=base, data=data, out=out))
    typer.echo(f"written to {path}", err=True)


@app.command("detector-scores")
def detector_scores(
    network: Annotated[str, typer.Argument(help="network.safetensors of a larger encoder's training.")],
    scores: Annotated[str, typer.Argument(help="File to write, for the setting soft of a training.")],
    *,
    encoder: Annotated[str, typer.Option(help="The larger encoder that the network was trained on.")],
    recipe: Recipe = None,
    base: Base = None,
    data: Data = None,
    out: Out = None,
    changes: Changes = None,
) -> None:
    """Scores the texts that a detector's training with these settings will draw, by a larger network."""
    from guardrail_training.detection.settings import DetectorSettings
    from guardrail_training.detection.soft_scores import training_scores

    settings = _settings(DetectorSettings, recipe, changes, base=base, data=data, out=out)
    training_scores(settings, base=encoder, network=network).save(scores)
    typer.echo(f"written to {scores}", err=True)


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


@app.command()
def evaluate(
    what: Annotated[
        str,
        typer.Argument(
            help="judges, detector, rewriter, acceptance, checks, select, gate, generation, "
            "preference-judge, annotate or agreement."
        ),
    ],
    *,
    recipe: Recipe = None,
    data: Data = None,
    out: Out = None,
    adapter: Annotated[str | None, typer.Option(help="Adapter folder; else the shipped one.")] = None,
    pilot: Annotated[str | None, typer.Option(help="Adapter folder of the pilot's recipe.")] = None,
    checkpoints: Annotated[str | None, typer.Option(help="Run with step-N folders.")] = None,
    card: Annotated[str | None, typer.Option(help="Model card that receives the tables.")] = None,
    changes: Changes = None,
) -> None:
    """Measures detectors and rewriters and writes the tables as JSON and Markdown.

    rewriter puts other adapters beside --adapter with --set 'also=["NAME=FOLDER", ...]', and names its own
    method with --set method=NAME; --card fills a model card with the tables.

    generation compares what a run's adapter writes with what the model wrote before; it leaves its figures
    and every sample in the run's folder, for the report. preference-judge finds out whether a model can tell
    the better of two continuations, and prints win rates where it can.

    acceptance writes a blinded sheet of what systems release (--set 'systems=["NAME=PLACE", ...]'), or reads
    filled copies back (--set 'ratings=["FIRST", "SECOND"]').
    """
    options = {"data": data, "out": out, "adapter": adapter, "pilot": pilot, "card": card}
    if what == "generation":
        from guardrail_training.evaluation.generation import compare

        path = compare.run(_settings(compare.GenerationSettings, recipe, changes, run=checkpoints, **options))
    elif what == "acceptance":
        from guardrail_training.evaluation.acceptance import run as acceptance

        chosen = _settings(acceptance.AcceptanceSettings, recipe, changes, data=data, out=out)
        path = acceptance.run(chosen)
        if chosen.ratings:
            typer.echo(path.with_suffix(".md").read_text(encoding="utf-8"))
    elif what == "preference-judge":
        from guardrail_training.comparison import preference_judge

        settings = _settings(preference_judge.PreferenceJudgeSettings, recipe, changes, **options)
        found = preference_judge.run(settings)
        typer.echo(found.says)
        path = found.path
    else:
        from guardrail_training.evaluation import evaluate as evaluation

        options |= {"what": what, "checkpoints": checkpoints}
        path = evaluation.run(_settings(evaluation.EvaluateSettings, recipe, changes, **options))
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

    path = write_report(run, out=out, rows=rows, results=results or ())
    typer.echo(f"written to {path}", err=True)


def _end(report: Report) -> None:
    typer.echo(str(report), err=True)
    if not report.finished:
        typer.echo(f"stopped by {report.stopped_by}; the same command continues", err=True)
        raise typer.Exit(130)


def _settings(kind: type[Any], recipe: str | None, changes: list[str] | None, **options: str | None) -> Any:
    from guardrail_training.recipe import parse_changes, read_recipe

    given = {name: value for name, value in options.items() if value is not None}
    return read_recipe(recipe, settings=kind, overrides=parse_changes(changes or []) | given)
