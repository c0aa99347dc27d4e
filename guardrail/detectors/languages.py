"""Tells whether a text in Latin script is in a language that a model does not know.

Each word speaks for a language by its letter groups: naive Bayes over character n-grams (Lui and Baldwin
2012), with weights taken from the model of py3langid by ``research.detection.languages_build``.
What counts is by how much some other language explains the words better than every language that the model
knows: the margin. It grows with the number of words that speak, so that a few names or a word of slang
never reach the threshold.
"""

from __future__ import annotations

import hashlib
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from guardrail.errors import ManifestError

__all__ = ["Languages", "shipped", "words"]

TABLE = Path(__file__).parent.parent / "shipped" / "reading" / "languages.npz"
SHA256 = "40eeeab5274f428795e7e9ea92a7ac8b63715ec86b251a8b8d809565891b158e"

# What a single word may say for and against a language: no word decides alone.
_FOR, _AGAINST = 6.0, -12.0
# ... and a capitalised one inside a sentence, which is often a name, wherever it comes from.
_FOR_NAME = 1.0
# URLs, addresses, mentions, hashtags, entities, placeholders, code words and numbers are in no language.
_CHUNK = re.compile(r"\S+")
_CODE = re.compile(r"://|www\.|[@#`/\\=<>&]")
_WORD = re.compile(r"\w+(?:'\w+)*")
_NO_LETTER = re.compile(r"[\d_]")
_MAX_WORD = 32
# Fewer distinct words, names aside, are an identifier, a title, a loan: nobody can tell.
_MIN_WORDS = 3
_STRETCHED = re.compile(r"(.)\1{2,}")

Floats = npt.NDArray[np.float32]


class Languages:
    """Character n-grams with what each says for every language.

    ``weights`` has shape (grams, languages): natural logarithms in units of ``scale``, relative to English.
    ``english`` are words that look foreign by their letters and are common in English, such as "gonna": they
    speak for no other language. ``threshold`` is the margin from which a text counts as foreign.
    """

    def __init__(
        self,
        grams: Sequence[str],
        languages: Sequence[str],
        weights: npt.NDArray[np.int8],
        *,
        scale: float,
        threshold: float,
        english: Iterable[str] = (),
    ) -> None:
        self.languages = ("en", *languages)
        self.threshold = threshold
        self.english = frozenset(english)
        self._rows = {gram: row for row, gram in enumerate(grams)}
        self._lengths = tuple(sorted({len(gram) for gram in grams}, reverse=True))
        # The last row is that of a word without a known gram.
        self._weights = np.zeros((len(grams) + 1, len(self.languages)), dtype=np.float32)
        self._weights[:-1, 1:] = weights * np.float32(scale)

    @classmethod
    def load(cls, path: str | Path, *, sha256: str) -> Languages:
        """The table of a file. Raises ManifestError if it is missing or not the one with that sha256."""
        content = Path(path).read_bytes() if Path(path).is_file() else b""
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ManifestError(f"{path} is missing or altered; reinstall the package")
        with np.load(io.BytesIO(content), allow_pickle=False) as table:
            return cls(
                table["grams"].tobytes().decode().split("\n"),
                table["languages"].tobytes().decode().split("\n"),
                table["weights"],
                scale=float(table["scale"]),
                threshold=float(table["threshold"]),
                english=table["english"].tobytes().decode().split("\n"),
            )

    def save(self, path: str | Path) -> None:
        """Writes the table as ``load`` reads it."""
        scale = float(np.abs(self._weights).max()) / 127
        np.savez_compressed(
            path,
            grams=_as_bytes(self._rows),
            languages=_as_bytes(self.languages[1:]),
            weights=np.round(self._weights[:-1, 1:] / scale).astype(np.int8),
            scale=np.float64(scale),
            threshold=np.float64(self.threshold),
            english=_as_bytes(sorted(self.english)),
        )

    def is_foreign(self, text: str, *, known: Sequence[str]) -> bool:
        """True if another language than the ``known`` ones explains the words of a text clearly better.

        Raises ManifestError for a known language that the table does not have. Time is linear in the text.
        """
        return self.margin(text, known=known) > self.threshold

    def margin(self, text: str, *, known: Sequence[str]) -> float:
        """By how many nats an unknown language explains the text better than the known; 0 for few words."""
        if missing := sorted(set(known) - set(self.languages)):
            raise ManifestError(f"languages must be among {self.languages}, got {missing}")
        plain, names = words(text)
        if len(plain) < _MIN_WORDS:
            return 0.0
        scores = (
            self._scores([word for word in plain if word not in self.english], most=_FOR)
            + self._scores([word for word in plain if word in self.english], most=0.0)
            + self._scores(names, most=_FOR_NAME)
        )
        is_known = np.array([language in known for language in self.languages])
        return float(scores[~is_known].max(initial=-np.inf) - scores[is_known].max(initial=-np.inf))

    def best(self, word: str) -> float:
        """What a word says for the language that it speaks for most, besides English."""
        return float(self._scores([word], most=np.inf)[1:].max())

    def _scores(self, distinct: Sequence[str], *, most: float) -> Floats:
        """What words say together for each language, (languages,)."""
        if not distinct:
            return np.zeros(len(self.languages), dtype=np.float32)
        rows: list[int] = []
        firsts: list[int] = []
        for word in distinct:
            firsts.append(len(rows))
            rows += self._grams(f" {word[:_MAX_WORD]} ")
            rows.append(len(self._rows))
        of_words = np.add.reduceat(self._weights[rows], firsts, axis=0)  # (words, languages)
        return np.asarray(np.clip(of_words, _AGAINST, most).sum(axis=0), dtype=np.float32)

    def _grams(self, padded: str) -> Iterator[int]:
        """At each place the longest known gram that ends there."""
        rows, lengths = self._rows, self._lengths
        for end in range(2, len(padded) + 1):
            for length in lengths:
                if length <= end and (row := rows.get(padded[end - length : end])) is not None:
                    yield row
                    break


@cache
def shipped() -> Languages:
    """The table inside this package."""
    return Languages.load(TABLE, sha256=SHA256)


def words(text: str) -> tuple[list[str], list[str]]:
    """The distinct words of a text in lower case: ordinary ones, and those that look like names."""
    bare = unicodedata.normalize("NFC", text).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    bare = _STRETCHED.sub(r"\1", bare)  # "nooooo"
    chunks = [chunk for chunk in _CHUNK.findall(bare) if not _CODE.search(chunk)]
    found = [word for word in _WORD.findall(" ".join(chunks)) if not _NO_LETTER.search(word)]
    plain = {word.lower() for word in found[:1]}
    plain |= {word.lower() for word in found if not word[0].isupper() or (word.isupper() and len(word) > 1)}
    names = {word.lower() for word in found} - plain
    return sorted(plain), sorted(names)


def _as_bytes(texts: Iterable[str]) -> npt.NDArray[np.uint8]:
    return np.frombuffer("\n".join(texts).encode(), dtype=np.uint8)
