"""The edit tagger: one small encoder in ONNX that says of each word what is to be done about it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from guardrail.detectors.session import open_session, open_tokenizer
from guardrail.detectors.windows import buckets, encode
from guardrail.errors import ManifestError
from guardrail.manifest import Manifest, is_number
from guardrail.outcome import Span
from guardrail.rewriters.edits.tags import KEEP, Tag, realised, words

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["MAX_VARIANTS", "TaggedEdit", "TaggedWords", "Tagger", "tokens_of_words"]

SHIPPED = Path(__file__).parents[2] / "shipped" / "tagger"
MODEL, TOKENIZER = "model.onnx", "tokenizer.json"
MAX_VARIANTS = 3
"""Edits besides the likeliest one: with the second-best tag at one of the least certain words."""
_WINDOW = 256

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TaggedEdit:
    """A text after an edit; ``confidence`` is the log-probability of all its tags together, at most 0."""

    text: str = field(repr=False)
    confidence: float


@dataclass(frozen=True, slots=True)
class TaggedWords:
    """Token ids with special ones, the words that have tokens, and the place of the first token of each."""

    ids: list[int]
    words: list[Span]
    firsts: list[int]

    def __len__(self) -> int:
        return len(self.ids)


def tokens_of_words(tokenizer: Tokenizer, text: str) -> TaggedWords:
    """``[CLS] text [SEP]``; a word that the tokenizer does not show has no token, and keeps as it is."""
    encoding = encode(tokenizer, text)
    tagged, firsts, place = [], [], 0
    for word in words(text):
        while place < len(encoding) and encoding.starts[place] < word.start:
            place += 1
        if place < len(encoding) and encoding.starts[place] < word.end:
            tagged.append(word)
            firsts.append(place + 1)
    cls, sep = (cast("int", tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]"))
    return TaggedWords([cls, *encoding.ids.tolist(), sep], tagged, firsts)


class Tagger:
    """Edits of texts over a model folder.

    The folder holds ``tokenizer.json``, the manifest that pins all files and names the tags, and
    ``model.onnx``, which takes ``input_ids`` and ``attention_mask`` and gives ``logits`` (batch, time, tags).
    ``threads`` and ``spinning`` are those of the detector. Raises ManifestError before anything is opened if
    a file is missing or altered, ModelFileError if one cannot be read.
    """

    def __init__(self, folder: str | Path, *, threads: int | None = None, spinning: bool = False) -> None:
        self.manifest = Manifest.load(folder)
        self.tags = _tags(self.manifest, folder)
        self._keep = self.manifest.labels.index(KEEP)
        self._max_tokens = int(self.manifest.settings.get("window", _WINDOW))
        self._tokenizer = open_tokenizer(Path(folder) / TOKENIZER)
        self._pad = self._tokenizer.token_to_id("[PAD]")
        self._session = open_session(Path(folder) / MODEL, threads=threads, spinning=spinning)

    @classmethod
    @cache
    def shipped(cls) -> Tagger:
        """The tagger inside this package."""
        return cls(SHIPPED)

    def propose(self, texts: Sequence[str]) -> list[list[TaggedEdit]]:
        """For each text the edit of its likeliest tags and up to ``MAX_VARIANTS`` others, most sure first.

        None for a text that is longer than the tagger reads, that it would leave alone, or that needs words
        which it has not learned. Each text is judged alone.
        """
        return [
            [] if read is None else self._edits(text, *read)
            for text, read in zip(texts, self._read(texts), strict=True)
        ]

    def chances(self, texts: Sequence[str]) -> list[Floats | None]:
        """For each text the log-probabilities of its words' tags, (words, tags); None if it is too long."""
        return [None if read is None else read[1] for read in self._read(texts)]

    def _read(self, texts: Sequence[str]) -> list[tuple[list[Span], Floats] | None]:
        results: list[tuple[list[Span], Floats] | None] = [None] * len(texts)
        rows = {place: tokens_of_words(self._tokenizer, text) for place, text in enumerate(texts)}
        places = [place for place, row in rows.items() if row.words and len(row) <= self._max_tokens]
        for bucket in buckets([len(rows[place]) for place in places]):
            bucket_places = [places[each] for each in bucket]
            for place, chances in zip(
                bucket_places, self._pass([rows[place] for place in bucket_places]), strict=True
            ):
                results[place] = rows[place].words, chances
        return results

    def _pass(self, rows: Sequence[TaggedWords]) -> Iterator[Floats]:
        """The log-probabilities of rows of similar length, (words, tags) each, in one call of the model."""
        ids = np.full((len(rows), max(map(len, rows))), self._pad, dtype=np.int64)  # (batch, time)
        mask = np.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, : len(row)], mask[place, : len(row)] = row.ids, 1
        (logits,) = self._session.run(["logits"], {"input_ids": ids, "attention_mask": mask})
        for row, scores in zip(rows, logits, strict=True):
            shown = scores[row.firsts] - scores[row.firsts].max(axis=1, keepdims=True)
            yield shown - np.log(np.exp(shown).sum(axis=1, keepdims=True))

    def _edits(self, text: str, tagged: Sequence[Span], chances: Floats) -> list[TaggedEdit]:
        best = chances.argmax(axis=1)  # (words,)
        others = chances.copy()
        others[np.arange(len(best)), best] = -np.inf
        second = others.argmax(axis=1)
        top, next_ = chances.max(axis=1), others.max(axis=1)
        if all(best == self._keep) or any(self.tags[tag].kind == "unknown" for tag in best):
            return []
        taggings = [(best, float(top.sum()))]
        for word in np.argsort(top - next_, kind="stable")[:MAX_VARIANTS]:
            variant = best.copy()
            variant[word] = second[word]
            taggings.append((variant, float(top.sum() - top[word] + next_[word])))
        edits: dict[str, float] = {}
        for numbers, confidence in taggings:
            edited = realised(text, tagged, [self.tags[number] for number in numbers])
            if edited is not None:
                edits.setdefault(edited, confidence)
        return [TaggedEdit(edited, confidence) for edited, confidence in edits.items()]


def _tags(manifest: Manifest, folder: str | Path) -> tuple[Tag, ...]:
    """The tags of a manifest. Raises ManifestError unless it is a tagger's with all that an edit needs."""
    lacking = [name for name in (MODEL, TOKENIZER) if name not in manifest.files]
    lacking += [KEEP] if KEEP not in manifest.labels else []
    if manifest.kind != "tagger" or lacking:
        raise ManifestError(f"{folder} is not a complete tagger: kind {manifest.kind!r}, lacking {lacking}")
    if not is_number(manifest.settings.get("window", _WINDOW), 8, math.inf):
        raise ManifestError(f"{folder} has a manifest without a usable window; fetch it again")
    try:
        return tuple(map(Tag.parse, manifest.labels))
    except ValueError as error:
        raise ManifestError(f"{folder}: {error}; fetch it again") from None
