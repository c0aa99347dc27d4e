"""How much of a reference a rewrite contains: BLEU, ROUGE and chrF, each from its usual library, all in 0..1.

Overlap alone says nothing about detoxification (copying the input scores high), so tables print it next to
the copy and delete rows and a joint measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from guardrail.errors import MissingExtraError

__all__ = ["BLEU_TOKENISER", "Overlap", "best_chrf", "corpus_bleu", "overlap"]

BLEU_TOKENISER = "13a"
ROUGES = ("rouge1", "rouge2", "rougeL")


@dataclass(frozen=True, slots=True)
class Overlap:
    """Per output, 0..1. All but ``chrf_best`` are against the first reference.

    ``bleu`` is sentence BLEU (tokeniser 13a, exponential smoothing, effective order), ``rouge1``, ``rouge2``
    and ``rougeL`` are F-measures on stemmed words, ``chrf_best`` is the highest chrF over all references.
    """

    bleu: npt.NDArray[np.float64]
    rouge1: npt.NDArray[np.float64]
    rouge2: npt.NDArray[np.float64]
    rougeL: npt.NDArray[np.float64]  # noqa: N815  the measure's published name
    chrf_first: npt.NDArray[np.float64]
    chrf_best: npt.NDArray[np.float64]


def overlap(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> Overlap:
    """Sentence-level overlap of each output with its references (at least one each)."""
    firsts = [several[0] for several in references]
    pairs = list(zip(outputs, firsts, strict=True))
    rouge = [_rouge_scorer().score(first, output) for output, first in pairs]
    chrfs = _chrfs(outputs, references)
    return Overlap(
        bleu=np.array([_sentence_bleu(output, first) for output, first in pairs]),
        chrf_first=np.array([several[0] for several in chrfs]),
        chrf_best=np.array([max(several) for several in chrfs]),
        **{name: np.array([scores[name].fmeasure for scores in rouge]) for name in ROUGES},
    )


def best_chrf(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> npt.NDArray[np.float64]:
    """The highest chrF of each output with one of its references (at least one each)."""
    return np.array([max(several) for several in _chrfs(outputs, references)])


def corpus_bleu(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """BLEU of all outputs together against all references (sentences may have differently many), 0..1."""
    most = max(len(several) for several in references)
    streams = [[several[i] if i < len(several) else None for several in references] for i in range(most)]
    # force: ParaDetox is tokenised text, so the warning about detached full stops says nothing new.
    bleu = _sacrebleu().corpus_bleu(list(outputs), streams, tokenize=BLEU_TOKENISER, force=True)
    return float(bleu.score) / 100


def _sentence_bleu(output: str, reference: str) -> float:
    bleu = _sacrebleu().sentence_bleu(output, [reference], tokenize=BLEU_TOKENISER, smooth_method="exp")
    return float(bleu.score) / 100


def _chrfs(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> list[list[float]]:
    return [
        [float(_sacrebleu().sentence_chrf(output, [reference]).score) / 100 for reference in several]
        for output, several in zip(outputs, references, strict=True)
    ]


@cache
def _rouge_scorer() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise MissingExtraError(feature="ROUGE", extra="train") from error
    return RougeScorer(list(ROUGES), use_stemmer=True)


def _sacrebleu() -> Any:
    try:
        import sacrebleu
    except ImportError as error:
        raise MissingExtraError(feature="BLEU and chrF", extra="train") from error
    return sacrebleu
