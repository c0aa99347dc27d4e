"""What a rewrite must leave as it is: code, URLs, addresses, placeholders, mentions, numbers, quotations.

Every finder takes time linear in the text, whatever the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from guardrail.outcome import Span

__all__ = ["Item", "blanked", "find", "protected_spans"]


@dataclass(frozen=True, slots=True)
class Item:
    """One protected passage: where it stands, and a key that is equal for two spellings of the same thing."""

    span: Span
    key: str = field(repr=False)


# Each pattern can start only where a token does, or has bounded repeats: that is what keeps them linear.
_COMMON_DOMAINS = (
    "com|org|net|edu|gov|mil|int|info|biz|io|co|ai|app|dev|tech|xyz|top|site|online|club|shop|blog|cloud|tv|gg"
    "|ly|uk|de|fr|es|ru|cn|jp|kr|eu|ca|au|nl|se|ch|at|pl|br|ua|ie|nz"
)
_URL = re.compile(
    r"(?<![\w.@-])(?:"
    r"(?:https?|ftp)://[^\s<>\"“”«»`]+"
    r"|www\.[^\s<>\"“”«»`]+"
    rf"|(?:[a-z0-9-]+\.)+(?:(?:{_COMMON_DOMAINS})(?![\w-])(?::\d{{1,5}})?(?:[/?#][^\s<>\"“”«»`]*)?"
    r"|[a-z]{2,24}/[^\s<>\"“”«»`]*)"
    r")",
    re.IGNORECASE,
)
_AFTER_URL = ".,;:!?…)]}'’*_~"
_ADDRESS = re.compile(
    r"(?<![\w.+@-])(?:"
    r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"  # e-mail
    r"|\+\d[\d ().-]{6,18}\d"  # telephone, international
    r"|\(?\d{3}\)?[ .-]?\d{3}[ .-]\d{4}|\d{3}[.-]\d{4}|0\d{2,4}[ /-]\d{4,8}"  # telephone, national
    r"|\d{1,3}(?:\.\d{1,3}){3}(?!\.\d)"  # IPv4
    r"|(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}|(?:[0-9a-f]{1,4}:){1,6}(?::[0-9a-f]{1,4}){1,6}"  # IPv6
    r"|::[0-9a-f]{1,4}"
    r")(?![\w@])",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(
    r"\{\{[^{}\n]{0,64}\}\}|\$\{[^{}\n]{0,64}\}|\{[A-Za-z_][\w.:!\[\]-]{0,63}\}|\{\d{0,3}\}"
    r"|(?<![\d%])%(?:\(\w{1,64}\))?[sdifgxr](?!\w)"
    r"|<[A-Z][A-Z0-9_ -]{1,63}>|\[[A-Z][A-Z0-9_ -]{1,63}\]"
)
_MENTION = re.compile(r"(?<![\w@#/.&])(?:@\w+(?:[.-]\w+)*|#\d*[^\W\d]\w*)")
_WORDED_UNITS = (
    "degrees?|percent|per cent|kgs?|grams?|kilos?|lbs?|pounds?|ounces?|tons?|tonnes?|met(?:er|re)s?|miles?"
    "|feet|foot|inch(?:es)?|yards?|mph|kph|lit(?:er|re)s?|secs?|seconds?|mins?|minutes?|hrs?|hours?|days?"
    "|weeks?|months?|years?|yrs?|bits?|bytes?|watts?|volts?|thousand|million|billion|trillion"
    "|usd|eur|gbp|dollars?|euros?|cents?|bucks"
)
_UNITS = (
    "[%‰$€£¥]|°[cf]?|mg|g|oz|km/h|km|cm|mm?|nm|mi|ft|ml|l|ms|s|h|[ap]\\.m\\.?|[ap]m|[kmg]?hz|[kmgt]b|kwh"
    f"|[kmgt]?w|v|mah?|k|bn|bln|st|nd|rd|th|{_WORDED_UNITS}"
)
_NUMBER = re.compile(
    r"(?<!\w)(?<!\d[.,:])(?P<sign>[-+−](?=[\d.$€£¥]))?(?P<currency>[$€£¥]\s?)?"
    r"(?P<value>\.?\d+(?:[.,:]\d+)*)"
    rf"(?:\s?(?P<unit>{_UNITS})(?!\w)"
    rf"|\s[^\W\d_]{{2,24}}\s(?P<distant>{_WORDED_UNITS})(?!\w)"  # 51 damned years
    r"|(?!\w)|(?P<glued>(?=\w)))",
    re.IGNORECASE,
)
_SAME_UNIT = {
    "dollar": "$", "buck": "$", "usd": "$", "euro": "€", "eur": "€", "gbp": "£", "percent": "%",
    "per cent": "%", "sec": "second", "min": "minute", "hr": "hour", "yr": "year", "lb": "pound",
    "kilo": "kg", "foot": "feet", "inche": "inch", "metre": "meter", "litre": "liter", "tonne": "ton",
}  # fmt: skip
_THOUSANDS = re.compile(r",(?=\d{3}(?!\d))")
_PLURAL = re.compile(r"(?<=..)s$")
_BACKTICKS = re.compile("`+")
_EMPHASIS = re.compile(
    r"(?<![\w*~])(?P<mark>\*{1,3}|~~)(?=[^\s*~])(?P<stars>[^*~\n]{1,400})(?<=\S)(?P=mark)(?![\w*~])"
    r"|(?<![\w_])(?P<line>_{1,3})(?=[^\s_])(?P<lined>[^_\n]{1,400})(?<=\S)(?P=line)(?![\w_])"
)
_QUOTATION = re.compile(
    r"(?<![^\s(\[{—–*_-])\"(?=[^\s\"])(?P<straight>[^\"\n]+)(?<=[^\s\"])\"(?![\w\"])"
    r"|“(?P<curly>[^“”]+)”|«(?P<angle>[^«»]+)»|„(?P<low>[^„“”]+)[“”]"
)


def _codes(text: str) -> Iterator[Item]:
    """Passages between two runs of backticks of the same length, as in Markdown."""
    runs = [match.span() for match in _BACKTICKS.finditer(text)]
    closing: dict[int, int] = {}
    partner: dict[int, int] = {}
    for index in range(len(runs) - 1, -1, -1):
        length = runs[index][1] - runs[index][0]
        if length in closing:
            partner[index] = closing[length]
        closing[length] = index
    index = 0
    while index < len(runs):
        if index in partner:
            start, end = runs[index][0], runs[partner[index]][1]
            yield Item(Span(start, end), text[start:end])
            index = partner[index]
        index += 1


def _urls(text: str) -> Iterator[Item]:
    for match in _URL.finditer(text):
        url = match.group().rstrip(_AFTER_URL)
        yield Item(Span(match.start(), match.start() + len(url)), url)


def _numbers(text: str) -> Iterator[Item]:
    for match in _NUMBER.finditer(text):
        if match["glued"] is not None:
            continue  # a part of a name or code such as 3D or 7zip
        sign, currency = (match["sign"] or "").replace("−", "-"), (match["currency"] or "").strip()
        unit = _PLURAL.sub("", (match["unit"] or match["distant"] or "").casefold().replace(".", ""))
        value = _THOUSANDS.sub("", match["value"])
        yield Item(Span(*match.span("value")), f"{sign}{value}{currency}{_SAME_UNIT.get(unit, unit)}")


def _quotations(text: str) -> Iterator[Item]:
    for match in _QUOTATION.finditer(text):
        words = match[match.lastgroup or 0].split()
        if sum(map(_is_word, words)) >= 2:
            yield Item(Span(*match.span()), " ".join(words).casefold())


def _emphases(text: str) -> Iterator[Item]:
    for match in _EMPHASIS.finditer(text):
        mark = match["mark"] or match["line"]
        words = " ".join((match["stars"] or match["lined"]).casefold().split())
        yield Item(Span(*match.span()), f"{mark}{words}")


def _is_word(token: str) -> bool:
    return any(character.isalnum() for character in token)


def _matches(pattern: re.Pattern[str]) -> Callable[[str], Iterator[Item]]:
    def finder(text: str) -> Iterator[Item]:
        return (Item(Span(*match.span()), match.group().casefold()) for match in pattern.finditer(text))

    return finder


_FINDERS: Mapping[str, Callable[[str], Iterator[Item]]] = MappingProxyType(
    {
        "code": _codes,
        "url": _urls,
        "address": _matches(_ADDRESS),
        "placeholder": _matches(_PLACEHOLDER),
        "mention": _matches(_MENTION),
        "number": _numbers,
    }
)
"""In order of precedence: what an earlier finder claims is not looked at by a later one."""


def find(kind: str, text: str) -> tuple[Item, ...]:
    """All items of one kind: code, url, address, placeholder, mention, number, quotation or emphasis."""
    if kind == "quotation":
        return tuple(_quotations(text))
    if kind == "emphasis":
        return tuple(_emphases(blanked(text)))
    return tuple(_FINDERS[kind](blanked(text, before=kind)))


def blanked(text: str, *, before: str | None = None) -> str:
    """The text with spaces in place of all items but quotations, or of those that come ``before`` a kind."""
    for kind, finder in _FINDERS.items():
        if kind == before:
            break
        text = _blank(text, (item.span for item in finder(text)))
    return text


def protected_spans(text: str) -> tuple[Span, ...]:
    """Where code, URLs and quotations stand, in order and merged: these are judged and never rewritten."""
    merged: list[Span] = []
    spans = (item.span for kind in ("code", "url", "quotation") for item in find(kind, text))
    for span in sorted(spans, key=lambda span: span.start):
        if merged and span.start <= merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(span.end, merged[-1].end))
        else:
            merged.append(span)
    return tuple(merged)


def _blank(text: str, spans: Iterable[Span]) -> str:
    pieces, position = [], 0
    for span in spans:
        pieces += [text[position : span.start], " " * (span.end - span.start)]
        position = span.end
    return "".join([*pieces, text[position:]])
