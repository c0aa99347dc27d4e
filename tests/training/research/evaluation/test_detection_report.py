from __future__ import annotations

import json

import numpy as np
import pytest

from guardrail_training.evaluation.judges import Judge
from guardrail_training.provenance import plain
from research.detection.dev_sets import LabelledSet, labelled_sets, sentence_pairs
from research.detection.measures import flag_rates, rank_sets, task_figures
from research.evaluation.detection_report import (
    embedding_correlation,
    judged_clean,
    pooled_rankings,
    template_set,
)
from research.evaluation.evaluate import detector_tables
from tests.training.research.detection.small_sets import TEXTS, Spotter


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
        "tasks": [task_figures(Spotter(), next(each for each in sets if each.label == "toxicity"), seed=1)],
        "rates": {
            use: {"flagged": flag_rates(Spotter(), {"mixed": ["an oaf", "a person"]}, use=use)}
            for use in ("assistant", "community")
        },
        "span_f1": 0.5,
        "pooled": {},
        "embedding": [
            embedding_correlation(Spotter(), Spotter(), [("a", "ae"), ("i", "o"), ("u", "aauo")], kind="x")
        ],
    }
    text = detector_tables(json.loads(json.dumps(plain(result))))
    assert "| flagged | mixed | 2 | 0.500 [0.095, 0.905] | 0.500 [0.095, 0.905] |" in text
    assert "| paradetox | toxicity | 8 / 8 | 1.000 [1.000, 1.000] | 0.100 | 1.000 | 0.000 |" in text
    assert "| paradetox, one style | toxicity | 8 | 8 | 1.000 |" in text
