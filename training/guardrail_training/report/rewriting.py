"""Reads what evaluate select, gate and rewriter have found: how rewriting systems compare."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guardrail.errors import UsageError
from guardrail_training.evaluation.generation.comparison import mean_of
from guardrail_training.metrics.statistics import Mean

__all__ = ["KINDS", "Rewriting", "RewritingSystem", "find_rewriting"]

KINDS = ("select", "gate", "rewriter")
"""Evaluations of rewriting; each leaves a file of its name."""
ALL = "all"


@dataclass(frozen=True, slots=True)
class RewritingSystem:
    """One system's figures over ``n`` sentences, those by judge under the judge that gives the lower one.

    ``non_toxic`` is the share that the judge calls clean (STA), ``similarity`` the closeness of meaning (SIM,
    without an interval), ``joint`` their product with chrF (J) against the first reference, ``joint_best``
    against the best one; all in 0..1.
    """

    name: str
    n: int
    non_toxic: Mean
    similarity: float
    joint: Mean
    joint_best: Mean


@dataclass(frozen=True, slots=True)
class Rewriting:
    """The systems of one evaluation.

    ``blocks`` is by set of sentences, the first has all of them. ``chosen`` is the system that the evaluation
    was about. ``encoder`` gives SIM. ``data`` and ``models`` are sha256 by file. ``reason`` is the gate's.
    """

    kind: str
    blocks: Mapping[str, tuple[RewritingSystem, ...]]
    chosen: str
    encoder: str
    seed: int
    git: str | None
    data: Mapping[str, str]
    models: Mapping[str, Mapping[str, str]]
    reason: str = ""


def find_rewriting(folder: Path, *, results: Sequence[str | Path] = ()) -> tuple[Rewriting, ...]:
    """The evaluations in a run's folder, then those in the named files.

    Raises UsageError that names the file if one is missing, or no such evaluation wrote it.
    """
    own = [path for kind in KINDS if (path := folder / f"{kind}.json").is_file()]
    return tuple(_read(path) for path in [*own, *map(Path, results)])


def _read(path: Path) -> Rewriting:
    try:
        return _rewriting(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UsageError(f"{path} not found: results are a file that 'evaluate rewriter' wrote") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise UsageError(
            f"{path} holds no figures of rewriters: give a file that 'guardrail-train evaluate' wrote for "
            "select, gate or rewriter"
        ) from None


def _rewriting(content: Any) -> Rewriting:
    kind, found = content["settings"]["what"], content["blocks"]
    blocks = found if isinstance(found, dict) else {ALL: found}
    first = blocks[ALL]
    chosen = {"select": "best", "rewriter": "favourite"}.get(kind)
    if kind not in KINDS or not first:
        raise ValueError
    encoder, *_ = first[0]["similarity"]
    return Rewriting(
        kind=kind,
        # All sentences first; a set without a sentence has no figures.
        blocks={
            name: tuple(_system(each) for each in blocks[name])
            for name in sorted(blocks, key=lambda name: name != ALL)
            if blocks[name]
        },
        chosen=str(content[chosen] if chosen else first[0]["system"]),
        encoder=encoder,
        seed=int(content["settings"]["seed"]),
        git=content["git"],
        data=dict(content["data"]),
        models={name: dict(files) for name, files in content["models"].items()},
        reason=str(content.get("reason") or ""),
    )


def _system(content: Any) -> RewritingSystem:
    similarity, *_ = content["similarity"].values()  # the encoder that counts comes first
    non_toxic, joint, joint_best = (
        mean_of(content[name][content["lower"][name]]) for name in ("sta", "j_first", "j_best")
    )
    return RewritingSystem(
        name=str(content["system"]),
        n=int(content["n"]),
        non_toxic=non_toxic,
        similarity=float(similarity),
        joint=joint,
        joint_best=joint_best,
    )
