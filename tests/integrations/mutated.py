"""Streams of events as a broken or hostile server sends them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

VALUES: tuple[Any, ...] = (
    *(None, 0, -1, 10**6, "", "x", "You idiot.", [], {}, ["You idiot."], {"type": "x"}, True, 1.5),
    {"type": "output_text", "text": "You idiot."},
)


def mutated(events: Sequence[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """The events with a few of them left out, doubled, exchanged or changed."""
    random = Random(seed)
    found = list(events)
    for _ in range(random.randint(1, 4)):
        at, other = random.randrange(len(found)), random.randrange(len(found))
        way = random.choice(("drop", "double", "exchange", *["change"] * 5))
        if way == "drop" and len(found) > 1:
            del found[at]
        elif way == "double":
            found.insert(at, found[at])
        elif way == "exchange":
            found[at], found[other] = found[other], found[at]
        else:
            found[at] = changed(found[at], random)
    return found


def changed(value: dict[str, Any], random: Random) -> dict[str, Any]:
    """The value with one part of it left out or replaced."""
    value = copy.deepcopy(value)
    *outer, last = random.choice(list(_places(value)) or [("type",)])
    inner: Any = value
    for step in outer:
        inner = inner[step]
    if isinstance(inner, dict) and random.random() < 0.2:
        inner.pop(last, None)
    else:
        inner[last] = copy.deepcopy(random.choice(VALUES))
    return value


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in steps:
        yield (*place, step)
        yield from _places(inner, (*place, step))
