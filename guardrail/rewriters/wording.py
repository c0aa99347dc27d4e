"""From a segment to a prompt and from continuations to candidates, the same for every runtime."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

from guardrail.errors import UsageError
from guardrail.manifest import Encoder, Template
from guardrail.protocols import Detector
from guardrail.rewriters.deletion import delete_spans
from guardrail.rewriters.sampling import Decoding, Prompt

__all__ = ["MIN_LIKELIHOOD", "Coder", "Wording"]

MAX_CHARACTERS = 4000
MIN_LIKELIHOOD = 0.15
"""Probability of its least likely token below which a segment without its listed words is not a candidate.

Read off 151 sentences of ParaDetox train: above it nearly all read well, below it most lack a word.
"""


class Coder(Encoder, Protocol):
    """The part of a tokenizer that a rewriter needs."""

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str: ...


class Wording:
    """Prompts of segments under one template, and the texts that come back."""

    def __init__(
        self, tokenizer: Coder, template: Template, decoding: Decoding, *, lexicon: Detector
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._decoding = decoding
        self._lexicon = lexicon
        # A segment's own token count is its prompt's without the template's.
        self._frame = len(template.encode(tokenizer, ""))

    def prompts(self, segments: Sequence[str]) -> dict[str, Prompt]:
        """The prompt of each segment that can be rewritten."""
        prompts = {segment: self._prompt(segment) for segment in dict.fromkeys(segments)}
        return {segment: prompt for segment, prompt in prompts.items() if prompt is not None}

    def prompt_of(self, segment: str) -> Prompt:
        """The prompt of one segment; UsageError if it cannot be rewritten."""
        prompt = self._prompt(segment)
        if prompt is None:
            raise UsageError(
                f"a segment of {len(segment)} characters cannot be scored: "
                "it is blank, too long or not valid Unicode"
            )
        return prompt

    def _prompt(self, segment: str) -> Prompt | None:
        if not segment.strip() or len(segment) > MAX_CHARACTERS:
            return None
        try:
            seed = segment.encode()
        except UnicodeEncodeError:  # a lone surrogate, which no tokenizer takes
            return None
        ids = self._template.encode(self._tokenizer, segment)
        if len(ids) > self._decoding.prompt_tokens:
            return None
        own = len(ids) - self._frame
        limit = math.ceil(self._decoding.length_ratio * own) + self._decoding.spare_tokens
        return Prompt(ids=tuple(ids), limit=limit, seed=seed)

    def encode(self, text: str) -> list[int]:
        """The ids of a text as data: control tokens in it are ordinary text."""
        return self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    def texts(self, continuations: Sequence[Sequence[int]], *, source: str) -> list[str]:
        """The different candidates that continuations spell, none blank."""
        texts = (self._tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in continuations)
        return list(dict.fromkeys(_fitted(text, source) for text in texts if text))

    def deletions(self, segments: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Segments that have listed words, each with what is left without them."""
        for segment, verdict in zip(segments, self._lexicon.detect(list(segments)), strict=True):
            shorter = _fitted(delete_spans(segment, verdict.spans), segment)
            if verdict.spans and shorter.strip():
                yield segment, shorter


def _fitted(candidate: str, source: str) -> str:
    """The candidate with the source's capitals and full stop: adapters learn from comments without either."""
    if source.isupper():
        candidate = candidate.upper()  # "YOU BILLED ME" must not become "YOU BILLed ME"
    if source[:1].isupper():
        candidate = candidate[:1].upper() + candidate[1:]
    # A mark that stands apart, as tokenised text has it, is not a habit worth keeping.
    if source[-1:] in (".", "!", "?") and source[-2:-1].isalnum() and candidate[-1:].isalnum():
        candidate += "?" if source[-1:] == "?" else "."
    return candidate
