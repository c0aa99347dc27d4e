"""Undoes what hides a text from programs alone: escapes, entities, letters turned upside down."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from guardrail.detectors.reading import CharacterChange, Normalised, as_it_stands, changed

__all__ = ["decoded"]

_ESCAPE = re.compile(
    r"&\#(?:\d{2,3}|0{1,4}\d{2,3}|[xX]0{0,4}[2-7][0-9a-fA-F]);"
    r"|(?:%[0-7][0-9a-fA-F])+|(?:\\x[0-7][0-9a-fA-F])+|(?:\\u00[0-7][0-9a-fA-F])+"
)
_HEXADECIMAL = re.compile(r"[%x]([0-9a-fA-F]{2})|u00([0-9a-fA-F]{2})")
_CHUNK = re.compile(r"\S+")
_MIN_RUN = 2  # letters: "100%65" is not text
# Letters that exist upside down only, and what they are; those after them are letters both ways.
_TURNED = {"ɐ": "a", "ɔ": "c", "ǝ": "e", "ɟ": "f", "ƃ": "g", "ɓ": "g", "ɥ": "h", "ᴉ": "i", "ı": "i", "ɾ": "j"}
_TURNED |= {
    "ʞ": "k",
    "ꞁ": "l",
    "ɯ": "m",
    "ɹ": "r",
    "ʇ": "t",
    "ʌ": "v",
    "ʍ": "w",
    "ʎ": "y",
    "¡": "!",
    "¿": "?",
}
_BOTH_WAYS = str.maketrans("bqdpnu!?,'.", "qbpdun¡¿',˙") | {ord("˙"): ".", ord("6"): "9", ord("9"): "6"}
_TURNED_SIGN = re.compile("[ɐɔǝɟƃɓɥᴉıɾʞꞁɯɹʇʌʍʎ]")
_TURNED_SHARE = 0.2
_PHONETIC = re.compile("[əˈˌːʃŋɛɪʊ]")  # beside these, turned letters are signs of pronunciation
_LINE = re.compile(r"[^\r\n]+")


def decoded(text: str) -> Normalised:
    """The text with entities and escapes of letters resolved, lines turned upside down turned back."""
    reading = as_it_stands(text)
    if "&" in text or "%" in text or "\\" in text:
        reading = changed(reading, _escapes(text))
    if not text.isascii():
        reading = changed(reading, _turned_lines(reading.text))
    return reading


def _escapes(text: str) -> Iterator[CharacterChange]:
    for chunk in _CHUNK.finditer(text):
        if "://" in chunk[0] or chunk[0].startswith("www."):
            continue
        for match in _ESCAPE.finditer(chunk[0]):
            escape = match[0]
            meant = html.unescape(escape) if escape[0] == "&" else _characters(escape)
            if meant is not None and meant.isascii() and meant.isprintable():
                start = chunk.start() + match.start()
                yield CharacterChange(start, start + len(escape), meant)


def _characters(escape: str) -> str | None:
    """What a run of escapes stands for; None if that is not text."""
    meant = "".join(chr(int(pair[0] or pair[1], 16)) for pair in _HEXADECIMAL.findall(escape))
    is_text = sum(map(str.isalpha, meant)) >= _MIN_RUN and meant.isprintable()
    return meant if is_text or meant == " " else None


def _turned_lines(text: str) -> Iterator[CharacterChange]:
    if not _TURNED_SIGN.search(text):
        return
    for line in _LINE.finditer(text):
        letters = sum(map(str.isalpha, line[0]))
        turned = len(_TURNED_SIGN.findall(line[0]))
        if turned >= 2 and turned >= _TURNED_SHARE * letters and not _PHONETIC.search(line[0]):
            upright = "".join(_TURNED.get(c, c.translate(_BOTH_WAYS)) for c in reversed(line[0]))
            yield CharacterChange(line.start(), line.end(), upright, backwards=True)
