r"""Builds the table of languages that ships: what letter groups say for each language in Latin script.

The weights are those of py3langid's model (0.4.0, BSD-3-Clause; naive Bayes over byte n-grams from 139
languages), reduced to 31 languages in Latin script and to the n-grams inside words that say most. The
library itself would take 100 MB of memory and most of a second at the start. Run where ``py3langid==0.4.0``
is installed:

    python -m research.detection.languages_build --data DIR --foreign tests/detectors/foreign.tsv \
        --out guardrail/shipped/reading/languages.npz --results training/results/languages.json

The threshold is the lowest at which at most one in a thousand English training texts counts as foreign; no
foreign sentence and no dev text is read for it.
"""

from __future__ import annotations

import argparse
import json
import time
import unicodedata
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from guardrail.detectors.languages import Languages, words
from guardrail.manifest import sha256_of
from guardrail_training.records import read_records
from research.detection.corpora import wikitext_sentences

__all__ = ["common", "english", "main", "measure", "read_foreign", "reduce", "threshold"]

LANGUAGES = (
    *("af", "ca", "cs", "da", "de", "es", "et", "eu", "fi", "fr", "gl", "hr", "hu", "id", "is", "it"),
    *("lt", "lv", "nl", "no", "pl", "pt", "ro", "sk", "sl", "sq", "sv", "sw", "tl", "tr", "vi"),
)
GRAMS = 10_000
MARKED = 0.001  # share of English training texts that may count as foreign
# A word counts once however often it stands in a text: log(1 + 1) of py3langid's log(1 + count).
ONCE = 0.6931
OFTEN, LONG = 20, 4  # English texts and letters that make a word English whatever its letters look like
# English of every kind, and the fields of its rows that are texts.
SOURCES = ("paradetox", "davidson", "everyday", "gab_hate", "stormfront")
FIELDS = ("text", "toxic", "neutral", "lookalike")


@dataclass(frozen=True, slots=True)
class _NaiveBayes:
    """What is needed of a naive Bayes model: strings of features, logarithms (features, languages)."""

    features: Sequence[bytes]
    languages: Sequence[str]
    logarithms: npt.NDArray[np.float32]


def main() -> None:
    """Writes the table and its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path, help="folder of the sources")
    parser.add_argument(
        "--foreign", required=True, type=Path, help="sentences: language<TAB>sentence per line"
    )
    parser.add_argument("--out", required=True, type=Path, help="the table to write")
    parser.add_argument("--results", required=True, type=Path, help="the figures to write, JSON")
    arguments = parser.parse_args()
    table = reduce(_py3langid())
    train = [text for texts in english(arguments.data, part="train").values() for text in texts]
    table.english = common(table, train)
    table.threshold = threshold(table, train)
    table.save(arguments.out)
    written = {"sha256": sha256_of(arguments.out), "bytes": arguments.out.stat().st_size}
    figures = {**written, "threshold": table.threshold, "train_texts": len(train)}
    figures |= measure(table, english(arguments.data, part="dev"), read_foreign(arguments.foreign))
    arguments.results.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def english(data: Path, *, part: str) -> dict[str, list[str]]:
    """The English texts of one part of every source, by source; WikiText's sentences among them."""
    found = {
        source: [
            text
            for record in read_records(data / source / f"{part}.jsonl")
            for name in FIELDS
            for text in _texts(record.content.get(name))
        ]
        for source in SOURCES
    }
    paragraphs = (data / "wikitext2" / ("valid.txt" if part == "train" else "test.txt")).read_text("utf-8")
    return {**found, "wikitext2": wikitext_sentences(paragraphs.splitlines())}


def read_foreign(path: Path) -> dict[str, list[str]]:
    """The sentences of a file by language; a line is ``language<TAB>sentence``."""
    found: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        language, _, sentence = line.partition("\t")
        found.setdefault(language, []).append(sentence)
    return found


def measure(
    table: Languages, english: Mapping[str, Sequence[str]], foreign: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Shares of texts that count as foreign, and microseconds of processor time for one text."""
    start, count = time.process_time(), sum(map(len, english.values()))
    marked = {source: _foreign_share(table, texts) for source, texts in english.items()}
    seconds = time.process_time() - start
    return {
        "microseconds": round(1e6 * seconds / count, 1),
        "english_texts": {source: len(texts) for source, texts in english.items()},
        "english_marked": marked,
        "english_marked_of_all": round(sum(marked[s] * len(t) for s, t in english.items()) / count, 5),
        "foreign_texts": {language: len(texts) for language, texts in foreign.items()},
        "foreign_marked": {language: _foreign_share(table, texts) for language, texts in foreign.items()},
    }


def _foreign_share(table: Languages, texts: Sequence[str]) -> float:
    return round(sum(table.is_foreign(text, known=("en",)) for text in texts) / len(texts), 5)


def _texts(value: Any) -> Sequence[str]:
    """What a field holds: nothing, a text, or several."""
    return [value] if isinstance(value, str) else list(value or ())


def reduce(model: _NaiveBayes) -> Languages:
    """The table with the grams that say most for or against one of ``LANGUAGES`` beside English."""
    columns = [list(model.languages).index(language) for language in LANGUAGES]
    english = list(model.languages).index("en")
    usable = [(row, gram) for row, feature in enumerate(model.features) if (gram := _inside_a_word(feature))]
    rows = np.array([row for row, _ in usable])
    others, own = model.logarithms[rows][:, columns], model.logarithms[rows][:, [english]]
    weights = others - own
    # How often a gram is met, times what it says then, in the language for which that is most.
    said = (np.exp(others) * np.abs(weights)).max(axis=1) + np.exp(own[:, 0]) * np.abs(weights).max(axis=1)
    kept = np.argsort(-said, kind="stable")[:GRAMS]
    weights = weights[kept] * ONCE
    scale = float(np.abs(weights).max()) / 127
    return Languages(
        [usable[place][1] for place in kept],
        LANGUAGES,
        np.round(weights / scale).astype(np.int8),
        scale=scale,
        threshold=0.0,
    )


def common(table: Languages, texts: Sequence[str]) -> frozenset[str]:
    """The words that stand in many English texts and look foreign all the same."""
    counts = Counter(word for text in texts for group in words(text) for word in group)
    often = [word for word, count in counts.items() if count >= OFTEN and len(word) >= LONG]
    return frozenset(word for word in often if table.best(word) > 0)


def threshold(table: Languages, texts: Sequence[str]) -> float:
    """The lowest margin above which at most ``MARKED`` of the texts lie, rounded up to a tenth."""
    margins = sorted((table.margin(text, known=("en",)) for text in texts), reverse=True)
    return float(np.ceil(10 * margins[int(MARKED * len(margins))]) / 10)


def _inside_a_word(feature: bytes) -> str | None:
    """The letters of a feature if it lies within one lower-case Latin word; a space marks the word's ends."""
    try:
        gram = feature.decode()
    except UnicodeDecodeError:
        return None
    letters = gram.strip(" ")
    is_word = bool(letters) and all(c == "'" or _is_latin(c) for c in letters)
    return gram if is_word and gram == gram.lower() else None


def _is_latin(character: str) -> bool:
    return character.isalpha() and "LATIN" in unicodedata.name(character, "")


def _py3langid() -> _NaiveBayes:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    logarithms = identifier.nb_ptc.astype(np.float32)
    features = [b""] * len(logarithms)
    for state, string in _strings(identifier):
        if (feature := identifier.tk_output[state]) >= 0 and not features[feature]:
            features[feature] = string
    return _NaiveBayes(features, identifier.nb_classes, logarithms)


def _strings(identifier: Any) -> Iterator[tuple[int, bytes]]:
    """The states of its automaton, each with the shortest string that leads there: the feature's own."""
    seen = {0}
    queue = deque([(0, b"")])
    while queue:
        state, string = queue.popleft()
        yield state, string
        for byte in range(256):
            following = identifier.tk_nextmove[(identifier.tk_row[state] << 8) + byte]
            if following not in seen:
                seen.add(following)
                queue.append((following, string + bytes([byte])))


if __name__ == "__main__":
    main()
