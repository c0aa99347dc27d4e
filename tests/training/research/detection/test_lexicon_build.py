"""The lexicon keeps words that toxic texts mark and clean texts avoid, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.detectors.lexicon import Lexicon
from guardrail_training.data import SourceRow
from research.detection.corpora import CLEAN, Labelled, soft
from research.detection.lexicon_build import build_lexicon, lower_bound, write_lexicon


def toxic(text: str, word: str, **kinds: float) -> Labelled:
    start = text.index(word)
    return Labelled(text, soft(toxicity=1, **kinds), "s", text, ((start, start + len(word)),))


def clean(text: str) -> Labelled:
    return Labelled(text, CLEAN, "s", text, ())


TEXTS = [toxic(f"the zorg driver {n} is late", "zorg", insult=1.0, obscene=0.2) for n in range(60)] + [
    clean(f"the driver {n} of the bus is late") for n in range(60)
]


def test_a_marked_word_enters_and_its_company_does_not() -> None:
    assert [(word, label) for word, label, _ in build_lexicon(TEXTS)] == [("zorg", "insult")]


def test_a_word_that_clean_texts_use_too_stays_out() -> None:
    mixed = [*TEXTS, *(clean(f"a zorg sleeps {n}") for n in range(20))]
    assert build_lexicon(mixed) == []


def test_a_word_that_rewriters_take_out_needs_less_certainty() -> None:
    mixed = [*TEXTS, *(clean(f"a zorg sleeps {n}") for n in range(20))]
    pairs = [SourceRow(n, f"the zorg driver {n} is late", (f"the driver {n} is late",)) for n in range(60)]
    assert [word for word, _, _ in build_lexicon(mixed, pairs=pairs)] == ["zorg"]
    kept = [
        SourceRow(n, f"the zorg driver {n} is late", (f"the zorg driver {n} is late",)) for n in range(60)
    ]
    assert build_lexicon(mixed, pairs=kept) == []


def test_a_rare_word_stays_out() -> None:
    assert build_lexicon([*TEXTS[:4], *TEXTS[60:]]) == []


def test_a_word_in_toxic_texts_that_nobody_marked_stays_out() -> None:
    texts = [toxic(f"zorg sings {n} plim", "zorg") for n in range(60)] + TEXTS[60:]
    assert "plim" not in {word for word, _, _ in build_lexicon(texts)}


def test_a_word_without_a_kind_counts_as_obscene() -> None:
    texts = [toxic(f"what zorg {n}", "zorg") for n in range(60)] + TEXTS[60:]
    assert ("zorg", "obscene") in [(word, label) for word, label, _ in build_lexicon(texts)]


@given(st.integers(0, 200), st.integers(1, 200))
def test_the_lower_bound_is_below_the_share_and_rises_with_evidence(hits: int, more: int) -> None:
    total = hits + more
    bound = lower_bound(hits, total)
    assert 0 <= bound <= hits / total + 1e-9
    assert lower_bound(10 * hits, 10 * total) >= bound - 1e-9


def test_no_evidence_is_no_certainty() -> None:
    assert lower_bound(0, 0) == 0.0


def test_what_is_written_is_what_the_lexicon_reads(tmp_path: Path) -> None:
    path = write_lexicon(build_lexicon(TEXTS), tmp_path / "lexicon.txt")
    verdict = Lexicon.load(path).detect(["such a Z0RG !"])[0]
    assert verdict.flagged
    assert verdict.scores["insult"] == pytest.approx(verdict.scores["toxicity"])
