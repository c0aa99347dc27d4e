"""From a trained network to the folder that ships: 8-bit ONNX, tokenizer, lexicon, manifest with figures."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from guardrail.detectors.onnx import OnnxDetector
from guardrail.detectors.windows import letter_cases
from guardrail.manifest import Manifest, sha256_of
from guardrail.outcome import LABELS
from guardrail_training.data import SourceRow as ParallelRow
from guardrail_training.data import load_paradetox
from guardrail_training.metrics.statistics import ranking
from guardrail_training.runlog import git_commit, package_versions
from research.detection import corpora
from research.detection.batches import load_tokenizer
from research.detection.calibrate import ScoredTexts, choose_thresholds, platt
from research.detection.corpora import CLEAN, Labelled
from research.detection.dev_sets import (
    GROUP_TERM,
    clean_sets,
    dev_texts,
    labelled_sets,
    toxic_sets,
)
from research.detection.hard_negatives import Templates
from research.detection.labelled import TRAINED
from research.detection.lexicon_build import WORD, build_lexicon, write_lexicon
from research.detection.measures import flag_rates, rank_sets
from research.detection.mixture import DetectionExample, draw_pass
from research.detection.network import DetectorNetwork
from research.detection.quantise import (
    ExportSession,
    Row,
    activation_ranges,
    arrays,
    export,
    measure_cost,
)
from research.detection.settings import DetectorSettings, course
from research.detection.vocabulary import prune

__all__ = ["release"]

VERSION = "2.2.0"
CALIBRATION_SHARE = 0.08  # of a pass, drawn from the held-out slice
SMOOTHED = 600  # texts on which the size of activations is read
COMPARED = 400  # texts on which the 8-bit file is compared with float32
CLEAN_TEMPLATES = 4000  # sentences that count as clean evidence for the lexicon
# Sets of hate name groups in most of their toxic texts, which would make the names words of the list.
LEXICON_SOURCES = (
    "paradetox",
    "davidson",
    "toxic_spans",
    "stormfront",
    "everyday",
    "own",
    "rewrites",
    "wikitext2",
)
AGREES = 0.75  # score of a word alone from which the detector agrees with the lexicon
# Shares of held-out harmless texts that may be flagged. Some of ParaDetox's neutral side stayed toxic, and
# more of it uncivil: the preset for generated answers may flag that. Our own harmless sentences are hard. The
# forum's texts that name a group are from a place of hate, where noHate is a matter of context: they bind the
# preset for people's comments alone, with a wide budget. Of Wikipedia's 484 held-out sentences two may be
# flagged, and one: a stricter share would leave the decision to a single odd sentence.
ALLOWED = {
    "assistant": {
        "lookalikes": 0.04,
        "own_harmless": 0.05,
        "civil_versions": 0.03,
        "paradetox_neutral": 0.05,
        "toxigen_neutral": 0.05,
        "wikitext2": 0.0045,
    },
    "community": {
        "lookalikes": 0.02,
        "own_harmless": 0.035,
        "civil_versions": 0.015,
        "paradetox_neutral": 0.02,
        "toxigen_neutral": 0.03,
        "forum": 0.14,
        "wikitext2": 0.0025,
    },
}
HOSTILE = (
    "everyday_hostile",
    "rewrites_hostile",
    "own_hostile",
    "own_uncivil",
    "paradetox_toxic",
    "stormfront_hate",
)
DECIDES = {"assistant": "incivility", "community": "toxicity"}  # the label that a preset adds
MARKED = 0.4  # token score from which a word is marked


def release(network: DetectorNetwork, settings: DetectorSettings) -> Path:
    """Exports, calibrates and measures; returns the folder with the finished manifest."""
    folder = Path(settings.out) / "model"
    folder.mkdir(parents=True, exist_ok=True)
    texts = corpora.training_texts(settings.data)
    train = [text for text in texts if corpora.fold(text.key) >= corpora.HELD_OUT]
    apart = [text for text in texts if corpora.fold(text.key) < corpora.HELD_OUT]

    # 1. Files.
    vocabulary = prune(Path(settings.base) / "tokenizer.json")
    vocabulary.save(folder / "tokenizer.json")
    weights = vocabulary.apply(arrays(network))
    _, templates = Templates.load().split(held_out=0.1)
    examples = draw_pass(apart, templates, seed=settings.seed + 1, share=CALIBRATION_SHARE)
    written = [example.text.text for example in examples]
    original = load_tokenizer(settings.base)
    seen = _rows(original, written[:SMOOTHED], most=64)
    export(weights, folder / "model.onnx", precision="rows", ranges=activation_ranges(network, seen))
    float32 = export(weights, Path(settings.out) / "model.float32.onnx", precision="float")
    whole = export(arrays(network), Path(settings.out) / "model.whole.onnx", precision="float")

    # 2. Calibration on texts drawn like training's, from the slice that training never saw.
    rows = _rows(load_tokenizer(folder), written)
    calibration = _calibrate(ExportSession(folder / "model.onnx").read(rows).logits, examples)

    # 3. Lexicon: proposed by counts, confirmed by the detector.
    manifest = _manifest(folder, settings, texts, calibration=calibration)
    manifest.save(folder)
    listed = _write_lexicon(folder, train, load_paradetox(settings.data, split="train"))

    # 4. The presets' thresholds, on whole verdicts as they are served.
    _manifest(folder, settings, texts, calibration=calibration).save(folder)
    presets = _presets(OnnxDetector(folder, threads=settings.threads), listed, apart)
    manifest = _manifest(folder, settings, texts, calibration=calibration, presets=presets)
    manifest.save(folder)

    # 5. Figures on dev, and what 8 bits cost.
    cost = measure_cost(folder / "model.onnx", float32, rows[:COMPARED], threads=settings.threads)
    small = (folder / "model.onnx").stat().st_size
    eight_bit = {
        **_rounded(dataclasses.asdict(cost)),
        "size_ratio_to_whole_vocabulary": round(small / whole.stat().st_size, 5),
        **_ranking_change(folder, float32, settings),
    }
    metrics = {"eight_bit": eight_bit, **_dev_figures(folder, settings)}
    dataclasses.replace(manifest, metrics=metrics).save(folder)
    return folder


def _rows(tokenizer: Tokenizer, texts: Sequence[str], *, most: int = 256) -> list[Row]:
    encodings = tokenizer.encode_batch(list(texts))
    return [
        Row(encoding.ids[:most], letter_cases(text, encoding.offsets, encoding.word_ids)[:most])
        for text, encoding in zip(texts, encodings, strict=True)
    ]


def _calibrate(logits: Any, examples: Sequence[DetectionExample]) -> dict[str, dict[str, float]]:
    """Constants per label, from the examples whose source knows the label."""
    calibration = {}
    for place, label in enumerate(LABELS):
        known = [number for number, example in enumerate(examples) if example.labels[place] is not None]
        shares = np.array([examples[number].labels[place] for number in known], dtype=float)
        weights = np.array([examples[number].weight for number in known])
        calibration[label] = platt(logits[known, place], shares, weights)
    return calibration


def _write_lexicon(folder: Path, train: Sequence[Labelled], pairs: Sequence[ParallelRow]) -> set[str]:
    """Words that the counts propose and that the detector, reading the word alone, calls toxic too."""
    rng = random.Random(0)
    clean = Templates([family for family in Templates.load().families if family.labels == CLEAN])
    drawn = {clean.draw(rng, {}).text for _ in range(CLEAN_TEMPLATES)}
    rude = (text for text in train if text.key.split(":")[0] in LEXICON_SOURCES)
    unique = {(text.source, text.text): text for text in rude}.values()
    evidence = [*unique, *(Labelled(text, CLEAN, "template", text, ()) for text in sorted(drawn))]
    entries = build_lexicon(evidence, pairs=pairs)
    detector = OnnxDetector(folder)
    verdicts = detector.detect([word for word, _, _ in entries])
    agreed = [
        entry
        for entry, verdict in zip(entries, verdicts, strict=True)
        if verdict.scores["toxicity"] >= AGREES
    ]
    write_lexicon(agreed, folder / "lexicon.txt")
    return {word for word, _, _ in agreed}


def _presets(
    detector: OnnxDetector, listed: Set[str], apart: Sequence[Labelled]
) -> dict[str, dict[str, dict[str, float]]]:
    """For each preset its labels' thresholds; "assistant" adds incivility to what "community" flags."""
    chosen: dict[str, dict[str, float]] = {}
    clean = _clean_sets(listed, apart)
    for preset, label in DECIDES.items():
        place = TRAINED.index(label)
        hostile = {
            text.text: None for text in apart if text.source in HOSTILE and (text.labels[place] or 0) > 0.5
        }
        read = {name: _scored(detector, texts, label) for name, texts in clean.items()}
        harmless = {name: texts for name, texts in read.items() if name in ALLOWED[preset]}
        chosen[label] = choose_thresholds(
            harmless, ALLOWED[preset], hostile=_scored(detector, list(hostile), label)
        )
    return {
        "assistant": {label: chosen[label] for label in ("toxicity", "incivility")},
        "community": {"toxicity": chosen["toxicity"]},
    }


def _scored(detector: OnnxDetector, texts: Sequence[str], label: str) -> ScoredTexts:
    verdicts = detector.detect(texts)
    return ScoredTexts(
        np.array([verdict.scores[label] for verdict in verdicts]),
        np.array([bool(verdict.spans) for verdict in verdicts]),
    )


def _clean_sets(listed: Set[str], apart: Sequence[Labelled]) -> dict[str, list[str]]:
    """Held-out harmless texts by kind, those of ParaDetox with a ``listed`` word aside."""
    kinds = {
        "everyday_lookalike": "lookalikes",
        "rewrites_lookalike": "lookalikes",
        "everyday_neutral": "civil_versions",
        "rewrites_neutral": "civil_versions",
        "stormfront_nohate": "forum",
    }
    sets: dict[str, dict[str, None]] = {name: {} for name in ALLOWED["community"]}
    for text in apart:
        name = kinds.get(text.source, text.source)
        if name not in sets:
            continue
        if name == "forum" and not GROUP_TERM.search(text.text):
            continue
        if name == "paradetox_neutral" and listed & set(WORD.findall(text.text.lower())):
            continue
        sets[name][text.text] = None
    return {name: list(texts) for name, texts in sets.items() if texts}


def _manifest(
    folder: Path,
    settings: DetectorSettings,
    texts: Sequence[Labelled],
    *,
    calibration: dict[str, Any],
    presets: dict[str, Any] | None = None,
) -> Manifest:
    names = [name for name in ("model.onnx", "tokenizer.json", "lexicon.txt") if (folder / name).is_file()]
    known = {
        f"rows_{label}": sum(text.labels[place] is not None for text in texts)
        for place, label in enumerate(LABELS)
    }
    return Manifest(
        kind="detector",
        name="detox-minilm",
        version=VERSION,
        licence="Apache-2.0",
        files={name: sha256_of(folder / name) for name in names},
        trained_on=sha256_of(Path(settings.base) / "model.safetensors"),
        labels=LABELS,
        threshold=0.5,
        calibration=calibration,
        scripts=("Latin",),
        languages=("en",),
        settings={
            "span_threshold": MARKED,
            **({"presets": presets} if presets else {}),
            "window": 256,
            "training": course(settings),
            **known,
        },
        data=_sources(settings, texts),
        versions={**package_versions(), "onnxruntime": _onnxruntime_version()},
        seed=settings.seed,
        git=git_commit(),
    )


def _onnxruntime_version() -> str:
    import onnxruntime

    version: str = onnxruntime.__version__
    return version


def _sources(settings: DetectorSettings, texts: Sequence[Labelled]) -> list[dict[str, Any]]:
    """What it was trained on: name, distinct rows, licence, and the file's sha256 if there is a folder."""
    described = []
    for source, licence in corpora.LICENCES.items():
        family = "toxigen" if source.startswith("toxigen") else source
        rows = len({text.text for text in texts if text.key.split(":")[0] == family})
        entry: dict[str, Any] = {"name": source, "rows": rows, "licence": licence}
        path = corpora.source_path(Path(settings.data), source, "train") if settings.data else None
        if path and not path.is_file():
            continue
        if path:
            entry["sha256"] = sha256_of(path)
        described.append(entry)
    templates = sum(len(family.templates) for family in Templates.load().families)
    own = sum(text.key.startswith("own:") for text in texts)
    return [
        *described,
        {"name": "sentences of this project", "rows": own, "licence": "Apache-2.0"},
        {"name": "templates of this project", "rows": templates, "licence": "Apache-2.0"},
    ]


def _dev_figures(folder: Path, settings: DetectorSettings) -> dict[str, Any]:
    """Ranking per source and label, and shares flagged, on the dev files."""
    if not settings.data:
        return {}
    detector = OnnxDetector(folder, threads=settings.threads)
    texts = dev_texts(Path(settings.data))
    ranked = rank_sets(detector, labelled_sets(texts), threshold=0.5)
    clean = clean_sets(texts, data=Path(settings.data))
    rates = flag_rates(detector, {**toxic_sets(texts, seed=settings.seed), **clean})
    return {
        "dev": {
            f"{each.source}: {each.label}": _rounded(dataclasses.asdict(each.ranking)) for each in ranked
        },
        "flagged": {name: _rounded(dataclasses.asdict(rate)) for name, rate in rates.items()},
    }


def _ranking_change(folder: Path, float32: Path, settings: DetectorSettings) -> dict[str, float]:
    """The toxicity AUC of each dev source in 8 bits minus that in float32."""
    if not settings.data:
        return {}
    sessions = [ExportSession(path, threads=settings.threads) for path in (folder / "model.onnx", float32)]
    changes = {}
    for each in labelled_sets(dev_texts(Path(settings.data))):
        if each.label == "toxicity":
            rows = _rows(load_tokenizer(folder), each.texts)
            small, large = (
                ranking(each.positive, logits, flagged=logits > 0)
                for logits in (session.read(rows).logits[:, 0].astype(np.float64) for session in sessions)
            )
            changes[f"auc_change: {each.source}"] = round(small.auc - large.auc, 5)
    return changes


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 5) if isinstance(value, float) else value for key, value in values.items()}
