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

from guardrail.outcome import Span
from guardrail.policy import Policy
from guardrail.text import fidelity
from guardrail.text.boundaries import ABBREVIATIONS, ENDS, LINE_BREAKS, lead_end
from guardrail.text.disguise import debris
from guardrail.text.fidelity import Comparison, compared
from guardrail.text.protected import Item, blanked, find, protected_spans
from guardrail.text.removal import TAG

__all__ = ["CHECKS", "Check", "Proposal", "failed", "protected_spans"]

SPARE = 12
"""Characters by which any rewrite may miss the length ratio: about two words."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A candidate for a source, with all that the checks need to know.

    ``spans`` are the toxic characters of ``source``; ``similarity`` is the cosine (-1..1) of the two;
    ``flagged`` and ``listed`` say whether the classifier and the lexicon find the candidate toxic.
    ``likelihood`` is the candidate's log-probability per word less that of the source, ``acceptable`` the
    verifier's probability that a reader accepts it; None if nobody told. ``lossy`` is true for a source
    that nothing civil can carry, of which only the stance has to stay.
    """

    source: str = field(repr=False)
    candidate: str = field(repr=False)
    spans: tuple[Span, ...]
    similarity: float
    flagged: bool
    listed: bool
    likelihood: float | None = None
    acceptable: float | None = None
    lossy: bool = False

    @property
    def words(self) -> Comparison:
        """Source and candidate word by word."""
        return compared(self.source, self.candidate, self.spans)


class Check(NamedTuple):
    """A name for reports, and a function that is true if it refuses a proposal.

    ``of_facts`` is true for what a lossy rewrite may leave out.
    """

    name: str
    refuses: Callable[[Proposal, Policy], bool]
    of_facts: bool = False


def failed(proposal: Proposal, policy: Policy) -> tuple[str, ...]:
    """The names of the checks that refuse the candidate, in fixed order; empty if it may be shown."""
    return tuple(
        check.name
        for check in CHECKS
        if not (proposal.lossy and check.of_facts) and check.refuses(proposal, policy)
    )


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


def _negation(proposal: Proposal, policy: Policy) -> bool:
    return fidelity.negations_changed(proposal.words) > policy.negation_change


def _opposite(proposal: Proposal, policy: Policy) -> bool:
    words = proposal.words
    return fidelity.is_turned(words) or fidelity.is_praised(words) or fidelity.is_blamed(words)


def _content(proposal: Proposal, policy: Policy) -> bool:
    return fidelity.is_gutted(proposal.words, similarity=proposal.similarity)


def _invention(proposal: Proposal, policy: Policy) -> bool:
    return fidelity.is_invented(proposal.words, proposal.source, proposal.candidate)


def _condition(proposal: Proposal, policy: Policy) -> bool:
    return fidelity.is_unconditional(proposal.words)


def _person(proposal: Proposal, policy: Policy) -> bool:
    return fidelity.person_changed(proposal.words)


def _stand_in(proposal: Proposal, policy: Policy) -> bool:
    return fidelity.stands_in(proposal.candidate, proposal.source)


def _hole(proposal: Proposal, policy: Policy) -> bool:
    return fidelity.is_hollow(_spelled(proposal.candidate), _spelled(proposal.source))


def _spelled(text: str) -> str:
    """The text with letters in place of code, addresses and the like, which stand for words."""
    return "".join(
        "x" if new.isspace() and not old.isspace() else new
        for old, new in zip(text, blanked(text), strict=True)
    )


def _disguise(proposal: Proposal, policy: Policy) -> bool:
    return debris(proposal.candidate, proposal.source)


def _likelihood(proposal: Proposal, policy: Policy) -> bool:
    floor, likelihood = policy.likelihood_floor, proposal.likelihood
    return floor is not None and likelihood is not None and not likelihood >= floor


def _acceptable(proposal: Proposal, policy: Policy) -> bool:
    floor, acceptable = policy.acceptable, proposal.acceptable
    return floor is not None and acceptable is not None and not acceptable >= floor


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


def _number(proposal: Proposal, policy: Policy) -> bool:
    """Numbers are compared by value, and by unit if both texts have one: "45-minute", "45 minutes"."""
    present = find("number", proposal.source)
    required = Counter(_value(item) for item in present if not _touches(item, proposal.spans))
    found = find("number", proposal.candidate)
    if not required <= Counter(map(_value, found)) <= Counter(map(_value, present)):
        return True
    units: dict[str, set[str]] = {}
    for item in present:
        units.setdefault(_value(item), set()).add(_unit(item))
    return any(
        _unit(item) and _unit(item) not in units[_value(item)] and "" not in units[_value(item)]
        for item in found
    )


_VALUE = re.compile(r"-?\.?\d+(?:[.,:]\d+)*")


def _value(item: Item) -> str:
    match = _VALUE.match(item.key)
    return match.group() if match else item.key


def _unit(item: Item) -> str:
    return item.key[len(_value(item)) :]


def _touches(item: Item, spans: tuple[Span, ...]) -> bool:
    return any(span.start < item.span.end and item.span.start < span.end for span in spans)


def _markup(proposal: Proposal, policy: Policy) -> bool:
    """Refuses lost or new emphasis and HTML tags; emphasised words that are toxic may become others."""
    source, candidate = proposal.source, proposal.candidate
    if Counter(TAG.findall(source)) != Counter(TAG.findall(candidate)):
        return True
    present = find("emphasis", source)
    required = Counter(item.key for item in present if not _touches(item, proposal.spans))
    found = Counter(item.key for item in find("emphasis", candidate))
    return not required <= found or found.total() > len(present)


_LINES = re.compile(f"\r\n|[{LINE_BREAKS}]")


def _layout(proposal: Proposal, policy: Policy) -> bool:
    return _markers(proposal.source) != _markers(proposal.candidate)


def _markers(text: str) -> list[str]:
    """What opens each line: list, quote and heading markers; as many entries as lines."""
    lines = _LINES.split(text.strip())
    return ["".join(line[: lead_end(line, 0, len(line), at_line_start=True)].split()) for line in lines]


def _copy(proposal: Proposal, policy: Policy) -> bool:
    """Refuses the same letters and digits, unless a toxic symbol is gone: an emoji may be the insult."""
    symbols = {c for s in proposal.spans for c in proposal.source[s.start : s.end] if _is_symbol(c)}
    same = _letters(proposal.source) == _letters(proposal.candidate)
    return same and symbols <= set(proposal.candidate)


def _is_symbol(character: str) -> bool:
    return unicodedata.category(character) == "So"


def _letters(text: str) -> str:
    """Letters and digits alone, without case; the text itself if it has none."""
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
    shouts = sum(len(word) >= _STEM and word.isupper() for word in _WORD.findall(source)) >= 1
    for word in _capitalised_inside(blanked(proposal.candidate)):
        if shouts and word.isupper() and len(word) > 1:
            continue
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
    Check("meaning", _meaning, of_facts=True),
    Check("length", _length, of_facts=True),
    Check("negation", _negation, of_facts=True),
    Check("opposite", _opposite),
    Check("content", _content, of_facts=True),
    Check("invention", _invention, of_facts=True),
    Check("condition", _condition, of_facts=True),
    Check("person", _person),
    Check("stand_in", _stand_in),
    Check("hole", _hole),
    Check("disguise", _disguise),
    Check("number", _number, of_facts=True),
    Check("url", _changes("url"), of_facts=True),
    Check("address", _changes("address"), of_facts=True),
    Check("code", _changes("code")),
    Check("placeholder", _changes("placeholder")),
    Check("mention", _changes("mention"), of_facts=True),
    Check("quotation", _changes("quotation", even_toxic=True), of_facts=True),
    Check("markup", _markup),
    Check("layout", _layout),
    Check("copy", _copy),
    Check("name", _name),
    Check("likelihood", _likelihood),
    Check("acceptable", _acceptable),
)
