"""Words spelled with digits and signs that a rewrite half undid, kept or made: "You 4re a st30p 8m0sion"."""

from __future__ import annotations

import re

from guardrail.text.wordlists import english_words

__all__ = ["debris"]

_TOKEN = re.compile(r"[^\s.,;:?\"()\[\]{}<>/\\`“”]+")
_READ_AS = str.maketrans("013457@$!|+", "oieastasiit")
_FREE = re.compile(
    r"\d+(?:st|nd|rd|th|[a-z]{1,3}|'?s)?|[a-z]+-?\d+|[\w.-]*@[\w.-]+|#\w+|[£$€]\d.*|\d+.*\d+\w?|.*://.*",
    re.IGNORECASE,
)
_INSIDE = re.compile(
    r"[^\W\d_][013457@$!|+*%#&^]+[^\W\d_]|^[013457@$!|+*](?:[^\W\d_][013457@$!|+*]*){2}", re.IGNORECASE
)
_MIN_WORD = 3


def debris(candidate: str, source: str) -> bool:
    """True if the candidate has a new word in disguise, or one that reads as English."""
    known = set(_TOKEN.findall(source.casefold()))
    for written in _TOKEN.findall(candidate):
        token = written.strip("*_~!'’-").casefold()
        if written.isupper():
            continue  # the name of a product or a place in a list, more often than a disguise
        if not _INSIDE.search(token) or _FREE.fullmatch(token):
            continue
        plain = re.sub(r"[^a-z]", "", token.translate(_READ_AS))
        if token not in known or "*" in token or (len(plain) >= _MIN_WORD and plain in english_words()):
            return True
    return False
