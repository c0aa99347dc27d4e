"""Builds the list of English words that ships: what decides whether a run of letters is taken apart.

    python -m research.detection.words_build --data DIR --out guardrail/shipped/reading/words.txt

Words of the English training texts, most frequent first. The first ``COMMON`` of them may be parts of a
word that was written without blanks; the others only show that a word is one.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from research.detection.languages_build import english

__all__ = ["frequent", "main"]

COMMON = 3000
KNOWN = 3  # texts that a word stands in at least
_SHORT = re.compile(
    "a|i|u|ur|am|an|as|at|be|by|do|go|he|hi|if|in|is|it|me|my|no|of|oh|ok|on|or|so|to|up|us|we"
)
_WORD = re.compile(r"(?<![\w@#/.&'-])[A-Za-z]{1,24}(?![\w@/'-])")


def main() -> None:
    """Writes the list."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path, help="folder of the sources")
    parser.add_argument("--out", required=True, type=Path, help="the list to write")
    arguments = parser.parse_args()
    words = frequent(text for texts in english(arguments.data, part="train").values() for text in texts)
    header = f"# English words of the training texts by frequency; the first {COMMON} are common."
    arguments.out.write_text("\n".join([header, *words]) + "\n", encoding="utf-8")


def frequent(texts: Iterable[str]) -> list[str]:
    """The words that stand in enough texts, most frequent first; of one and two letters only real words."""
    counts = Counter(word for text in texts for word in {word.lower() for word in _WORD.findall(text)})
    kept = [
        word for word, count in counts.items() if count >= KNOWN and (len(word) > 2 or _SHORT.fullmatch(word))
    ]
    return sorted(kept, key=lambda word: (-counts[word], word))


if __name__ == "__main__":
    main()
