"""Where to cut: the stretches around toxic words that can go as a whole."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from guardrail.outcome import Span
from guardrail.rewriters.edits.repair import Change
from guardrail.text.masking import words_under
from guardrail.text.wordlists import word_set

__all__ = ["DETERMINERS", "Phrase", "cuts", "phrases"]

DETERMINERS = word_set(
    "a an the this that these those such some any my your his her their our its another every each no"
)
_ADDRESS = frozenset(["you", "u", "ya", "ye", "yo"])
_MODIFIERS = word_set(
    "absolute absolutely complete completely total totally utter utterly real really right proper"
    " perfect pure such so very quite rather pretty little big great old massive huge giant dirty"
    " filthy lazy stupid dumb useless worthless pathetic ugly fat sad sorry miserable damn damned"
    " goddamn bloody fucking fuckin freaking frigging effing flipping blithering incompetent ignorant"
    " arrogant spineless brainless clueless mindless heartless shameless lying cheating thieving"
    " whining moaning greedy crooked corrupt cowardly nasty vile evil rotten bunch pack gang load pile"
    " piece sack bag waste crowd lot self-righteous smug pompous petty silly"
)
_QUANTITIES = word_set("bunch pack gang load pile piece sack bag waste crowd lot sort")
_FUNCTION = DETERMINERS | word_set(
    "i you he she it we they me him us them and or but if so as at by for from in into of on to with"
    " is are was were be been am do does did can could will would should may might must not has have"
    " had there here who what which when where why how than then too very just"
)
_CONNECTORS = word_set(
    "and but or because so that who which like as than with by for until if while when since where"
    " whose or just even instead rather unless before after though although"
)
_LEADS = frozenset(["a", "an", "the", "this", "that", "these", "those", "some", "such", *_ADDRESS])
_ADDRESSED = re.compile(r"(?:you|u|ya|ye)\b[ \t]*", re.IGNORECASE)
_SUCH = re.compile(r"\bsuch[ \t]+$", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+(?:['’*@$!#-]+[^\W_]+)*\$*")
_MARK = re.compile(
    r"[,;:()\[\]!?…–—\n]+|(?<!\b[A-Z])(?<!\b[A-Z][a-z])(?<!\bMrs)\.+(?=\s|$|[\"”’')\]])|\s-{1,2}\s"
)
_SENTENCE = re.compile(r"(?<!\b[A-Z])(?<!\b[A-Z][a-z])(?<!\bMrs)[.!?…]+[\"”’')\]]*\s+|\n+")
_MAX_CUTS = 8


@dataclass(frozen=True, slots=True)
class Phrase:
    """Toxic words that stand together, ``start`` to ``end``; ``head`` is where their whole phrase begins,
    with modifiers and article, or the "you" of an address.
    """

    start: int
    end: int
    head: int


def phrases(text: str, spans: Sequence[Span]) -> list[Phrase]:
    """The toxic words of a text in phrases; function words that a span caught alone are none."""
    words = [w for w in words_under(text, spans) if w.start < w.end]
    groups: list[list[Span]] = []
    for word in words:
        if groups and not text[groups[-1][-1].end : word.start].strip(" \t-"):
            groups[-1].append(word)
        else:
            groups.append([word])
    result = []
    for group in groups:
        while group and text[group[0].start : group[0].end].casefold() in _FUNCTION:
            group = group[1:]
        while group and text[group[-1].start : group[-1].end].casefold() in _FUNCTION:
            group = group[:-1]
        if group:
            start, end = group[0].start, group[-1].end
            result.append(Phrase(start, end, _head(text, start)))
    return result


def _head(text: str, start: int) -> int:
    """Where the phrase around a toxic word begins: before its modifiers and its article, or at "you"."""
    head = start
    before = list(_WORD.finditer(text, 0, start))[::-1]
    for place, match in enumerate(before):
        if text[match.end() : head].strip(" \t,") or ("," in text[match.end() : head] and head == start):
            break
        word = match.group().casefold()
        if word in DETERMINERS or word in _ADDRESS:
            earlier = _SUCH.search(text[: match.start()]) if word in ("a", "an") else None
            return earlier.start() if earlier else match.start()
        if word in _MODIFIERS:
            head = match.start()
            continue
        if word == "of" and place + 1 < len(before) and before[place + 1].group().casefold() in _QUANTITIES:
            head = match.start()
            continue
        # One word that is not known may stand between an article and its noun.
        further = before[place + 1].group().casefold() if place + 1 < len(before) else ""
        if (
            word in _FUNCTION
            or further not in _LEADS
            or text[before[place + 1].end() : match.start()].strip(" \t")
        ):
            break
        head = match.start()
    return head


def cuts(text: str, phrase: Phrase) -> list[Change]:
    """Stretches whose deletion takes the phrase away, the smallest first, none of them the whole text."""
    stretches: dict[tuple[int, int], None] = {}
    size = len(text.strip())
    for start, end in _stretches(text, phrase):
        start, end = max(0, start), min(len(text), end)
        if (
            end > start
            and len(text[start:end].strip()) < size
            and (text[:start] + text[end:]).strip(" \t.,;:!?\"'")
        ):
            stretches[start, end] = None
    ordered = list(stretches)[:_MAX_CUTS]
    return [Change(start, end) for start, end in ordered]


def _stretches(text: str, phrase: Phrase) -> Iterator[tuple[int, int]]:
    yield phrase.head, phrase.end
    address = _ADDRESSED.match(text, phrase.head, phrase.start)
    if address:  # "you clowns broke it" keeps its subject
        yield address.end(), phrase.end
    first = _WORD.match(text, phrase.head)
    stands_alone = first is not None and first.group().casefold() in (
        "this",
        "that",
        "these",
        "those",
        "some",
    )
    is_head_noun = phrase.head < phrase.start and not _WORD.match(text[phrase.end :].lstrip(" \t"))
    if stands_alone or not is_head_noun:  # an article without its noun does not
        yield phrase.start, phrase.end
    piece_start, piece_end = _piece(text, phrase)
    yield piece_start, piece_end
    sentence_start, sentence_end = _sentence(text, phrase)
    if (sentence_start, sentence_end) != (0, len(text)):
        yield sentence_start, sentence_end
    connectors = [
        match.start()
        for match in _WORD.finditer(text, piece_start, phrase.start)
        if match.group().casefold() in _CONNECTORS and match.start() > piece_start
    ]
    for start in reversed(connectors[-3:]):
        yield start, piece_end
        if phrase.end < piece_end:
            yield start, phrase.end
    after = next(
        (
            m.start()
            for m in _WORD.finditer(text, phrase.end, piece_end)
            if m.group().casefold() in _CONNECTORS
        ),
        None,
    )
    if after is not None:
        yield piece_start, after
    if piece_start > sentence_start:
        yield piece_start, len(text[:sentence_end].rstrip(" \t\n.!?…"))
    if piece_end < sentence_end:
        yield sentence_start, piece_end


def _piece(text: str, phrase: Phrase) -> tuple[int, int]:
    """From mark to mark around a phrase, without the marks."""
    start, end = 0, len(text)
    for mark in _MARK.finditer(text):
        if mark.end() <= phrase.head:
            start = mark.end()
        elif mark.start() >= phrase.end:
            end = mark.start()
            break
    while start < end and text[start] in " \t":
        start += 1
    return start, end


def _sentence(text: str, phrase: Phrase) -> tuple[int, int]:
    start, end = 0, len(text)
    for mark in _SENTENCE.finditer(text):
        if mark.end() <= phrase.start:
            start = mark.end()
        elif mark.start() >= phrase.end:
            end = mark.end()
            break
    return start, end
