from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from guardrail.errors import UsageError
from guardrail.outcome import LABELS, Verdict
from guardrail_training.detection.corpora import CLEAN, Labelled, soft
from guardrail_training.evaluation.cross_source import toxicity_logits
from guardrail_training.evaluation.detection_report import (
    embedding_correlation,
    flag_rates,
    pooled_rankings,
    rank_sets,
    template_set,
)
from guardrail_training.evaluation.detection_sets import (
    LabelledSet,
    clean_sets,
    labelled_sets,
    lower_detached,
    obfuscated,
    sentence_pairs,
    toxic_sets,
)
from guardrail_training.evaluation.evaluate import detector_tables
from guardrail_training.evaluation.judges import Judge
from guardrail_training.provenance import plain


def labelled(text: str, source: str, number: int, *, toxic: float | None) -> Labelled:
    labels = CLEAN if toxic == 0.0 else (toxic, *[None] * (len(LABELS) - 1))
    return Labelled(text, labels, source, f"{source}:{number}", None)


TEXTS = {
    "paradetox": [
        Labelled(text, soft(toxicity=share) if share else CLEAN, source, f"row:{number}", None)
        for number in range(8)
        for text, share, source in (
            (f"You oaf, number {number}!", 1.0, "paradetox_toxic"),
            (f"You person, number {number}!", 0.0, "paradetox_neutral"),
        )
    ],
    "stormfront": [
        *(labelled(f"hateful words {number}", "stormfront_hate", number, toxic=1.0) for number in range(6)),
        *(
            labelled(f"Muslims met on day {number}", "stormfront_nohate", number, toxic=0.0)
            for number in range(3)
        ),
        *(
            labelled(f"rain fell on day {number}", "stormfront_nohate", number, toxic=0.0)
            for number in range(4)
        ),
    ],
    "toxigen_statements": [labelled("they sing well", "toxigen_neutral", 1, toxic=0.0)],
}


class Spotter:
    """A detector that knows two words and embeds by letters."""

    def detect(self, texts: Sequence[str]) -> list[Verdict]:
        hits = [any(word in text.lower() for word in ("oaf", "hateful")) for text in texts]
        return [Verdict(scores={"toxicity": 0.9 if hit else 0.1}, flagged=hit) for hit in hits]

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        counts = [[1e-3, *(text.lower().count(letter) for letter in "aeiou")] for text in texts]
        vectors = np.array(counts, dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_one_style_is_lower_case_with_detached_punctuation() -> None:
    assert lower_detached("You, friend, DON'T say?!") == "you , friend , don't say ? !"


def test_sets_need_both_sides_and_paradetox_stands_in_two_styles() -> None:
    found = {(each.source, each.label): each for each in labelled_sets(TEXTS)}
    assert set(found) == {
        ("paradetox", "toxicity"),
        ("paradetox, one style", "toxicity"),
        ("stormfront", "toxicity"),
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


def test_clean_sets_keep_what_every_judge_calls_clean_and_name_groups(tmp_path: Path) -> None:
    judges = [
        Judge("even", 0.5, lambda texts: np.array([float("3" in text) for text in texts])),
        Judge("odd", 0.5, lambda texts: np.array([float("4" in text) for text in texts])),
    ]
    found = clean_sets(TEXTS, data=write_wikitext(tmp_path), judges=judges)
    assert [len(texts) for texts in found.values()] == [6, 1, 1, 3]
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


def test_an_untouched_embedding_correlates_fully_with_itself() -> None:
    pairs = sentence_pairs(TEXTS, count=30, related=0.0, seed=3)
    found = embedding_correlation(Spotter(), Spotter(), pairs, kind="random")
    assert (found.pairs, found.spearman) == (30, pytest.approx(1.0))


def test_template_sentences_come_from_templates_that_training_never_sees() -> None:
    found = template_set(TEXTS, held_out=0.1, seed=5, count=60)
    assert found == template_set(TEXTS, held_out=0.1, seed=5, count=60)
    assert any(found.positive)
    assert not all(found.positive)


def test_pooled_figures_are_given_without_with_and_of_the_templates_alone() -> None:
    templates = LabelledSet("templates", "toxicity", ("an oaf says", "nobody"), (False, True))
    found = pooled_rankings(Spotter(), labelled_sets(TEXTS), templates, threshold=0.5)
    assert found["without templates"].ranking.auc == 1.0
    assert found["with templates"].ranking.auc < 1.0
    assert found["templates alone"].ranking.auc == 0.0


def test_the_tables_of_a_detector_result_show_rates_with_their_intervals() -> None:
    sets = labelled_sets(TEXTS)
    result = {
        "rankings": rank_sets(Spotter(), sets, threshold=0.5),
        "rates": {"flagged": flag_rates(Spotter(), {"mixed": ["an oaf", "a person"]})},
        "pooled": {},
        "embedding": [
            embedding_correlation(Spotter(), Spotter(), [("a", "ae"), ("i", "o"), ("u", "aauo")], kind="x")
        ],
    }
    text = detector_tables(json.loads(json.dumps(plain(result))))
    assert "| flagged | mixed | 2 | 0.500 [0.095, 0.905] |" in text
    assert "| paradetox, one style | toxicity | 8 | 8 | 1.000 |" in text


def test_logits_come_back_in_input_order_whatever_the_lengths() -> None:
    import torch

    class Sums(torch.nn.Module):
        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> object:
            class Read:
                logits = (ids * mask).sum(dim=1, keepdim=True).float().repeat(1, len(LABELS))

            return Read

    class Counter:
        def encode_batch(self, texts: list[str]) -> list[object]:
            class Encoding:
                def __init__(self, text: str) -> None:
                    self.ids = [1] * len(text)

            return [Encoding(text) for text in texts]

    assert toxicity_logits(Sums(), Counter(), ["aaa", "a", "aaaaa", "aa"]) == [3.0, 1.0, 5.0, 2.0]
