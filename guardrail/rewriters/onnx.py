"""Rewriting with a Llama or Qwen2 and a LoRA adapter on onnxruntime alone: the default, without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from guardrail.detectors.lexicon import Lexicon
from guardrail.errors import UsageError
from guardrail.manifest import Manifest
from guardrail.models.tokenizer import read_tokenizer
from guardrail.models.weights import read_weights
from guardrail.outcome import Span
from guardrail.protocols import Detector
from guardrail.rewriters.adapter import Adapter, read_adapter
from guardrail.rewriters.edits.candidates import marked_candidates
from guardrail.rewriters.edits.models import SearchModel
from guardrail.rewriters.edits.substitutions import SubstitutionTable
from guardrail.rewriters.folders import BaseFolder, find_base
from guardrail.rewriters.runtime.factors import factors_of
from guardrail.rewriters.runtime.graph import Precision
from guardrail.rewriters.runtime.search import Reader, SearchRequest, SearchResult, search
from guardrail.rewriters.runtime.session import Runtime
from guardrail.rewriters.sampling import Decoding, Prompt
from guardrail.rewriters.wording import MIN_LIKELIHOOD, Wording

__all__ = ["OnnxRewriter"]

MIN_POSITIONS = 2048


class _Base:
    """A base that any number of rewriters share."""

    def __init__(
        self, folder: BaseFolder, *, decoding: Decoding, precision: Precision, threads: int | None
    ) -> None:
        self.identity = folder.identity
        self.tokenizer = read_tokenizer(folder.path)
        self.stop = self.tokenizer.control
        longest = math.ceil((1 + decoding.length_ratio) * decoding.prompt_tokens) + decoding.spare_tokens
        self.runtime = Runtime(
            partial(read_weights, folder.path),
            positions=max(longest, MIN_POSITIONS),
            precision=precision,
            threads=threads,
        )


class OnnxRewriter:
    """Proposes neutral versions of segments; safe to call from several threads and in forked processes.

    Rewriters made by ``with_adapter`` share the base; an adapter is swapped in by each call.
    """

    def __init__(
        self, base: _Base, adapter: Adapter, *, decoding: Decoding | None, lexicon: Detector
    ) -> None:
        self._base = base
        # Its matrices are in the reader, as the graph takes them.
        self._adapter = Adapter(adapter.manifest, scale=adapter.scale, layers={})
        self._given_decoding = decoding
        self._decoding = decoding or Decoding(temperature=adapter.manifest.temperature or 1.0)
        self._lexicon = lexicon
        self._wording = Wording(base.tokenizer, adapter.template, self._decoding, lexicon=lexicon)
        head = adapter.template.literal.partition("{text}")[0]
        self._reader = Reader(
            base.runtime,
            factors_of(adapter, base.runtime.shape),
            base.tokenizer.encode(head, add_special_tokens=False, split_special_tokens=False),
        )

    @classmethod
    def load(
        cls,
        adapter_folder: str | Path,
        *,
        base_folder: str | Path | None = None,
        decoding: Decoding | None = None,
        lexicon: Detector | None = None,
        precision: Precision = "int8",
        threads: int | None = None,
    ) -> OnnxRewriter:
        """A rewriter from an adapter folder and a base folder, both with manifests, every file verified.

        Args:
            adapter_folder: The adapter.
            base_folder: The base; None: the one that the adapter's manifest names, from the cache.
            decoding: How candidates are drawn; None: with the temperature of the adapter's manifest.
            lexicon: Detector whose words the last candidate deletes; None: the shipped one.
            precision: "int8", or "float32", which writes what torch writes.
            threads: Maximum threads of a pass; None: as many as physical cores.

        Raises:
            ModelMissingError: If the base is not there.
            ManifestError: If adapter and base do not belong together.
            ModelFileError: For an adapter that is not plain LoRA, or a base that is neither a plain Llama nor
                a plain Qwen2.
        """
        adapter = read_adapter(adapter_folder)
        folder = find_base(adapter.manifest, base_folder)
        base = _Base(folder, decoding=decoding or Decoding(), precision=precision, threads=threads)
        return cls(base, adapter, decoding=decoding, lexicon=lexicon or Lexicon.shipped())

    def with_adapter(self, adapter_folder: str | Path) -> OnnxRewriter:
        """Another rewriter on the same base; raises as ``load`` does."""
        adapter = read_adapter(adapter_folder)
        adapter.manifest.check_base(self._base.identity)
        return OnnxRewriter(self._base, adapter, decoding=self._given_decoding, lexicon=self._lexicon)

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
        prompts = self._wording.prompts(segments)
        shorter = dict(self._wording.deletions(list(prompts))) if n > 1 else {}
        answers = self._search(prompts, n=max(1, n - 1), texts=shorter)
        rewrites: dict[str, list[str]] = {segment: [] for segment in segments}
        for segment, answer in answers.items():
            rewrites[segment] = self._wording.texts(answer.candidates, source=segment)
            # "You are a complete idiot." would leave "You are a complete.", in which nobody expects the end.
            reads_well = any(math.exp(score.min()) >= MIN_LIKELIHOOD for score in answer.scores)
            if reads_well and shorter[segment] not in rewrites[segment]:
                rewrites[segment].append(shorter[segment])
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
        model = SearchModel(
            self._reader, stop=self._base.stop, decoding=self._decoding, encode=self._wording.encode
        )
        return marked_candidates(model, self._wording, SubstitutionTable.shipped(), asked, n)

    def score(self, segment: str, texts: Sequence[str]) -> list[npt.NDArray[np.float32]]:
        """For each text, as a rewrite of the segment, the log-probability of each token and of its end.

        All texts are read in one pass. Raises UsageError for a segment that cannot be rewritten.
        """
        question = self._question(segment, self._wording.prompt_of(segment), n=0, texts=texts)
        longest = max(map(len, question.texts), default=0) + len(question.prompt.ids)
        if longest > self._base.runtime.positions:
            raise UsageError(f"prompt and text have {longest} tokens, at most {self._base.runtime.positions}")
        with self._base.runtime.held():
            (answer,) = search(self._reader, [question], stop=self._base.stop, decoding=self._decoding)
        return answer.scores

    def _search(
        self, prompts: Mapping[str, Prompt], *, n: int, texts: Mapping[str, str]
    ) -> dict[str, SearchResult]:
        questions = [
            self._question(segment, prompt, n=n, texts=[texts[segment]] if segment in texts else [])
            for segment, prompt in prompts.items()
        ]
        with self._base.runtime.held():
            answers = search(self._reader, questions, stop=self._base.stop, decoding=self._decoding)
        return dict(zip(prompts, answers, strict=True))

    def _question(self, segment: str, prompt: Prompt, *, n: int, texts: Sequence[str]) -> SearchRequest:
        return SearchRequest(
            prompt,
            tuple(self._wording.encode(segment)),
            n,
            tuple(tuple(self._wording.encode(text)) for text in texts),
        )
