from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from guardrail.errors import ConfigError, UsageError
from guardrail.outcome import Action, Outcome, Span, Verdict
from guardrail_training.data import SourceRow
from guardrail_training.evaluation.best_checkpoint import choose, step_folders
from guardrail_training.evaluation.judges import Judge
from guardrail_training.evaluation.rewriting_report import Instruments, advantage, measure, summarise
from guardrail_training.evaluation.systems import (
    Sentences,
    copied,
    deleted,
    greedy,
    guarded,
    read_outputs,
    second_references,
    write_outputs,
)
from guardrail_training.evaluation.tables import fill_card, rewriter_tables, table
from guardrail_training.provenance import plain
from research.evaluation.evaluate import EvaluateSettings, run

RUDE = "oaf"
SENTENCES = Sentences.of(
    [
        SourceRow(1, "that oaf is late again", ("that man is late again", "he is late again")),
        SourceRow(2, "what an oaf , really", ("what a person , really",)),
        SourceRow(5, "the plan of an oaf", ("the plan of a man", "a bad plan")),
    ]
)
QUIET = Verdict(scores={"toxicity": 0.0}, flagged=False)


class Words:
    """An encoder of word counts, so that cosines can be worked out by hand."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        words = ("that", "oaf", "is", "late", "again", "what", "plan", "man")
        rows = [[1e-6, *(text.split().count(word) for word in words)] for text in texts]
        vectors = np.array(rows, dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Spotter:
    """Detector and word list that know one word."""

    def detect(self, texts: Sequence[str]) -> list[Verdict]:
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> Verdict:
        place = text.find(RUDE)
        spans = (Span(place, place + len(RUDE)),) if place >= 0 else ()
        return Verdict(scores={"toxicity": float(bool(spans))}, flagged=bool(spans), spans=spans)


def count_rude(texts: Sequence[str]) -> np.ndarray:
    return np.array([float(RUDE in text) for text in texts])


JUDGES = (
    Judge(name="strict", threshold=0.5, score=lambda texts: np.array([float("a" in text) for text in texts])),
    Judge(name="fair", threshold=0.5, score=count_rude),
)
FAIR = Instruments(judges=JUDGES[1:], encoders=(("words", Words()),), detector=Spotter())


def outcome(text: str, action: Action, *, degraded: tuple[str, ...] = ()) -> Outcome:
    return Outcome(text=text, action=action, verdict=QUIET, verdict_after=QUIET, degraded=degraded)


class FixedGuard:
    """A guard that answers as told."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self._outcomes = list(outcomes)

    def check_many(self, texts: Sequence[str]) -> list[Outcome]:
        assert len(texts) == len(self._outcomes)
        return self._outcomes


GUARD = FixedGuard(
    [
        outcome("that man is late again", Action.REWRITTEN),
        outcome("what an o** , really", Action.MASKED),
        outcome("the plan of an oaf", Action.PASSED),
    ]
)


def test_copying_keeps_all_meaning_and_overlap_and_earns_no_joint_measure() -> None:
    block = summarise(measure(copied(SENTENCES), FAIR), seed=0)
    assert block is not None
    assert block.similarity["words"] == pytest.approx(1.0, abs=1e-5)
    assert block.chrf_first > 0.5
    assert (block.counted("sta").value, block.counted("j_best").value) == (0.0, 0.0)
    assert block.toxicity["detector"].mean == 1.0


def test_deleting_takes_out_the_marked_words_alone() -> None:
    assert deleted(SENTENCES, lexicon=Spotter()).outputs == (
        "that is late again",
        "what an , really",
        "the plan of an",
    )


def test_the_joint_measure_is_the_mean_of_products() -> None:
    measured = measure(deleted(SENTENCES, lexicon=Spotter()), FAIR)
    block = summarise(measured, seed=0)
    assert block is not None
    products = [
        float(clean) * float(similarity) * float(chrf)
        for clean, similarity, chrf in zip(
            measured.clean["fair"], measured.similarity["words"], measured.overlap.chrf_first, strict=True
        )
    ]
    assert block.j_first["fair"].value == pytest.approx(sum(products) / 3)
    assert block.j_first["fair"].value < block.j_best["fair"].value


def test_the_judge_with_the_lower_figure_counts() -> None:
    both = Instruments(judges=JUDGES, encoders=FAIR.encoders)
    block = summarise(measure(deleted(SENTENCES, lexicon=Spotter()), both), seed=0)
    assert block is not None
    assert block.lower == {"sta": "strict", "j_first": "strict", "j_best": "strict"}
    assert block.counted("sta").value == 0.0 < block.sta["fair"].value


def test_in_the_second_block_a_masked_output_earns_nothing_and_a_passed_one_is_left_out() -> None:
    measured = measure(guarded(SENTENCES, name="guard", guard=GUARD), FAIR)
    everything, rewritten = (summarise(measured, seed=0, rewritten_only=only) for only in (False, True))
    assert everything is not None
    assert rewritten is not None
    assert (everything.n, everything.sta["fair"].value) == (3, pytest.approx(2 / 3))
    assert (rewritten.n, rewritten.sta["fair"].value) == (2, pytest.approx(1 / 2))
    assert everything.actions == {"rewritten": 1, "masked": 1, "passed": 1}
    assert rewritten.j_first["fair"].value == pytest.approx(measured.joint("fair")[0] / 2)


def test_a_guard_that_touched_nothing_has_no_second_block() -> None:
    passing = FixedGuard([outcome(source, Action.PASSED) for source in SENTENCES.sources])
    measured = measure(guarded(SENTENCES, name="guard", guard=passing), FAIR)
    assert summarise(measured, seed=0, rewritten_only=True) is None


def test_a_guard_without_its_models_is_not_measured() -> None:
    broken = FixedGuard([outcome("x", Action.MASKED, degraded=("rewriter_missing",)) for _ in SENTENCES.rows])
    with pytest.raises(UsageError, match="rewriter_missing"):
        guarded(SENTENCES, name="guard", guard=broken)


def test_a_second_reference_is_measured_against_the_others_where_there_is_one() -> None:
    human = second_references(SENTENCES)
    assert human is not None
    assert human.rows == (1, 5)
    assert human.outputs == ("he is late again", "a bad plan")
    assert human.references == (("that man is late again",), ("the plan of a man",))


def test_an_advantage_is_paired_over_the_shared_sentences() -> None:
    human = second_references(SENTENCES)
    assert human is not None
    ours = measure(deleted(SENTENCES, lexicon=Spotter()), FAIR)
    theirs = measure(human, FAIR)
    found = advantage(ours, theirs, seed=0)
    assert found is not None
    expected = np.mean(ours.joint("fair")[[0, 2]] - theirs.joint("fair"))
    assert (found.j.n, found.over) == (2, "second human reference")
    assert found.j.value == pytest.approx(expected)


def test_saved_outputs_come_back_equal(tmp_path: Path) -> None:
    systems = [copied(SENTENCES), guarded(SENTENCES, name="guard", guard=GUARD)]
    write_outputs(tmp_path / "deep" / "outputs.jsonl", systems)
    assert read_outputs(tmp_path / "deep" / "outputs.jsonl") == systems


def test_systems_of_unequal_lengths_are_an_error() -> None:
    with pytest.raises(UsageError, match="system 'short'"):
        SENTENCES.answered("short", ["one output"])


class Scripted:
    """A rewriter with one answer per sentence, or none."""

    def __init__(self, answers: Sequence[str]) -> None:
        self._answers = answers

    def rewrite(self, segments: Sequence[str], n: int) -> list[list[str]]:
        return [[answer] if answer else [] for answer in self._answers]


def test_greedy_takes_the_first_candidate_and_nothing_where_there_is_none() -> None:
    system = greedy(SENTENCES, name="greedy", rewriter=Scripted(["a", "", "c"]))
    assert system.outputs == ("a", "", "c")


def test_the_step_with_the_highest_joint_measure_wins_and_the_earlier_of_equals(tmp_path: Path) -> None:
    for step in (1000, 90, 200):
        (tmp_path / f"step-{step}").mkdir()
    (tmp_path / "step-last").mkdir()
    good = Scripted([references[0] for references in SENTENCES.references])
    rewriters = {"step-90": Scripted(SENTENCES.sources), "step-200": good, "step-1000": good}
    folders = step_folders(tmp_path)
    assert [folder.name for folder in folders] == list(rewriters)
    choice = choose(
        folders, load=lambda folder: rewriters[folder.name], sentences=SENTENCES, instruments=FAIR, seed=0
    )
    assert (choice.step, len(choice.blocks)) == (200, 3)


def test_a_run_without_steps_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no step-N folders"):
        step_folders(tmp_path)


def test_a_cell_stays_on_one_line_and_keeps_its_bars() -> None:
    assert table(["a", "b"], [["x | y\nz", None], [0.12345, 3]]).splitlines()[2:] == [
        "| x \\| y z | - |",
        "| 0.123 | 3 |",
    ]


def test_the_tables_of_a_result_name_every_system_once_per_part() -> None:
    measured = [
        measure(system, FAIR) for system in (copied(SENTENCES), guarded(SENTENCES, name="guard", guard=GUARD))
    ]
    blocks = [summarise(each, seed=0) for each in measured]
    advantages = [advantage(measured[1], measured[0], seed=0)]
    result = {"favourite": "guard", "blocks": {"all": blocks, "rewritten": blocks}, "advantages": advantages}
    text = rewriter_tables(json.loads(json.dumps(plain(result))))
    assert text.count("| guard |") == 4
    assert text.count("| copy |") == 5
    assert "masked 1, passed 1, rewritten 1" in text


def test_a_card_keeps_everything_outside_its_block(tmp_path: Path) -> None:
    card = tmp_path / "MODEL_CARD.md"
    card.write_text(
        "above\n<!-- results:rewriter -->\nold\n<!-- /results:rewriter -->\nbelow\n", encoding="utf-8"
    )
    for content in ("new", "newer"):
        fill_card(card, name="rewriter", content=content)
    expected = "above\n<!-- results:rewriter -->\nnewer\n<!-- /results:rewriter -->\nbelow\n"
    assert card.read_text(encoding="utf-8") == expected


def test_a_card_without_its_block_is_an_error_that_says_what_to_add(tmp_path: Path) -> None:
    card = tmp_path / "MODEL_CARD.md"
    card.write_text("no markers", encoding="utf-8")
    with pytest.raises(UsageError, match="add the lines <!-- results:detector -->"):
        fill_card(card, name="detector", content="x")


def test_numbers_that_json_cannot_hold_become_null() -> None:
    assert plain({"a": float("nan"), "b": (float("inf"), np.float32(0.5), Action.MASKED, Path("x"))}) == {
        "a": None,
        "b": [None, 0.5, "masked", "x"],
    }


def write_rows(path: Path, rows: Sequence[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    words = ("big", "sad", "old", "odd", "dull", "rude")
    pair = {"toxic": "you stupid oaf", "neutral": ["you are wrong"]}
    for split in ("train", "dev"):
        write_rows(data / "paradetox" / f"{split}.jsonl", [pair])
    refused = [{"text": f"you are a {word} idiot", "reasons": ["toxic_content"]} for word in words]
    write_rows(data / "paradetox_cannot_rewrite" / "train.jsonl", refused)
    talk = [{"dialogue": f"#Person1#: a {word} day it is", "summary": ["They talk."]} for word in words]
    write_rows(data / "dialogsum" / "train.jsonl", talk)
    write_rows(data / "piqa" / "dev.jsonl", [{"goal": f"clean the {word} table"} for word in words])
    return data


def test_judges_are_reported_on_both_parts_with_hashes_and_without_paths(
    folder: Path, tmp_path: Path
) -> None:
    card = tmp_path / "card.md"
    card.write_text("<!-- results:judges -->\n<!-- /results:judges -->\n", encoding="utf-8")
    settings = EvaluateSettings(what="judges", data=str(folder), out=str(tmp_path / "out"), card=str(card))
    path = run(settings)
    result = json.loads(path.read_text(encoding="utf-8"))
    assert set(result["judges"]) == {"train", "dev"}
    assert len(result["data"]["paradetox/dev.jsonl"]) == 64
    assert result["settings"]["seed"] == settings.seed
    assert str(tmp_path) not in path.read_text(encoding="utf-8")
    assert "char-ngram" in path.with_suffix(".md").read_text(encoding="utf-8")
    assert "char-ngram" in card.read_text(encoding="utf-8")


def test_annotation_sheets_come_from_saved_outputs(tmp_path: Path) -> None:
    write_outputs(
        tmp_path / "outputs.jsonl", [copied(SENTENCES), guarded(SENTENCES, name="guard", guard=GUARD)]
    )
    settings = EvaluateSettings(
        what="annotate",
        out=str(tmp_path / "out"),
        outputs=str(tmp_path / "outputs.jsonl"),
        sheets=(str(tmp_path / "sheet.csv"),),
        samples=2,
    )
    result = json.loads(run(settings).read_text(encoding="utf-8"))
    assert result["systems"] == ["copy", "guard"]
    assert (tmp_path / "sheet.csv").is_file()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"what": "everything"}, "must be one of judges"),
        ({"what": "agreement", "sheets": ("one.csv",)}, "needs 2 in sheets, got 1"),
        ({"what": "annotate"}, "needs 1 in sheets, got 0"),
        ({"what": "select"}, "needs checkpoints"),
        ({"what": "rewriter", "samples": 0}, "samples and threads of 1 or more"),
        ({"what": "detector", "cross_source": -1}, "cross_source of 0 or more"),
    ],
)
def test_settings_that_cannot_work_are_errors_that_say_why(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EvaluateSettings(**wrong)  # type: ignore[arg-type]  # the point of the test


def test_a_missing_data_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        run(EvaluateSettings(what="judges", data=str(tmp_path / "absent"), out=str(tmp_path)))


def test_a_dev_row_that_cannot_be_used_is_an_error_with_its_number(folder: Path, tmp_path: Path) -> None:
    write_rows(folder / "paradetox" / "dev.jsonl", [{"toxic": "x", "neutral": ["y"]}, {"toxic": "x"}])
    with pytest.raises(UsageError, match="row 2: missing field neutral"):
        run(EvaluateSettings(what="judges", data=str(folder), out=str(tmp_path)))
