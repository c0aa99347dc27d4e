"""Picks the checkpoint of a rewriter's run that has the highest J on the dev sentences."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from guardrail.errors import UsageError
from guardrail.protocols import Rewriter
from guardrail_training.evaluation.rewriting_report import Instruments, SystemBlock, measure, summarise
from guardrail_training.evaluation.systems import Sentences, greedy

__all__ = ["Choice", "choose", "step_folders"]

STEP = re.compile(r"step-(\d+)")


@dataclass(frozen=True, slots=True)
class Choice:
    """The best step and the figures of all, in the order of steps."""

    step: int
    folder: Path
    blocks: tuple[SystemBlock, ...]


def step_folders(run: str | Path) -> list[Path]:
    """The ``step-N`` adapter folders of a run by N; UsageError if there are none."""
    found = {int(match[1]): path for path in Path(run).glob("step-*") if (match := STEP.fullmatch(path.name))}
    if not found:
        raise UsageError(f"no step-N folders in {run}: is it the folder of an sft run?")
    return [found[step] for step in sorted(found)]


def choose(
    folders: Sequence[Path],
    *,
    load: Callable[[Path], Rewriter],
    sentences: Sentences,
    instruments: Instruments,
    seed: int,
) -> Choice:
    """The folder whose greedy rewrites have the highest J against the first reference under the lower judge.

    An earlier step wins a tie: it was trained less.
    """
    blocks = []
    for folder in folders:
        block = summarise(
            measure(greedy(sentences, name=folder.name, rewriter=load(folder)), instruments), seed=seed
        )
        assert block is not None  # only the second block of a system can be empty
        blocks.append(block)
    best = max(range(len(blocks)), key=lambda place: (blocks[place].counted("j_first").value, -place))
    return Choice(
        step=int(folders[best].name.removeprefix("step-")), folder=folders[best], blocks=tuple(blocks)
    )
