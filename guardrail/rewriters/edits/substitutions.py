"""What people wrote in place of toxic words, by the words before them: a table counted over aligned pairs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from guardrail.errors import ConfigError, ModelMissingError
from guardrail.manifest import Manifest
from guardrail.text.wordlists import word_set

__all__ = ["DELETED", "FILENAME", "SHIPPED", "SubstitutionTable", "context_of"]

SHIPPED = Path(__file__).parents[2] / "shipped" / "edits"
FILENAME = "substitutions.txt"
DELETED = "-"
"""Stands in the table for nothing: the phrase was left out."""
MAX_WORDS = 5
FITTING = 3
"""How often something must have been written in other contexts to count as much as once in this one."""

_DETERMINERS = word_set("a an the this that these those some any my your his her their our its no such")
_BE = word_set("is are was were be been being am 're 's 'm it's that's he's she's you're they're i'm")
_ADDRESS = frozenset(["you", "u", "ya"])


def context_of(before: str) -> str:
    """The class of the word or mark before a phrase: a noun follows a ``det``, a predicate a ``be``."""
    before = before.casefold().replace("’", "'")
    if not before or not before[-1].isalnum():
        return "open"
    for name, words in (("det", _DETERMINERS), ("be", _BE), ("you", _ADDRESS)):
        if before in words:
            return name
    return "word"


class SubstitutionTable:
    """Finds what may stand in a phrase's place, what was written most often in its context first."""

    def __init__(self, entries: dict[str, dict[str, dict[str, int]]]) -> None:
        self._entries = entries

    def __len__(self) -> int:
        return len(self._entries)

    @classmethod
    def load(cls, path: str | Path) -> SubstitutionTable:
        """The table of a file: ``phrase<TAB>context<TAB>instead<TAB>count`` per line, ``#`` starts a comment.

        Raises ConfigError with the number of a line that is wrong, ModelMissingError if there is no file.
        """
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError as error:
            raise ModelMissingError(
                f"no table of substitutions at {path}; reinstall, or give another path"
            ) from error
        entries: dict[str, dict[str, dict[str, int]]] = {}
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.startswith("#"):
                continue
            fields = line.split("\t")
            if len(fields) != 4 or not fields[3].isdecimal():
                raise ConfigError(
                    f"{path}, line {number}: expected phrase, context, instead and a count, by tabs"
                )
            phrase, context, instead, count = fields
            entries.setdefault(phrase, {}).setdefault(context, {})[instead] = int(count)
        return cls(entries)

    @classmethod
    @cache
    def shipped(cls) -> SubstitutionTable:
        """The table inside this package, checked against the sha256 of its manifest."""
        Manifest.load(SHIPPED)
        return cls.load(SHIPPED / FILENAME)

    def instead_of(self, phrase: str, *, before: str, limit: int) -> Iterator[str]:
        """Up to ``limit`` replacements, "" if the phrase was left out; the word ``before`` ranks them."""
        counts = self._entries.get(phrase.casefold().replace("’", "'"))
        if not counts:
            return
        wanted = context_of(before)
        scores: dict[str, float] = defaultdict(float)
        for context, counted in counts.items():
            weight = FITTING if context in (wanted, "any") else 1
            for instead, count in counted.items():
                scores[instead] += weight * count
        likely = [instead for instead in scores if scores[instead] >= FITTING]
        for instead in sorted(likely, key=lambda text: (-scores[text], text))[:limit]:
            yield "" if instead == DELETED else instead
