"""The ONNX detector, on a lookup-table model whose answers can be foretold."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.detectors.onnx import OnnxDetector
from guardrail.errors import ManifestError, ModelFileError
from guardrail.manifest import sha256_of
from guardrail.outcome import Verdict
from guardrail.protocols import Detector, Embedder
from tests.detectors.conftest import DIMENSIONS, LABELS

CLEAN = "the cat sat on the mat"
LONG = "the cat sat on the mat . " * 40


def spans_of(detector: OnnxDetector, text: str) -> list[str]:
    return [text[span.start : span.end] for span in detector.detect([text])[0].spans]


def close(one: Verdict, other: Verdict) -> bool:
    scores = zip(one.scores.values(), other.scores.values(), strict=True)
    return (
        one.flagged == other.flagged
        and one.spans == other.spans
        and all(abs(a - b) < 1e-5 for a, b in scores)
    )


def altered(folder: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    change(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def test_it_is_a_detector_and_an_embedder(detector: OnnxDetector) -> None:
    assert isinstance(detector, Detector)
    assert isinstance(detector, Embedder)


def test_scores_are_calibrated_per_label(detector: OnnxDetector) -> None:
    toxic, clean = detector.detect(["you idiot", CLEAN])
    assert toxic.scores == pytest.approx(
        {"toxicity": 1 / (1 + math.exp(-6)), "insult": 1 / (1 + math.exp(-6.5))}
    )
    assert clean.scores == pytest.approx(
        {"toxicity": 1 / (1 + math.exp(6)), "insult": 1 / (1 + math.exp(5.5))}, 1e-3
    )
    assert toxic.flagged
    assert not clean.flagged


@pytest.mark.parametrize(
    ("threshold", "span_threshold", "word_threshold", "flagged"),
    [
        (0.9999, 0.5, 0.9999, False),  # "you idiot" scores .9985 at most
        (0.9999, 0.5, 0.99, True),  # a marked word, and the second threshold is reached
        (0.9999, 0.9999, 0.99, False),  # no word is marked
        (0.9999, 0.5, None, False),  # without the second threshold the first one decides alone
        (0.99, 0.9999, 0.9999, True),
    ],
)
def test_a_marked_word_flags_a_text_from_its_own_threshold_on(
    folder: Path,
    tmp_path: Path,
    threshold: float,
    span_threshold: float,
    word_threshold: float | None,
    flagged: bool,
) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["threshold"] = threshold
        manifest["settings"]["span_threshold"] = span_threshold
        if word_threshold is not None:
            manifest["settings"]["word_threshold"] = word_threshold

    verdict = OnnxDetector(altered(folder, tmp_path, change), threads=1).detect(["you idiot"])[0]
    assert verdict.flagged is flagged


def test_no_texts_give_no_verdicts_and_no_rows(detector: OnnxDetector) -> None:
    assert detector.detect([]) == []
    assert detector.embed([]).shape == (0, DIMENSIONS)


@pytest.mark.parametrize("text", ["", " \n", "\0", "\u200b"])
def test_a_text_without_tokens_scores_zero(detector: OnnxDetector, text: str) -> None:
    verdict = detector.detect([text])[0]
    assert set(verdict.scores.values()) == {0.0}
    assert not verdict.flagged
    assert np.linalg.norm(detector.embed([text])) == pytest.approx(1)


def test_embeddings_are_float32_rows_of_unit_length(detector: OnnxDetector) -> None:
    rows = detector.embed([CLEAN, "nice day", LONG, ""])
    assert rows.shape == (4, DIMENSIONS)
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(4), abs=1e-5)


def test_an_embedding_is_the_same_before_and_after_detection(folder: Path) -> None:
    fresh, used = OnnxDetector(folder), OnnxDetector(folder)
    used.detect([CLEAN, "you 1d10t", LONG])
    for text in (CLEAN, "you 1d10t", LONG):
        assert np.allclose(fresh.embed([text]), used.embed([text]), atol=1e-6)


def test_a_text_just_judged_is_embedded_without_another_pass(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = OnnxDetector(folder)
    passes: list[int] = []
    one_pass = OnnxDetector._pass
    monkeypatch.setattr(
        OnnxDetector, "_pass", lambda self, rows: passes.append(len(rows)) or one_pass(self, rows)
    )
    detector.detect([CLEAN])
    detector.embed([CLEAN, CLEAN])
    assert passes == [1]


def test_results_do_not_depend_on_companions_or_order(detector: OnnxDetector) -> None:
    words = ["you", "are", "the", "cat", "idiot", "moron", "nobody", "said", "1d10t"]
    draw = random.Random(0)
    texts = [" ".join(draw.choices(words, k=draw.randint(0, 90))) for _ in range(60)]
    alone = [detector.detect([text])[0] for text in texts]
    for _ in range(3):
        order = draw.sample(range(len(texts)), len(texts))
        for index, verdict in zip(order, detector.detect([texts[i] for i in order]), strict=True):
            assert close(verdict, alone[index])


def test_rows_do_not_depend_on_companions(folder: Path) -> None:
    texts = ["you", LONG, "nice day", "you idiot " * 30]
    together = OnnxDetector(folder).embed(texts)
    assert np.allclose(together, np.concatenate([OnnxDetector(folder).embed([t]) for t in texts]), atol=1e-5)


@pytest.mark.parametrize("before", range(0, 400, 7))
def test_a_word_is_found_wherever_it_stands_in_a_long_text(detector: OnnxDetector, before: int) -> None:
    text = "cat " * before + "idiot" + " mat" * (400 - before)
    verdict = detector.detect([text])[0]
    assert verdict.flagged
    assert [(span.start, span.end) for span in verdict.spans] == [(4 * before, 4 * before + 5)]


def test_the_embedding_of_a_long_text_weighs_its_windows_by_length(detector: OnnxDetector) -> None:
    # All windows of one repeated word are alike, so the whole must be as one of them.
    assert np.allclose(detector.embed(["cat " * 500]), detector.embed(["cat"]), atol=0.5)
    assert float(detector.embed(["cat " * 500])[0] @ detector.embed(["cat " * 20])[0]) > 0.99


def test_spans_are_whole_words_and_neighbours_join(detector: OnnxDetector) -> None:
    assert spans_of(detector, "You idiot  MORON, you are a moron!") == ["idiot  MORON", "moron"]


@pytest.mark.parametrize(
    "text", ["you 1d10t!", "you i d i o t!", "you iiidiooot", "you ｉｄｉｏｔ", "уоu іdiоt"]
)
def test_obfuscated_words_are_read_twice_and_marked_in_the_original(
    detector: OnnxDetector, text: str
) -> None:
    verdict = detector.detect([text])[0]
    if "iii" in text:  # two letters remain of a run; the lexicon tries one
        assert not verdict.flagged
    else:
        assert verdict.flagged
        assert spans_of(detector, text) == [text.split(" ", 1)[1].rstrip("!")]


def test_obfuscation_of_one_word_does_not_hide_another(detector: OnnxDetector) -> None:
    assert spans_of(detector, "idiot!cat")[0].startswith("idiot")


def test_a_run_without_spaces_is_split_and_not_unknown(detector: OnnxDetector) -> None:
    verdict = detector.detect(["idiot" + "x" * 300])[0]
    assert not verdict.unsupported
    text = "x" * 200 + "idiot"  # the run is cut every 100 characters, here just before the word
    assert spans_of(detector, text) == ["idiot"]


@pytest.mark.parametrize(
    "text",
    ["\ud800 idiot \udfff", "\0idiot\0", "😀\ud83d idiot", "\u202eidiot", "cafe\u0301 idiot", "İ idiot ﷺ"],
)
def test_hostile_characters_leave_offsets_exact(detector: OnnxDetector, text: str) -> None:
    found = spans_of(detector, text)
    assert len(found) == 1
    assert found[0].strip("\0\u202e") == "idiot"


@settings(max_examples=60)
@given(
    st.text(st.characters(), max_size=80)
    | st.text(st.sampled_from("idot 1!@.\u0301\ud800\0ѕ笨"), max_size=60)
)
def test_any_text_gets_a_verdict_with_spans_inside_it(detector: OnnxDetector, text: str) -> None:
    verdict = detector.detect([text])[0]
    assert set(verdict.scores) == set(LABELS)
    assert all(0 <= score <= 1 for score in verdict.scores.values())
    assert all(0 <= s.start < s.end <= len(text) for s in verdict.spans)
    assert all(a.end <= b.start for a, b in zip(verdict.spans, verdict.spans[1:], strict=False))


@pytest.mark.parametrize("text", ["привет мир", "你好", "مرحبا cat", "\ue000\ue001", "κόσμε"])
def test_text_in_a_script_that_is_not_listed_is_unsupported(detector: OnnxDetector, text: str) -> None:
    assert detector.detect([text])[0].unsupported


@pytest.mark.parametrize(
    "text", ["the cat", "😀😀😀", "1234 5678", "?!...", "", "the cat said мир", "ｃａｔ", "ѕаt cat"]
)
def test_latin_text_with_emoji_digits_or_a_foreign_word_is_supported(
    detector: OnnxDetector, text: str
) -> None:
    assert not detector.detect([text])[0].unsupported


def test_text_of_mostly_unknown_tokens_is_unsupported(detector: OnnxDetector) -> None:
    assert detector.detect(["ǂǁ ʘǂ cat"])[0].unsupported


def test_a_changed_file_is_refused_before_it_is_opened(folder: Path, tmp_path: Path) -> None:
    copy = altered(folder, tmp_path, lambda manifest: None)
    (copy / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(ManifestError, match="altered or cut short"):
        OnnxDetector(copy)


def test_a_file_that_is_no_model_is_one_clear_error(folder: Path, tmp_path: Path) -> None:
    for name in ("model.onnx", "tokenizer.json"):
        broken = tmp_path / name / "copy"
        shutil.copytree(folder, broken)
        (broken / name).write_bytes(b"{}")
        manifest = json.loads((broken / "manifest.json").read_text())
        manifest["files"][name] = sha256_of(broken / name)
        (broken / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(ModelFileError, match=name):
            OnnxDetector(broken)


@pytest.mark.parametrize(
    ("lacking", "change"),
    [
        ("threshold", lambda m: m.update(threshold=None)),
        ("calibration of insult", lambda m: m["calibration"].pop("insult")),
        ("tokenizer.json", lambda m: m["files"].pop("tokenizer.json")),
        ("labels", lambda m: m.update(labels=[])),
        ("scripts", lambda m: m.update(scripts=[])),
        ("'adapter'", lambda m: m.update(kind="adapter")),
    ],
)
def test_an_incomplete_manifest_says_what_it_lacks(
    folder: Path, tmp_path: Path, lacking: str, change: Callable[[dict[str, Any]], None]
) -> None:
    with pytest.raises(ManifestError, match=lacking):
        OnnxDetector(altered(folder, tmp_path, change))


@pytest.mark.parametrize(
    ("unusable", "change"),
    [
        ("threshold", lambda m: m.update(threshold=math.nan)),
        ("threshold", lambda m: m.update(threshold=1.5)),
        ("word_threshold", lambda m: m["settings"].update(word_threshold=math.nan)),
        ("word_threshold", lambda m: m["settings"].update(word_threshold="high")),
        ("span_threshold", lambda m: m["settings"].update(span_threshold=-1)),
        ("window", lambda m: m["settings"].update(window=2)),
        ("calibration of insult", lambda m: m["calibration"].update(insult={"a": 1.0})),
        ("calibration of insult", lambda m: m["calibration"].update(insult={"a": 1.0, "b": math.nan})),
    ],
)
def test_a_number_that_would_let_texts_pass_is_refused_by_name(
    folder: Path, tmp_path: Path, unusable: str, change: Callable[[dict[str, Any]], None]
) -> None:
    with pytest.raises(ManifestError, match=rf"without a usable number for \['{unusable}'\]"):
        OnnxDetector(altered(folder, tmp_path, change))


def test_a_missing_folder_is_a_manifest_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no manifest"):
        OnnxDetector(tmp_path / "none")


@pytest.mark.parametrize("spinning", [False, True])
def test_threads_spin_only_where_asked(folder: Path, spinning: bool) -> None:
    options = OnnxDetector(folder, spinning=spinning)._session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == str(int(spinning))


def test_clear_is_what_scores_far_below_every_threshold(folder: Path, tmp_path: Path) -> None:
    def with_threshold(value: float) -> OnnxDetector:
        return OnnxDetector(
            altered(folder, tmp_path / str(value), lambda m: m["settings"].update(clear_threshold=value))
        )

    (tmp_path / "0.5").mkdir()
    (tmp_path / "0.001").mkdir()
    clean, toxic = with_threshold(0.5).detect([CLEAN, "you idiot"])
    assert clean.clear
    assert not toxic.clear
    assert not with_threshold(0.001).detect([CLEAN])[0].clear
