"""All candidates for segments whose toxic characters are known: edits, filled gaps, free rewrites."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from guardrail.outcome import Span
from guardrail.rewriters.edits.phrases import phrases
from guardrail.rewriters.edits.propose import Gap, edits, gaps
from guardrail.rewriters.edits.ranking import letters, ranked
from guardrail.rewriters.edits.substitutions import SubstitutionTable
from guardrail.rewriters.sampling import Prompt
from guardrail.rewriters.wording import Wording

__all__ = ["MAX_SCORED", "Ask", "Model", "marked_candidates"]

MAX_CONTINUATIONS = 2
"""How often each gap is filled: greedily, then by a sample, if more than one candidate is wanted."""
GAP_WORDS = 6
"""Words of a filling behind which the rest of the source may follow."""
MAX_FILLED = 8
MAX_SCORED = 1024
"""Tokens of all edits of one segment; for each the model weighs its whole vocabulary."""
WINDOW = 1
"""Words beside the toxic ones in which a free rewrite may differ and still be taken over in part."""
_PIECE = re.compile(r"[^\W_]+(?:['’*@$!#-]+[^\W_]+)*\$*|\s+|.", re.DOTALL)
_WORD_END = re.compile(r"(?<=\w)(?!\w)|$")


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt to be continued ``n`` times; ``source`` are the tokens that a continuation may well repeat."""

    prompt: Prompt
    source: tuple[int, ...]
    n: int


class Model(Protocol):
    """A model under an adapter."""

    def continued(self, asks: Sequence[Ask]) -> list[list[list[int]]]:
        """The continuations of each prompt, the greedy one first."""
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

    Empty where the segment cannot be rewritten.
    """
    prompts = wording.prompts([text for text, _ in segments])
    todo = [(text, spans) for text, spans in dict.fromkeys(segments) if text in prompts]
    free_asks = [Ask(prompts[text], tuple(wording.encode(text)), max(1, n - 1)) for text, _ in todo]
    filled = [(asked, number, gap) for asked in todo for number, gap in enumerate(gaps(*asked))]
    times = min(n, MAX_CONTINUATIONS)
    gap_asks = [
        _gap_ask(prompts[asked[0]], gap, number, wording, times=times) for asked, number, gap in filled
    ]
    continued = model.continued([*free_asks, *gap_asks])
    fillings: dict[tuple[str, tuple[Span, ...]], list[str]] = {}
    for (asked, _, gap), tokens in zip(filled, continued[len(free_asks) :], strict=True):
        fillings.setdefault(asked, []).extend(_joins(gap, [wording.decode(ids) for ids in tokens]))
    free = [
        wording.texts(tokens, source=text)
        for (text, _), tokens in zip(todo, continued[: len(free_asks)], strict=True)
    ]
    kept = [
        _affordable(
            wording,
            free_of,
            _different(
                [text, *free_of],
                [
                    *edits(text, spans, table),
                    *_partly(text, spans, free_of),
                    *fillings.get((text, spans), ())[:MAX_FILLED],
                ],
            ),
        )
        for (text, spans), free_of in zip(todo, free, strict=True)
    ]
    scores = model.scored([prompts[text] for text, _ in todo], kept)
    found = {
        asked: ranked(dict(zip(texts, scored, strict=True)), source=asked[0], toxic=_toxic(*asked), n=n)
        for asked, texts, scored in zip(todo, kept, scores, strict=True)
    }
    return [list(found.get(asked, ())) for asked in segments]


def _affordable(wording: Wording, free: Sequence[str], others: Sequence[str]) -> list[str]:
    """The free rewrites and as many others, in order, as ``MAX_SCORED`` tokens allow."""
    found = list(free)
    left = MAX_SCORED
    for text in others:
        left -= len(wording.encode(text))
        if left < 0:
            break
        found.append(text)
    return found


def _different(known: Sequence[str], candidates: Sequence[str]) -> list[str]:
    """The candidates, each once, without those that have the letters of a known text."""
    same = {letters(text) for text in known}
    return list(dict.fromkeys(one for one in candidates if one.strip() and letters(one) not in same))


def _toxic(text: str, spans: Sequence[Span]) -> list[str]:
    return [text[phrase.start : phrase.end] for phrase in phrases(text, spans)]


def _gap_ask(prompt: Prompt, gap: Gap, number: int, wording: Wording, *, times: int) -> Ask:
    seed = prompt.seed + b"\0gap" + bytes([number])
    ids = (*prompt.ids, *wording.encode(gap.before))
    return Ask(replace(prompt, ids=ids, seed=seed), tuple(wording.encode(gap.behind)), times)


def _joins(gap: Gap, continuations: Sequence[str]) -> list[str]:
    """What was generated, whole and up to each of its first words, then what stood behind the gap."""
    found: dict[str, None] = {}
    for continuation in continuations:
        found[gap.before + continuation] = None
        ends = [match.start() for match in _WORD_END.finditer(continuation)][:GAP_WORDS]
        behind = gap.behind if gap.behind[:1] in tuple(".,;:!?)") else " " + gap.behind.lstrip()
        for end in ends:
            # It fits where the model itself goes on with the word or mark that stood there.
            rest = continuation[end:].lstrip()
            if rest and behind.strip() and _first(rest) == _first(behind.lstrip()):
                found[gap.before + continuation[:end] + behind] = None
    return list(found)


def _first(text: str) -> str:
    found = _PIECE.match(text)
    return found.group().casefold() if found else ""


def _partly(text: str, spans: Sequence[Span], rewrites: Sequence[str]) -> list[str]:
    """Rewrites with the source's own words outside a window around the toxic ones."""
    if not spans:
        return []
    pieces = [match.group() for match in _PIECE.finditer(text)]
    starts = np.cumsum([0, *map(len, pieces)])
    toxic = [
        i for i in range(len(pieces)) if any(s.start < starts[i + 1] and starts[i] < s.end for s in spans)
    ]
    found = []
    for rewrite in rewrites:
        other = [match.group() for match in _PIECE.finditer(rewrite)]
        codes = difflib.SequenceMatcher(None, pieces, other, autojunk=False).get_opcodes()
        taken = [
            "".join(other[c:d] if kind == "equal" or _near(a, b, toxic) else pieces[a:b])
            for kind, a, b, c, d in codes
        ]
        found.append("".join(taken))
    return [one for one in dict.fromkeys(found) if one != text and one.strip() and one not in rewrites]


def _near(start: int, end: int, toxic: Sequence[int]) -> bool:
    reach = 2 * WINDOW  # blanks are pieces too
    return any(start - reach <= place < end + reach for place in toxic)
