"""Tokenised, lower-cased text as a person would have written it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

from research.pairs.words import CONTRACTIONS, FUNCTION_WORDS

__all__ = ["capitals_inside", "cased", "detokenised", "names_of", "with_articles"]

_STEPS = tuple(
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        (r'"{2,}', '"'),
        (r"``\s?|\s?''", '"'),
        (r"[`´’‘]", "'"),
        (r"\b(ca|wo|sha)\s?n\s?'\s?t\b", r"\1n't"),
        (r"\b(\w+)\s?n\s?'\s?t\b", r"\1n't"),
        (r"\b(\w+n)\s'\s?t\b", r"\1't"),
        (r"(?<=\w)\s+'\s?(s|re|ve|ll|m|d)\b", r"'\1"),
        (r"(?<=\w)'\s(s|re|ve|ll|m|d|t)\b", r"'\1"),
        (r"\b(gon|wan) na\b", r"\1na"),
        (r"\bgot ta\b", "gotta"),
        (r"\s+([.,!?;:%)\]])", r"\1"),
        (r"([(\[])\s+", r"\1"),
        (r"(?<=\d)\s*([.,:])\s+(?=\d{1,3}\b)(?<=\d[.,:]\s)", r"\1"),
        (r"\.(?:\s?\.){2,}", "..."),
        (r"(?<!\.)\.\.(?!\.)", "."),
        (r"(?:\s?-){3,}", " - "),
        (r"(?<=[^\W\d_]),(?=[^\W\d_])", ", "),
        (r"\s{2,}", " "),
    )
)
_SENTENCE_START = re.compile(r"(^|(?<=[.!?])\s+)([\"'(]*)([a-z])")
_I = re.compile(r"\bi(?=(?:'(?:m|ve|ll|d|am))?\b)(?![.-]\w)")
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
_BARE = re.compile(rf"\b(?:{'|'.join(CONTRACTIONS)})\b", re.IGNORECASE)
_ARTICLE = re.compile(r"\b([Aa])(n?) (?=([^\W\d_]+))")
_SILENT = re.compile(r"(?:hour|honest|honou?r|heir)", re.IGNORECASE)
_CONSONANT_SOUND = re.compile(
    r"(?:uni(?!n|m)|us[aeiu]|eu|ew|one\b|once|ut[ei]|ub|u\b|ufo|uk\b|us\b)", re.IGNORECASE
)
_COUNTRIES = re.compile(r"\bthe us\b|\buk\b|\beu\b")


def detokenised(text: str) -> str:
    """The text without the blanks of a tokeniser, with its apostrophes ("do n't" and "dont": "don't")."""
    for pattern, replacement in _STEPS:
        text = pattern.sub(replacement, text)
    text = _BARE.sub(_with_apostrophe, text.strip())
    if text.count('"') == 2:  # a quotation: its marks join what they enclose
        before, inside, after = text.split('"')
        text = f'{before}"{inside.strip()}"{after}'
    return text.strip()


def _with_apostrophe(match: re.Match[str]) -> str:
    word = match.group()
    written = CONTRACTIONS.get(word.casefold(), word)
    return written[0].upper() + written[1:] if word[0].isupper() else written


def names_of(edited: Iterable[str], casual: Iterable[str]) -> Mapping[str, str]:
    """Words that texts capitalise inside sentences, with their usual spelling, by their small letters.

    Of ``casual`` texts, whose writers do not always care, more is asked than of ``edited`` ones.
    """
    return _names(casual, count=8, share=0.75) | _names(edited, count=3, share=0.95)


def _names(texts: Iterable[str], *, count: int, share: float) -> dict[str, str]:
    forms: dict[str, Counter[str]] = {}
    for text in texts:
        if text[:1].isupper():  # its writer cares for capitals
            for word in _inside(text):
                forms.setdefault(word.casefold(), Counter())[word] += 1
    names = {}
    for word, spellings in forms.items():
        spelling, seen = spellings.most_common(1)[0]
        if spelling[0].isupper() and seen >= count and seen >= share * spellings.total():
            names[word] = spelling
    return names


def capitals_inside(text: str) -> list[str]:
    """Capitalised words of three letters or more that do not open a sentence."""
    return [word for word in _inside(text) if word[0].isupper()]


def _inside(text: str) -> Iterator[str]:
    """Longer words that do not open a sentence; none of a text with capitals on every second word."""
    found = list(_WORD.finditer(text))
    if sum(match.group()[0].isupper() for match in found) * 2 > len(found):
        return
    for before, match in pairwise(found):
        word = match.group()
        joined = set(text[before.end() : match.start()]) <= {" ", ","}
        if joined and len(word) > 2 and word.casefold() not in FUNCTION_WORDS:
            yield word


def cased(text: str, names: Mapping[str, str]) -> str:
    """A text in small letters with capitals at sentence starts, in "I" and in the names."""
    text = _WORD.sub(lambda match: names.get(match.group(), match.group()), text)
    text = _COUNTRIES.sub(lambda match: match.group().upper().replace("THE", "the"), text)
    text = _I.sub("I", text)
    return _SENTENCE_START.sub(lambda match: f"{match[1]}{match[2]}{match[3].upper()}", text)


def with_articles(text: str) -> str:
    """The text with "a" and "an" as the next word wants them, as far as its letters tell."""

    def fitting(match: re.Match[str]) -> str:
        word = match[3]
        if word.isupper():
            return match.group()
        vowel = bool(word[0] in "aeiouAEIOU" and not _CONSONANT_SOUND.match(word)) or bool(
            _SILENT.match(word)
        )
        return f"{match[1]}{'n' if vowel else ''} "

    return _ARTICLE.sub(fitting, text)
