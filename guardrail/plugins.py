"""Connects a guard to its plug-ins; where one was not given, to the shipped model, loaded at first use."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from guardrail.calls import Models
from guardrail.errors import (
    GuardrailWarning,
    MissingExtraError,
    ModelMissingError,
    PluginError,
    UsageError,
)

if TYPE_CHECKING:
    from guardrail.detectors.lexicon import Lexicon
    from guardrail.detectors.onnx import OnnxDetector
    from guardrail.rewriters.onnx import OnnxRewriter

__all__ = ["Once", "connect", "shipped_rewriter"]

T = TypeVar("T")


def connect(*, detector: Any, rewriter: Any, embedder: Any, lexicon: Any) -> Models:
    """The parts as plain functions, with the shipped ones, loaded at first use, where none was given."""
    embeds = embedder or (detector if hasattr(detector, "embed") else None)
    models = Models(
        detect=_method(detector, "detect", lambda texts: _shipped_detector().detect(texts)),
        lexicon=_method(lexicon, "detect", lambda texts: _shipped_lexicon().detect(texts)),
        embed=_method(embeds, "embed", lambda texts: _shipped_detector().embed(texts)),
        rewrite=lambda texts, n: shipped_rewriter().rewrite(texts, n),
        open_rewriter=_open_rewriter,
    )
    if rewriter == "shipped":
        return models
    return replace(models, rewrite=_method(rewriter, "rewrite", _no_candidates), open_rewriter=None)


def _no_candidates(segments: Sequence[str], n: int) -> list[list[str]]:
    """What stands for a rewriter that was left out; the policy's ladder then starts at mask."""
    return [[] for _ in segments]


def _method(part: Any, name: str, default: Callable[..., Any]) -> Callable[..., Any]:
    """The part's method, the part itself where it is a plain callable, the default where there is none."""
    if part is None:
        return default
    method = getattr(part, name, part)
    if not callable(method):
        raise UsageError(
            f"expected an object with a method {name}() or a callable, got {type(part).__name__}"
        )
    return partial(method)


class Once(Generic[T]):
    """What is made at first use, and once only, however many threads ask for it."""

    def __init__(self, load: Callable[[], T]) -> None:
        self._load = cache(load)
        self._lock = Lock()

    def __call__(self) -> T:
        with self._lock:
            return self._load()

    def cache_clear(self) -> None:
        """Forgets it."""
        self._load.cache_clear()


@Once
def _shipped_detector() -> OnnxDetector:
    from guardrail.detectors.onnx import OnnxDetector

    return OnnxDetector.shipped()


@Once
def _shipped_lexicon() -> Lexicon:
    from guardrail.detectors.lexicon import Lexicon

    return Lexicon.shipped()


@Once
def shipped_rewriter() -> OnnxRewriter:
    from guardrail.rewriters.onnx import OnnxRewriter

    return OnnxRewriter.load(Path(__file__).parent / "shipped" / "rewriter")


def _open_rewriter() -> OnnxRewriter:
    """The shipped rewriter; where it cannot run the flow hears so, and masks."""
    try:
        return shipped_rewriter()
    except (ModelMissingError, MissingExtraError) as error:
        _warn_once(str(error))
        raise PluginError(f"no rewriter: {error}", reason="rewriter_missing", original=error) from None


@cache
def _warn_once(message: str) -> None:
    warnings.warn(f"toxic text is masked instead of rewritten: {message}", GuardrailWarning, stacklevel=2)
