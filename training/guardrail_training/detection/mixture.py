"""What one pass of detector training reads: sources balanced, texts composed, restyled, obfuscated."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from guardrail_training.detection.augment import Marked, concatenate, frame, obfuscate, restyle
from guardrail_training.detection.corpora import Labelled, Labels
from guardrail_training.detection.hard_negatives import Templates

__all__ = ["LAST_ROWS", "ROWS", "Example", "compose", "draw_pass", "highest"]

# Rows per pass. Davidson's tweets, mostly one swear word, are held down; rare kinds are read in several
# styles. Templates are many, because sentences unlike the sources are what a detector meets.
ROWS = {
    "paradetox_toxic": 10_400,
    "paradetox_neutral": 11_500,
    "davidson_toxic": 7_500,
    "davidson_neither": 4_500,
    "stormfront_hate": 3_600,
    "stormfront_nohate": 7_500,
    "toxigen_hate": 2_400,
    "toxigen_neutral": 2_400,
    "toxic_spans": 7_500,
    "toxic_spans_sentence": 3_500,
    "toxic_spans_rest": 4_000,
    "wikitext2": 4_000,
    "templates": 32_000,
    "composed": 6_000,
}
# The last phase reads more of what the first had least of, to settle its threshold and its embedding.
LAST_ROWS = {
    **ROWS,
    "davidson_toxic": 9_000,
    "davidson_neither": 6_000,
    "stormfront_hate": 6_000,
    "stormfront_nohate": 8_300,
    "toxic_spans": 6_000,
}
CLEAN_SOURCES = ("paradetox_neutral", "davidson_neither", "stormfront_nohate", "wikitext2", "toxigen_neutral")
TOXIC_SOURCES = (
    "paradetox_toxic",
    "davidson_toxic",
    "stormfront_hate",
    "toxigen_hate",
    "toxic_spans_sentence",
)
OBFUSCATED, FRAMED = 0.22, 0.14
LONGEST = 480  # characters of a composed text: what training cuts off must not hold its one toxic sentence


@dataclass(frozen=True, slots=True)
class Example:
    """A text as the trainer reads it."""

    text: Marked
    labels: Labels
    weight: float
    source: str


def draw_pass(
    texts: Sequence[Labelled],
    templates: Templates | None,
    *,
    seed: int,
    share: float = 1.0,
    counts: Mapping[str, int] = ROWS,
    obfuscated: float = OBFUSCATED,
) -> list[Example]:
    """One pass in random order, the same for the same seed; ``share`` scales the rows of every source.

    Without ``templates`` there are no template sentences, for figures with and without them.
    """
    rng = random.Random(seed)
    pools: dict[str, list[Labelled]] = defaultdict(list)
    for text in {(text.source, text.text): text for text in texts}.values():
        pools[text.source].append(text)
    examples: list[Example] = []
    for source, rows in counts.items():
        count = round(rows * share)
        if source == "templates":
            if templates is not None:
                examples += [_dressed(templates.draw(rng, pools), rng, obfuscated) for _ in range(count)]
        elif source == "composed":
            examples += [compose(pools, rng) for _ in range(count) if pools]
        else:
            examples += [_dressed(text, rng, obfuscated) for text in _cycle(pools[source], count, rng)]
    rng.shuffle(examples)
    return examples


def _cycle(pool: Sequence[Labelled], count: int, rng: random.Random) -> Iterator[Labelled]:
    """``count`` texts without repetition as long as the pool lasts, then again."""
    while pool and count > 0:
        taken = rng.sample(pool, min(count, len(pool)))
        count -= len(taken)
        yield from taken


def _dressed(text: Labelled, rng: random.Random, obfuscated: float) -> Example:
    marked = Marked.of(text.text.strip() if text.spans is None else text.text, text.spans)
    marked = marked.sub(r"^RT |@\w+:? ?|https?://\S+", "") if rng.random() < 0.5 else marked
    marked = marked.sub(r"&#?\w+;", " ") if rng.random() < 0.8 else marked
    marked = restyle(marked, rng)
    if rng.random() < FRAMED:
        marked = frame(marked, rng)
    if rng.random() < obfuscated:
        marked = obfuscate(marked, rng)
    return Example(marked, text.labels, text.weight, text.source)


def compose(pools: dict[str, list[Labelled]], rng: random.Random) -> Example:
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
    while len(parts) > 1 and sum(len(part.text) for part in parts) > LONGEST:
        parts.remove(max(parts, key=lambda part: len(part.text)))
    style = rng.random()
    dressed = [restyle(Marked.of(part.text, part.spans), random.Random(style)) for part in parts]
    text = concatenate(dressed, rng.choice([" ", " ", " ", "\n", "\n\n", "\n- "]))
    if rng.random() < OBFUSCATED:
        text = obfuscate(text, rng)
    return Example(
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
