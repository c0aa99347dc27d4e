"""The pure checks that every rewrite must pass before anyone sees it.

No model runs here: what the models said of a candidate stands in its ``Proposal``.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from guardrail.boundaries import ABBREVIATIONS, ENDS, LINE_BREAKS, lead_end
from guardrail.outcome import Span
from guardrail.policy import Policy
from guardrail.protected import Item, blanked, find, protected_spans

__all__ = ["CHECKS", "Check", "Proposal", "failed", "protected_spans"]

SPARE = 12
"""Characters by which any rewrite may miss the length ratio: about two words."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A candidate for a source, with all that the checks need to know.

    ``spans`` are the toxic characters of ``source``; ``similarity`` is the cosine (-1..1) of the two;
    ``flagged`` and ``listed`` say whether the classifier and the lexicon find the candidate toxic.
    """

    source: str = field(repr=False)
    candidate: str = field(repr=False)
    spans: tuple[Span, ...]
    similarity: float
    flagged: bool
    listed: bool


class Check(NamedTuple):
    """A name for reports, and a function that is true where it refuses a proposal."""

    name: str
    refuses: Callable[[Proposal, Policy], bool]


def failed(proposal: Proposal, policy: Policy) -> tuple[str, ...]:
    """The names of the checks that refuse the candidate, in fixed order; empty where it may be shown."""
    return tuple(check.name for check in CHECKS if check.refuses(proposal, policy))


def _empty(proposal: Proposal, policy: Policy) -> bool:
    return not any(unicodedata.category(character)[0] in "LNS" for character in proposal.candidate)


def _toxic(proposal: Proposal, policy: Policy) -> bool:
    return proposal.flagged


def _listed(proposal: Proposal, policy: Policy) -> bool:
    return proposal.listed


def _meaning(proposal: Proposal, policy: Policy) -> bool:
    return not proposal.similarity >= policy.meaning_floor  # written so that NaN is refused


def _length(proposal: Proposal, policy: Policy) -> bool:
    source, candidate = (len(" ".join(text.split())) for text in (proposal.source, proposal.candidate))
    low, high = policy.length_ratio
    return not low * source - SPARE <= candidate <= high * source + SPARE


_NEGATION = re.compile(
    r"\b(?:not|no|never|none|nobody|nothing|nowhere|neither|nor|without|cannot"
    r"|(?:ai|are|ca|could|dare|did|does|do|had|has|have|is|might|must|need|ought|sha|should|was|were|wo|would)"
    r"n\s?['’´`]?\s?t)\b",  # also dont, don 't and don t, as people and tokenisers write
    re.IGNORECASE,
)


def _negation(proposal: Proposal, policy: Policy) -> bool:
    source, candidate = (len(_NEGATION.findall(text)) for text in (proposal.source, proposal.candidate))
    return abs(source - candidate) > policy.negation_change


def _changes(kind: str, *, even_toxic: bool = False) -> Callable[[Proposal, Policy], bool]:
    """Refuses candidates that lost an item of the kind from outside the toxic spans, or have a new one.

    With ``even_toxic`` no item may be lost at all.
    """

    def refuses(proposal: Proposal, policy: Policy) -> bool:
        present = find(kind, proposal.source)
        spans = () if even_toxic else proposal.spans
        required = Counter(item.key for item in present if not _touches(item, spans))
        found = Counter(item.key for item in find(kind, proposal.candidate))
        return not required <= found <= Counter(item.key for item in present)

    return refuses


def _touches(item: Item, spans: tuple[Span, ...]) -> bool:
    return any(span.start < item.span.end and item.span.start < span.end for span in spans)


_LINES = re.compile(f"\r\n|[{LINE_BREAKS}]")


def _layout(proposal: Proposal, policy: Policy) -> bool:
    return _markers(proposal.source) != _markers(proposal.candidate)


def _markers(text: str) -> list[str]:
    """What opens each line: list, quote and heading markers; as many entries as lines."""
    lines = _LINES.split(text.strip())
    return ["".join(line[: lead_end(line, 0, len(line), at_line_start=True)].split()) for line in lines]


def _copy(proposal: Proposal, policy: Policy) -> bool:
    return _letters(proposal.source) == _letters(proposal.candidate)


def _letters(text: str) -> str:
    """Letters and digits alone, without case; the text itself where it has none."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(character for character in folded if character.isalnum()) or text.strip()


_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_FIRST_PERSON = frozenset(["i", "im", "ive", "id", "ill"])
_BEFORE_SENTENCE = frozenset(ENDS + LINE_BREAKS)
_STEM = 4


def _name(proposal: Proposal, policy: Policy) -> bool:
    source = blanked(proposal.source)
    if _case_is_no_signal(source):
        return False
    known = {_folded(word) for word in _WORD.findall(source)}
    stems = {word[:_STEM] for word in known if len(word) >= _STEM}
    for word in _capitalised_inside(blanked(proposal.candidate)):
        folded = _folded(word)
        if folded not in known and folded not in _FIRST_PERSON and folded[:_STEM] not in stems:
            return True
    return False


def _case_is_no_signal(text: str) -> bool:
    """True for shouting and Title Case, where a capital does not make a name."""
    words = _WORD.findall(text)[1:]
    capitalised: int = sum(word[0].isupper() for word in words)
    return text.isupper() or 2 * capitalised > len(words) > 3


def _capitalised_inside(text: str) -> list[str]:
    """Words with a capital that does not come from opening a sentence."""
    found = []
    previous, end = "", 0
    for match in _WORD.finditer(text):
        between = text[end : match.start()]
        opens = not previous or any(character in _BEFORE_SENTENCE for character in between)
        if match.group()[0].isupper() and (not opens or previous.casefold() in ABBREVIATIONS):
            found.append(match.group())
        previous, end = match.group(), match.end()
    return found


def _folded(word: str) -> str:
    """The word without case, apostrophes and possessive ending."""
    folded = word.replace("’", "'").casefold()
    return folded.removesuffix("'s").replace("'", "")


CHECKS = (
    Check("empty", _empty),
    Check("toxic", _toxic),
    Check("lexicon", _listed),
    Check("meaning", _meaning),
    Check("length", _length),
    Check("negation", _negation),
    Check("number", _changes("number")),
    Check("url", _changes("url")),
    Check("address", _changes("address")),
    Check("code", _changes("code")),
    Check("placeholder", _changes("placeholder")),
    Check("mention", _changes("mention")),
    Check("quotation", _changes("quotation", even_toxic=True)),
    Check("layout", _layout),
    Check("copy", _copy),
    Check("name", _name),
)
