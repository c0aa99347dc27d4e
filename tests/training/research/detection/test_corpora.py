"""What each source gives: soft labels, masks, spans; and the errors for rows that lack something."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from guardrail.errors import UsageError
from research.detection.corpora import (
    CLEAN,
    HELD_OUT,
    TRAINED,
    Labelled,
    distinct,
    fold,
    load,
    removed_spans,
    soft,
)
from research.detection.sources import SOURCES, tightened

Rows = Sequence[Mapping[str, Any]]


def read(folder: Path, source: str, rows: Rows, *, part: str = "train") -> list[Labelled]:
    (folder / source).mkdir(exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / source / f"{part}.jsonl").write_text(lines, encoding="utf-8")
    return load(folder, part=part, sources=[source])


def test_unnamed_labels_are_masked_not_zero() -> None:
    known = dict(zip(TRAINED, soft(toxicity=0.4, threat=0), strict=True))
    assert {label for label, share in known.items() if share is not None} == {"toxicity", "threat"}
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
    shares = dict(zip(TRAINED, comment.labels, strict=True))
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
    assert all(text.labels == soft(toxicity=1, identity_attack=1, hate=1) for text in texts)


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


def test_what_is_toxic_is_uncivil_unless_the_source_says_otherwise() -> None:
    place = TRAINED.index("incivility")
    assert soft(toxicity=1)[place] == 1
    assert soft(toxicity=0.2)[place] is None
    assert soft(toxicity=1, incivility=0)[place] == 0


def row_of(text: str, source: str) -> Labelled:
    return Labelled(text, CLEAN, source, f"{source}:1")


def test_near_copies_across_sources_and_of_dev_rows_are_removed_and_twins_within_a_source_stay() -> None:
    long = "the committee will meet again on the first monday of may to talk about the new bridge"
    texts = [
        row_of("You are a fool and everyone in this town knows it", "own"),
        row_of("You are a saint and everyone in this town knows it", "own"),
        row_of("you are a fool, and everyone in this town knows it!", "davidson"),
        row_of(long, "davidson"),
        row_of("an entirely different sentence about boats", "davidson"),
    ]
    kept = distinct(texts, [row_of(long.replace("bridge", "road"), "gab_hate")])
    assert [text.text for text in kept] == [texts[0].text, texts[1].text, texts[4].text]


NEW_ROWS = {
    "implicit_hate": ({"text": "a", "label": "implicit_hate"}, {"text": "b", "label": "not_hate"}),
    "gab_hate": ({"text": "a", "hd": 1, "cv": 0, "vo": 0}, {"text": "b", "hd": 0, "cv": 0, "vo": 0}),
    "dynahate": ({"text": "a", "hate": 1, "type": "none"}, {"text": "b", "hate": 0, "type": "none"}),
    "hatemoji_build": (
        {"text": "a", "hate": 1, "type": "derogation", "contrast": "b"},
        {"text": "b", "hate": 0, "type": "none", "contrast": "a"},
    ),
    "sbic": ({"text": "a", "offensive": 1.0, "sexual": None}, {"text": "b", "offensive": 0.0, "sexual": 0.0}),
    "convabuse": ({"text": "a", "severities": [-1, -2, 1]}, {"text": "b", "severities": [1, 1, 0]}),
    "diasafety": (
        {"text": "a", "category": "Offending User", "unsafe": 1},
        {"text": "b", "category": "Offending User", "unsafe": 0},
    ),
}


@pytest.mark.parametrize("source", NEW_ROWS)
def test_a_source_ranks_its_hostile_text_above_its_harmless_one(tmp_path: Path, source: str) -> None:
    hostile, harmless = read(tmp_path, source, NEW_ROWS[source])
    assert hostile.labels[0] is not None
    assert harmless.labels[0] is not None
    assert hostile.labels[0] > 0.5 > harmless.labels[0]


@pytest.mark.parametrize(
    ("source", "row"),
    [
        ("edos", {"text": "b", "sexist": 0, "category": "none"}),
        ("online_misogyny", {"text": "b", "misogynistic": 0}),
    ],
)
def test_not_sexist_does_not_mean_not_rude(tmp_path: Path, source: str, row: Mapping[str, Any]) -> None:
    (text,) = read(tmp_path, source, [row])
    known = {label for label, share in zip(TRAINED, text.labels, strict=True) if share is not None}
    assert known == {"sexism"}


def test_the_twins_of_a_contrast_have_one_pair(tmp_path: Path) -> None:
    first, second = read(tmp_path, "hatemoji_build", NEW_ROWS["hatemoji_build"])
    assert first.pair == second.pair != ""


@pytest.mark.parametrize("source", ["own", "rewrites"])
def test_own_sentences_have_labels_that_contain_each_other_and_spans_inside_the_text(source: str) -> None:
    texts = load(part="train", sources=[source])
    toxicity, incivility = TRAINED.index("toxicity"), TRAINED.index("incivility")
    assert len(texts) > 1000
    for text in texts:
        assert (text.labels[toxicity] or 0) <= (text.labels[incivility] or 0)
        assert all(0 <= start < end <= len(text.text) for start, end in text.spans or ())


@pytest.mark.parametrize(
    ("text", "marked", "tight"),
    [
        ("You're a worthless idiot.", "a worthless idiot", ["worthless idiot"]),
        ("He is the kind of fool I know.", "of fool I", ["fool"]),
        ("Of course it is you.", "it is you", None),
        ("they'll wire your broken jaw shut tight", "they'll wire your broken jaw shut tight", None),
    ],
)
def test_a_mark_has_no_function_words_at_its_edges_and_is_not_a_clause(
    text: str, marked: str, tight: list[str] | None
) -> None:
    start = text.index(marked)
    spans = tightened(text, ((start, start + len(marked)),))
    assert (None if spans is None else [text[a:b] for a, b in spans]) == tight


def test_civil_versions_of_what_nothing_civil_can_carry_are_not_called_harmless() -> None:
    row = {
        "kind": "threat",
        "toxic": "I will find you and hurt you.",
        "neutral": ["I am angry with you.", "I am furious with you."],
        "lossy": True,
        "lookalike": "I will find you a seat.",
        "spans": ["hurt"],
        "severity": 3,
        "target": "addressee",
        "toxicity": 1,
        "swear": 0,
    }
    texts = list(SOURCES["rewrites"](row, "rewrites:1"))
    assert [text.source for text in texts] == ["rewrites_hostile", "rewrites_lookalike"]
    assert {text.pair for text in texts} == {"rewrites:1"}
    assert texts[0].labels[TRAINED.index("threat")] == 1.0
    civil = SOURCES["rewrites"]({**row, "lossy": False}, "rewrites:1")
    assert sum(text.labels == CLEAN for text in civil) == 3
