"""Masks words: which ones of a sentence, how they are written, and when a mask would help nobody."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache

from guardrail.outcome import Span
from guardrail.text.protected import Item, find
from guardrail.text.removal import TAG
from guardrail.text.wordlists import word_set

__all__ = ["GRAMMAR", "mask_spans", "mask_whole", "masked", "words_under"]

MAX_PHRASE = 4
"""Words of one span beyond which stars hide a clause and not an insult."""
MAX_SHARE = 0.5
"""Share of a sentence's words beyond which what is left says nothing."""
GRAMMAR = word_set(
    """
    a an the this that these those i you he she it we they me him her us them my your his its our
    their u ur am is are was were be been being do does did have has had will would shall should can
    could may might must to of in on at by for with about from into over up as than then so too very
    and or but if because not no who whom which what when where why how there here just like im
    youre hes shes theyre its r u n w ya yall
    """
)
"""Words that insult nobody and hold a sentence together: they stay readable."""
# Inside a word these belong to it ("dumb-ass", "f**k", "sh!t"), at its ends they do not ("**bold**", "oh!").
_JOINERS = frozenset("'’‘*@$!#%|-_·•")
_MAX_JOIN = 3
_OPENING = "@$"  # all of them joiners


def masked(body: str, spans: Sequence[Span], *, template: str | None, by: str) -> str | None:
    """The text with the toxic words masked, and ``by`` for a link address or inline code that holds one.

    None if no word that tells anything is toxic, or if that would hide a whole phrase or most of the text, or
    break an HTML tag.
    """
    words = words_under(body, spans)
    telling = [word for word in words if not _is_grammar(body, word)]
    if not telling:
        return None
    tags = [Span(*match.span()) for match in TAG.finditer(body)]
    if any(_overlap(word, tag) for word in telling for tag in tags) or _is_too_much(body, spans, telling):
        return None
    pieces: list[str] = []
    done = 0
    for span, text in _replacements(body, telling, by=by):
        pieces += (_starred(body, done, span.start, telling, template=template), text)
        done = span.end
    return "".join((*pieces, _starred(body, done, len(body), telling, template=template)))


def _is_grammar(body: str, word: Span) -> bool:
    text = body[word.start : word.end].casefold().replace("’", "'").replace("'", "")
    return text in GRAMMAR


def _is_too_much(body: str, spans: Sequence[Span], telling: Sequence[Span]) -> bool:
    if any(sum(_overlap(word, span) for word in telling) > MAX_PHRASE for span in spans):
        return True
    everything = words_under(body, [Span(0, len(body))])
    return len(telling) > MAX_SHARE * len(everything)


def _replacements(body: str, words: Sequence[Span], *, by: str) -> list[tuple[Span, str]]:
    """Addresses and code that hold a toxic word, each with what stands in its place, in order."""
    found = [(item, by) for item in find("url", body)]
    found += [(item, f"{_ticks(item)}{by}{_ticks(item)}") for item in find("code", body)]
    touched = [(item.span, text) for item, text in found if any(_overlap(word, item.span) for word in words)]
    return sorted(touched, key=lambda pair: pair[0].start)


def _ticks(code: Item) -> str:
    return code.key[: len(code.key) - len(code.key.lstrip("`"))]


def _starred(body: str, start: int, end: int, words: Sequence[Span], *, template: str | None) -> str:
    inside = [word.shifted(-start) for word in words if start <= word.start and word.end <= end]
    return mask_spans(body[start:end], inside, template=template)


def _overlap(a: Span, b: Span) -> bool:
    return a.start < b.end and b.start < a.end


def mask_spans(text: str, spans: Sequence[Span], *, template: str | None) -> str:
    """The text with every word that a span touches masked, and nothing else changed.

    With ``template=None`` a word keeps its first letter and its length ("i****"); a word of one character or
    of wide characters (CJK, emoji) keeps nothing but its length. Otherwise the template stands for each word,
    and once for neighbours on the same line. A span that touches no word has its visible characters masked.
    """
    return _masked(text, words_under(text, spans), template=template)


def mask_whole(text: str, *, template: str | None) -> str:
    """The text with all its words masked; white space and marks between them stay."""
    return mask_spans(text, [Span(0, len(text))], template=template)


def words_under(text: str, spans: Sequence[Span]) -> list[Span]:
    """The words that spans touch, in order and disjoint; for a span without words, its visible characters."""
    words: list[Span] = []
    for span in sorted(spans, key=lambda s: (s.start, s.end)):
        done = words[-1].end if words else 0
        start, end = max(span.start, 0, done), min(span.end, len(text))
        if start >= end:
            continue
        found = list(_words(text, _word_start(text, start, floor=done), end))
        touching = [word for word in found if word.end > start]
        words += touching or ([] if span.start < done else _visible(text, start, end))
    return words


def _word_start(text: str, position: int, *, floor: int) -> int:
    """Where the word around a position starts; the position itself if it is in none."""
    start = position
    while start > floor and (text[start - 1] in _JOINERS or _is_letter(text[start - 1])):
        start -= 1
    return start


def _words(text: str, start: int, end: int) -> Iterator[Span]:
    """The words that begin in a slice, the last one in full."""
    position = start
    while position < end:
        opens = text[position] in _OPENING and _is_letter(text[position + 1 : position + 2])
        if not opens and not _is_letter(text[position]):
            position += 1
            continue
        stop = _word_end(text, position + opens)
        yield Span(position, stop)
        position = stop


def _word_end(text: str, position: int) -> int:
    """The end of the word whose first letter is at a position."""
    end = position
    while end < len(text):
        while end < len(text) and _is_letter(text[end]):
            end += 1
        join = end
        while join < len(text) and join - end <= _MAX_JOIN and text[join] in _JOINERS:
            join += 1
        if join == end or join - end > _MAX_JOIN or not _is_letter(text[join : join + 1]):
            break
        end = join
    while text[end : end + 1] == "$":
        end += 1
    return end


def _visible(text: str, start: int, end: int) -> list[Span]:
    return [Span(i, i + 1) for i in range(start, end) if not text[i].isspace()]


def _masked(text: str, words: Sequence[Span], *, template: str | None) -> str:
    pieces: list[str] = []
    done = 0
    for word in words:
        gap = text[done : word.start]
        if template is None:
            pieces += (gap, _stars(text[word.start : word.end]))
        elif not pieces or not _is_adjacent(gap):
            pieces += (gap, template)
        done = word.end
    return "".join((*pieces, text[done:]))


def _is_adjacent(gap: str) -> bool:
    """True if what separates two masked words can go with them: blanks, or one mark as in "i.d.i.o.t"."""
    return "\n" not in gap and "\r" not in gap and (not gap.strip() or len(gap) == 1)


def _stars(word: str) -> str:
    first = word[0]
    is_wide = unicodedata.east_asian_width(first) in ("W", "F")
    keeps_first = (
        len(word) > 1 and not is_wide and (unicodedata.category(first)[0] in "LN" or first in _OPENING)
    )
    return first + "*" * (len(word) - 1) if keeps_first else "*" * len(word)


@lru_cache(maxsize=8192)
def _is_letter(character: str) -> bool:
    """True for what words are made of: letters, digits, marks, emoji, invisible characters."""
    if not character or character.isspace():
        return False
    category = unicodedata.category(character)
    return category[0] in "LNM" or (
        category in ("So", "Sk", "Cf", "Cs", "Co", "Cn") and character not in "^`"
    )
