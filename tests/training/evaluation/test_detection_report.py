from __future__ import annotations

import json

import numpy as np
import pytest

from guardrail.outcome import LABELS
from guardrail_training.detection.dev_sets import LabelledSet, labelled_sets, sentence_pairs
from guardrail_training.detection.measures import flag_rates, rank_sets
from guardrail_training.evaluation.cross_source import toxicity_logits
from guardrail_training.evaluation.detection_report import (
    embedding_correlation,
    judged_clean,
    pooled_rankings,
    template_set,
)
from guardrail_training.evaluation.evaluate import detector_tables
from guardrail_training.evaluation.judges import Judge
from guardrail_training.provenance import plain
from tests.training.detection.small_sets import TEXTS, Spotter


def test_judged_clean_is_what_every_judge_calls_clean() -> None:
    judges = [
        Judge("three", 0.5, lambda texts: np.array([float("3" in text) for text in texts])),
        Judge("four", 0.5, lambda texts: np.array([float("4" in text) for text in texts])),
    ]
    assert judged_clean(["2 men", "3 men", "4 men", "5 men"], judges=judges) == ("2 men", "5 men")


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
