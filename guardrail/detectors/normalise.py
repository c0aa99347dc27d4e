"""Undoes obfuscation: the text that a reader sees behind "1d10t", "i d i o t" and look-alike letters.

Four steps. Decoding (``escapes``) resolves escapes, entities and lines turned upside down. Folding works on
single characters: case, accents, compatibility forms, invisible characters, letters of other scripts that
stand in for Latin ones. Unmasking works on words: spaced letters, digits and symbols in place of letters,
stretched letters. A symbol that hides a letter becomes a star ("f**k"), which the lexicon reads as a
wildcard. Rewording (``words``) takes joined words apart, turns reversed ones back and spells out
abbreviations. All take time linear in the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path

from guardrail.detectors.escapes import decoded
from guardrail.detectors.reading import Normalised, as_it_stands, within
from guardrail.detectors.words import reworded

__all__ = ["Normalised", "fold", "normalise", "second_reading"]

LOOKALIKES = Path(__file__).parent.parent / "shipped" / "reading" / "lookalikes.txt"
_LATIN_NAME = re.compile(
    r"(?:LATIN (?:SMALL |CAPITAL )?LETTER(?: SMALL CAPITAL)?|REGIONAL INDICATOR SYMBOL LETTER"
    r"|(?:NEGATIVE )?(?:SQUARED|CIRCLED) LATIN CAPITAL LETTER) ([A-Z])(?: WITH .*)?"
)
# Blank on screen, yet no format characters: fillers, braille blank, grapheme joiner, variation selectors.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0") | frozenset(
    map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))
)

_WORD = re.compile(r"[^\W\d_]+")
# Single characters with one and the same separator between them: "i d i o t", "i.d.i.o.t".
_SPACED = re.compile(
    r"(?<![^\W_])[a-z0-9@$!](?P<gap> ?[._\-*~|/,] ?| )(?:[a-z0-9@$!](?P=gap))+[a-z0-9$](?![^\W_])"
)
_CHUNK = re.compile(r"\S+")
_LEET = {"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "7": "t", "8": "b", "9": "g"} | {
    "@": "a", "$": "s", "!": "i", "€": "e", "¡": "i", "¢": "c"
}  # fmt: skip
_COVERS = "#%•●·∗"
_DISGUISED = re.compile(rf"[a-z{re.escape(''.join(_LEET) + _COVERS)}*]+")
_DISGUISE = re.compile(rf"[{re.escape(''.join(_LEET) + _COVERS)}]")
_MAX_DISGUISE = 32
_MIN_KEY, _DIGITS_OF_A_KEY = 20, 4
_ORDINARY = re.compile(r"\$\d|^[a-z]+\d+s$")  # a price, the plural of a name: "a$5", "mp3s"
_CLUSTER = re.compile(r"[bcfgps][aeiouy]")
_STRETCHED = re.compile(r"([^\W\d_])\1{2,}")


def normalise(text: str) -> Normalised:
    """The text in lower case with obfuscation undone; ordinary words, numbers, URLs and addresses stay."""
    plain = decoded(text)
    folded = within(plain, fold(plain.text))
    spaced = _drop(folded, _gaps(folded.text), covered=False)
    unmasked = Normalised(_unmask_chunks(spaced, text), spaced.starts, spaced.ends)
    repeats = ((m.start() + 2, m.end()) for m in _STRETCHED.finditer(unmasked.text) if _is_part(m))
    return reworded(_drop(unmasked, repeats, covered=True), text)


def second_reading(text: str) -> Normalised | None:
    """The normalised text if an uncased encoder would not see it by itself, otherwise None."""
    reading = normalise(text)
    seen = text.lower() if text.isascii() else "".join(map(_uncased, text))
    return None if reading.text.split() == seen.split() else reading


def fold(text: str) -> Normalised:
    """The text in lower case with look-alike, decorated and invisible characters resolved one by one."""
    if text.isascii():
        return as_it_stands(text.lower())
    letters: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for index, character in enumerate(text):
        folded = _folded(character)
        is_mark = not character.isascii() and unicodedata.category(character)[0] == "M"
        if is_mark and letters and letters[-1].isascii():
            ends[-1] = index + 1
            continue
        letters += folded
        starts += [index] * len(folded)
        ends += [index + 1] * len(folded)
    return Normalised(_latinised("".join(letters)), starts, ends)


@lru_cache(maxsize=8192)
def _folded(character: str) -> str:
    """What one character stands for: "" if it is invisible, several letters for a ligature."""
    if character.isascii():
        return character.lower()
    category = unicodedata.category(character)
    if category == "Cf" or character in _BLANK:
        return ""
    if category[0] == "Z":
        return " "
    if named := _LATIN_NAME.fullmatch(unicodedata.name(character, "")):
        return named[1].lower()
    decomposed = unicodedata.normalize("NFKD", character.casefold()).casefold()
    bare = "".join(c for c in decomposed if not unicodedata.combining(c))
    if bare.strip() and bare.isascii() and (category[0] in "LN" or len(bare) == 1):
        return bare
    return unicodedata.normalize("NFKC", character).lower() if category[0] == "L" else character


@lru_cache(maxsize=8192)
def _uncased(character: str) -> str:
    """One character as the tokenizer of an uncased BERT leaves it."""
    category = unicodedata.category(character)
    if category[0] == "C" and not character.isspace():
        return ""
    decomposed = unicodedata.normalize("NFD", character)
    return "".join(c for c in decomposed if unicodedata.category(c) != "Mn").lower()


@cache
def _lookalikes() -> dict[int, str]:
    """Letters, folded, with the letter of a to z that each passes for."""
    lines = LOOKALIKES.read_text(encoding="utf-8").splitlines()
    return {ord(c): line[0] for line in lines if not line.startswith("#") for c in line[1:]}


def _latinised(text: str) -> str:
    """Look-alikes replaced in partly Latin words; in mostly Latin text, also in words of nothing else."""
    if text.isascii():
        return text
    latin = sum("a" <= c <= "z" for c in text)
    is_latin_text = 2 * latin > sum(map(str.isalpha, text))

    def replaced(match: re.Match[str]) -> str:
        word = match[0]
        if word.isascii():
            return word
        candidate = "".join(map(_bare, word)).translate(_lookalikes())
        is_mixed = any("a" <= c <= "z" for c in word)
        is_disguised = is_mixed or (is_latin_text and len(word) > 1)  # one letter alone is a symbol
        return candidate if candidate.isascii() and is_disguised else word

    return _WORD.sub(replaced, text)


def _bare(letter: str) -> str:
    """A letter without its accents."""
    return unicodedata.normalize("NFD", letter)[0]


def _gaps(text: str) -> Iterable[tuple[int, int]]:
    """The separators between spaced letters, as slices of ``text``."""
    for match in _SPACED.finditer(text):
        if sum(map(str.isalpha, match[0])) >= 2:
            step = len(match["gap"])
            for start in range(match.start() + 1, match.end(), step + 1):
                yield start, start + step


def _unmask_chunks(reading: Normalised, original: str) -> str:
    """The reading with letters in place of digits and symbols, character for character."""
    if not _DISGUISE.search(reading.text):
        return reading.text

    def replaced(match: re.Match[str]) -> str:
        chunk = match[0]
        if not _DISGUISE.search(chunk) or _is_address(chunk) or _is_key(chunk):
            return chunk
        is_upper = original[reading.starts[match.start()]].isupper()
        return _DISGUISED.sub(lambda m: _unmasked(m[0], is_upper=is_upper), chunk)

    return _CHUNK.sub(replaced, reading.text)


def _is_address(chunk: str) -> bool:
    """True for URLs, e-mail addresses and inline code, whose letters and digits mean what they say."""
    name, at, domain = chunk.partition("@")
    is_mail = bool(at) and name[-1:].isalnum() and domain[:1].isalnum() and "." in domain.rstrip(".,!?")
    return is_mail or "://" in chunk or chunk.startswith("www.") or "`" in chunk


def _is_key(chunk: str) -> bool:
    """True for long runs with several digits: keys, hashes, identifiers."""
    return len(chunk) >= _MIN_KEY and sum(map(str.isdigit, chunk)) >= _DIGITS_OF_A_KEY


def _unmasked(token: str, *, is_upper: bool) -> str:
    """A run of letters, digits and symbols without its disguise, same length; unchanged if it has none."""
    letters = [i for i, c in enumerate(token) if "a" <= c <= "z"]
    if len(token) == 3 and token.endswith("$$") and letters == [0]:  # "a$$", too short for the rules below
        return token[0] + "ss"
    if len(letters) < 2 or len(token) > _MAX_DISGUISE or _ORDINARY.search(token):
        return token
    first, last = letters[0], letters[-1]
    inside, head, tail = token[first : last + 1], token[:first], token[last + 1 :].rstrip("!*#%")
    if is_upper and len(token) == 3 and inside[1].isdigit():  # a model number: "A5s", "F4G"
        return token
    # A sign in front is a price or a mention unless it completes a word; doubled letters never start a name.
    is_disguised = bool(_DISGUISE.search(inside))
    reads_head = is_disguised or head == "$" or (head == "@" and token[first] == token[first + 1])
    reads_tail = is_disguised or tail in ("$", "$$")
    start = first - (len(head) if reads_head and len(head) == 1 else 0)
    end = last + 1 + (len(tail) if reads_tail and (len(tail) == 1 or tail == "$$") else 0)
    return token[:start] + "".join(_letter(token, i) for i in range(start, end)) + token[end:]


def _letter(token: str, index: int) -> str:
    """The letter that a character of a disguised word stands for; a star if it hides any letter."""
    character = token[index]
    before, after = token[max(index - 1, 0) : index], token[index + 1 : index + 2]
    if character == "1" and ("l" in (before, after) or _CLUSTER.fullmatch(before + after)):  # "ki1l", "s1ut"
        return "l"
    return "*" if character in _COVERS else _LEET.get(character, character)


def _is_part(match: re.Match[str]) -> bool:
    """False if a repeated letter is the whole word, as in "iii" or "www": it stretches no other."""
    around = (
        match.string[max(match.start() - 1, 0) : match.start()] + match.string[match.end() : match.end() + 1]
    )
    return any(map(str.isalnum, around))


def _drop(reading: Normalised, slices: Iterable[tuple[int, int]], *, covered: bool) -> Normalised:
    """The reading without some slices (in order, none first); the character before may cover each."""
    pieces: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    kept = 0
    for start, end in slices:
        pieces.append(reading.text[kept:start])
        starts += reading.starts[kept:start]
        ends += reading.ends[kept:start]
        if covered:
            ends[-1] = reading.ends[end - 1]
        kept = end
    if not kept:
        return reading
    pieces.append(reading.text[kept:])
    starts += reading.starts[kept:]
    ends += reading.ends[kept:]
    return Normalised("".join(pieces), starts, ends)
