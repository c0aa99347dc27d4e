"""The two runtimes as edits see them: what continues prompts and says how likely texts are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from guardrail.rewriters.decode import decode, log_probabilities
from guardrail.rewriters.edits.candidates import Ask
from guardrail.rewriters.runtime.search import Reader, SearchRequest, SearchResult, search
from guardrail.rewriters.sampling import Decoding, Prompt

__all__ = ["SearchModel", "TorchModel"]

PASS_TOKENS = 128
"""Tokens of texts that one pass scores: each costs a row of numbers as long as the vocabulary, 200 kB."""

Scores = list[list[npt.NDArray[np.float32]]]


class SearchModel:
    """A reader of the runtime without torch."""

    def __init__(
        self,
        reader: Reader,
        *,
        stop: frozenset[int],
        decoding: Decoding,
        encode: Callable[[str], Sequence[int]],
    ) -> None:
        self._reader = reader
        self._stop = stop
        self._decoding = decoding
        self._encode = encode

    def continued(self, asks: Sequence[Ask]) -> list[list[int]]:
        """See ``Model.continued``; all prompts share passes."""
        answers = self._answers([SearchRequest(ask.prompt, ask.source, 1) for ask in asks])
        return [_first(answer.candidates) for answer in answers]

    def scored(self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]) -> Scores:
        """See ``Model.scored``; texts that begin alike are read once as far as they do."""
        parts = [
            (place, SearchRequest(prompt, (), 0, part))
            for place, (prompt, group) in enumerate(zip(prompts, texts, strict=True))
            for part in _portions([tuple(self._encode(text)) for text in group])
        ]
        scores: Scores = [[] for _ in prompts]
        for group in _groups(parts):
            answers = self._answers([question for _, question in group])
            for (place, _), answer in zip(group, answers, strict=True):
                scores[place] += answer.scores
        return scores

    def _answers(self, questions: Sequence[SearchRequest]) -> list[SearchResult]:
        with self._reader.runtime.held():
            return search(self._reader, questions, stop=self._stop, decoding=self._decoding)


def _portions(texts: Sequence[tuple[int, ...]]) -> Iterator[tuple[tuple[int, ...], ...]]:
    """The texts in portions of ``PASS_TOKENS`` tokens, or of one text."""
    portion: list[tuple[int, ...]] = []
    for text in texts:
        if portion and sum(map(len, portion)) + len(text) > PASS_TOKENS:
            yield tuple(portion)
            portion = []
        portion.append(text)
    if portion:
        yield tuple(portion)


def _groups(parts: Sequence[tuple[int, SearchRequest]]) -> Iterator[list[tuple[int, SearchRequest]]]:
    """The questions, each with its place, in groups of ``PASS_TOKENS`` tokens in all, or alone."""
    group: list[tuple[int, SearchRequest]] = []
    size = 0
    for place, question in parts:
        own = sum(map(len, question.texts))
        if group and size + own > PASS_TOKENS:
            yield group
            group, size = [], 0
        group.append((place, question))
        size += own
    if group:
        yield group


class TorchModel:
    """A model of transformers with its adapter applied, for as long as it is."""

    def __init__(
        self,
        model: Any,
        *,
        stop: frozenset[int],
        decoding: Decoding,
        encode: Callable[[str], Sequence[int]],
    ) -> None:
        self._model = model
        self._stop = stop
        self._decoding = decoding
        self._encode = encode

    def continued(self, asks: Sequence[Ask]) -> list[list[int]]:
        """See ``Model.continued``; one prompt after the other."""
        return [
            _first(decode(self._model, [ask.prompt], n=1, stop=self._stop, decoding=self._decoding)[0])
            for ask in asks
        ]

    def scored(self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]) -> Scores:
        """See ``Model.scored``; one text after the other."""
        return [
            [
                log_probabilities(self._model, prompt.ids, list(self._encode(text)), stop=self._stop)
                for text in group
            ]
            for prompt, group in zip(prompts, texts, strict=True)
        ]


def _first(continuations: Sequence[list[int]]) -> list[int]:
    """The only one there is; without tokens if it was cut off and therefore left out."""
    return continuations[0] if continuations else []
