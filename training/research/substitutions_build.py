"""Builds the table of substitutions: what people wrote in place of toxic words, counted over pairs.

    python -m research.substitutions_build NAME=LICENCE=PAIRS.jsonl ... --out FOLDER

The folder gets the table and a manifest that names the sets. Each line of a file of pairs is an object with
``toxic`` and ``neutral``, a list of rewrites; those marked ``lossy`` and those that change nothing are left
out. Words are aligned by their longest common runs. What
stands between two runs and holds a toxic word is one substitution, under the words on both sides.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guardrail.detectors.lexicon import Lexicon
from guardrail.manifest import Manifest, sha256_of
from guardrail.rewriters.edits.substitutions import DELETED, FILENAME, context_of
from guardrail.text.wordlists import word_set

__all__ = ["RewritePair", "Substitution", "build", "read_pairs", "write"]

_TOKEN = re.compile(r"[^\W_]+(?:['’*@$!#-]+[^\W_]+)*\$*|[^\w\s]")
_WORD = re.compile(r"[^\W_]")
MIN_SAME = 0.5
"""Share of the source's words that a rewrite keeps, or the two are not aligned."""
MAX_BLOCKS = 3
MAX_WORDS = 5
MIN_TAKEN_OUT = 0.6
"""Share of a word's occurrences, in rewrites too, that rewriters took out: from there it is toxic."""
MIN_COUNT = 2
MAX_PHRASES = 2500
MAX_INSTEAD = 5
STAND_INS = re.compile(
    r"\b(?:bad|stupid|not (?:a )?good|unwise|uninformed|foolish|mean|naive)"
    r" (?:person|people|man|woman|guy)s?\b"
)
SWEARING_VERBS = {
    "fuck up": ("mess up", "get wrong"),
    "fuck with": ("interfere with", "mess with"),
    "fuck around": ("waste time", "mess around"),
    "screw up": ("get wrong", "mess up"),
    "screw over": ("treat unfairly", "cheat"),
    "piss off": ("annoy", "upset"),
    "bitch about": ("complain about",),
    "bitch": ("complain",),
    "shit on": ("criticise",),
    "bullshit": ("mislead",),
    "suck": ("be bad",),
}
"""Written by hand: they are too rare in each of their forms to be learned."""
_IRREGULAR = {
    "get": ("gets", "got", "getting"),
    "be": ("is", "was", "being"),
    "shit": ("shits", "shat", "shitting"),
}


@dataclass(frozen=True, slots=True)
class RewritePair:
    """A sentence and one rewrite of it."""

    toxic: str
    neutral: str


@dataclass(frozen=True, slots=True, order=True)
class Substitution:
    """``phrase`` in a context became ``instead`` (DELETED: nothing) so many times."""

    phrase: str
    context: str
    instead: str
    count: int


def read_pairs(path: str | Path) -> Iterator[RewritePair]:
    """The pairs of a file that can teach a substitution."""
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        row: dict[str, Any] = json.loads(line)
        if row.get("lossy"):
            continue
        for neutral in row["neutral"]:
            if neutral != row["toxic"]:
                yield RewritePair(row["toxic"], neutral)


def build(pairs: Sequence[RewritePair], *, lexicon: Lexicon) -> list[Substitution]:
    """The table in order: the most frequent phrases, each with the most frequent things written instead."""
    toxic = _toxic_words(pairs, lexicon)
    counts: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    for pair in pairs:
        for phrase, instead, context in _blocks(pair):
            words = phrase.split()
            clean = not any(word in toxic for word in instead.split()) and not STAND_INS.search(instead)
            if any(word in toxic for word in words) and clean:
                counts[phrase][context, instead or DELETED] += 1
    totals = {phrase: counter.total() for phrase, counter in counts.items()}
    kept = sorted((p for p in counts if totals[p] >= MIN_COUNT), key=lambda p: (-totals[p], p))[:MAX_PHRASES]
    found = [
        Substitution(phrase, context, instead, count)
        for phrase in kept
        for (context, instead), count in _likeliest(counts[phrase])
    ]
    return sorted({*found, *_verbs()})


def _likeliest(counter: Counter[tuple[str, str]]) -> Iterable[tuple[tuple[str, str], int]]:
    overall: Counter[str] = Counter()
    for (_, instead), count in counter.items():
        overall[instead] += count
    best = {
        instead for instead, _ in sorted(overall.items(), key=lambda item: (-item[1], item[0]))[:MAX_INSTEAD]
    }
    return ((key, count) for key, count in counter.items() if key[1] in best)


def _toxic_words(pairs: Sequence[RewritePair], lexicon: Lexicon) -> set[str]:
    taken_out: Counter[str] = Counter()
    present: Counter[str] = Counter()
    for pair in pairs:
        source, kept = Counter(_tokens(pair.toxic)), Counter(_tokens(pair.neutral))
        taken_out.update((source - kept).keys())
        present.update(source.keys() | kept.keys())
    return {
        word
        for word, count in taken_out.items()
        if _WORD.search(word)
        and len(word) > 1
        and (
            (count >= MIN_COUNT and count >= MIN_TAKEN_OUT * present[word])
            or lexicon.detect([word])[0].flagged
        )
        and word not in _GRAMMAR
    }


_GRAMMAR = word_set(
    "a an the i you he she it we they me my your his her its our their is are was were be been am do"
    " does did of to in on at for and or but not no so as if who what why how that this these those"
    " it's i'm you're u ur can can't don't doesn't isn't he's she's they're that's wouldn't couldn't"
    " would could will lol even whoever"
)


def _blocks(pair: RewritePair) -> Iterator[tuple[str, str, str]]:
    source, rewrite = _tokens(pair.toxic), _tokens(pair.neutral)
    codes = difflib.SequenceMatcher(None, source, rewrite, autojunk=False).get_opcodes()
    changed = [code for code in codes if code[0] != "equal"]
    same = sum(end - start for kind, start, end, _, _ in codes if kind == "equal")
    if same < MIN_SAME * len(source) or len(changed) > MAX_BLOCKS:
        return
    for _, start, end, other_start, other_end in changed:
        phrase, instead = source[start:end], rewrite[other_start:other_end]
        while phrase and not _WORD.search(phrase[0]) and not (instead and _WORD.search(instead[0]) is None):
            phrase, start = phrase[1:], start + 1
        while phrase and not _WORD.search(phrase[-1]):
            phrase, end = phrase[:-1], end - 1
        while instead and not _WORD.search(instead[-1]):
            instead = instead[:-1]
        fits = 0 < len(phrase) <= MAX_WORDS and len(instead) <= MAX_WORDS
        if fits and all(_WORD.search(token) for token in (*phrase, *instead)):
            before = source[start - 1] if start else ""
            yield " ".join(phrase), " ".join(instead), context_of(before)


def _tokens(text: str) -> list[str]:
    return [match.group().casefold().replace("’", "'") for match in _TOKEN.finditer(text)]


def _verbs() -> Iterator[Substitution]:
    for verb, instead in SWEARING_VERBS.items():
        for number, plain in enumerate(instead):
            for form, other in zip(_forms(verb), _forms(plain), strict=True):
                yield Substitution(form, "any", other, 3 - number)


def _forms(verb: str) -> tuple[str, ...]:
    """The verb, and its forms in -s, -ed and -ing."""
    word, _, rest = verb.partition(" ")
    if word in _IRREGULAR:
        forms = (word, *_IRREGULAR[word])
    else:
        stem = word.removesuffix("e")
        stem = word[:-1] + "i" if re.search(r"[^aeiou]y$", word) else stem
        double = word[-1] if re.search(r"^[^aeiou]*[aeiou][bdgmnpt]$", word) else ""
        third = stem + "es" if re.search(r"(?:s|sh|ch|x|i)$", stem) else word + "s"
        participle = word + "ing" if re.search(r"[^aeiou]y$", word) else stem + double + "ing"
        forms = (word, third, stem + double + "ed", participle)
    return tuple(f"{form} {rest}".rstrip() for form in forms)


def write(entries: Iterable[Substitution], path: str | Path) -> Path:
    """Writes ``phrase<TAB>context<TAB>instead<TAB>count`` lines."""
    head = "# Built by research.substitutions_build; phrase, context, instead, count.\n"
    lines = "".join(f"{e.phrase}\t{e.context}\t{e.instead}\t{e.count}\n" for e in entries)
    Path(path).write_text(head + lines, encoding="utf-8")
    return Path(path)


def describe(name: str, licence: str, path: Path, rows: int) -> dict[str, Any]:
    """A set as a manifest names it."""
    return {"name": name, "rows": rows, "licence": licence, "sha256": sha256_of(path)}


def main() -> None:
    """Builds the table from sets of pairs, each given as NAME=LICENCE=FILE."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("sets", nargs="+", metavar="NAME=LICENCE=FILE")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    pairs: list[RewritePair] = []
    described = []
    for one in given.sets:
        if one.count("=") < 2:
            parser.error(f"expected NAME=LICENCE=FILE, got {one}")
        name, licence, path = one.split("=", 2)
        read = list(read_pairs(path))
        pairs += read
        described.append(describe(name, licence, Path(path), len(read)))
    entries = build(pairs, lexicon=Lexicon.shipped())
    given.out.mkdir(parents=True, exist_ok=True)
    path = write(entries, given.out / FILENAME)
    Manifest(
        kind="table",
        name="substitutions",
        version="1.0.0",
        licence="Apache-2.0",
        files={FILENAME: sha256_of(path)},
        data=described,
    ).save(given.out)
    print(  # noqa: T201  # for the person who runs it
        f"{len(entries)} substitutions for {len({e.phrase for e in entries})} phrases from {len(pairs)} pairs"
    )


if __name__ == "__main__":
    main()
