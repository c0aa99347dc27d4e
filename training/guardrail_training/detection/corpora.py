"""Labelled texts for the detector, from a folder of JSON Lines or from a hub.

A source gives votes where it has them; they become soft labels. A label that a source cannot know is ``None``
and is masked in the loss, never taken as zero.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guardrail.errors import MissingExtraError, UsageError
from guardrail.outcome import LABELS
from guardrail_training.records import data_folder, read_records

__all__ = [
    "CLEAN",
    "HELD_OUT",
    "LICENCES",
    "SOURCES",
    "Labelled",
    "Labels",
    "fold",
    "load",
    "soft",
    "source_path",
    "wikitext_sentences",
]

Labels = tuple[float | None, ...]
Row = Mapping[str, Any]

CLEAN: Labels = (0.0,) * len(LABELS)
HELD_OUT = 0.06  # share of the train files kept for calibration and threshold
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
HUB = {
    "paradetox": "s-nlp/paradetox",
    "davidson": "tdavidson/hate_speech_offensive",
    "stormfront": "odegiber/hate_speech18",
}
LICENCES = {
    "paradetox": "CC0-1.0",
    "davidson": "MIT",
    "stormfront": "CC-BY-SA-3.0",
    "toxigen_statements": "MIT / CDLA-Permissive-2.0",
    "toxigen_prompts": "MIT / CDLA-Permissive-2.0",
    "toxic_spans": "CC0-1.0",
    "wikitext2": "CC-BY-SA-3.0",
}


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text with its soft labels, in the order of ``LABELS``; ``None`` means that the source does not say.

    ``spans`` are the toxic character ranges, empty for a clean text and ``None`` where nobody marked any.
    ``key`` names the row it came from: everything made from one row stays on one side of the calibration
    split.
    """

    text: str
    labels: Labels
    source: str
    key: str
    spans: tuple[tuple[int, int], ...] | None = None
    weight: float = 1.0


def soft(**shares: float) -> Labels:
    """Labels in order from shares by name; the unnamed ones are masked."""
    unknown = sorted(set(shares) - set(LABELS))
    if unknown:
        raise UsageError(f"unknown labels {unknown}; the labels are {list(LABELS)}")
    return tuple(shares.get(label) for label in LABELS)


def fold(key: str) -> float:
    """A number in 0..1 that depends on the key alone; below ``HELD_OUT`` the row calibrates, never trains."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big") / 2**48


def source_path(root: Path, source: str, part: str) -> Path:
    """Where a source's part lies under a data folder."""
    return root / source / ("valid.txt" if source == "wikitext2" else f"{part}.jsonl")


def load(
    root: str | Path | None = None, *, part: str, sources: Sequence[str] | None = None
) -> list[Labelled]:
    """Every text of one part (``train`` or ``dev``) of the named sources, all of them by default.

    ``root`` is a folder with one subfolder per source; without it ``GUARDRAIL_DATA`` is taken, and without
    that the hub for the sources it has. WikiText-2 has no labels and no dev part here: its ``valid.txt`` is
    clean training text. Raises UsageError for a source that cannot be found or a row without its fields (with
    the row's number).
    """
    if part not in ("train", "dev"):
        raise UsageError(f"part must be 'train' or 'dev', got {part!r}")
    folder = data_folder(root)
    texts: list[Labelled] = []
    for source in sources or SOURCES:
        if source not in SOURCES:
            raise UsageError(f"unknown source {source!r}; the sources are {sorted(SOURCES)}")
        if source == "wikitext2" and part == "dev":
            continue
        rows = _file_rows(folder, source, part) if folder else _hub_rows(source, part)
        texts.extend(_labelled(source, rows))
    return texts


def _labelled(source: str, rows: Iterator[Row]) -> Iterator[Labelled]:
    for number, row in enumerate(rows, start=1):
        try:
            yield from SOURCES[source](row, f"{source}:{number}")
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise UsageError(
                f"{source}, row {number}: unusable ({type(error).__name__}: {error.args[:1]})"
            ) from error


def _file_rows(root: Path, source: str, part: str) -> Iterator[Row]:
    path = source_path(root, source, part)
    if source != "wikitext2":
        yield from (record.content for record in read_records(path))
        return
    if not path.is_file():
        raise UsageError(f"{path} not found: give its folder with --data or GUARDRAIL_DATA")
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield {"text": line}


def _hub_rows(source: str, part: str) -> Iterator[Row]:
    """The same rows from a hub, which has train alone: dev is a twentieth of it by hash."""
    if source not in HUB:
        raise UsageError(f"{source!r} is read from a folder only; pass --data FOLDER or set GUARDRAIL_DATA")
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError(feature="reading from a hub", extra="train") from error
    for number, row in enumerate(datasets.load_dataset(HUB[source], split="train")):
        if (fold(f"hub:{source}:{number}") < 0.05) == (part == "dev"):
            yield _from_hub(source, row)


def _from_hub(source: str, row: Row) -> Row:
    if source == "paradetox":
        return {"toxic": row["en_toxic_comment"], "neutral": [row["en_neutral_comment"]]}
    if source == "davidson":
        votes = {
            "hate": "hate_speech_count",
            "offensive": "offensive_language_count",
            "neither": "neither_count",
        }
        return {"text": row["tweet"], **{name: row[column] for name, column in votes.items()}}
    return {"text": row["text"], "label": "hate" if row["label"] == 1 else "noHate"}


def _paradetox(row: Row, key: str) -> Iterator[Labelled]:
    toxic = row["toxic"]
    references = [text for text in row["neutral"] if _bare(text) != _bare(toxic)]
    closest = max(
        references, key=lambda text: difflib.SequenceMatcher(None, toxic, text).ratio(), default=None
    )
    yield Labelled(
        toxic, soft(toxicity=1), "paradetox_toxic", key, removed_spans(toxic, closest) if closest else None
    )
    for text in references:
        yield Labelled(text, CLEAN, "paradetox_neutral", key, (), 1 / len(references))


def _bare(text: str) -> str:
    return "".join(character for character in text.lower() if character.isalnum())


def removed_spans(toxic: str, neutral: str) -> tuple[tuple[int, int], ...] | None:
    """The words of ``toxic`` that its neutral version dropped or replaced, as character ranges.

    A weak mark of what was toxic; None where the rewrite changed more than four words in ten or nothing at
    all.
    """
    words = list(re.finditer(r"[\w*@$#']*\w[\w*@$#']*", toxic))
    kept = re.findall(r"[\w*@$#']*\w[\w*@$#']*", neutral.lower())
    matcher = difflib.SequenceMatcher(None, [word.group().lower() for word in words], kept, autojunk=False)
    spans = [
        (words[start].start(), words[end - 1].end())
        for tag, start, end, _, _ in matcher.get_opcodes()
        if tag in ("delete", "replace")
    ]
    changed = sum(end - start for start, end in spans)
    return tuple(spans) if 0 < changed <= 0.4 * len(toxic) else None


def _davidson(row: Row, key: str) -> Iterator[Labelled]:
    votes = row["hate"] + row["offensive"] + row["neither"]
    hate, offensive = row["hate"] / votes, row["offensive"] / votes
    if hate + offensive == 0:
        yield Labelled(row["text"], CLEAN, "davidson_neither", key, ())
        return
    name = "davidson_neither" if hate + offensive < 0.5 else "davidson_toxic"
    yield Labelled(row["text"], soft(toxicity=hate + offensive, identity_attack=hate), name, key)


def _stormfront(row: Row, key: str) -> Iterator[Labelled]:
    if row["label"] not in ("hate", "noHate"):
        raise ValueError(f"label {row['label']!r}")
    hate = row["label"] == "hate"
    labels = (
        soft(toxicity=1, identity_attack=1)
        if hate
        else soft(toxicity=0, identity_attack=0, sexual_explicit=0)
    )
    yield Labelled(
        row["text"], labels, "stormfront_hate" if hate else "stormfront_nohate", key, None if hate else ()
    )


def _toxigen(row: Row, key: str) -> Iterator[Labelled]:
    """A statement, or the dash-separated statements of a prompt: all of one label."""
    if row["label"] not in ("hate", "neutral"):
        raise ValueError(f"label {row['label']!r}")
    hate = row["label"] == "hate"
    labels = soft(toxicity=1, identity_attack=1) if hate else CLEAN
    lines = row["prompt"].split("\n") if "prompt" in row else [row["text"]]
    for text in (line.strip().removeprefix("-").strip() for line in lines):
        if text:
            name = "toxigen_hate" if hate else "toxigen_neutral"
            yield Labelled(text, labels, name, f"toxigen:{text}", None if hate else ())


def _toxic_spans(row: Row, key: str) -> Iterator[Labelled]:
    """The comment, and its sentences: those with a marked span, and (weakly clean) those without one."""
    text, spans = row["text"], tuple((start, end) for start, end in row["spans"])
    share = row["toxic_votes"] / row["annotators"]
    if share < 0.5:
        return
    votes = _type_shares(row["type_votes"], min(3, row["annotators"]))
    yield Labelled(text, soft(toxicity=share, **votes), "toxic_spans", key, spans or None)
    if not spans:
        return
    for start, end in _sentences(text):
        inside = tuple(
            (max(a, start) - start, min(b, end) - start) for a, b in spans if a < end and b > start
        )
        if inside:
            yield Labelled(text[start:end], soft(toxicity=share), "toxic_spans_sentence", key, inside, 0.7)
        elif end - start >= 25:
            yield Labelled(text[start:end], soft(toxicity=0.05), "toxic_spans_rest", key, (), 0.5)


def _type_shares(votes: Mapping[str, int], voters: int) -> dict[str, float]:
    """Shares of the kinds that people named. Three annotators were asked for it, and keys are cut short."""
    names = {"Insult": "insult", "Threat": "threat", "Identity": "identity_attack", "Profane": "obscene"}
    counts = dict.fromkeys(names.values(), 0)
    for kind, count in votes.items():
        for prefix, label in names.items():
            if kind.startswith(prefix[:4]):
                counts[label] += count
    return {label: min(1.0, count / voters) for label, count in counts.items()}


def _sentences(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for match in SENTENCE_END.finditer(text):
        yield start, match.start()
        start = match.end()
    if start < len(text):
        yield start, len(text)


def wikitext_sentences(paragraphs: Iterable[str]) -> list[str]:
    """The sentences of at least 20 characters of WikiText-2 paragraphs, headings left out.

    Its marks (``@-@``, ``<unk>``) are undone.
    """
    sentences: list[str] = []
    for paragraph in (line.strip() for line in paragraphs):
        if paragraph and not paragraph.startswith("="):
            plain = re.sub(r" @([-,.])@ ", r"\1", paragraph).replace("<unk>", "Unknown")
            sentences += [sentence for sentence in SENTENCE_END.split(plain) if len(sentence) >= 20]
    return sentences


def _wikitext2(row: Row, key: str) -> Iterator[Labelled]:
    for sentence in wikitext_sentences([row["text"]]):
        yield Labelled(sentence, CLEAN, "wikitext2", key, ())


SOURCES: dict[str, Callable[[Row, str], Iterator[Labelled]]] = {
    "paradetox": _paradetox,
    "davidson": _davidson,
    "stormfront": _stormfront,
    "toxigen_statements": _toxigen,
    "toxigen_prompts": _toxigen,
    "toxic_spans": _toxic_spans,
    "wikitext2": _wikitext2,
}
