from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.errors import UsageError
from guardrail_training.records import read_records
from research.detection.corpora import wikitext_sentences
from research.evaluation.judges import (
    THRESHOLDS,
    Judge,
    NgramCorpus,
    load_judges,
    ngram_corpus,
    operating_point,
    profanity_check_judge,
    report_judge,
    train_ngram_judge,
)
from research.evaluation.sets import dialogue_turns, one_style

INSULTS = tuple(
    f"you are a {word} idiot and a fool" for word in ("big", "total", "real", "sad", "poor", "silly")
)
PRAISE = tuple(
    f"you are a {word} friend and a joy" for word in ("big", "total", "real", "good", "dear", "kind")
)


def write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    refused = [{"text": text, "reasons": ["toxic_content"]} for text in INSULTS]
    refused += [
        {"text": "nobody called this rude", "reasons": ["not_toxic"]},
        {"text": "hard to say", "reasons": ["unclear"]},
        {"text": "both were ticked", "reasons": ["toxic_content", "not_toxic"]},
        {"text": "You ARE rewritten , idiot !", "reasons": ["toxic_content"]},
    ]
    write_rows(tmp_path / "paradetox_cannot_rewrite" / "train.jsonl", refused)
    pair = {"toxic": "you are rewritten, idiot", "neutral": ["you are rewritten"]}
    write_rows(tmp_path / "paradetox" / "train.jsonl", [pair])
    write_rows(tmp_path / "paradetox" / "dev.jsonl", [pair])
    dialogue = "#Person1#: You are a good friend and a joy.\n#Person2#: Thanks!"
    write_rows(
        tmp_path / "dialogsum" / "train.jsonl", [{"dialogue": dialogue, "summary": ["They are kind."]}]
    )
    write_rows(tmp_path / "piqa" / "dev.jsonl", [{"goal": text} for text in PRAISE])
    return tmp_path


def test_one_style_is_the_same_for_texts_that_differ_in_case_and_punctuation_alone() -> None:
    assert (
        one_style("You DON'T say , friend !")
        == one_style("you don\u2019t say, friend")
        == "you dont say friend"
    )


@given(st.text())
def test_one_style_changes_nothing_the_second_time(text: str) -> None:
    assert one_style(one_style(text)) == one_style(text)


def test_dialogue_turns_drop_the_speaker_and_keep_colons_in_what_is_said() -> None:
    assert dialogue_turns("#Person1#: At 3:30?\n#Person2#: Yes.\nno speaker") == ["At 3:30?", "Yes."]


def test_wikitext_sentences_undo_its_marks_and_leave_headings_out() -> None:
    lines = [" = Title = ", " A guest @-@ starring role came in 2000 . Short . "]
    assert wikitext_sentences(lines) == ["A guest-starring role came in 2000 ."]


def test_the_ngram_corpus_keeps_single_reasons_and_leaves_out_every_sentence_of_paradetox(
    folder: Path,
) -> None:
    corpus = ngram_corpus(folder)
    assert set(corpus.toxic) == set(INSULTS)
    assert {"nobody called this rude", "thanks", "they are kind"} < set(corpus.clean)
    assert not {"hard to say", "both were ticked"} & {*corpus.toxic, *corpus.clean}
    assert not any("rewritten" in text for text in (*corpus.toxic, *corpus.clean))


def test_the_ngram_judge_tells_its_two_sides_apart_whatever_their_style() -> None:
    judge = train_ngram_judge(NgramCorpus(toxic=INSULTS, clean=PRAISE))
    plain = judge.scores([INSULTS[0], PRAISE[0]])
    styled = judge.scores([INSULTS[0].upper() + " !", PRAISE[0].upper() + " !"])
    assert plain[0] > 0.5 > plain[1]
    assert np.array_equal(plain, styled)


def test_two_trainings_on_the_same_corpus_give_the_same_scores() -> None:
    corpus = NgramCorpus(toxic=INSULTS, clean=PRAISE)
    first, second = (train_ngram_judge(corpus).scores(INSULTS) for _ in range(2))
    assert np.array_equal(first, second)


def test_an_empty_side_of_the_corpus_is_an_error_that_counts_both() -> None:
    with pytest.raises(UsageError, match="0 toxic, 6 clean"):
        train_ngram_judge(NgramCorpus(toxic=(), clean=PRAISE))


def test_the_published_judge_scores_an_insult_above_its_threshold_and_small_talk_below() -> None:
    judge = profanity_check_judge()
    assert list(judge.finds_clean(["you fucking idiot", "see you at the station"])) == [False, True]


def test_both_judges_come_with_their_fixed_thresholds(folder: Path) -> None:
    assert {judge.name: judge.threshold for judge in load_judges(folder)} == THRESHOLDS


def test_a_judge_scores_no_texts_at_all_without_calling_its_model() -> None:
    def refuse(texts: object) -> np.ndarray:
        raise AssertionError("called")

    assert Judge(name="fake", threshold=0.5, score=refuse).scores([]).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1), st.floats(0.01, 1))
def test_an_operating_point_calls_at_least_its_share_clean_and_is_the_lowest_that_does(
    scores: list[float], share: float
) -> None:
    values = np.array(scores)
    threshold = operating_point(values, share=share)
    assert np.sum(values < threshold) >= share * values.size - 1e-9
    lower = np.nextafter(threshold, -np.inf)
    assert np.sum(values < lower) < share * values.size + 1e-9


def test_a_report_gives_both_sides_at_the_fixed_threshold() -> None:
    judge = Judge(name="fake", threshold=0.5, score=lambda texts: np.array([float(text) for text in texts]))
    report = report_judge(judge, toxic=["0.9", "0.8", "0.4", "0.7"], neutral=["0.1", "0.6"])
    assert (report.toxic_called_clean, report.neutral_called_clean) == (0.25, 0.5)
    assert (report.toxic_mean, report.neutral_mean) == (pytest.approx(0.7), pytest.approx(0.35))
    assert report.auc == pytest.approx(7 / 8)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "secret', "row 2: not JSON: Unterminated string"),
        ('["secret"]', "row 2: expected a JSON object, got list"),
        ('{"label": "secret"}', "row 2: missing field 'text'"),
        ('{"text": 7, "label": "secret"}', "row 2: field 'text' must not be int"),
    ],
)
def test_a_bad_row_is_an_error_with_its_number_and_without_its_text(
    tmp_path: Path, line: str, message: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "fine"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(UsageError, match=message) as caught:
        read_records(path, fields={"text": str})
    assert "secret" not in str(caught.value)


def test_a_missing_or_empty_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent.jsonl not found"):
        read_records(tmp_path / "absent.jsonl", fields={})
    (tmp_path / "empty.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(UsageError, match="holds no rows"):
        read_records(tmp_path / "empty.jsonl", fields={})
