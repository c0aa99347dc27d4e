"""Ids, codes, keys and names read as words: what a reader can make out in them, and nothing by chance.

To a detector the characters of a hash or a random id look like words in disguise. So letters are read only
if English explains them better than chance does: each token is written down twice, as words by a model of
English letters and as characters drawn from its alphabet; what the words save in bits is its gain. Of random
tokens about one in ``2 ** gain`` gains that much, whichever detector reads on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from string import punctuation
from urllib.parse import unquote

from guardrail.detectors.lexicon import Lexicon
from guardrail.detectors.words import Words

__all__ = ["is_code", "is_identifier", "is_name", "readings", "texts_of"]

MAX_IDENTIFIER = 200

_LETTERS = Path(__file__).parent / "letters.txt"
_CODE = re.compile(r"[\w.:/@+=~-]+", re.ASCII)
_URL = re.compile(r"(?:[A-Za-z][\w.+-]*://|data:)[\w.:/@+=~?&%#,;-]*", re.ASCII)
_BEFORE, _BEHIND = "#*\"'([{<", "!?,;*\"')]}>"  # around a code, and no letter in disguise
_SPACE = re.compile(r"\s")
_TOKEN = re.compile(r"[A-Za-z0-9]+")
_RUN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_HEX = re.compile(r"[0-9A-F]+|[0-9a-f]+|[A-Z]{2}[0-9a-f]{16,}")  # the last ones have their kind before them
_ONE_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_DISGUISED = re.compile(r"(?=.*[a-z])[a-z0-9]+|(?=.*[A-Z])[A-Z0-9]+|[A-Z0-9][a-z0-9]*[a-z][a-z0-9]*")
_SPOKEN = re.compile(r"[A-Za-z]\w{2}|\w[A-Za-z]\w|\w{2}[A-Za-z]", re.ASCII)  # not "fp" or "4o"
_ALTERNATING = re.compile(r"(?:[a-z][A-Z])+[a-z]?|(?:[A-Z][a-z])+[A-Z]?")
_LEET = str.maketrans("0134578", "oieastb")

_SWITCH = 3.0
"""Bits to say that another run of letters or digits begins inside a token."""
_END = 3.0
"""Bits of a run's length, which chance has to tell as well."""
_SUBSTITUTE = 0.5
"""Bits to say that a digit stands for a letter."""
_MIN_EVIDENCE = 4
"""Characters from which a token that is not words shows that the identifier has random parts."""
_MIN_HEX = 6
"""Letters from a to f in a row that are hexadecimal rather than a word."""
_MIN_RUN = 3
"""Letters in a row that are read in a token with digits: shorter ones are chance."""
_MIN_INSIDE = 5
"""Letters in a row that are read inside random characters."""
_MAX_NAME = 12
"""Letters of a key that is one word; more may be several that are glued together."""
_PLAIN = -8.5
"""Gain from which letters are read that stand by themselves: names and abbreviations too, not only words."""
_MIXED = 7.0
"""The same for tokens that mix digits or cases, as random ones do."""
_DISGUISE = 9.0
"""The same for tokens that are words if digits stand for letters."""
_AMONG_RANDOM = 14.0
"""The same for letters next to or inside random characters of the same kind."""


def is_code(value: str) -> bool:
    """True for a string of letters, digits and the marks of ids, paths and base64, without white space."""
    return _CODE.fullmatch(value) is not None


def is_identifier(value: object) -> bool:
    """True for a short string without white space, such as an id or the name of a model."""
    return isinstance(value, str) and len(value) <= MAX_IDENTIFIER and is_code(value)


def readings(identifier: str) -> tuple[str, ...]:
    """What a reader finds in it: the identifier as it stands if it is all words, and its words; nothing
    if it has none.

    ``call_soYouAgree`` has the words "call so You Agree"; ``call_9kXyQ2vW`` has one alone, "call", which is
    read only if the word list knows it: of a lone word a classifier of sentences can but guess.
    """
    if _is_words_in_alternating_case(identifier):
        identifier = identifier.lower()
    tokens = [_Token.of(text) for text in _TOKEN.findall(identifier)]
    read = _with_one_letter_words(tokens, _read(tokens))
    words = [
        word
        for token, is_read in zip(tokens, read, strict=True)
        for word in (token.words() if is_read else token.words_inside())
    ]
    is_scrap = len(words) == 1 or all(len(word) <= _MIN_RUN for word in words)
    if is_scrap and not all(read) and not any(map(_is_listed, words)):
        return ()
    texts = ((identifier,) if all(read) else ()) + (" ".join(words),)
    return tuple(text for text in dict.fromkeys(texts) if _SPOKEN.search(text))


def texts_of(value: str) -> tuple[str, ...]:
    """What is judged of a string that is not prose: the readings of a code or URL, any other as it stands.

    One without white space has its readings judged, too: ``#YouAreAnIdiot``.
    """
    plain = unquote(value)
    if not value.isascii() or not plain.isascii() or _SPACE.search(value):
        return (plain,) if _URL.fullmatch(value) else (value,)
    found = readings(plain)
    if is_code(value.lstrip(_BEFORE).rstrip(_BEHIND)) or _URL.fullmatch(value):
        return found
    # Its marks may be a disguise ("b!tch"), and those around it change nothing.
    return (value, *(text for text in found if text not in (value, value.strip(punctuation))))


def is_name(key: object) -> bool:
    """True for a key of one short word, such as ``args``, that the word list does not know."""
    is_word = isinstance(key, str) and len(key) <= _MAX_NAME and _ONE_WORD.fullmatch(key) is not None
    return is_word and not _is_listed(str(key))


@cache
def _lexicon() -> Lexicon:
    return Lexicon.shipped()


@lru_cache(maxsize=1024)
def _is_listed(word: str) -> bool:
    (verdict,) = _lexicon().detect([word])
    return verdict.flagged


@dataclass(frozen=True, slots=True)
class _Token:
    """Letters and digits without a mark between them."""

    text: str
    runs: tuple[str, ...]
    bits: float  # of one character drawn from the token's alphabet
    gain: float
    is_disguise: bool = False  # "1d10t"

    @classmethod
    def of(cls, text: str) -> _Token:
        runs = tuple(_RUN.findall(text))
        bits = _bits(text)
        plain = _gain_of_runs(runs, bits)
        disguised = _gain_of_disguise(text, bits) if len(runs) > 1 else plain
        return cls(text, runs, bits, max(plain, disguised), disguised > plain)

    @property
    def is_number(self) -> bool:
        return self.text.isdigit()

    @property
    def is_plain(self) -> bool:
        """True for letters as words have them: of one case, or with a capital first."""
        return _ONE_WORD.fullmatch(self.text) is not None

    @property
    def is_camel(self) -> bool:
        """True for words in camel case, with or without a number behind them."""
        letters = self.runs[:-1] if self.runs[-1].isdigit() else self.runs
        return (
            len(letters) > 1
            and all(run.isalpha() for run in letters)
            and min(map(len, letters[1:])) > 1
            and any(len(run) > _MIN_RUN and not run.isupper() for run in letters)
        )

    @property
    def is_hex(self) -> bool:
        return _HEX.fullmatch(self.text) is not None

    @property
    def is_random(self) -> bool:
        """True if the token shows that the identifier has random parts."""
        if self.is_plain or self.is_number or len(self.text) < _MIN_EVIDENCE:
            return False
        return self.is_hex or self.gain < self.needed

    @property
    def needed(self) -> float:
        """The gain from which it is read where it stands by itself."""
        if self.is_disguise:
            return _DISGUISE
        return _PLAIN if self.is_plain or self.is_camel else _MIXED

    def words(self) -> list[str]:
        """The words of a token that is read."""
        if self.is_disguise:
            return [self.text]
        alone = self.text.isalpha()
        return [run for run in self.runs if not run.isdigit() and (alone or len(run) >= _MIN_RUN)]

    def words_inside(self) -> list[str]:
        """The words among the characters of a token that is not read."""
        if self.is_hex:
            return []
        needed = _AMONG_RANDOM + math.log2(1 + len(self.text) // 64)  # more characters, more chances
        found: list[str] = []
        for run in self.runs:
            if len(run) < _MIN_INSIDE or run.isdigit():
                continue
            if not self.is_plain and _gain_of_runs((run,), self.bits) >= needed:
                found.append(run)
            else:
                found += _joined_words(run.lower(), self.bits)
        return found


class _Surroundings:
    """What the random tokens of an identifier are made of, so that others can be told to be of the same."""

    def __init__(self, tokens: Sequence[_Token]) -> None:
        random = [token for token in tokens if token.is_random]
        self._hex = any(token.is_hex for token in random)
        others = [token.text for token in random if not token.is_hex]
        self._mixed = any(not (text.islower() or text.isupper()) for text in others)
        self._sizes = {(len(text), text.islower()) for text in others}

    def bits(self, token: _Token) -> float | None:
        """Bits of a character of the random string that the token may be part of; None if it stands
        by itself."""
        if self._mixed:
            return math.log2(62)
        if self._hex and token.is_hex:
            return 4.0
        return math.log2(36) if (len(token.text), token.text.islower()) in self._sizes else None


def _read(tokens: Sequence[_Token]) -> list[bool]:
    """Which tokens are read. Letters among random characters are, if they are words all together."""
    around = _Surroundings(tokens)
    read: list[bool] = []
    phrase = 0.0
    waiting = 0
    for token in (*tokens, None):
        bits = around.bits(token) if token is not None and token.is_plain else None
        if token is not None and bits is not None:
            phrase += token.gain + len(token.text) * (bits - token.bits)
            waiting += 1
            continue
        read += [phrase >= _AMONG_RANDOM] * waiting
        phrase, waiting = 0.0, 0
        if token is not None:
            read.append(_is_words(token, around))
    return read


def _with_one_letter_words(tokens: Sequence[_Token], read: list[bool]) -> list[bool]:
    """The same with "a" and "I" between words, which alone are digits of a hash as well."""
    return [
        is_read
        or (token.text.lower() in ("a", "i") and 0 < at < len(read) - 1 and read[at - 1] and read[at + 1])
        for at, (token, is_read) in enumerate(zip(tokens, read, strict=True))
    ]


def _is_words(token: _Token, around: _Surroundings) -> bool:
    if token.is_number or token.is_random or (token.is_hex and not token.is_plain):
        return False
    if around.bits(token) is not None:
        return token.gain >= _AMONG_RANDOM and not token.is_disguise
    return token.gain >= token.needed or (token.is_plain and len(token.text) < _MIN_RUN)


def _joined_words(letters: str, bits: float) -> list[str]:
    """Words without a border between them or around them, if chance hardly ever makes such a run."""
    gain, words = Words.shipped().inside(letters, bits)
    chances = 2 * math.log2(len(letters))  # it may begin and end anywhere
    return words if len(words) > 1 and gain >= _AMONG_RANDOM + chances else []


def _is_words_in_alternating_case(identifier: str) -> bool:
    """True for "yOu_ArE_aN_iDiOt": such letters are common words all together, as random ones are not."""
    tokens = [token for token in _TOKEN.findall(identifier) if not token.isdigit()]
    longer = [token for token in tokens if len(token) > 1]
    if not all(map(_ALTERNATING.fullmatch, longer)) or not any(
        len(token) >= _MIN_EVIDENCE for token in longer
    ):
        return False
    bits = math.log2(52)
    return sum(Words.shipped().gain(token.lower(), bits) for token in longer) - _SWITCH >= _DISGUISE


def _bits(text: str) -> float:
    """Bits of one character of the smallest common alphabet that the text may be drawn from."""
    if len(text) >= _MIN_HEX and _HEX.fullmatch(text):
        return 4.0
    upper, lower = text != text.lower(), text != text.upper()
    digits = any(character.isdigit() for character in text)
    return math.log2(26 * upper + 26 * lower + 10 * digits)


def _gain_of_runs(runs: Sequence[str], bits: float) -> float:
    """What is saved if words, and numbers between them, explain the characters."""
    gain = -_SWITCH * (len(runs) - 1)
    for run in runs:
        gain += len(run) * bits - (len(run) * math.log2(10) if run.isdigit() else _cost(run))
    return gain


def _gain_of_disguise(text: str, bits: float) -> float:
    """What is saved if digits stand for letters in the text."""
    letters = text.translate(_LEET)
    digits = sum(character.isdigit() for character in text)
    if not letters.isalpha() or 2 * digits > len(text) + 1 or not _DISGUISED.fullmatch(text):
        return -math.inf
    return len(text) * bits - _cost(letters) - _SUBSTITUTE * digits


def _cost(word: str) -> float:
    """Bits that a word takes under the model of English letters."""
    costs = _costs()
    framed = f"__{word.lower()}_"
    title = 1.0 if len(word) > 1 and word[0].isupper() and not word.isupper() else 0.0
    return sum(costs[framed[at : at + 3]] for at in range(len(word) + 1)) + title - _END


@cache
def _costs() -> dict[str, float]:
    """Bits of each letter behind each pair of letters; ``_`` is where a word begins or ends."""
    alphabet, *rows = _LETTERS.read_text(encoding="ascii").splitlines()
    return {
        f"{row[:2]}{letter}": int(half_bits, 36) / 2
        for row in rows
        for letter, half_bits in zip(alphabet, row[3:], strict=True)
    }
