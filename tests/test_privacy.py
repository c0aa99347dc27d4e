"""Law 9: a canary string passes through every path and shows up in none but the outcome itself."""

from __future__ import annotations

import asyncio
import io
import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from rich.console import Console
from rich.traceback import Traceback
from typer.testing import CliRunner

from guardrail import Guard, Policy, Verdict
from guardrail.engine.runner import Runner
from guardrail.errors import BlockedError, ManifestError
from guardrail.events import fingerprint
from tests.fakes import BagEmbedder, WordDetector, WordRewriter

CANARY = "canaryword7419"
TEXT = f"The weather in {CANARY} is fine. The driver of that {CANARY} bus is an idiot."


def guard(policy: Policy | None = None, **parts: Any) -> Guard:
    fakes: dict[str, Any] = {
        "detector": WordDetector(),
        "rewriter": WordRewriter(),
        "embedder": BagEmbedder(),
        "lexicon": WordDetector(),
    }
    return Guard(policy=policy, **fakes | parts)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    with caplog.at_level(logging.DEBUG):
        yield lambda: caplog.text


def shown(error: BaseException) -> str:
    """The error as a rich traceback with locals would print it, from the first frame of the package on."""
    console = Console(file=io.StringIO(), width=200)
    inside = error.__traceback__
    while inside is not None and "/guardrail/" not in inside.tb_frame.f_code.co_filename:
        inside = inside.tb_next
    console.print(Traceback.from_exception(type(error), error, inside, show_locals=True))
    output = console.file
    assert isinstance(output, io.StringIO)
    return output.getvalue() + repr(error) + str(error)


def test_logs_name_actions_scores_and_hmacs_and_no_text(logged: Callable[[], str]) -> None:
    guard().check(TEXT)
    guard().check_many([TEXT, "fine"])
    asyncio.run(guard().acheck(TEXT))
    assert "action=rewritten" in logged()
    assert fingerprint(f"The driver of that {CANARY} bus is an idiot.") in logged()
    assert CANARY not in logged()


def test_no_repr_shows_text() -> None:
    checked = guard()
    outcome = checked.check(TEXT)
    assert CANARY in outcome.text
    assert CANARY not in repr([checked, outcome, outcome.edits, outcome.verdict])


def raises_the_text(texts: Sequence[str], *rest: int) -> Any:
    raise ValueError(texts[0])


@pytest.mark.parametrize("part", ["detector", "rewriter", "embedder", "lexicon"])
def test_a_plugin_that_raises_the_text_does_not_get_it_into_logs(
    part: str, logged: Callable[[], str]
) -> None:
    outcome = guard(**{part: raises_the_text}).check(TEXT)
    assert outcome.degraded
    assert CANARY not in logged() + repr(outcome)


def test_a_blocked_text_raises_without_showing_it() -> None:
    with pytest.raises(BlockedError) as caught:
        guard(Policy(ladder=("block",), block="raise")).check(TEXT)
    assert CANARY not in shown(caught.value)
    assert CANARY in caught.value.outcome.text


@pytest.mark.parametrize("method", ["detect", "embed"])
def test_failures_of_direct_calls_raise_without_showing_the_text(method: str) -> None:
    broken = guard(detector=raises_the_text, embedder=raises_the_text)
    with pytest.raises(Exception, match="raised ValueError") as caught:
        getattr(broken, method)([TEXT])
    assert CANARY not in shown(caught.value)


def test_a_broken_model_file_raises_without_showing_the_text() -> None:
    def altered(texts: Sequence[str]) -> list[Verdict]:
        raise ManifestError("model.onnx was altered")

    for call in (
        lambda g: g.check(TEXT),
        lambda g: g.check_many([TEXT]),
        lambda g: asyncio.run(g.acheck(TEXT)),
    ):
        with pytest.raises(ManifestError) as caught:
            call(guard(detector=altered))
        assert CANARY not in shown(caught.value)


def test_a_wrong_type_among_many_raises_without_showing_the_others() -> None:
    with pytest.raises(TypeError) as caught:
        guard().check_many([TEXT, b"x"])  # type: ignore[list-item]  # the mistake under test
    assert CANARY not in shown(caught.value)


def test_bytes_are_refused_without_showing_them() -> None:
    with pytest.raises(TypeError) as caught:
        guard().check(CANARY.encode())  # type: ignore[arg-type]  # the mistake under test
    assert CANARY not in shown(caught.value)


def test_the_command_line_shows_no_text_when_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from guardrail.integrations.cli import app

    def bug(self: Runner, call: object) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Runner, "ask", bug)
    result = CliRunner().invoke(app, ["check", TEXT])
    assert result.exit_code != 0
    assert CANARY not in result.output
    assert not app.pretty_exceptions_show_locals


def test_fingerprints_need_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    from guardrail import events

    monkeypatch.setenv("GUARDRAIL_HMAC_KEY", "one")
    events._key.cache_clear()
    first = fingerprint(CANARY)
    assert first == fingerprint(CANARY)
    monkeypatch.setenv("GUARDRAIL_HMAC_KEY", "two")
    events._key.cache_clear()
    assert first != fingerprint(CANARY)
    monkeypatch.undo()
    events._key.cache_clear()


def test_outcomes_can_be_sent_between_processes() -> None:
    outcome = guard().check(TEXT)
    assert pickle.loads(pickle.dumps(outcome)) == outcome  # noqa: S301  # our own bytes
