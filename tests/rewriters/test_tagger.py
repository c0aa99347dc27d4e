"""The shipped tagger and the rewriter that needs no base."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from pathlib import Path

import pytest

from guardrail import Guard
from guardrail.errors import ManifestError, UsageError
from guardrail.outcome import Action
from guardrail.protocols import Rewriter
from guardrail.rewriters.edits.rewriter import MIN_CONFIDENCE, EditRewriter
from guardrail.rewriters.edits.tagger import MAX_VARIANTS, SHIPPED, Tagger

SURE = {
    "Where the hell did I put my car keys?": "Where did I put my car keys?",
    "The damn printer on floor 3 is offline again.": "The printer on floor 3 is offline again.",
    "Nobody I know gives a shit about the cricket.": "Nobody I know cares about the cricket.",
    "Read the manual, you absolute muppet: it says 230 V.": "Read the manual: it says 230 V.",
    "STOP FUCKING SHOUTING IN THE LIBRARY": "STOP SHOUTING IN THE LIBRARY",
    "why the fuck is the server down": "why is the server down",
}
HOLES = (
    "The manager's a gutless little toad!",
    "my boss is a lying sack of crap and he still owes me a day off",
    "The landlord is an arsehole who shouted at my mum.",
    "The new timesheet tool is a pain in the arse and takes nine clicks.",
    "You lot are useless.",
)


@pytest.fixture(scope="module")
def tagger() -> Tagger:
    return Tagger.shipped()


@pytest.mark.parametrize("text", SURE)
def test_it_edits_what_it_is_sure_of(tagger: Tagger, text: str) -> None:
    assert EditRewriter(tagger).rewrite([text], 1) == [[SURE[text]]]


@pytest.mark.parametrize("text", HOLES)
def test_it_proposes_no_hole(tagger: Tagger, text: str) -> None:
    for edit in tagger.propose([text])[0]:
        assert not edit.text.rstrip("!.?").endswith(("'s", " is", " are", " in", " the", " a", " an"))
        assert " is and " not in edit.text
        assert " in and " not in edit.text


def test_edits_are_a_few_and_the_most_sure_come_first(tagger: Tagger) -> None:
    for edits in tagger.propose([*SURE, *HOLES]):
        confidences = [edit.confidence for edit in edits]
        assert confidences == sorted(confidences, reverse=True)
        assert all(confidence <= 0 for confidence in confidences)
        assert len(edits) == len({edit.text for edit in edits}) <= 1 + MAX_VARIANTS


def test_a_text_alone_gets_what_it_gets_in_a_batch(tagger: Tagger) -> None:
    texts = [*SURE, *HOLES, "", "ok", "word " * 90]
    together = tagger.propose(texts)
    for text, edits in zip(texts, together, strict=True):
        (alone,) = tagger.propose([text])
        assert [edit.text for edit in alone] == [edit.text for edit in edits]
        assert [edit.confidence for edit in alone] == pytest.approx(
            [edit.confidence for edit in edits], abs=1e-4
        )


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t",
        "!!! ...",
        "😀🙃",
        "Вы полный идиот, и это факт.",
        "你这个白痴",
        "\ud800 you damn fool",
        "\u200b\u200d\ufeff",
        "a" * 5000,
        "you damn fool " * 400,
        "you damn fool, " * 20_000,
        "e\u0301\u0302" * 50 + " damn",
    ],
)
def test_any_text_is_read(tagger: Tagger, text: str) -> None:
    (edits,) = tagger.propose([text])
    assert all(edit.text != text for edit in edits)


def test_a_text_that_is_too_long_gets_no_edit(tagger: Tagger) -> None:
    assert tagger.propose(["The damn printer is offline. " * 100]) == [[]]
    assert tagger.chances(["word " * 600]) == [None]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("The damn  build:  `i += 1  # add` fails.", "`i += 1  # add` fails."),
        ("**Note:** the damn link https://a.example/damn?x=1&y=2 is dead.", "https://a.example/damn?x=1&y=2"),
        ("> - the fucking [guide](docs/a_b.md) is from 2019", "[guide](docs/a_b.md) is from 2019"),
        ("@tom the damn file is in `C:\\damn\\x`  ", "file is in `C:\\damn\\x`"),
        ('He said "no damn way" and left the damn room.', 'He said "no damn way" and left the'),
    ],
)
def test_code_links_quotations_and_blanks_stay_as_they_are(tagger: Tagger, text: str, kept: str) -> None:
    for edit in tagger.propose([text])[0]:
        assert kept in edit.text


def test_what_is_harmless_is_left_alone() -> None:
    texts = [
        "Where did I put my car keys?",
        "The dam on the river Trent was closed in 1987.",
        "Dick van Dyke sang in Mary Poppins.",
    ]
    assert EditRewriter().rewrite(texts, 3) == [[], [], []]


def test_it_is_a_rewriter_whose_threshold_can_be_chosen(tagger: Tagger) -> None:
    assert isinstance(EditRewriter(tagger), Rewriter)
    strict, loose = EditRewriter(tagger, min_confidence=0.0), EditRewriter(tagger, min_confidence=-50.0)
    texts = list(SURE)
    assert strict.rewrite(texts, 4) == [[] for _ in texts]
    assert [group[:1] for group in loose.rewrite(texts, 4)] == EditRewriter(tagger).rewrite(texts, 1)
    assert all(len(group) <= 2 for group in loose.rewrite(texts, 2))
    with pytest.raises(UsageError, match="1 or more"):
        strict.rewrite(texts, 0)
    for wrong in (0.5, float("nan")):
        with pytest.raises(UsageError, match="log-probability"):
            EditRewriter(tagger, min_confidence=wrong)
    assert -1 < MIN_CONFIDENCE < 0


def test_a_guard_rewrites_with_it() -> None:
    text, expected = next(iter(SURE.items()))
    outcome = Guard(rewriter=EditRewriter()).check(f"Hello.  {text}")
    assert outcome.action is Action.REWRITTEN
    assert outcome.text == f"Hello.  {expected}"


def _rewritten(texts: list[str]) -> list[list[str]]:
    return EditRewriter(Tagger(SHIPPED, threads=1)).rewrite(texts, 1)


def test_it_works_in_another_process() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_rewritten, (list(SURE),)) == _rewritten(list(SURE))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED, tmp_path / "tagger"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "verifier"}, "not a complete tagger"),
        ({"labels": ["delete"]}, "lacking"),
        ({"labels": ["keep", "remove"]}, "'remove' is not a tag"),
        ({"settings": {"window": "wide"}}, "window"),
    ],
)
def test_a_folder_that_is_not_a_taggers_is_refused(copy: Path, change: object, message: str) -> None:
    path = copy / "manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | change), encoding="utf-8")
    with pytest.raises(ManifestError, match=message):
        Tagger(copy)


def test_an_altered_model_is_not_opened(copy: Path) -> None:
    (copy / "model.onnx").write_bytes(b"")
    with pytest.raises(ManifestError, match=r"model\.onnx"):
        Tagger(copy)


def test_the_manifest_says_what_it_learned_from(tagger: Tagger) -> None:
    manifest = tagger.manifest
    assert {each["licence"] for each in manifest.data} == {"Apache-2.0", "CC0-1.0"}
    assert manifest.metrics["eight_bit"]["bytes"] == (SHIPPED / "model.onnx").stat().st_size < 25_000_000
    assert len(set(manifest.labels)) == len(manifest.labels)
