"""A list of toxic words, found behind obfuscation: the second opinion next to the classifier."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from guardrail.detectors.normalise import fold, normalise
from guardrail.detectors.reading import Normalised
from guardrail.errors import ConfigError, ManifestError, ModelMissingError
from guardrail.manifest import Manifest, sha256_of
from guardrail.outcome import LABELS, Span, Verdict

__all__ = ["Entry", "Lexicon"]

SHIPPED = Path(__file__).parent.parent / "shipped" / "detector"
FILENAME = "lexicon.txt"
# Letters and digits; stars inside or behind them may hide letters.
_WORD = re.compile(r"[^\W_]+(?:\*+[^\W_]+)*\**")
_RUN = re.compile(r"(.)\1+")
_ENTRY = re.compile(r"[^\W_]+")
# Bold italics open with three stars and close with three: the closing ones hide nothing.
_EMPHASIS = re.compile(r"(?<!\S)\*{3,}(?=\w)")
_MIN_WILDCARD = 4  # "a*s" is as likely to be a product as a word


@dataclass(frozen=True, slots=True)
class Entry:
    """One word, the label it counts for, and how certain that is (0 excluded to 1 included)."""

    word: str
    label: str
    weight: float

    def __post_init__(self) -> None:
        if not _ENTRY.fullmatch(self.word) or self.word != fold(self.word).text:
            raise ConfigError("a lexicon word must be one word of lower-case letters and digits")
        if self.label not in LABELS:
            raise ConfigError(f"a lexicon label must be one of {LABELS}, got {self.label!r}")
        if not 0.0 < self.weight <= 1.0:
            raise ConfigError(f"a lexicon weight must be more than 0 and at most 1, got {self.weight}")


@dataclass(frozen=True, slots=True)
class _Hit:
    word: str
    span: Span


class Lexicon:
    """Flags texts in which a listed word stands as a whole word, plain or obfuscated.

    Each text is read twice, folded and with obfuscation undone, so that neither reading can hide what the
    other shows. Time is linear in the text. A score is the weight of the strongest hit of its label, 0 if
    there is none; ``toxicity`` is the strongest of all.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._scores: dict[str, dict[str, float]] = {}
        for entry in entries:
            scores = self._scores.setdefault(entry.word, {})
            for label in (entry.label, "toxicity"):
                scores[label] = max(entry.weight, scores.get(label, 0.0))
        self._labels = [label for label in LABELS if any(label in s for s in self._scores.values())]
        self._longest = max(map(len, self._scores), default=0)
        self._by_shape: dict[tuple[int, str], list[str]] = {}
        self._by_outline: dict[str, list[str]] = {}
        for word in self._scores:
            self._by_shape.setdefault((len(word), word[0]), []).append(word)
            self._by_outline.setdefault(_outline(word), []).append(word)

    def __len__(self) -> int:
        return len(self._scores)

    @classmethod
    def load(cls, path: str | Path) -> Lexicon:
        """The lexicon of a file: ``word<TAB>label<TAB>weight`` per line, ``#`` starts a comment line.

        Raises ConfigError with the number of a line that is wrong, ModelMissingError if there is no file.
        """
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError as error:
            raise ModelMissingError(f"no lexicon at {path}; reinstall, or give another path") from error
        return cls(
            _parsed(line, where=f"{path}, line {number}")
            for number, line in enumerate(lines, start=1)
            if line.strip() and not line.startswith("#")
        )

    @classmethod
    def shipped(cls) -> Lexicon:
        """The lexicon inside this package, checked against the sha256 of its manifest."""
        expected = Manifest.load(SHIPPED, verify=False).files.get(FILENAME)
        path = SHIPPED / FILENAME
        if not path.is_file() or sha256_of(path) != expected:
            raise ManifestError(f"{path} is missing or not the one of its manifest; reinstall the package")
        return cls.load(path)

    def detect(self, texts: Sequence[str]) -> list[Verdict]:
        """One verdict per text, with the hits as spans of the original text."""
        return [self._judged(text) for text in texts]

    def _judged(self, text: str) -> Verdict:
        folded, normal = fold(text), normalise(text)
        hits = list(self._hits(folded))
        if normal.text != folded.text:
            hits += self._hits(normal)
        scores = dict.fromkeys(self._labels, 0.0)
        for word in {hit.word for hit in hits}:
            for label, weight in self._scores[word].items():
                scores[label] = max(scores[label], weight)
        spans = sorted({hit.span for hit in hits}, key=lambda span: (span.start, span.end))
        return Verdict(scores=scores, flagged=bool(hits), spans=tuple(_disjoint(spans)))

    def _hits(self, reading: Normalised) -> Iterator[_Hit]:
        emphasis = _EMPHASIS.search(reading.text)
        opening = emphasis.start() if emphasis else len(reading.text)
        for match in _WORD.finditer(reading.text):
            token, start = match[0], match.start()
            if "*" in token:
                bare = token.rstrip("*")
                hides = len(token) - len(bare) >= 3 and start < opening
                yield from self._starred(token if hides else bare, start, reading)
            elif token in self._scores:
                yield _Hit(token, reading.original(start, match.end()))
            elif len(token) <= 2 * self._longest:
                yield from self._bent(token, start, reading)

    def _starred(self, token: str, start: int, reading: Normalised) -> Iterator[_Hit]:
        """Hits of a word with stars: as letters that they hide, else as marks between whole words."""
        matching = []
        if "*" in token and len(token) >= _MIN_WILDCARD:
            candidates = self._by_shape.get((len(token), token[0]), ())
            matching = [w for w in candidates if all(t in ("*", c) for t, c in zip(token, w, strict=True))]
        for word in matching:
            yield _Hit(word, reading.original(start, start + len(token)))
        if not matching:
            for piece in _ENTRY.finditer(token):
                if piece[0] in self._scores:
                    yield _Hit(piece[0], reading.original(start + piece.start(), start + piece.end()))

    def _bent(self, token: str, start: int, reading: Normalised) -> Iterator[_Hit]:
        """Hits of a word that is stretched ("shiiit"), or spaced with a neighbour attached ("a f a g")."""
        end = start + len(token)
        starts, ends = reading.starts[start:end], reading.ends[start:end]
        if any(e - s > 1 for s, e in zip(starts, ends, strict=True)):
            for word in self._by_outline.get(_outline(token), ()):
                yield _Hit(word, reading.original(start, end))
        elif len(token) >= 4 and all(e < s for s, e in zip(starts[1:], ends, strict=False)):
            if token[0] in "ai" and token[1:] in self._scores:
                yield _Hit(token[1:], reading.original(start + 1, end))
            if token[-1] == "u" and token[:-1] in self._scores:
                yield _Hit(token[:-1], reading.original(start, end - 1))


def _parsed(line: str, *, where: str) -> Entry:
    fields = line.rstrip().split("\t")
    try:
        word, label, weight = fields
        return Entry(word, label, float(weight))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    except ValueError as error:
        raise ConfigError(f"{where}: expected word<TAB>label<TAB>weight, got {len(fields)} fields") from error


def _outline(word: str) -> str:
    """The word with every run of a letter as one letter."""
    return _RUN.sub(r"\1", word)


def _disjoint(spans: Iterable[Span]) -> Iterator[Span]:
    """Sorted spans with overlapping ones joined."""
    current: Span | None = None
    for span in spans:
        if current is None or span.start >= current.end:
            if current is not None:
                yield current
            current = span
        else:
            current = Span(current.start, max(current.end, span.end))
    if current is not None:
        yield current
