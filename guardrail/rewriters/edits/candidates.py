"""All candidates for segments whose toxic characters are known: edits and the greedy free rewrite.

Samples are not among them: if only a sample passes all checks, readers accept about one in four
(docs/decisions/0043-no-samples.md).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from guardrail.outcome import Span
from guardrail.rewriters.edits.phrases import phrases
from guardrail.rewriters.edits.propose import edits
from guardrail.rewriters.edits.ranking import letters, ranked
from guardrail.rewriters.edits.substitutions import SubstitutionTable
from guardrail.rewriters.sampling import Prompt
from guardrail.rewriters.wording import Wording

__all__ = ["MAX_SCORED", "Ask", "Model", "marked_candidates"]

MAX_SCORED = 1024
"""Tokens of all edits of one segment; for each the model weighs its whole vocabulary."""
WINDOW = 1
"""Words next to the toxic ones in which a free rewrite may differ and still be taken over in part."""
_PIECE = re.compile(r"[^\W_]+(?:['’*@$!#-]+[^\W_]+)*\$*|\s+|.", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt to be continued; ``source`` are the tokens that a continuation may well repeat."""

    prompt: Prompt
    source: tuple[int, ...]


class Model(Protocol):
    """A model under an adapter."""

    def continued(self, asks: Sequence[Ask]) -> list[list[int]]:
        """The greedy continuation of each prompt, without tokens if it reached its limit and was cut off."""
        ...

    def scored(
        self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]
    ) -> list[list[npt.NDArray[np.float32]]]:
        """For each text behind its prompt the log-probability of each token and of its end."""
        ...


def marked_candidates(
    model: Model,
    wording: Wording,
    table: SubstitutionTable,
    segments: Sequence[tuple[str, tuple[Span, ...]]],
    n: int,
) -> list[list[str]]:
    """Up to ``n`` candidates for each segment with its toxic spans, the likeliest first.

    Empty if the segment cannot be rewritten.
    """
    prompts = wording.prompts([text for text, _ in segments])
    todo = [(text, spans) for text, spans in dict.fromkeys(segments) if text in prompts]
    continued = model.continued([Ask(prompts[text], tuple(wording.encode(text))) for text, _ in todo])
    affordable = []
    for (text, spans), tokens in zip(todo, continued, strict=True):
        free = wording.texts([tokens], source=text)
        others = _different([text, *free], [*edits(text, spans, table), *_partly(text, spans, free)])
        affordable.append(_affordable(wording, free, others))
    scores = model.scored([prompts[text] for text, _ in todo], affordable)
    rewrites = {
        asked: ranked(dict(zip(texts, scored, strict=True)), source=asked[0], toxic=_toxic(*asked), n=n)
        for asked, texts, scored in zip(todo, affordable, scores, strict=True)
    }
    return [list(rewrites.get(asked, ())) for asked in segments]


def _affordable(wording: Wording, free: Sequence[str], others: Sequence[str]) -> list[str]:
    """The free rewrites and as many others, in order, as ``MAX_SCORED`` tokens allow."""
    affordable = list(free)
    left = MAX_SCORED
    for text in others:
        left -= len(wording.encode(text))
        if left < 0:
            break
        affordable.append(text)
    return affordable


def _different(known: Sequence[str], candidates: Sequence[str]) -> list[str]:
    """The candidates, each once, without those that have the letters of a known text."""
    same = {letters(text) for text in known}
    return list(dict.fromkeys(one for one in candidates if one.strip() and letters(one) not in same))


def _toxic(text: str, spans: Sequence[Span]) -> list[str]:
    return [text[phrase.start : phrase.end] for phrase in phrases(text, spans)]


def _partly(text: str, spans: Sequence[Span], rewrites: Sequence[str]) -> list[str]:
    """Rewrites with the source's own words outside a window around the toxic ones."""
    if not spans:
        return []
    pieces = [match.group() for match in _PIECE.finditer(text)]
    starts = np.cumsum([0, *map(len, pieces)])
    toxic = [
        i for i in range(len(pieces)) if any(s.start < starts[i + 1] and starts[i] < s.end for s in spans)
    ]
    mixtures = []
    for rewrite in rewrites:
        other = [match.group() for match in _PIECE.finditer(rewrite)]
        codes = difflib.SequenceMatcher(None, pieces, other, autojunk=False).get_opcodes()
        taken = [
            "".join(other[c:d] if kind == "equal" or _near(a, b, toxic) else pieces[a:b])
            for kind, a, b, c, d in codes
        ]
        mixtures.append("".join(taken))
    return [one for one in dict.fromkeys(mixtures) if one != text and one.strip() and one not in rewrites]


def _near(start: int, end: int, toxic: Sequence[int]) -> bool:
    reach = 2 * WINDOW  # blanks are pieces too
    return any(start - reach <= place < end + reach for place in toxic)
