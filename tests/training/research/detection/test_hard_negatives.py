"""The templates: complete, balanced, filled without leftovers, and split so that some stay untrained."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from research.detection.corpora import CLEAN, Labelled
from research.detection.hard_negatives import TemplateFamily, Templates

POOLS = {
    "paradetox_toxic": [Labelled("what a stupid {plan}", (1.0,), "paradetox_toxic", "k")],
    "wikitext2": [Labelled("The river is long.", (0.0,), "wikitext2", "k")],
}


def test_every_template_fills_without_a_slot_left_over() -> None:
    templates, rng = Templates.load(), random.Random(1)
    for family in templates.families:
        alone = Templates([family])
        for _ in range(3 * len(family.templates)):
            assert not re.search(r"[{}]", alone.draw(rng, POOLS).text)


def test_both_classes_are_drawn_about_equally_often() -> None:
    templates, rng = Templates.load(), random.Random(2)
    toxic = sum((templates.draw(rng, POOLS).labels[0] or 0) > 0.5 for _ in range(4000))
    assert 0.42 < toxic / 4000 < 0.58


def test_identity_words_tell_nothing_of_the_class() -> None:
    templates, rng = Templates.load(), random.Random(3)
    counts: Counter[bool] = Counter()
    for _ in range(8000):
        text = templates.draw(rng, POOLS)
        if re.search(r"\b(?:Muslim|Jew|gay|Black|women|immigrant)", text.text):
            counts[(text.labels[0] or 0) > 0.5] += 1
    assert 0.7 < counts[True] / counts[False] < 1.7


def test_there_are_hundreds_of_templates_and_a_draw_rarely_repeats() -> None:
    templates, rng = Templates.load(), random.Random(4)
    assert sum(len(family.templates) for family in templates.families) > 800
    drawn = [templates.draw(rng, POOLS).text for _ in range(1000)]
    assert len(set(drawn)) > 850


def test_a_clean_sentence_has_no_toxic_span_and_a_toxic_one_has_unknown_spans() -> None:
    templates, rng = Templates.load(), random.Random(5)
    for _ in range(200):
        text = templates.draw(rng, POOLS)
        assert (text.spans == ()) == (text.labels == CLEAN)


def test_held_out_templates_are_disjoint_from_the_rest_and_together_they_are_all() -> None:
    every = {t for family in Templates.load().families for t in family.templates}
    kept, apart = Templates.load().split(held_out=0.1)
    first, second = ({t for family in part.families for t in family.templates} for part in (kept, apart))
    assert not first & second
    assert first | second == every
    assert 0.05 < len(second) / len(every) < 0.16


def test_a_slot_named_twice_keeps_its_filler_and_a_number_draws_another() -> None:
    family = TemplateFamily("f", CLEAN, ("{thing} and {thing} or {thing2}",), {"thing": ("a", "b")}, 1.0)
    templates = Templates([family])
    for seed in range(20):
        first, _, again, _, _ = templates.draw(random.Random(seed), {}).text.lower().split()
        assert first == again


def test_without_sources_templates_that_quote_one_still_fill() -> None:
    family = TemplateFamily("f", CLEAN, ("He wrote {toxic} and {clean}",), {}, 1.0)
    assert Templates([family]).draw(random.Random(0), {}).text.startswith("He wrote ")


@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_seed_draws_the_same_sentences(seed: int) -> None:
    first, second = random.Random(seed), random.Random(seed)
    assert Templates.load().draw(first, POOLS) == Templates.load().draw(second, POOLS)
