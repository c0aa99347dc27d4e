"""Rewriting with a causal language model and a LoRA adapter."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from guardrail.detectors.lexicon import Lexicon
from guardrail.errors import UsageError
from guardrail.manifest import Manifest
from guardrail.outcome import Span
from guardrail.protocols import Detector
from guardrail.rewriters.adapter import Adapter, read_adapter
from guardrail.rewriters.base import Base, open_base
from guardrail.rewriters.decode import decode, log_probabilities
from guardrail.rewriters.edits.candidates import marked_candidates
from guardrail.rewriters.edits.models import TorchModel
from guardrail.rewriters.edits.substitutions import SubstitutionTable
from guardrail.rewriters.folders import find_base
from guardrail.rewriters.sampling import Decoding, Prompt
from guardrail.rewriters.wording import MIN_LIKELIHOOD, Wording

__all__ = ["LoraRewriter"]


class LoraRewriter:
    """Proposes neutral versions of segments; safe to call from several threads.

    Rewriters made by ``with_adapter`` share the base's weights. While only one of them exists its adapter is
    merged into the weights; while there are more, each is applied next to them, one batch at a time.
    """

    def __init__(self, base: Base, adapter: Adapter, *, decoding: Decoding | None, lexicon: Detector) -> None:
        self._base = base
        self._adapter = adapter
        self._given_decoding = decoding
        self._decoding = decoding or Decoding(temperature=adapter.manifest.temperature or 1.0)
        self._lexicon = lexicon
        self._wording = Wording(base.tokenizer, adapter.template, self._decoding, lexicon=lexicon)

    @classmethod
    def load(
        cls,
        adapter_folder: str | Path,
        *,
        base_folder: str | Path | None = None,
        decoding: Decoding | None = None,
        lexicon: Detector | None = None,
    ) -> LoraRewriter:
        """A rewriter from an adapter folder and a base folder, both with manifests, every file verified.

        Without ``base_folder`` the base that the adapter's manifest names is taken from the cache, without
        ``decoding`` the temperature from that manifest. The last candidate deletes the words of ``lexicon``,
        by default the shipped one.

        Raises ModelMissingError if the base is not there, ManifestError if adapter and base do not
        belong together, ModelFileError for an adapter that is not plain LoRA, MissingExtraError without torch
        and transformers.
        """
        adapter = read_adapter(adapter_folder)
        base = open_base(find_base(adapter.manifest, base_folder))
        return cls._attach(base, adapter, decoding=decoding, lexicon=lexicon or Lexicon.shipped())

    def with_adapter(self, adapter_folder: str | Path) -> LoraRewriter:
        """Another rewriter on the same base weights; raises as ``load`` does."""
        return self._attach(
            self._base, read_adapter(adapter_folder), decoding=self._given_decoding, lexicon=self._lexicon
        )

    @classmethod
    def _attach(
        cls, base: Base, adapter: Adapter, *, decoding: Decoding | None, lexicon: Detector
    ) -> LoraRewriter:
        adapter.manifest.check_base(base.identity)
        base.attach(adapter)
        return cls(base, adapter, decoding=decoding, lexicon=lexicon)

    @property
    def manifest(self) -> Manifest:
        """The adapter's manifest."""
        return self._adapter.manifest

    def rewrite(self, segments: Sequence[str], n: int) -> list[list[str]]:
        """Up to ``n`` different candidates per segment, the greedy one first; see ``Rewriter.rewrite``.

        The last one, if ``n`` is 2 or more, is the segment without its listed words, if it has any and reads
        well without them. Empty for a segment that is blank, is not valid Unicode, or is longer than
        ``Decoding.prompt_tokens``.
        """
        if n < 1:
            raise UsageError(f"the number of candidates must be 1 or more, got {n}")
        rewrites: dict[str, list[str]] = {segment: [] for segment in segments}
        with self._base.applied(self._adapter) as model:
            # In here, because a tokenizer cannot be used by two threads at once.
            prompts = self._wording.prompts(segments)
            for batch in _batches(prompts, n=max(1, n - 1), decoding=self._decoding):
                continuations = decode(
                    model,
                    [prompts[segment] for segment in batch],
                    n=max(1, n - 1),
                    stop=self._base.stop,
                    decoding=self._decoding,
                )
                for segment, tokens in zip(batch, continuations, strict=True):
                    rewrites[segment] = self._wording.texts(tokens, source=segment)
            if n > 1:
                for segment, shorter in self._deletions(model, prompts):
                    if shorter not in rewrites[segment]:
                        rewrites[segment].append(shorter)
        return [list(rewrites[segment]) for segment in segments]

    def rewrite_marked(
        self, segments: Sequence[str], spans: Sequence[Sequence[Span]], n: int
    ) -> list[list[str]]:
        """Candidates for segments whose toxic characters are known; see ``MarkedRewriter.rewrite_marked``.

        They are the greedy rewrite, whole and in part, and edits that keep all else, the likeliest first.
        Nothing is sampled.
        """
        if n < 1:
            raise UsageError(f"the number of candidates must be 1 or more, got {n}")
        asked = [(segment, tuple(marks)) for segment, marks in zip(segments, spans, strict=True)]
        with self._base.applied(self._adapter) as applied:
            model = TorchModel(
                applied, stop=self._base.stop, decoding=self._decoding, encode=self._wording.encode
            )
            return marked_candidates(model, self._wording, SubstitutionTable.shipped(), asked, n)

    def score(self, segment: str, texts: Sequence[str]) -> list[npt.NDArray[np.float32]]:
        """For each text, as a rewrite of the segment, the log-probability of each token and of its end.

        Raises UsageError for a segment that cannot be rewritten.
        """
        with self._base.applied(self._adapter) as model:
            prompt = self._wording.prompt_of(segment)
            return [
                log_probabilities(model, prompt.ids, self._wording.encode(text), stop=self._base.stop)
                for text in texts
            ]

    def _deletions(self, model: Any, prompts: dict[str, Prompt]) -> Iterator[tuple[str, str]]:
        """Segments without their listed words, if the model finds every word that is left likely.

        "You are a complete idiot." would leave "You are a complete.", in which nobody expects the end.
        """
        for segment, shorter in self._wording.deletions(list(prompts)):
            ids = self._wording.encode(shorter)
            scores = log_probabilities(model, prompts[segment].ids, ids, stop=self._base.stop)
            if math.exp(scores.min()) >= MIN_LIKELIHOOD:
                yield segment, shorter


def _batches(prompts: dict[str, Prompt], *, n: int, decoding: Decoding) -> Iterator[list[str]]:
    """Segments of similar length together, within the bounds on rows and tokens of one forward pass."""
    batch: list[str] = []
    for segment in sorted(prompts, key=lambda text: len(prompts[text].ids)):
        prompt = prompts[segment]
        rows = (len(batch) + 1) * n
        tokens = rows * (len(prompt.ids) + prompt.limit)  # the longest so far, as they come in order
        if batch and (rows > decoding.rows or tokens > decoding.batch_tokens):
            yield batch
            batch = []
        batch.append(segment)
    if batch:
        yield batch
