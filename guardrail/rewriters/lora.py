"""Rewriting with a causal language model and a LoRA adapter."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from guardrail import models
from guardrail.detectors.lexicon import Lexicon
from guardrail.errors import ManifestError, UsageError
from guardrail.manifest import Manifest
from guardrail.protocols import Detector
from guardrail.rewriters.adapter import Adapter, read_adapter
from guardrail.rewriters.base import Base, open_base
from guardrail.rewriters.decode import Decoding, Prompt, decode, least_likely
from guardrail.rewriters.deletion import delete_spans

__all__ = ["LoraRewriter"]

MAX_CHARACTERS = 4000
LEAST_LIKELY = 0.15
"""Probability of its least likely token below which a segment without its listed words is no candidate.

Read off 151 sentences of ParaDetox train: above it nearly all read well, below it most lack a word.
"""


class LoraRewriter:
    """Proposes neutral versions of segments; safe to call from several threads.

    Rewriters made by ``with_adapter`` share the base's weights. While only one of them exists its adapter is
    merged into the weights; while there are more, each is applied beside them, one batch at a time.
    """

    def __init__(self, base: Base, adapter: Adapter, *, decoding: Decoding | None, lexicon: Detector) -> None:
        self._base = base
        self._adapter = adapter
        self._given_decoding = decoding
        self._decoding = decoding or Decoding(temperature=adapter.manifest.temperature or 1.0)
        self._lexicon = lexicon
        # A segment's own token count is its prompt's without the template's.
        self._frame = len(adapter.template.encode(base.tokenizer, ""))

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

        Raises ModelMissingError where the base is not there, ManifestError where adapter and base do not
        belong together, ModelFileError for an adapter that is not plain LoRA, MissingExtraError without torch
        and transformers.
        """
        adapter = read_adapter(adapter_folder)
        base = open_base(_base_folder(adapter.manifest, base_folder), for_adapter=adapter.manifest)
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
        well without them. Empty for a segment that is blank, is no valid Unicode, or is longer than
        ``Decoding.prompt_tokens``.
        """
        if n < 1:
            raise UsageError(f"the number of candidates must be 1 or more, got {n}")
        found: dict[str, list[str]] = {segment: [] for segment in segments}
        with self._base.applied(self._adapter) as model:
            # In here, because a tokenizer cannot be used by two threads at once.
            prompts = {segment: prompt for segment in found if (prompt := self._prompt(segment)) is not None}
            for batch in _batches(prompts, n=max(1, n - 1), decoding=self._decoding):
                continuations = decode(
                    model,
                    [prompts[segment] for segment in batch],
                    n=max(1, n - 1),
                    stop=self._base.stop,
                    decoding=self._decoding,
                )
                for segment, tokens in zip(batch, continuations, strict=True):
                    found[segment] = self._texts(tokens, source=segment)
            if n > 1:
                for segment, shorter in self._deletions(model, prompts):
                    if shorter not in found[segment]:
                        found[segment].append(shorter)
        return [list(found[segment]) for segment in segments]

    def _deletions(self, model: Any, prompts: dict[str, Prompt]) -> Iterator[tuple[str, str]]:
        """Segments without their listed words, where the model finds every word that is left likely.

        "You are a complete idiot." would leave "You are a complete.", in which nobody expects the end.
        """
        for segment, verdict in zip(prompts, self._lexicon.detect(list(prompts)), strict=True):
            shorter = _fitted(delete_spans(segment, verdict.spans), segment)
            if verdict.spans and shorter.strip():
                ids = self._base.tokenizer.encode(
                    shorter, add_special_tokens=False, split_special_tokens=True
                )
                if least_likely(model, prompts[segment].ids, ids, stop=self._base.stop) >= LEAST_LIKELY:
                    yield segment, shorter

    def _prompt(self, segment: str) -> Prompt | None:
        if not segment.strip() or len(segment) > MAX_CHARACTERS:
            return None
        try:
            seed = segment.encode()
        except UnicodeEncodeError:  # a lone surrogate, which no tokenizer takes
            return None
        ids = self._adapter.template.encode(self._base.tokenizer, segment)
        if len(ids) > self._decoding.prompt_tokens:
            return None
        own = len(ids) - self._frame
        limit = math.ceil(self._decoding.length_ratio * own) + self._decoding.spare_tokens
        return Prompt(ids=tuple(ids), limit=limit, seed=seed)

    def _texts(self, continuations: Sequence[Sequence[int]], *, source: str) -> list[str]:
        texts = (self._base.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in continuations)
        return list(dict.fromkeys(_fitted(text, source) for text in texts if text))


def _fitted(candidate: str, source: str) -> str:
    """The candidate with the source's capital and full stop: adapters learn from comments without either."""
    if source[:1].isupper():
        candidate = candidate[:1].upper() + candidate[1:]
    # A mark that stands apart, as tokenised text has it, is no habit worth keeping.
    if source[-1:] in (".", "!", "?") and source[-2:-1].isalnum() and candidate[-1:].isalnum():
        candidate += "?" if source[-1:] == "?" else "."
    return candidate


def _base_folder(manifest: Manifest, chosen: str | Path | None) -> Path:
    if chosen is not None:
        return models.require(chosen)
    source = models.source_of(manifest.trained_on)
    if source is None:
        raise ManifestError(
            f"the base of adapter {manifest.name!r} ({str(manifest.trained_on)[:16]}...) is not one that "
            "this package knows: pass its folder as base_folder"
        )
    return models.require(source.name)


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
