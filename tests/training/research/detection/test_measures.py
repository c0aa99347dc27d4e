from __future__ import annotations

from pathlib import Path

import pytest

from guardrail.errors import UsageError
from research.detection.dev_sets import (
    NEUTRAL_SIDE,
    LabelledSet,
    clean_sets,
    labelled_sets,
    lower_detached,
    obfuscated,
    sentence_pairs,
    toxic_sets,
)
from research.detection.measures import flag_rates, rank_sets
from tests.training.research.detection.small_sets import TEXTS, Spotter, labelled


def test_one_style_is_lower_case_with_detached_punctuation() -> None:
    assert lower_detached("You, friend, DON'T say?!") == "you , friend , don't say ? !"


def test_sets_need_both_sides_and_paradetox_stands_in_two_styles() -> None:
    found = {(each.source, each.label): each for each in labelled_sets(TEXTS)}
    assert set(found) == {
        ("paradetox", "toxicity"),
        ("paradetox, one style", "toxicity"),
        ("stormfront", "toxicity"),
        ("paradetox", "incivility"),
        ("paradetox, one style", "incivility"),
        ("stormfront", "incivility"),
    }
    assert sum(found["stormfront", "toxicity"].positive) == 6
    assert "you oaf , number 0 !" in found["paradetox, one style", "toxicity"].texts


def test_a_perfect_detector_ranks_perfectly_and_an_unscored_label_is_left_out() -> None:
    sets = [*labelled_sets(TEXTS), LabelledSet("stormfront", "threat", ("a", "b"), (True, False))]
    ranked = rank_sets(Spotter(), sets, threshold=0.5)
    assert [each.label for each in ranked] == ["toxicity"] * 3
    assert all(each.ranking.auc == each.ranking.f1 == each.ranking.recall_at_1 == 1.0 for each in ranked)


def test_toxic_sets_have_obfuscated_copies_that_the_seed_decides() -> None:
    found = toxic_sets(TEXTS, seed=1)
    assert found == toxic_sets(TEXTS, seed=1)
    assert len(found["paradetox toxic, obfuscated"]) == len(found["paradetox toxic"]) == 8
    assert all(
        a != b for a, b in zip(found["paradetox toxic"], found["paradetox toxic, obfuscated"], strict=True)
    )
    assert found != toxic_sets(TEXTS, seed=2)


def test_a_text_without_words_is_its_own_obfuscated_copy() -> None:
    assert obfuscated([labelled("1 2 !", "paradetox_toxic", 1, toxic=1.0)], seed=0) == ("1 2 !",)


def write_wikitext(folder: Path) -> Path:
    (folder / "wikitext2").mkdir()
    (folder / "wikitext2" / "test.txt").write_text(
        " = Title = \n A long enough sentence . \n", encoding="utf-8"
    )
    return folder


def test_clean_sets_are_distinct_sentences_and_name_groups(tmp_path: Path) -> None:
    found = clean_sets(TEXTS, data=write_wikitext(tmp_path))
    assert [len(texts) for texts in found.values()] == [8, 1, 1, 3]
    assert next(iter(found)) == NEUTRAL_SIDE
    assert found["wikitext-2 test sentences"] == ("A long enough sentence .",)
    assert all("Muslims" in text for text in found["identity: stormfront noHate with a group term"])


def test_flag_rates_count_verdicts_and_skip_empty_sets() -> None:
    rates = flag_rates(Spotter(), {"mixed": ["an oaf", "a person"], "empty": []})
    assert set(rates) == {"mixed"}
    assert (rates["mixed"].value, rates["mixed"].n) == (0.5, 2)


def test_pairs_are_distinct_sentences_and_the_related_share_is_kept() -> None:
    pairs = sentence_pairs(TEXTS, count=20, related=0.25, seed=3)
    assert len(pairs) == 20
    assert all(first != second for first, second in pairs)
    versions = [pair for pair in pairs if "oaf" in pair[0] and pair[1] == pair[0].replace("oaf", "person")]
    assert len(versions) >= 5
    assert pairs == sentence_pairs(TEXTS, count=20, related=0.25, seed=3)


def test_pairs_of_one_sentence_are_an_error() -> None:
    with pytest.raises(UsageError, match="at least two sentences"):
        sentence_pairs({"toxigen_statements": TEXTS["toxigen_statements"]}, count=5, related=0.0, seed=0)
