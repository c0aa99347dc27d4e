"""What each source gives: soft labels, masks, spans; and the errors for rows that lack something."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from guardrail.errors import UsageError
from guardrail.outcome import LABELS
from guardrail_training.detection.corpora import CLEAN, HELD_OUT, Labelled, fold, load, removed_spans, soft

Rows = Sequence[Mapping[str, Any]]


def read(folder: Path, source: str, rows: Rows, *, part: str = "train") -> list[Labelled]:
    (folder / source).mkdir(exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / source / f"{part}.jsonl").write_text(lines, encoding="utf-8")
    return load(folder, part=part, sources=[source])


def test_unnamed_labels_are_masked_not_zero() -> None:
    assert soft(toxicity=0.5, threat=0) == (0.5, None, None, None, 0, None)
    with pytest.raises(UsageError, match="rudeness"):
        soft(rudeness=1)


def test_paradetox_gives_both_sides_and_drops_references_that_copy(tmp_path: Path) -> None:
    row = {"toxic": "you damn fool , go away", "neutral": ["Go away, please", "You damn fool, go away"]}
    texts = read(tmp_path, "paradetox", [row])
    assert [text.source for text in texts] == ["paradetox_toxic", "paradetox_neutral"]
    assert texts[0].labels == soft(toxicity=1)
    assert (texts[1].labels, texts[1].spans, texts[1].weight) == (CLEAN, (), 1.0)
    assert texts[0].key == texts[1].key


def test_words_that_a_neutral_version_dropped_are_the_toxic_span() -> None:
    toxic = "this is a fucking good song"
    assert removed_spans(toxic, "This is a good song.") == ((10, 17),)
    assert removed_spans(toxic, "I like music") is None
    assert removed_spans(toxic, toxic) is None


def test_davidson_votes_become_shares(tmp_path: Path) -> None:
    votes = {"hate": 1, "offensive": 2, "neither": 1}
    hated, clean = read(
        tmp_path,
        "davidson",
        [{"text": "a", **votes}, {"text": "b", "hate": 0, "offensive": 0, "neither": 3}],
    )
    assert hated.labels == soft(toxicity=0.75, identity_attack=0.25)
    assert clean.labels == CLEAN


def test_kinds_of_toxic_spans_are_shares_of_three_voters_even_with_keys_cut_short(tmp_path: Path) -> None:
    row = {
        "text": "You fool.",
        "annotators": 7,
        "toxic_votes": 7,
        "type_votes": {"Insult": 2, "Insu": 1, "NaN": 1, "Identity based ": 1, "Profane/Obscene": 2},
        "spans": [[4, 8]],
    }
    comment = read(tmp_path, "toxic_spans", [row])[0]
    shares = dict(zip(LABELS, comment.labels, strict=True))
    assert shares["insult"] == 1.0
    assert shares["identity_attack"] == pytest.approx(1 / 3)
    assert shares["obscene"] == pytest.approx(2 / 3)
    assert shares["threat"] == 0.0
    assert shares["sexual_explicit"] is None


def test_a_comment_gives_its_toxic_sentences_with_spans_and_the_rest_weakly_clean(tmp_path: Path) -> None:
    text = "You are a fool. The committee meets again on Monday."
    row = {"text": text, "annotators": 3, "toxic_votes": 3, "type_votes": {}, "spans": [[10, 14]]}
    _, toxic, rest = read(tmp_path, "toxic_spans", [row])
    assert (toxic.text, toxic.spans) == ("You are a fool.", ((10, 14),))
    assert toxic.text[10:14] == "fool"
    assert rest.text == "The committee meets again on Monday."
    assert rest.labels[0] == 0.05
    assert rest.weight < 1


def test_a_prompt_is_split_into_statements_of_its_label(tmp_path: Path) -> None:
    prompt = {"prompt": "- one of them\n- two of them\n-", "group": "g", "label": "hate"}
    texts = read(tmp_path, "toxigen_prompts", [prompt])
    assert [text.text for text in texts] == ["one of them", "two of them"]
    assert all(text.labels == soft(toxicity=1, identity_attack=1) for text in texts)


def test_the_same_statement_in_two_prompts_has_one_key(tmp_path: Path) -> None:
    rows = [{"prompt": f"- shared\n- {n}", "group": "g", "label": "neutral"} for n in "ab"]
    texts = read(tmp_path, "toxigen_prompts", rows)
    assert len({text.key for text in texts if text.text == "shared"}) == 1


def test_wikitext_headings_are_left_out_and_tokenisation_marks_undone(tmp_path: Path) -> None:
    (tmp_path / "wikitext2").mkdir()
    (tmp_path / "wikitext2" / "valid.txt").write_text(
        " = Lobster = \n\n The lobster weighs 0 @.@ 7 kilograms . It lives in the well @-@ known sea . \n",
        encoding="utf-8",
    )
    texts = load(tmp_path, part="train", sources=["wikitext2"])
    assert [text.text for text in texts] == [
        "The lobster weighs 0.7 kilograms .",
        "It lives in the well-known sea .",
    ]
    assert load(tmp_path, part="dev", sources=["wikitext2"]) == []


def test_a_row_without_its_field_is_an_error_with_its_number(tmp_path: Path) -> None:
    good = {"text": "a", "label": "noHate"}
    with pytest.raises(UsageError, match="stormfront, row 2"):
        read(tmp_path, "stormfront", [good, {"text": "a"}])
    with pytest.raises(UsageError, match="stormfront, row 1"):
        read(tmp_path, "stormfront", [{"text": "a", "label": "maybe"}])


def test_an_error_does_not_repeat_the_text(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, "davidson", [{"text": "canary-7731", "hate": 0, "offensive": 0, "neither": 0}])
    assert "canary" not in str(caught.value)


def test_missing_folders_and_unknown_names_are_errors_that_say_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not found"):
        load(tmp_path, part="train", sources=["davidson"])
    with pytest.raises(UsageError, match="unknown source"):
        load(tmp_path, part="train", sources=["jigsaw"])
    with pytest.raises(UsageError, match="part"):
        load(tmp_path, part="test")


def test_a_line_that_is_no_json_is_an_error_with_its_number(tmp_path: Path) -> None:
    (tmp_path / "davidson").mkdir()
    (tmp_path / "davidson" / "dev.jsonl").write_text("{}\nnot json\n", encoding="utf-8")
    with pytest.raises(UsageError):
        load(tmp_path, part="dev", sources=["davidson"])


def test_without_a_folder_a_source_that_no_hub_has_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GUARDRAIL_DATA", raising=False)
    with pytest.raises(UsageError, match="GUARDRAIL_DATA"):
        load(part="train", sources=["toxic_spans"])


def test_the_calibration_slice_depends_on_the_key_alone_and_has_its_size() -> None:
    folds = [fold(f"row:{number}") for number in range(5000)]
    assert folds == [fold(f"row:{number}") for number in range(5000)]
    assert sum(value < HELD_OUT for value in folds) / 5000 == pytest.approx(HELD_OUT, abs=0.015)
