"""Sentences from templates of our own: what a swear-word counter gets wrong, and their toxic counterparts.

Each file of ``templates/`` holds families: templates that share labels. A template is a sentence with
``{slots}``; a slot is filled from ``slots.toml``, from the family's own lists, or with a sentence of the
training sources (``{toxic}``, ``{clean}``). Every family of one class has one of the other class built the
same way, so that a template does not tell the label.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from guardrail.errors import ConfigError
from research.detection.labelled import CLEAN, Labelled, Labels, fold, soft

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["TemplateFamily", "Templates"]

SLOT = re.compile(r"\{(\w+)\}")
TOXIC_POOLS = ("paradetox_toxic", "davidson_toxic", "stormfront_hate", "toxigen_hate")
CLEAN_POOLS = ("paradetox_neutral", "davidson_neither", "wikitext2", "toxigen_neutral")
QUOTED_LENGTH = 140  # characters of a source sentence inside a template


@dataclass(frozen=True, slots=True)
class TemplateFamily:
    """Templates that share labels; ``weight`` is how often it is drawn alongside the others."""

    name: str
    labels: Labels
    templates: tuple[str, ...]
    slots: Mapping[str, Sequence[str]]
    weight: float


class Templates:
    """All families; draws labelled sentences from them."""

    def __init__(self, families: Sequence[TemplateFamily]) -> None:
        self.families = tuple(families)
        self._weights = [family.weight for family in families]

    @classmethod
    def load(cls) -> Templates:
        """The families of the package. Raises ConfigError naming the family and the slot that is wrong."""
        return cls(_shipped())

    def draw(self, rng: random.Random, pools: Mapping[str, Sequence[Labelled]]) -> Labelled:
        """A sentence from a family drawn by weight; ``pools`` are source texts for slots that quote one."""
        family = rng.choices(self.families, self._weights)[0]
        template = rng.choice(family.templates)
        text = _fill(template, family, rng, pools)
        spans = () if family.labels == CLEAN else None
        return Labelled(text, family.labels, f"template_{family.name}", f"template:{template}", spans)

    def split(self, *, held_out: float) -> tuple[Templates, Templates]:
        """Templates for training, and others of the same families (by hash) that training never sees."""
        kept: list[TemplateFamily] = []
        apart: list[TemplateFamily] = []
        for family in self.families:
            held = tuple(t for t in family.templates if fold(f"template:{t}") < held_out)
            rest = tuple(t for t in family.templates if t not in held)
            for chosen, templates in ((kept, rest), (apart, held)):
                if templates:
                    chosen.append(
                        TemplateFamily(family.name, family.labels, templates, family.slots, family.weight)
                    )
        return Templates(kept), Templates(apart)


def _fill(
    template: str, family: TemplateFamily, rng: random.Random, pools: Mapping[str, Sequence[Labelled]]
) -> str:
    """Slots filled from the left, fillers' own slots too; a slot named twice keeps its filler."""
    chosen: dict[str, str] = {}

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in chosen:
            base = name.rstrip("0123456789")
            chosen[name] = (
                _quoted(base, rng, pools) if base in ("toxic", "clean") else rng.choice(family.slots[base])
            )
        return chosen[name]

    while SLOT.search(template):
        template = SLOT.sub(value, template, count=1)
    return template[:1].upper() + template[1:]


def _quoted(kind: str, rng: random.Random, pools: Mapping[str, Sequence[Labelled]]) -> str:
    names = [name for name in (TOXIC_POOLS if kind == "toxic" else CLEAN_POOLS) if pools.get(name)]
    if not names:
        return "this" if kind == "clean" else "you idiot"
    pool = pools[rng.choice(names)]
    for _ in range(20):
        text = rng.choice(pool)
        if len(text.text) <= QUOTED_LENGTH and (kind == "clean" or (text.labels[0] or 0) > 0.6):
            break
    return re.sub(r"[{}\"]", "", text.text[:QUOTED_LENGTH]).strip()


@cache
def _shipped() -> tuple[TemplateFamily, ...]:
    folder = resources.files("research.detection").joinpath("templates")
    tables = {
        path.name: tomllib.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.iterdir(), key=str)
    }
    shared = tables.pop("slots.toml")
    return tuple(_family(entry, shared) for table in tables.values() for entry in table["family"])


def _family(entry: Mapping[str, Any], shared: Mapping[str, Sequence[str]]) -> TemplateFamily:
    """A family from its table: unnamed labels are masked, and a family without any labels is clean."""
    slots = {**shared, **entry.get("slots", {})}
    named = {*slots, "toxic", "clean"}
    for text in (*entry["templates"], *(filler for fillers in slots.values() for filler in fillers)):
        for slot in SLOT.findall(text):
            if slot.rstrip("0123456789") not in named:
                raise ConfigError(f"family {entry['name']!r}: no list for the slot {slot!r}")
    labels = soft(**entry["labels"]) if "labels" in entry else CLEAN
    return TemplateFamily(
        entry["name"], labels, tuple(entry["templates"]), slots, float(entry.get("weight", 1.0))
    )
