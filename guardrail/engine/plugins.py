"""Connects a guard to its plug-ins; if one was not given, to the shipped model, loaded at first use."""

from __future__ import annotations

import inspect
import pickle
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from guardrail.engine.contract import Plugin
from guardrail.engine.runner import Models
from guardrail.errors import (
    REWRITER_MISSING,
    GuardrailWarning,
    MissingExtraError,
    ModelMissingError,
    PluginError,
    UsageError,
)
from guardrail.manifest import FILENAME, Manifest

if TYPE_CHECKING:
    from guardrail.detectors.lexicon import Lexicon
    from guardrail.detectors.onnx import OnnxDetector
    from guardrail.outcome import Span
    from guardrail.rewriters.edits.rewriter import EditRewriter
    from guardrail.rewriters.onnx import OnnxRewriter
    from guardrail.rewriters.verifier import OnnxVerifier

__all__ = [
    "Once",
    "chosen_verifier",
    "connect",
    "download_rewriter_base",
    "identities",
    "require_portable",
    "shipped_rewriter",
    "threshold_of",
]

SHIPPED = Path(__file__).parent.parent / "shipped"
ACCEPTABLE = 0.5
"""Probability from which a rewrite is taken if neither a policy nor its verifier names another."""

LOCAL_REWRITERS = ("guardrail.rewriters.onnx", "guardrail.rewriters.lora")
"""Modules whose rewriters the shipped verifier has learned to judge."""

T = TypeVar("T")


def connect(*, detector: Any, rewriter: Any, embedder: Any, lexicon: Any, verifier: Any) -> Models:
    """The parts as plug-ins, with the shipped ones, loaded at first use, if none was given."""
    if embedder is None and hasattr(detector, "embed"):
        embedder = detector
    return Models(
        detect=_plugin("detector", detector, "detect", lambda texts: _shipped_detector().detect(texts)),
        lexicon=_plugin("lexicon", lexicon, "detect", lambda texts: _shipped_lexicon().detect(texts)),
        embed=_plugin("embedder", embedder, "embed", lambda texts: _shipped_detector().embed(texts)),
        rewrite=_rewriter(rewriter),
        verify=_verifier(verifier),
        open_rewriter=partial(_open_rewriter, _base_of(rewriter)) if isinstance(rewriter, str) else None,
    )


def _rewriter(part: Any) -> Plugin:
    if part is None:  # left out; the policy's ladder then starts at mask
        return Plugin("rewriter", lambda segments, n: [[] for _ in segments], name="none")
    if isinstance(part, str):
        marked = partial(_shipped_rewrites, _base_of(part))
        plugin = _plugin("rewriter", None, "rewrite", lambda segments, n: marked(segments, (), n))
        plugin.marked = marked
        return plugin
    plugin = _plugin("rewriter", part, "rewrite", part)
    plugin.marked = getattr(part, "rewrite_marked", None)
    return plugin


def _verifier(part: Any) -> Plugin:
    if part is None:  # left out; the flow then asks for none
        return Plugin("verifier", lambda sources, candidates: [1.0 for _ in candidates], name="none")
    plugin = None if part == "shipped" else part
    return _plugin(
        "verifier",
        plugin,
        "verify",
        lambda sources, candidates: _shipped_verifier().verify(sources, candidates),
    )


def chosen_verifier(part: Any, *, rewriter: Any) -> Any:
    """The verifier of a guard with this rewriter; None in place of the shipped one if that does not judge.

    It has learned what is wrong with rewrites of this package's local models, and judges those alone: of what
    people write it refuses half.
    """
    if part != "shipped":
        return part
    is_ours = isinstance(rewriter, str) or type(rewriter).__module__ in LOCAL_REWRITERS
    return "shipped" if is_ours and (SHIPPED / "verifier" / FILENAME).is_file() else None


def threshold_of(verifier: Any) -> float:
    """The probability from which this verifier's maker takes a rewrite."""
    part = Manifest.load(SHIPPED / "verifier", verify=False) if verifier == "shipped" else verifier
    threshold = getattr(part, "threshold", None)
    return ACCEPTABLE if threshold is None else float(threshold)


def _plugin(place: str, part: Any, name: str, shipped: Callable[..., Any]) -> Plugin:
    """The part's method, the part itself if it is a plain callable, the shipped one if there is none."""
    if part is None:
        return Plugin(place, shipped, name="(shipped)", labels=_shipped_labels)
    if inspect.isclass(part) and inspect.isfunction(inspect.getattr_static(part, name, None)):
        raise UsageError(
            f"the {place} is the class {part.__name__}: pass an object of it, {part.__name__}(...)"
        )
    method = getattr(part, name, part)
    if not callable(method):
        raise UsageError(
            f"expected an object with a method {name}() or a callable, got {type(part).__name__}"
        )
    return Plugin(place, method, labels=partial(_labels, part))


def _labels(part: Any) -> Iterable[str] | None:
    """The labels that a part says it scores, in its attribute ``labels`` or in its manifest."""
    labels = getattr(part, "labels", None) or getattr(getattr(part, "manifest", None), "labels", None)
    return labels if isinstance(labels, Iterable) and not isinstance(labels, str) else None


def _shipped_labels() -> Iterable[str]:
    return Manifest.load(SHIPPED / "detector", verify=False).labels


def require_portable(parts: Mapping[str, Any]) -> None:
    """Raises PicklingError for a part of this package that holds what no other process can have.

    Parts of others are left to whoever pickles: some libraries take more than the standard one.
    """
    for name, part in parts.items():
        if not type(part).__module__.startswith("guardrail."):
            continue
        try:
            pickle.dumps(part)
        except Exception as error:  # objects that cannot be pickled raise no common one
            raise pickle.PicklingError(
                f"the guard's {name}, {type(part).__name__}, cannot go to another process: make the guard "
                "in each worker, or make it with Guard.from_config, which loads its models there"
            ) from error


class Once(Generic[T]):
    """What is made at first use, and once only for each name, however many threads ask for it."""

    def __init__(self, load: Callable[..., T]) -> None:
        self._load = cache(load)
        self._lock = Lock()

    def __call__(self, *names: str) -> T:
        with self._lock:
            return self._load(*names)

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
def _shipped_verifier() -> OnnxVerifier:
    from guardrail.rewriters.verifier import OnnxVerifier

    return OnnxVerifier.shipped()


@Once
def _loaded_rewriter(base: str) -> OnnxRewriter:
    from guardrail import models
    from guardrail.rewriters.onnx import OnnxRewriter

    if not models.is_here(base):  # before the adapter is read for nothing
        models.require(base)
    return OnnxRewriter.load(models.shipped_adapter(base), base_folder=base)


def shipped_rewriter(name: str) -> OnnxRewriter:
    """The shipped adapter on its base, loaded at first use; ``name`` is "shipped" or the base's."""
    return _loaded_rewriter(_base_of(name))


def _base_of(name: str) -> str:
    from guardrail import models

    return models.base_of(name)


@Once
def _edit_rewriter() -> EditRewriter:
    from guardrail.rewriters.edits.rewriter import EditRewriter

    return EditRewriter()


def download_rewriter_base(name: str) -> None:
    """Fetches a shipped rewriter's base if it is not on this machine; ``name`` is as above."""
    from guardrail import models

    base = models.base_of(name)
    if models.locate(base) is None:
        models.pull(base)


def _open_rewriter(base: str) -> OnnxRewriter | EditRewriter:
    """The shipped rewriter on this base; if that cannot run, the one that needs no base, with a warning."""
    try:
        return shipped_rewriter(base)
    except (ModelMissingError, MissingExtraError) as error:
        _warn_once(str(error))
        return _edit_rewriter()


def _shipped_rewrites(
    base: str, segments: Sequence[str], spans: Sequence[Sequence[Span]], n: int
) -> list[list[str]]:
    """Candidates of the shipped rewriter; without its base, simple edits, if there are some for all."""
    rewriter = _open_rewriter(base)
    if (marked := getattr(rewriter, "rewrite_marked", None)) is not None:
        candidates: list[list[str]] = marked(segments, spans or [()] * len(segments), n)
        return candidates
    candidates = rewriter.rewrite(segments, n)
    if not all(candidates):
        raise PluginError("no simple edit will do, and the rewriter has no base", reason=REWRITER_MISSING)
    return candidates


@cache
def _warn_once(message: str) -> None:
    warnings.warn(
        f"sentences are rewritten by simple edits alone, and masked if these are not enough: {message}",
        GuardrailWarning,
        stacklevel=2,
    )


def identities(*, detector: Any, lexicon: Any, rewriter: Any) -> dict[str, str]:
    """How an audit names these parts; nothing is loaded for it.

    Each is named by its manifest's name, version and sha256, else by its attribute ``identity``, if it has
    one, else by its type; the shipped word list by its own sha256.
    """
    shipped = Manifest.load(SHIPPED / "detector", verify=False)
    if isinstance(rewriter, str):
        from guardrail import models

        rewriter = Manifest.load(models.shipped_adapter(models.base_of(rewriter)), verify=False)
    words = f"lexicon.txt sha256:{shipped.files['lexicon.txt']}"
    return {
        "detector": _identity(shipped if detector is None else detector),
        "lexicon": words if lexicon is None else _identity(lexicon),
        "rewriter": "none" if rewriter is None else _identity(rewriter),
    }


def _identity(part: Any) -> str:
    manifest = part if isinstance(part, Manifest) else getattr(part, "manifest", None)
    if isinstance(manifest, Manifest):
        return f"{manifest.name} {manifest.version} sha256:{manifest.digest()}"
    identity = getattr(part, "identity", None)
    if isinstance(identity, str):
        return identity
    named = part if hasattr(part, "__qualname__") else type(part)
    return f"{named.__module__}.{named.__qualname__}"
