"""The command ``python -m research``: makes and measures the models that this project ships.

An error of this package is one line: status 2 where other arguments mend it, status 1 otherwise.
"""

from __future__ import annotations

from typing import Annotated

import typer

from guardrail.integrations.cli import Commands
from guardrail_training.options import Base, Changes, Data, Out, Recipe, settings_of, with_settings
from guardrail_training.outputs import require_writable
from guardrail_training.regularized.settings import RegularizedSettings

__all__ = ["app"]

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="Makes and measures the models that this project ships, from its own sources.",
)


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

    from research.pairs.mixture import MixtureSettings, write_mixture

    files = own or sorted(map(str, Path("training/data").glob("rewrites*.jsonl")))
    chosen = MixtureSettings(data=data or "", own=tuple(files), paradetox=paradetox, clean=clean, seed=seed)
    beside = Path(refused) if refused else Path(out).with_suffix(".not.jsonl")
    for place in (out, beside):
        require_writable(place)
    mixture = write_mixture(chosen, out, beside)
    for title, counts in mixture.counts().items():
        typer.echo(f"{title}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    typer.echo(f"written to {out} and {beside}", err=True)


@app.command()
def detector(
    *, recipe: Recipe = None, base: Base = None, data: Data = None, out: Out = None, changes: Changes = None
) -> None:
    """Trains, calibrates and exports the detector."""
    from research.detection import detector as trainer

    path = trainer.run(settings_of(trainer.DetectorSettings, recipe, changes, base=base, data=data, out=out))
    typer.echo(f"written to {path}", err=True)


@app.command()
def verifier(
    *, recipe: Recipe = None, base: Base = None, data: Data = None, out: Out = None, changes: Changes = None
) -> None:
    """Trains, calibrates and exports the verifier, which judges rewrites as a reader would."""
    from research.verifier import verifier as trainer

    path = trainer.run(settings_of(trainer.VerifierSettings, recipe, changes, base=base, data=data, out=out))
    typer.echo(f"written to {path}", err=True)


@app.command()
def tagger(
    *, recipe: Recipe = None, base: Base = None, data: Data = None, out: Out = None, changes: Changes = None
) -> None:
    """Trains and exports the tagger, which says of each word whether it stays, goes or is replaced."""
    from research.tagger import tagger as trainer

    path = trainer.run(settings_of(trainer.TaggerSettings, recipe, changes, base=base, data=data, out=out))
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
    from research.detection.settings import DetectorSettings
    from research.detection.soft_scores import training_scores

    require_writable(scores)
    settings = settings_of(DetectorSettings, recipe, changes, base=base, data=data, out=out)
    training_scores(settings, base=encoder, network=network).save(scores)
    typer.echo(f"written to {scores}", err=True)


@app.command()
def evaluate(
    what: Annotated[
        str,
        typer.Argument(
            help="judges, detector, rewriter, checks, select, preference-judge, annotate or agreement."
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
    """Measures this project's detectors and rewriters and writes the tables as JSON and Markdown.

    rewriter puts other adapters beside --adapter with --set 'also=["NAME=FOLDER", ...]', and names its own
    method with --set method=NAME; --card fills a model card with the tables.

    preference-judge finds out whether a model can tell the better of two continuations, and prints win rates
    where it can.
    """
    options = {"data": data, "out": out, "adapter": adapter, "pilot": pilot, "card": card}
    if what == "preference-judge":
        from research.comparison import preference_judge

        settings = settings_of(preference_judge.PreferenceJudgeSettings, recipe, changes, **options)
        found = preference_judge.run(settings)
        typer.echo(found.says)
        path = found.path
    else:
        from research.evaluation import evaluate as evaluation

        options |= {"what": what, "checkpoints": checkpoints}
        path = evaluation.run(settings_of(evaluation.EvaluateSettings, recipe, changes, **options))
    typer.echo(f"written to {path}", err=True)


@app.command()
def generation(
    *,
    recipe: Recipe = None,
    data: Data = None,
    out: Out = None,
    adapter: Annotated[str | None, typer.Option(help="Adapter folder; else the shipped one.")] = None,
    checkpoints: Annotated[str | None, typer.Option(help="Run with step-N folders.")] = None,
    changes: Changes = None,
) -> None:
    """Does what 'guardrail-train evaluate generation' does, by the two fixed judges if none are named."""
    from guardrail_training.evaluation.generation import compare
    from research.evaluation.judges import JudgedSettings, toxicity_of

    options = {"data": data, "out": out, "adapter": adapter, "run": checkpoints}
    settings = settings_of(JudgedSettings, recipe, changes, **options)
    path = compare.run(settings, toxicity=toxicity_of(settings.judges, data=settings.data))
    typer.echo(f"written to {path}", err=True)


@app.command()
@with_settings(RegularizedSettings)
def row(
    settings: RegularizedSettings,
    *,
    chosen: Annotated[str, typer.Argument(metavar="ROW", help="The row of the comparison.")],
) -> None:
    """Trains and measures a row of the comparison of ways to fine-tune under a constraint.

    Ends with status 130 if a signal stopped it. Writes training/results/regularized/ROW-SEED.json and the
    table of all rows there; ROW is base, best-of-n, sft, filtering, rl, decoding, regularized,
    regularized-adaptive, regularized-sequential, classify-sft or classify-regularized.
    """
    from research.comparison import experiment, table

    try:
        path = experiment.run_row(chosen, settings)
    except experiment.RowStoppedError as stopped:
        typer.echo(str(stopped), err=True)
        raise typer.Exit(130) from None
    typer.echo(f"written to {path} and {table.write_comparison(path.parent)}", err=True)
