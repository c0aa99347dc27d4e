"""Small deterministic plug-ins: they do what the real ones do, on words instead of models."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from guardrail import Guard, Span, Verdict
from guardrail.protocols import Embeddings

BAD = {"idiot": "person", "moron": "person", "crap": "stuff", "damn": ""}
WORD = re.compile(r"\w+")


class WordDetector:
    """Flags the words of BAD; records every call."""

    def __init__(self, words: Sequence[str] = tuple(BAD)) -> None:
        self.words = frozenset(words)
        self.calls: list[tuple[str, ...]] = []

    def detect(self, texts: Sequence[str]) -> list[Verdict]:
        self.calls.append(tuple(texts))
        return [self.judge(text) for text in texts]

    def judge(self, text: str) -> Verdict:
        spans = tuple(Span(*m.span()) for m in WORD.finditer(text) if m.group().lower() in self.words)
        score = 0.9 if spans else 0.01
        return Verdict({"toxicity": score}, bool(spans), spans)


class WordRewriter:
    """Swaps each word of BAD for its neutral one; the first candidate is an unchanged copy."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []

    def rewrite(self, segments: Sequence[str], n: int) -> list[list[str]]:
        self.calls.append(tuple(segments))
        return [[segment, WORD.sub(self.swap, segment)][:n] for segment in segments]

    @staticmethod
    def swap(match: re.Match[str]) -> str:
        return BAD.get(match.group().lower(), match.group())


class BagEmbedder:
    """Unit vectors of hashed words: texts that share words are close."""

    def embed(self, texts: Sequence[str]) -> Embeddings:
        rows = np.zeros((len(texts), 64), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            row[0] = 1.0
            for word in WORD.findall(text.lower()):
                row[hashlib.sha256(word.encode()).digest()[0] % 63 + 1] += 1.0
        result: Embeddings = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return result


class WordGuard(Guard):
    """A guard on these plug-ins where it is not given others; stands in for Guard in commands."""

    def __init__(self, **arguments: Any) -> None:
        words: dict[str, Any] = {
            "detector": WordDetector(),
            "lexicon": WordDetector(),
            "rewriter": WordRewriter(),
            "embedder": BagEmbedder(),
        }
        super().__init__(**words | arguments)
