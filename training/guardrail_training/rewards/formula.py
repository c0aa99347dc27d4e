"""Rewards from the formula in a recipe: ``"clean * meaning * fluency - 0.5 * copy"``.

A formula has numbers, ``+``, ``-``, ``*``, brackets, and terms by name; a term takes settings in brackets:
``classifier("models/hate", label="nothate", output="logit", over="prompt+response")``. It is read as an
expression and never executed. Every term takes ``name``, by which logs call it. The reward's own ``formula``
names every term with the settings that it was given, so that reading it again gives the same reward.

acceptable(verifier)                 the verifier's probability that a reader accepts the rewrite
clean(label, output, detector)       our detector: 1 - score, or its logit with output="logit"
classifier(model, label, output, over, revision, device, dtype)    any sequence classifier
meaning(detector)                    cosine of query and response, by the detector's embedding
fluency(base, device, dtype)         perplexity of the query over that of the response, at most 1
length(least, most)                  1 between so many words, less outside
length_ratio(least, most)            1 between so many times the query's words, less outside
copy                                 1 if the response is the query
overlap                              chrF with the closest of the row's human references
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import torch

from guardrail.detectors.onnx import OnnxDetector
from guardrail.errors import ConfigError
from guardrail.rewriters.verifier import OnnxVerifier
from guardrail_training import modeling
from guardrail_training.provenance import SHIPPED, model_folder
from guardrail_training.rewards import models, surface
from guardrail_training.rewards.algebra import Reward, named
from guardrail_training.rewards.independence import identities

__all__ = ["TERMS", "read_formula"]

Term = Callable[..., Reward]

_OPERATORS: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: lambda left, right: left + right,
    ast.Sub: lambda left, right: left - right,
    ast.Mult: lambda left, right: left * right,
}


def read_formula(formula: str, *, terms: Mapping[str, Term] | None = None, device: str = "auto") -> Reward:
    """The reward that a formula means; its models are loaded, on ``device`` unless a term says otherwise.

    ConfigError names what is wrong with it.
    """
    try:
        tree = ast.parse(formula.strip(), mode="eval")
    except SyntaxError as error:
        raise ConfigError(
            f"reward {formula!r} is not a formula: {error.msg} at column {error.offset}"
        ) from None
    value = _FormulaReader(formula, terms=TERMS if terms is None else terms, device=device).value(tree.body)
    if not isinstance(value, Reward):
        raise ConfigError(f"reward {formula!r} is a number; name at least one of {', '.join(sorted(TERMS))}")
    return value


class _FormulaReader:
    """Walks one formula; a term that occurs twice with the same settings is made once."""

    def __init__(self, formula: str, *, terms: Mapping[str, Term], device: str) -> None:
        self._formula, self._terms, self._device = formula, terms, device
        self._made: dict[str, Reward] = {}

    def value(self, node: ast.expr) -> Reward | float:
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            joined: Reward | float = _OPERATORS[type(node.op)](self.value(node.left), self.value(node.right))
            return joined
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -self.value(node.operand)
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            return float(node.value)
        if isinstance(node, ast.Name):
            return self._term(node.id, {})
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return self._term(node.func.id, self._settings(node))
        raise self._error(
            f"only numbers, +, -, *, brackets and terms can stand at column {node.col_offset + 1}"
        )

    def _settings(self, call: ast.Call) -> dict[str, Any]:
        # The one positional setting is a classifier's model.
        pairs = [("model", value) for value in call.args]
        pairs += [(keyword.arg or "**", keyword.value) for keyword in call.keywords]
        if len(dict(pairs)) < len(pairs) or not all(isinstance(value, ast.Constant) for _, value in pairs):
            raise self._error("settings of a term are written name=value with a number or a text as value")
        return {key: ast.literal_eval(value) for key, value in pairs}

    def _term(self, name: str, settings: dict[str, Any]) -> Reward:
        if name not in self._terms:
            raise self._error(f"unknown term {name!r}; known are {', '.join(sorted(self._terms))}")
        try:
            inspect.signature(self._terms[name]).bind(**settings)
        except TypeError as error:
            raise self._error(f"term {name!r}: {error}") from None
        written = _written(name, settings)
        if written not in self._made:
            takes = inspect.signature(self._terms[name]).parameters
            placed = {"device": self._device, **settings} if "device" in takes else settings
            self._made[written] = replace(self._terms[name](**placed), formula=written)
        return self._made[written]

    def _error(self, problem: str) -> ConfigError:
        return ConfigError(f"reward {self._formula!r}: {problem}")


def _written(name: str, settings: Mapping[str, Any]) -> str:
    """The term as a formula has it, its settings in alphabetical order."""
    if not settings:
        return name
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in sorted(settings.items()))})"


def _acceptable(*, verifier: str = "", name: str = "acceptable") -> Reward:
    folder = verifier or str(SHIPPED / "verifier")
    model = OnnxVerifier(folder, threads=torch.get_num_threads())
    return named(name, models.acceptable(model), models=identities(folder))


def _clean(
    *, label: str = "toxicity", output: str = "probability", detector: str = "", name: str = "clean"
) -> Reward:
    score = models.clean(_detector(detector), label=label, output=output)
    return named(name, score, models=identities(_detector_folder(detector)))


def _meaning(*, detector: str = "", name: str = "meaning") -> Reward:
    return named(name, models.meaning(_detector(detector)), models=identities(_detector_folder(detector)))


def _detector_folder(folder: str) -> str:
    return folder or str(SHIPPED / "detector")


@cache
def _detector(folder: str) -> OnnxDetector:
    # Shared: ``clean`` and ``meaning`` read the same texts in the same pass.
    return OnnxDetector(_detector_folder(folder), threads=torch.get_num_threads())


def _fluency(
    *,
    base: str = "smollm2-135m-instruct",
    device: str = "auto",
    dtype: str = "float32",
    name: str = "fluency",
) -> Reward:
    folder, place = model_folder(base), modeling.resolve_device(device)
    model = modeling.load_base(folder, dtype=modeling.resolve_dtype(dtype, place), device=place)
    score = models.fluency(model, modeling.load_tokenizer(folder))
    return named(name, score, models=identities(str(folder)))


def _classifier(
    *,
    model: str,
    label: str,
    output: str = "logit",
    over: str = "response",
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "float32",
    name: str = "classifier",
) -> Reward:
    place = modeling.resolve_device(device)
    network, tokenizer = models.load_classifier(
        model, revision=revision, device=place, dtype=modeling.resolve_dtype(dtype, place)
    )
    score = models.sequence_classifier(network, tokenizer, label=label, output=output, over=over)
    return named(name, score, models=identities(model))


def _length(*, least: float = 0.0, most: float, name: str = "length") -> Reward:
    return named(name, surface.length_in_words(least=least, most=most))


def _length_ratio(*, least: float = 0.0, most: float, name: str = "length_ratio") -> Reward:
    return named(name, surface.length_ratio(least=least, most=most))


def _copy(*, name: str = "copy") -> Reward:
    return named(name, surface.copied)


def _overlap(*, name: str = "overlap") -> Reward:
    return named(name, surface.overlapping)


TERMS: Mapping[str, Term] = {
    "acceptable": _acceptable,
    "classifier": _classifier,
    "clean": _clean,
    "copy": _copy,
    "fluency": _fluency,
    "length": _length,
    "length_ratio": _length_ratio,
    "meaning": _meaning,
    "overlap": _overlap,
}
"""The terms of a formula."""
