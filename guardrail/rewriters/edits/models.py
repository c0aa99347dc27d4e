"""The two runtimes as edits see them: what continues prompts and says how likely texts are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from guardrail.rewriters.decode import decode, log_probabilities
from guardrail.rewriters.edits.candidates import MAX_SCORED, Ask
from guardrail.rewriters.runtime.search import Answer, Question, Reader, search
from guardrail.rewriters.sampling import Decoding, Prompt

__all__ = ["SearchModel", "TorchModel"]

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
        answers = self._answers([Question(ask.prompt, ask.source, 1) for ask in asks])
        return [_first(answer.candidates) for answer in answers]

    def scored(self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]) -> Scores:
        """See ``Model.scored``; texts that begin alike are read once as far as they do."""
        questions = [
            Question(prompt, (), 0, tuple(tuple(self._encode(text)) for text in group))
            for prompt, group in zip(prompts, texts, strict=True)
        ]
        return [answer.scores for group in _groups(questions) for answer in self._answers(group)]

    def _answers(self, questions: Sequence[Question]) -> list[Answer]:
        with self._reader.runtime.held():
            return search(self._reader, questions, stop=self._stop, decoding=self._decoding)


def _groups(questions: Sequence[Question]) -> Iterator[list[Question]]:
    """The questions in groups whose texts are of ``MAX_SCORED`` tokens in all, or alone."""
    group: list[Question] = []
    size = 0
    for question in questions:
        own = sum(map(len, question.texts))
        if group and size + own > MAX_SCORED:
            yield group
            group, size = [], 0
        group.append(question)
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
