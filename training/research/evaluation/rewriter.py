"""The rewriters' measurements, from settings to figures."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardrail.manifest import Manifest
from guardrail.policy import Policy
from guardrail.protocols import Rewriter
from guardrail_training.data import load_paradetox
from guardrail_training.evaluation.best_checkpoint import choose, step_folders
from guardrail_training.evaluation.method_report import compare_methods
from guardrail_training.evaluation.methods import Method, check_methods
from guardrail_training.evaluation.rewriting_report import (
    Instruments,
    SystemMeasurements,
    SystemOutputs,
    advantage,
    measure,
    summarise,
)
from guardrail_training.evaluation.similarity import MiniLm, ParaphraseL3
from guardrail_training.evaluation.systems import (
    GREEDY,
    GUARD,
    MASKED,
    PILOT,
    Sentences,
    copied,
    deleted,
    greedy,
    guarded,
    second_references,
    write_outputs,
)
from guardrail_training.metrics.fluency import Surprise, surprise
from guardrail_training.provenance import SHIPPED, model_folder
from guardrail_training.records import required_folder
from research.evaluation.judges import load_judges
from research.evaluation.settings import EvaluateSettings

if TYPE_CHECKING:
    from guardrail.detectors.onnx import OnnxDetector

__all__ = ["measurements", "selection"]

NO_DEADLINE: dict[str, Any] = {"detect_timeout": None, "rewrite_timeout": None}


def measurements(settings: EvaluateSettings) -> dict[str, Any]:
    """All rows of the rewriting table, the guard's paired advantage over each, and random outputs in full;
    with ``also`` how those adapters compare with the one that the table is about.

    Raises ConfigError, before any model is opened, where one of ``also`` cannot be measured.
    """
    check_methods(settings.methods, base=settings.base)
    sentences = _sentences(settings)
    detector = _detector(settings)
    systems = _systems(settings, sentences, detector)
    write_outputs(settings.outputs, systems)
    instruments = _instruments(settings, detector=detector, perplexity=settings.perplexity)
    measured = [measure(system, instruments) for system in systems]
    favourite = next(each for each in measured if each.system.name == GUARD)
    blocks = {
        name: [summarise(each, seed=settings.seed, rewritten_only=only) for each in measured]
        for name, only in (("all", False), ("rewritten", True))
    }
    others = [advantage(favourite, each, seed=settings.seed) for each in measured if each is not favourite]
    return {
        "favourite": GUARD,
        "blocks": {name: [block for block in found if block is not None] for name, found in blocks.items()},
        "advantages": [each for each in others if each is not None],
        **_by_method(settings, measured),
        "samples": _samples(favourite.system, count=settings.samples, seed=settings.seed),
    }


def selection(settings: EvaluateSettings) -> dict[str, Any]:
    """The best ``step-N`` folder of a run by J of its greedy rewrites, with every folder's figures."""
    first, *rest = step_folders(settings.checkpoints)
    load = _loader(settings)
    choice = choose(
        [first, *rest],
        load=load,
        sentences=_sentences(settings),
        instruments=_instruments(settings, detector=None, perplexity=False),
        seed=settings.seed,
    )
    return {"best": choice.folder.name, "step": choice.step, "blocks": choice.blocks}


def _sentences(settings: EvaluateSettings) -> Sentences:
    rows = load_paradetox(required_folder(settings.data), split="dev")
    return Sentences.of(rows[: settings.limit] if settings.limit else rows)


def _detector(settings: EvaluateSettings) -> OnnxDetector:
    from guardrail.detectors.onnx import OnnxDetector

    return OnnxDetector(settings.detector or SHIPPED / "detector", threads=settings.threads)


def _loader(settings: EvaluateSettings) -> Callable[[Path], Rewriter]:
    """Opens adapters on one base; each is a rewriter of its own, so that it runs merged."""
    import torch

    from guardrail.rewriters.lora import LoraRewriter

    torch.set_num_threads(settings.threads)
    base = model_folder(settings.base)
    return lambda folder: LoraRewriter.load(folder, base_folder=base)


def _by_method(settings: EvaluateSettings, measured: Sequence[SystemMeasurements]) -> dict[str, Any]:
    """Figures of the adapters by method, and the sha256 of their files; empty without ``also``."""
    if not settings.methods:
        return {}
    own = settings.method or GREEDY
    systems = {each.system.name: each for each in measured}
    rows = {own: systems[GREEDY]} | {each.name: systems[each.name] for each in settings.methods}
    adapters = [Method(name=own, folder=_adapter(settings)), *settings.methods]
    return {
        "methods": compare_methods(rows, seed=settings.seed),
        "adapters": {each.name: Manifest.load(each.folder, verify=False).files for each in adapters},
    }


def _adapter(settings: EvaluateSettings) -> Path:
    return Path(settings.adapter) if settings.adapter else SHIPPED / "rewriter"


def _systems(settings: EvaluateSettings, sentences: Sentences, detector: OnnxDetector) -> list[SystemOutputs]:
    from guardrail import Guard
    from guardrail.detectors.lexicon import Lexicon

    load = _loader(settings)
    folder = Path(settings.detector) if settings.detector else SHIPPED / "detector"
    lexicon = Lexicon.load(folder / "lexicon.txt")
    masking = Guard(
        policy=Policy(ladder=("mask", "block"), **NO_DEADLINE),
        detector=detector,
        rewriter=None,
        lexicon=lexicon,
    )
    systems = [copied(sentences), deleted(sentences, lexicon=lexicon)]
    systems.append(guarded(sentences, name=MASKED, guard=masking))
    pilot = [Method(name=PILOT, folder=Path(settings.pilot))] if settings.pilot else []
    # One base in memory at a time: each of these is let go before the next is opened.
    systems += (
        greedy(sentences, name=each.name, rewriter=load(each.folder)) for each in (*pilot, *settings.methods)
    )
    rewriter = load(_adapter(settings))
    systems.append(greedy(sentences, name=GREEDY, rewriter=rewriter))
    guard = Guard(policy=Policy(**NO_DEADLINE), detector=detector, rewriter=rewriter, lexicon=lexicon)
    systems.append(guarded(sentences, name=GUARD, guard=guard))
    human = second_references(sentences)
    return systems if human is None else [*systems, human]


def _instruments(
    settings: EvaluateSettings, *, detector: OnnxDetector | None, perplexity: bool
) -> Instruments:
    original = model_folder(settings.original)
    paraphrase = next(model_folder(settings.encoder).glob("*.onnx"))
    return Instruments(
        judges=load_judges(required_folder(settings.data)),
        encoders=(
            ("paraphrase-L3", ParaphraseL3(paraphrase, tokenizer=original / "tokenizer.json")),
            ("MiniLM", MiniLm(original)),
        ),
        detector=detector,
        fluency=_fluency(settings) if perplexity else None,
    )


def _fluency(settings: EvaluateSettings) -> Callable[[Sequence[str]], Surprise]:
    from guardrail_training.modeling import load_base, load_tokenizer, resolve_device, resolve_dtype

    folder, device = model_folder(settings.base), resolve_device(settings.device)
    model = load_base(folder, dtype=resolve_dtype(settings.dtype, device), device=device)
    tokenizer = load_tokenizer(folder)
    return lambda texts: surprise(model, tokenizer, texts)


def _samples(system: SystemOutputs, *, count: int, seed: int) -> list[dict[str, object]]:
    places = random.Random(f"samples-{seed}").sample(range(len(system.rows)), min(count, len(system.rows)))
    return [
        {
            "row": system.rows[place],
            "action": system.actions[place] if system.actions is not None else None,
            "source": system.sources[place],
            "output": system.outputs[place],
        }
        for place in sorted(places)
    ]
