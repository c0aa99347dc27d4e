"""What one pass of detector training reads: sources balanced, texts composed, restyled, obfuscated."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from research.detection.augment import Marked, concatenate, frame, obfuscate, restyle
from research.detection.corpora import Labelled, Labels
from research.detection.hard_negatives import Templates
from research.detection.settings import DetectorSettings

__all__ = [
    "GROUPS",
    "LAST_ROWS",
    "ROWS",
    "DetectionExample",
    "compose",
    "draw_pass",
    "draw_passes",
    "highest",
]

# Rows per pass. Davidson's tweets, mostly one swear word, are held down; rare kinds are read in several
# styles. Templates and sentences of our own are many: text unlike the sources is what a detector meets.
ROWS = {
    "paradetox_toxic": 9_500,
    "paradetox_neutral": 10_500,
    "davidson_toxic": 6_500,
    "davidson_neither": 4_300,
    "stormfront_hate": 2_600,
    "stormfront_nohate": 6_000,
    "toxigen_hate": 2_400,
    "toxigen_neutral": 2_400,
    "toxic_spans": 6_000,
    "toxic_spans_sentence": 3_500,
    "toxic_spans_rest": 3_500,
    "wikitext2": 4_000,
    "implicit_hate_explicit": 1_000,
    "implicit_hate_implicit": 6_000,
    "implicit_hate_not": 8_000,
    "gab_hate_attack": 3_000,
    "gab_hate_vulgar": 1_200,
    "gab_hate_none": 7_000,
    "dynahate_hate": 3_400,
    "dynahate_not": 2_800,
    "sbic_offensive": 3_900,
    "sbic_not": 2_900,
    "edos_sexist": 4_200,
    "edos_not": 3_500,
    "online_misogyny_yes": 700,
    "online_misogyny_not": 1_000,
    "convabuse_abuse": 1_200,
    "convabuse_not": 2_400,
    "diasafety_rude": 1_500,
    "diasafety_biased": 850,
    "diasafety_not": 1_600,
    "templates": 9_000,
    "composed": 7_000,
}
# Groups per pass: all texts of a pair in one batch, in the same style.
GROUPS = {"everyday": 4_400, "own": 5_000, "rewrites": 7_500, "hatemoji_build": 2_700}
# The last phase settles thresholds and the embedding: less of what is plentiful, more of what a guard meets.
LAST_ROWS = {**ROWS, "stormfront_hate": 4_500, "templates": 9_000}
CLEAN_SOURCES = (
    "paradetox_neutral",
    "davidson_neither",
    "stormfront_nohate",
    "wikitext2",
    "toxigen_neutral",
    "everyday_neutral",
    "everyday_lookalike",
    "rewrites_neutral",
    "rewrites_lookalike",
    "own_harmless",
)
TOXIC_SOURCES = (
    "paradetox_toxic",
    "davidson_toxic",
    "stormfront_hate",
    "toxigen_hate",
    "toxic_spans_sentence",
    "everyday_hostile",
    "rewrites_hostile",
    "own_hostile",
)
TEMPLATES_HELD_OUT = 0.1  # of the templates, which no training draws from
OBFUSCATED, FRAMED = 0.18, 0.12
GENTLE = 0.6  # share of our own sentences that keep their letter case and punctuation, which tell names
MAX_COMPOSED = (
    480  # characters of a composed text: what training cuts off must not hold its one toxic sentence
)


@dataclass(frozen=True, slots=True)
class DetectionExample:
    """A text as the trainer reads it."""

    text: Marked
    labels: Labels
    weight: float
    source: str
    pair: int = 0  # the same for texts of one pair, 0 for a text without one
    origin: str = ""  # the text as its source has it, by which a teacher's scores are found


def draw_pass(
    texts: Sequence[Labelled],
    templates: Templates | None,
    *,
    seed: int,
    share: float = 1.0,
    counts: Mapping[str, int] = ROWS,
    obfuscated: float = OBFUSCATED,
) -> list[DetectionExample]:
    """One pass in random order, the same for the same seed; ``share`` scales the rows of every source.

    Without ``templates`` there are no template sentences, for figures with and without them.
    """
    rng = random.Random(seed)
    pools: dict[str, list[Labelled]] = defaultdict(list)
    groups: dict[str, dict[str, list[Labelled]]] = {family: defaultdict(list) for family in GROUPS}
    for text in {(text.source, text.text): text for text in texts}.values():
        pools[text.source].append(text)
        if (family := text.key.split(":")[0]) in groups:
            groups[family][text.pair or text.key].append(text)
    examples: list[DetectionExample] = []
    for source, rows in counts.items():
        count = round(rows * share)
        if source == "templates":
            if templates is not None:
                examples += [_dressed(templates.draw(rng, pools), rng, obfuscated) for _ in range(count)]
        elif source == "composed":
            examples += [compose(pools, rng) for _ in range(count) if pools]
        else:
            examples += [_dressed(text, rng, obfuscated) for text in _cycle(pools[source], count, rng)]
    for family, rows in GROUPS.items():
        members = list(groups[family].values())
        for number, group in enumerate(_cycle(members, round(rows * share), rng), start=len(examples) + 1):
            examples += _twins(group, rng, obfuscated, pair=number)
    rng.shuffle(examples)
    return examples


def draw_passes(
    texts: Sequence[Labelled], templates: Templates | None, settings: DetectorSettings
) -> Iterator[list[DetectionExample]]:
    """What a training with these settings reads: its passes, then its last phase."""
    first = settings.seed * 1000
    for number in range(settings.passes):
        yield draw_pass(texts, templates, seed=first + number, share=settings.share)
    yield draw_pass(
        texts,
        templates,
        seed=first + settings.passes,
        share=settings.share * settings.last_share,
        counts=LAST_ROWS,
        obfuscated=settings.last_obfuscated,
    )


def _twins(
    group: Sequence[Labelled], rng: random.Random, obfuscated: float, *, pair: int
) -> Iterator[DetectionExample]:
    """The texts of one group, one of those that share a source, in one style."""
    style = rng.random()
    by_source: dict[str, list[Labelled]] = defaultdict(list)
    for text in group:
        by_source[text.source].append(text)
    for texts in by_source.values():
        own = random.Random(style)
        dressed = _dressed(rng.choice(texts), own, obfuscated / 2, gentle=own.random() < GENTLE)
        yield replace(dressed, pair=pair)


Drawn = TypeVar("Drawn")


def _cycle(pool: Sequence[Drawn], count: int, rng: random.Random) -> Iterator[Drawn]:
    """``count`` of a pool without repetition as long as the pool lasts, then again."""
    while pool and count > 0:
        taken = rng.sample(pool, min(count, len(pool)))
        count -= len(taken)
        yield from taken


def _dressed(
    text: Labelled, rng: random.Random, obfuscated: float, *, gentle: bool = False
) -> DetectionExample:
    marked = Marked.of(text.text.strip() if text.spans is None else text.text, text.spans)
    marked = marked.sub(r"^RT |@\w+:? ?|https?://\S+", "") if rng.random() < 0.5 else marked
    marked = marked.sub(r"&#?\w+;", " ") if rng.random() < 0.8 else marked
    if not gentle:
        marked = restyle(marked, rng)
    if rng.random() < FRAMED:
        marked = frame(marked, rng)
    if rng.random() < obfuscated:
        marked = obfuscate(marked, rng)
    return DetectionExample(marked, text.labels, text.weight, text.source, origin=text.text)


def compose(pools: dict[str, list[Labelled]], rng: random.Random) -> DetectionExample:
    """Two to seven sentences on end, none or a few of them toxic; the labels are the highest of its parts."""
    clean = [source for source in CLEAN_SOURCES if pools.get(source)]
    toxic = [source for source in TOXIC_SOURCES if pools.get(source)]
    register = rng.choice(clean) if clean else None
    parts = [
        rng.choice(pools[register or rng.choice(toxic)]) for _ in range(rng.choice([1, 2, 2, 3, 4, 5, 6]))
    ]
    if toxic and rng.random() < 0.5:
        for _ in range(rng.choice([1, 1, 1, 2])):
            parts.insert(rng.randrange(len(parts) + 1), rng.choice(pools[rng.choice(toxic)]))
    while len(parts) > 1 and sum(len(part.text) for part in parts) > MAX_COMPOSED:
        parts.remove(max(parts, key=lambda part: len(part.text)))
    style = rng.random()
    dressed = [restyle(Marked.of(part.text, part.spans), random.Random(style)) for part in parts]
    text = concatenate(dressed, rng.choice([" ", " ", " ", "\n", "\n\n", "\n- "]))
    if rng.random() < OBFUSCATED:
        text = obfuscate(text, rng)
    return DetectionExample(
        text, highest([part.labels for part in parts]), min(part.weight for part in parts), "composed"
    )


def highest(labels: Sequence[Labels]) -> Labels:
    """Label by label the highest share; masked where an unknown part could exceed the known ones."""
    return tuple(_highest(shares) for shares in zip(*labels, strict=True))


def _highest(shares: Sequence[float | None]) -> float | None:
    known = [share for share in shares if share is not None]
    if not known or (len(known) < len(shares) and max(known) < 0.5):
        return None
    return max(known)
