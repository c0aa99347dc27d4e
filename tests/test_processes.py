"""Guards, policies and errors on their way to other processes."""

from __future__ import annotations

import contextlib
import copy
import pickle
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from guardrail import Guard, Policy
from guardrail.detectors.lexicon import Lexicon
from guardrail.errors import BlockedError, DeadlineError, MissingExtraError, PluginError
from guardrail.outcome import Failure
from tests.fakes import BagEmbedder, WordDetector, WordRewriter

TOXIC = "The driver of that bus is a zonk."
CONFIG = """
[policy]
ladder = ["mask", "block"]
[models]
lexicon = "words.txt"
[audit]
url = "audit.db"
"""


def travelled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301  # our own bytes


@pytest.fixture
def configured(tmp_path: Path) -> Guard:
    (tmp_path / "words.txt").write_text("zonk\tinsult\t1.0\n", encoding="utf-8")
    (tmp_path / "guardrail.toml").write_text(CONFIG, encoding="utf-8")
    return Guard.from_config(tmp_path / "guardrail.toml", detector=WordDetector(["zonk"]))


def test_a_configured_guard_works_in_another_process(configured: Guard, tmp_path: Path) -> None:
    (tmp_path / "guard.pickle").write_bytes(pickle.dumps(configured))
    script = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).check(sys.argv[2]).text)"
    command = [sys.executable, "-c", script, tmp_path / "guard.pickle", TOXIC]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    assert done.stdout == f"{configured.check(TOXIC).text}\n" == TOXIC.replace("zonk", "z***") + "\n"


def test_a_configured_guard_opens_its_models_and_its_audit_again(configured: Guard, tmp_path: Path) -> None:
    back = travelled(configured)
    assert back.policy == configured.policy
    assert isinstance(back._parts["lexicon"], Lexicon)
    back.check(TOXIC)
    with contextlib.closing(sqlite3.connect(tmp_path / "audit.db")) as recorded:
        assert recorded.execute("SELECT count(*) FROM guardrail_interventions").fetchone() == (1,)


def test_what_was_changed_after_configuration_travels_too(configured: Guard) -> None:
    back = travelled(configured.with_policy(Policy(ladder=("block",), refusal="[no]")))
    assert back.check(TOXIC).text == "[no]"
    assert isinstance(back._parts["lexicon"], Lexicon)


def test_a_guard_of_parts_that_can_be_pickled_travels_with_them() -> None:
    given = Guard(
        policy=Policy(thresholds={"toxicity": 0.5}),
        detector=WordDetector(["zonk"]),
        lexicon=WordDetector(["zonk"]),
        rewriter=WordRewriter(),
        embedder=BagEmbedder(),
        on_outcome=print,
    )
    back = travelled(given)
    assert back.policy == given.policy
    assert back.check(TOXIC).text == given.check(TOXIC).text


def test_a_default_guard_is_a_default_guard_in_another_process() -> None:
    back = travelled(Guard())
    assert back.policy == Guard().policy
    assert repr(back) == repr(Guard())


def test_a_part_that_holds_a_model_says_what_to_do_in_worker_processes() -> None:
    from guardrail.detectors.onnx import OnnxDetector

    with pytest.raises(pickle.PicklingError, match=r"detector, OnnxDetector, .*in each worker.*from_config"):
        pickle.dumps(Guard(detector=OnnxDetector.shipped()))


def test_a_copy_of_a_guard_is_the_guard_because_it_does_not_change() -> None:
    guard = Guard(detector=lambda texts: [], lexicon=WordDetector())
    assert copy.deepcopy({"guard": guard})["guard"] is guard
    assert copy.copy(guard) is guard


def test_errors_come_back_from_another_process_without_what_may_quote_the_text() -> None:
    failure = Failure("detector", "x.Y", "ValueError", "x", 3)
    given = DeadlineError("late", reason="detector_deadline", original=ValueError("secret"), failure=failure)
    back = travelled(given)
    assert (type(back), str(back), back.reason, back.failure) == (
        DeadlineError,
        "late",
        "detector_deadline",
        failure,
    )
    assert back.original is None
    assert isinstance(travelled(PluginError("x", reason="y")), PluginError)
    outcome = Guard(detector=WordDetector(), lexicon=WordDetector(), rewriter=None).check("You moron.")
    blocked = travelled(BlockedError(outcome, advice="do"))
    assert (blocked.outcome, str(blocked)) == (outcome, str(BlockedError(outcome, advice="do")))
    assert travelled(MissingExtraError(feature="x", extra="y")).extra == "y"
