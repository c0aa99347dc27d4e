"""Prints how sure the shipped tagger must be for readers to accept its edits, and what it costs.

    python -m research.tagger.acceptance [--ratings FILE] [--data DIR --own FILE ...]

Without ``--data`` it prints the rated edits by confidence; with it, in place of these, how many held-out
pairs it edits as a reference does.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import typer

from guardrail.rewriters.edits.rewriter import MIN_CONFIDENCE
from guardrail.rewriters.edits.tagger import Tagger
from guardrail_training.metrics.statistics import wilson_rate
from guardrail_training.records import read_records
from research.tagger.examples import held_out_pairs
from research.tagger.figures import measure
from research.tagger.settings import TaggerSettings

__all__ = ["acceptance_table", "main"]

RATINGS = "training/data/tagger_ratings.jsonl"
THRESHOLDS = {MIN_CONFIDENCE, -0.2, -0.3, -0.5, -0.6, -0.8, -1.0}


def acceptance_table(tagger: Tagger, path: str | Path) -> list[str]:
    """A table in Markdown: of the likeliest edits of rated sentences from each confidence on, how many are
    accepted. An edit that nobody rated counts as refused.
    """
    rated = list(read_records(path, fields={"source": str, "candidate": str, "rating": str}))
    accepted = {(row["source"], row["candidate"]) for row in rated if row["rating"] == "accept"}
    sources = list(dict.fromkeys(row["source"] for row in rated))
    found = [
        (edits[0].confidence, (source, edits[0].text) in accepted)
        for source, edits in zip(sources, tagger.propose(sources), strict=True)
        if edits
    ]
    lines = ["| confidence from | edits | accepted | share (95 % interval) |", "|---|---|---|---|"]
    for threshold in sorted(THRESHOLDS, reverse=True):
        hits = [hit for confidence, hit in found if confidence >= threshold]
        rate = wilson_rate(sum(hits), len(hits))
        share = f"{rate.value:.3f} ({rate.low:.3f}-{rate.high:.3f})"
        lines.append(f"| {threshold} | {len(hits)} | {sum(hits)} | {share} |")
    return lines


def milliseconds(tagger: Tagger, texts: Sequence[str]) -> float:
    """Processor time per text, each alone."""
    tagger.propose(texts[:1])
    started = time.process_time()
    for text in texts:
        tagger.propose([text])
    return 1e3 * (time.process_time() - started) / len(texts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--ratings", default=RATINGS)
    parser.add_argument("--data")
    parser.add_argument("--own", nargs="*", default=["training/data/rewrites.jsonl"])
    chosen = parser.parse_args(arguments)
    tagger = Tagger.shipped()
    if chosen.data is not None:
        settings = TaggerSettings(base="", out="", data=chosen.data, own=tuple(chosen.own))
        found = measure(tagger, held_out_pairs(settings))
        precision = ", ".join(f"{name} {value:.2f}" for name, value in found.precision.items())
        typer.echo(f"{found.pairs} held-out pairs, {found.proposed} edited, {found.exact} as a reference;")
        typer.echo(f"of the surest edits as a reference: {precision}")
        return
    typer.echo("\n".join(acceptance_table(tagger, chosen.ratings)))
    texts = [row["source"] for row in read_records(chosen.ratings, fields={"source": str})]
    typer.echo(f"\n{milliseconds(tagger, texts):.1f} ms of processor time per sentence, each alone")


if __name__ == "__main__":
    main()
