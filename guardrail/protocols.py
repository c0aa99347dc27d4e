"""The extension points. Each has one method; batch in, batch out, equal lengths.

Any callable of the same shape will do: ``Guard(detector=lambda texts: [...])``. Tuples, generators, arrays
and tensors are read as the lists that they stand for; all else is an error of the plug-in. While you write
one, ``Policy(on_error="raise")`` shows it, and ``GUARDRAIL_DEBUG=1`` chains what the plug-in raised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from guardrail.outcome import Span, Verdict

__all__ = [
    "DetectFunction",
    "Detector",
    "EmbedFunction",
    "Embedder",
    "Embeddings",
    "MarkedRewriter",
    "RewriteFunction",
    "Rewriter",
    "Verifier",
    "VerifyFunction",
]

Embeddings = npt.NDArray[np.float32]
DetectFunction = Callable[[Sequence[str]], Sequence[Verdict]]
"""A Detector as a plain function; the others likewise."""
RewriteFunction = Callable[[Sequence[str], int], Sequence[Sequence[str]]]
EmbedFunction = Callable[[Sequence[str]], Any]
VerifyFunction = Callable[[Sequence[str], Sequence[str]], Sequence[float]]


@runtime_checkable
class Detector(Protocol):
    """Judges texts.

    Every verdict with scores has all labels. A detector that leaves some out says which ones it has in an
    attribute ``labels``, so that a policy's thresholds can be checked against them.
    """

    def detect(self, texts: Sequence[str]) -> list[Verdict]:
        """Judges a batch.

        Args:
            texts: One or more texts.

        Returns:
            One verdict per text, in order. It must not depend on the others in the batch.
        """
        ...


@runtime_checkable
class Rewriter(Protocol):
    """Proposes neutral versions of toxic segments."""

    def rewrite(self, segments: Sequence[str], n: int) -> list[list[str]]:
        """Proposes candidates for a batch.

        Args:
            segments: One or more toxic segments.
            n: Maximum number of candidates per segment, 1 or more.

        Returns:
            One list per segment, best first; an empty one if there is no candidate. Of those that pass every
            check, a guard without a verifier takes the first. Candidates must depend on the segment alone,
            not on the batch, the call order or global random state.
        """
        ...


@runtime_checkable
class MarkedRewriter(Rewriter, Protocol):
    """A rewriter that does better if it is told which characters are toxic."""

    def rewrite_marked(
        self, segments: Sequence[str], spans: Sequence[Sequence[Span]], n: int
    ) -> list[list[str]]:
        """As ``rewrite``, which a guard does not call then.

        Args:
            segments: One or more toxic segments.
            spans: For each segment its toxic characters; there may be none.
            n: Maximum number of candidates per segment, 1 or more.

        Returns:
            One list per segment, best first. Candidates must depend on the segment and its spans alone.
        """
        ...


@runtime_checkable
class Embedder(Protocol):
    """Places texts in a space where cosine means closeness of meaning."""

    def embed(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Embeds a batch.

        Args:
            texts: ``n`` texts.

        Returns:
            Shape (n, d), any real numbers; rows are brought to unit length. A row of zeros is an error.
        """
        ...


@runtime_checkable
class Verifier(Protocol):
    """Judges rewrites as a reader would: nothing hostile left, nothing lost, added or turned round."""

    def verify(self, sources: Sequence[str], candidates: Sequence[str]) -> Sequence[float]:
        """Judges pairs.

        Args:
            sources: The segments.
            candidates: A rewrite of each; as many as there are sources.

        Returns:
            For each candidate the probability, 0..1, that a careful reader accepts it. It must depend on its
            own pair alone; it is compared with ``Policy.acceptable``, and chooses among the candidates that
            pass.
        """
        ...
