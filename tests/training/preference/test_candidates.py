from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from guardrail.errors import ConfigError
from guardrail.manifest import Template
from guardrail_training.data import SourceRow
from guardrail_training.preference.candidates import (
    COLD,
    CandidateComparison,
    ParallelSentence,
    append_comparisons,
    compare,
    distinct,
    draw_sentences,
    pairs_of,
    read_comparisons,
)
from guardrail_training.preference.settings import PreferenceSettings
from guardrail_training.records import TrainingRowError
from guardrail_training.reinforcement.rollouts import noise_for, sample
from guardrail_training.rewards.algebra import Answer, named
from tests.training.preference.conftest import REWARD, words
from tests.training.reinforcement.conftest import load_learner, word_tokenizer

ROWS = [SourceRow(number, f"a{number % 8} b{number % 7}", (f"c{number % 8}",)) for number in range(1, 21)]


def sentences_of(settings: PreferenceSettings) -> tuple[ParallelSentence, ...]:
    return draw_sentences(
        ROWS, tokenizer=word_tokenizer(), template=Template("a0 {text} a1"), settings=settings
    )


def test_texts_that_differ_in_case_and_white_space_alone_count_once() -> None:
    assert distinct(["A  cat", "a cat ", "", " \t", "a cat.", "A CAT"]) == ["A  cat", "a cat."]


def test_the_best_and_the_worst_by_the_reward_are_kept(base: Path, settings: PreferenceSettings) -> None:
    asked: list[Answer] = []

    def remember(answers: Sequence[Answer]) -> list[float]:
        asked.extend(answers)
        return words(answers)

    learner, drawn = load_learner(base, has_values=False, temperature=1.0), sentences_of(settings)

    found = compare(
        learner, drawn, reward=named("words", remember), tokenizer=word_tokenizer(), settings=settings
    )

    for comparison in found:
        own = [answer for answer in asked if answer.query == comparison.query]
        texts = [answer.response for answer in own]
        assert comparison.candidates == len(texts) == len(distinct(texts))
        if comparison.candidates > 1:
            scores = dict(zip(texts, words(own), strict=True))
            assert scores[comparison.chosen] == max(scores.values()) == pytest.approx(comparison.score_chosen)
            assert scores[comparison.rejected] == min(scores.values())
    assert max(comparison.candidates for comparison in found) > 2


def test_at_the_temperature_of_the_greedy_candidate_the_likeliest_token_is_drawn(llama_base: Path) -> None:
    learner = load_learner(llama_base, has_values=False)
    model: Any = learner.model.get_base_model()
    prompts = ((3, 4, 5), (6, 7), (8,))

    drawn = sample(
        learner.family,
        learner.family.pad(prompts),
        noise=noise_for(range(3), tokens=6),
        limits=torch.full((3,), 6),
        temperature=COLD,
        stop_id=1,
        pad_id=0,
    )

    for row, prompt in enumerate(prompts):
        ids = list(prompt)
        for token in drawn.ids[row, : drawn.lengths[row]].tolist():
            with torch.no_grad():
                assert token == int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
            ids.append(token)


def test_candidates_that_do_not_end_are_left_out(base: Path, settings: PreferenceSettings) -> None:
    # In one token there is room for the end of the text alone, which makes an empty candidate.
    short = replace(settings, response_tokens=1, references=False)
    learner = load_learner(base, has_values=False)

    found = compare(learner, sentences_of(short), reward=REWARD, tokenizer=word_tokenizer(), settings=short)

    assert {(comparison.candidates, comparison.chosen, comparison.margin) for comparison in found} == {
        (0, None, 0.0)
    }


def test_a_rows_candidates_do_not_depend_on_the_others(base: Path, settings: PreferenceSettings) -> None:
    learner, tokenizer = load_learner(base, has_values=False), word_tokenizer()
    drawn = sentences_of(settings)

    together = compare(learner, drawn, reward=REWARD, tokenizer=tokenizer, settings=settings)
    torch.rand(7)
    alone = [
        compare(learner, [sentence], reward=REWARD, tokenizer=tokenizer, settings=settings)[0]
        for sentence in drawn
    ]

    assert together == alone


def test_references_are_candidates_where_they_are_wanted_and_known_to_rewards_always(
    base: Path, settings: PreferenceSettings
) -> None:
    learner = load_learner(base, has_values=False)
    for wanted in (False, True):
        asked: list[Answer] = []

        def remember(answers: Sequence[Answer], to: list[Answer] = asked) -> list[float]:
            to.extend(answers)
            return words(answers)

        chosen = replace(settings, references=wanted)
        drawn = sentences_of(chosen)
        reward = named("words", remember)
        compare(learner, drawn, reward=reward, tokenizer=word_tokenizer(), settings=chosen)

        known = {sentence.query.text: sentence.references for sentence in drawn}
        assert all(answer.references == known[answer.query] for answer in asked)
        written = {(answer.query, answer.response) for answer in asked}
        of_people = {(query, text) for query, several in known.items() for text in several}
        assert (of_people <= written) == wanted


def test_a_larger_draw_begins_with_the_smaller_one(settings: PreferenceSettings) -> None:
    small, large = (sentences_of(replace(settings, sentences=count)) for count in (5, 15))

    assert large[:5] == small
    assert [s.number for s in small] != sorted(s.number for s in large)[:5]
    assert sentences_of(replace(settings, sentences=15, seed=1)) != large


def test_a_prompt_that_is_too_long_is_an_error_before_sampling(settings: PreferenceSettings) -> None:
    with pytest.raises(TrainingRowError, match=r"row \d+: prompt and response may have 20 tokens, more than"):
        sentences_of(replace(settings, max_tokens=19))


def comparison(row: int, *, best: float = 0.9, worst: float = 0.1) -> CandidateComparison:
    return CandidateComparison(
        row=row,
        query="zebra \ud83d",  # half a surrogate pair
        candidates=3,
        chosen="one\u2028line",
        rejected="two",
        score_chosen=best,
        score_rejected=worst,
    )


def test_comparisons_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    alone = CandidateComparison(row=3, query="q", candidates=1)

    append_comparisons(path, [comparison(1)], fingerprint="f")
    append_comparisons(path, [comparison(2), alone], fingerprint="f")

    assert read_comparisons(path, fingerprint="f") == {1: comparison(1), 2: comparison(2), 3: alone}
    assert read_comparisons(tmp_path / "absent", fingerprint="f") == {}


def test_a_line_that_was_cut_short_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    append_comparisons(path, [comparison(1)], fingerprint="f")
    whole = path.read_bytes()
    for cut in (len(whole) - 1, 20):
        path.write_bytes(whole + whole[:cut])

        assert list(read_comparisons(path, fingerprint="f")) == [1]
        assert path.read_bytes() == whole
    path.write_bytes(whole[:20])
    assert read_comparisons(path, fingerprint="f") == {}


def test_comparisons_of_other_settings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    append_comparisons(path, [comparison(1)], fingerprint="f")

    with pytest.raises(ConfigError, match=r"pairs.jsonl row 1 was made with other settings"):
        read_comparisons(path, fingerprint="g")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"chosen": 3}, "row 2: field 'chosen' must not be int"),
        ({"score_chosen": "0.9"}, "row 2: field 'score_chosen' must not be str"),
        ({"candidates": None}, "row 2: field 'candidates' must not be NoneType"),
    ],
)
def test_a_row_that_cannot_be_read_is_an_error_without_its_text(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    path = tmp_path / "pairs.jsonl"
    append_comparisons(path, [comparison(1)], fingerprint="f")
    row = json.loads(path.read_text()) | change
    path.write_text(path.read_text() + json.dumps(row) + "\n")

    with pytest.raises(TrainingRowError, match=said) as caught:
        read_comparisons(path, fingerprint="f")

    assert "zebra" not in str(caught.value)


def test_only_comparisons_that_are_decided_make_pairs() -> None:
    known = {
        1: comparison(1),
        2: comparison(2, best=0.15),
        3: CandidateComparison(row=3, query="q", candidates=1),
        4: comparison(4),
    }

    assert [pair.row for pair in pairs_of([4, 2, 3], known, margin=0.1)] == [4]
    with pytest.raises(TrainingRowError, match=r"of 2 sentences 1 have fewer than two candidates.* 0\.050"):
        pairs_of([2, 3], known, margin=0.1)


def test_no_text_is_in_a_repr() -> None:
    assert "zebra" not in repr(comparison(1))
    assert "one" not in repr(comparison(1))
