"""Commands that look at texts, pairs and models before and after training."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from guardrail.integrations.cli import Commands

__all__ = ["commands", "data"]

commands = typer.Typer(cls=Commands)
data = typer.Typer(cls=Commands, no_args_is_help=True, help="Data sets, public ones and your own.")
commands.add_typer(data, name="data")

Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, ...; auto: the GPU, if any.")]
BaseModel = Annotated[
    str, typer.Option(help="Folder of the base model, or its name in 'guardrail models list'.")
]


@commands.command()
def score(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to score.")] = None,
    *,
    file: Annotated[str | None, typer.Option(help="File of further texts.")] = None,
    field: Annotated[str, typer.Option(help="Its field that holds them.")] = "text",
    query: Annotated[str, typer.Option(help="What the texts are answers to; it is read before each.")] = "",
    classifier: Annotated[
        str | None, typer.Option(help="Folder of a sequence classifier, or its hub id.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Commit of a classifier on the hub.")] = None,
    label: Annotated[str | None, typer.Option(help="Class whose logit is the reward, as nothate.")] = None,
    reward: Annotated[str | None, typer.Option(help="Formula of a reward, as '1 - clean'.")] = None,
    device: Device = "auto",
) -> None:
    """Prints logits, probabilities and reward of texts, one JSON object each: a look before training."""
    from guardrail_training.scores import score_texts, texts_of

    found = score_texts(
        texts_of(texts or [], file=file, name=field),
        query=query,
        classifier=classifier,
        revision=revision,
        label=label,
        formula=reward,
        device=device,
    )
    for each in found:
        shown = {name: value for name, value in asdict(each).items() if value is not None}
        typer.echo(json.dumps(shown, ensure_ascii=False))


@commands.command()
def losses(
    run: Annotated[str, typer.Argument(help="Folder of a run, finished or not.")],
    *,
    rows: Annotated[int, typer.Option(help="At most so many rows.")] = 30,
) -> None:
    """Prints a run's losses by steps as Markdown: training, dev with its 95 % interval, and of how many."""
    from guardrail_training.report.losses import loss_table

    typer.echo(loss_table(run, max_rows=rows), nl=False)


@commands.command()
def targets(
    file: Annotated[str, typer.Argument(help="Pairs to train on: CSV, TSV, JSON Lines, Parquet or Arrow.")],
    *,
    source: Annotated[str, typer.Option(help="Field with the text to rewrite.")] = "toxic",
    target: Annotated[str, typer.Option(help="Field with its rewrite, or a list of them.")] = "neutral",
    config: Annotated[
        str | None, typer.Option(help="Configuration file of the guard; else its defaults.")
    ] = None,
    refused: Annotated[
        str | None, typer.Option(help="JSON Lines file that receives what would be refused.")
    ] = None,
    accepted: Annotated[
        str | None, typer.Option(help="JSON Lines file that receives the pairs without what is refused.")
    ] = None,
) -> None:
    """Says how many targets the guard's checks would refuse, which, and why."""
    from guardrail import Guard
    from guardrail_training.data import SourceColumns, read_rows
    from guardrail_training.evaluation.targets import check_targets

    rows = read_rows(file, columns=SourceColumns(source=source, target=target))
    found = check_targets(rows, guard=Guard.from_config(config) if config else None)
    typer.echo(str(found))
    if refused is not None:
        lines = [json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in found.refused]
        Path(refused).write_text("".join(lines), encoding="utf-8")
    if accepted is not None:
        bad = {(each.row, each.target) for each in found.refused}
        kept = [
            {source: row.source, target: good}
            for row in rows
            if (good := [each for each in row.references if (row.number, each) not in bad])
        ]
        Path(accepted).write_text(
            "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in kept), encoding="utf-8"
        )


@commands.command("multiple-choice")
def multiple_choice(
    file: Annotated[str, typer.Argument(help="Questions, as MMLU, PIQA, HellaSwag, ARC and others come.")],
    *,
    base: BaseModel = "smollm2-135m-instruct",
    adapter: Annotated[str | None, typer.Option(help="Folder of an adapter for it.")] = None,
    style: Annotated[str, typer.Option(help="texts: answers continue; letters: as MMLU is asked.")] = "texts",
    examples: Annotated[str | None, typer.Option(help="File of answered questions for --shots.")] = None,
    shots: Annotated[int, typer.Option(help="So many of them come before each question.")] = 0,
    subject: Annotated[str, typer.Option(help="What the questions are about, for the prompt.")] = "",
    limit: Annotated[int, typer.Option(help="The first so many questions; 0: all.")] = 0,
    device: Device = "auto",
) -> None:
    """Measures how often a model's likeliest answer is right; prints accuracies with 95 % intervals."""
    from guardrail.rewriters.adapter import read_adapter
    from guardrail_training import modeling
    from guardrail_training.evaluation.multiple_choice import ask, read_questions
    from guardrail_training.modeling.stacked import merge
    from guardrail_training.provenance import model_folder, plain

    questions = read_questions(file)[: limit or None]
    shown = read_questions(examples) if examples else []
    folder, place = model_folder(base), modeling.resolve_device(device)
    model = modeling.load_base(folder, dtype=modeling.resolve_dtype("float32", place), device=place)
    if adapter is not None:
        merge(model, read_adapter(adapter))
    tokenizer = modeling.load_ending_tokenizer(folder, pad_token="")
    found = ask(model, tokenizer, questions, style=style, examples=shown, shots=shots, subject=subject)
    typer.echo(json.dumps(plain(found)))


@commands.command("win-rate")
def win_rate(
    own: Annotated[str, typer.Argument(help="JSON Lines file with prompt and response of each row.")],
    other: Annotated[str, typer.Argument(help="The other system's answers to the same prompts.")],
    *,
    endpoint: Annotated[str, typer.Option(help="OpenAI-compatible API; the texts are sent there.")],
    judge: Annotated[str, typer.Option(help="The judge's name there.")],
    seed: Annotated[int, typer.Option(help="Of the interval.")] = 13,
) -> None:
    """Lets a judge model compare two systems' answers, in both orders; prints the win rate.

    A key is read from OPENAI_API_KEY.
    """
    from guardrail_training.evaluation import win_rate as rates
    from guardrail_training.provenance import plain

    duels = rates.read_duels(own, other)
    judging = rates.endpoint_judge(rates.connect(endpoint), model=judge)
    typer.echo(json.dumps(plain(rates.win_rate(duels, judging, seed=seed))))


@data.command()
def push(
    files: Annotated[list[str], typer.Argument(help="Files of rows.")],
    *,
    to: Annotated[str, typer.Option(metavar="OWNER/NAME", help="On the hub, or a folder: ./NAME.")],
    licence: Annotated[str, typer.Option(help="Its SPDX name.")],
    about: Annotated[str, typer.Option(help="What the rows are, for the card.")] = "",
    public: Annotated[bool, typer.Option("--public", help="Makes a new repository public.")] = False,
) -> None:
    """Publishes files of rows as a data set with a card of their counts and hashes."""
    from guardrail_training.export.dataset import push_data

    place = push_data(files, to, licence=licence, about=about, private=not public)
    typer.echo(f"pushed to {place}", err=True)
