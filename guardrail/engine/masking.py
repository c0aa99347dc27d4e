"""Which words of a sentence are masked, and when a mask would help nobody."""

from __future__ import annotations

from collections.abc import Sequence

from guardrail.outcome import Span
from guardrail.rewriters.mask import mask_spans, words_under
from guardrail.text.protected import Item, find
from guardrail.text.removal import TAG
from guardrail.text.wordlists import word_set

__all__ = ["GRAMMAR", "masked"]

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
