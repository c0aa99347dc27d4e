"""A policy for each key, tenant and model, chosen by the server's configuration."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse
from typer.testing import CliRunner

from guardrail import Policy
from guardrail.config import Config, PolicyRule
from guardrail.errors import ConfigError
from guardrail.integrations.cli import app
from guardrail.integrations.openai_server import Keys, create_app
from tests.integrations.server.running import (
    MENDED,
    TOXIC,
    Upstream,
    chat_answer,
    fake_guard,
    get,
    post,
    proxy,
)

ALICE, BOB, WHOLE_KEY = "alices-key-0123456789", "bobs-key-0123456789abc", "ci=0123456789abcdefgh"
KEYS = Keys.from_environment({"GUARDRAIL_PROXY_KEYS": f"alice={ALICE},{BOB},{WHOLE_KEY}"})
FILE = """
[[server.policies]]
name = "watched"
key = "alice"
enforce = false

[[server.policies]]
name = "forum"
tenant = "forum-*"
model = "small-*"
use = "community"
ladder = ["mask", "block"]

[[server.policies]]
name = "drafts"
model = "draft-*"
threshold = 1.0
"""


def rules(tmp_path: Path, content: str = FILE) -> tuple[PolicyRule, ...]:
    file = tmp_path / "guardrail.toml"
    file.write_text(content)
    return Config.load(file, environ={}).server.policies


def ask(url: str, key: str = BOB, model: str = "small-1", **headers: str) -> str:
    asked = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    shown = {"authorization": f"Bearer {key}"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    answer = post(f"{url}/v1/chat/completions", json=asked, headers=shown)
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


def test_the_first_rule_that_fits_decides_and_metrics_and_audit_name_it(
    upstream: Upstream, tmp_path: Path
) -> None:
    said = {"index": 0, "message": {"role": "assistant", "content": TOXIC}, "finish_reason": "stop"}
    upstream.reply = lambda asked: JSONResponse(chat_answer([said]))
    audit = tmp_path / "audit.db"
    guard = fake_guard(audit=audit)
    masked = TOXIC.replace("idiot", "i****")
    with proxy(upstream, guard=guard, keys=KEYS, policies=rules(tmp_path)) as url:
        assert ask(url) == MENDED
        assert ask(url, x_guardrail_tenant="forum-7") == masked
        assert ask(url, x_guardrail_tenant="forum-7", model="large") == MENDED
        assert ask(url, x_guardrail_tenant="shop") == MENDED
        assert ask(url, model="draft-2") == TOXIC
        assert ask(url, ALICE, x_guardrail_tenant="forum-7") == TOXIC, "the first that fits"
        metrics = get(f"{url}/metrics", headers={"authorization": f"Bearer {WHOLE_KEY}"}).text
    for sample in (
        'guardrail_outcomes_total{action="masked",mode="enforced",policy="forum"} 1.0',
        'guardrail_outcomes_total{action="passed",mode="enforced",policy="drafts"} 1.0',
        'guardrail_outcomes_total{action="rewritten",mode="enforced",policy="default"} 3.0',
    ):
        assert sample in metrics
    with sqlite3.connect(audit) as connection:
        found = connection.execute(
            "SELECT policy_name, action, monitored, count(*) FROM guardrail_interventions GROUP BY 1, 2, 3"
        ).fetchall()
    assert ("forum", "masked", 0, 1) in found
    assert ("", "rewritten", 0, 3) in found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[[server.policies]]\nname = "a"\nuse = "forum"', "use must be 'assistant' or 'community'"),
        ('[[server.policies]]\nname = "a"\ntreshold = 1.0', "did you mean 'threshold'"),
        ('[[server.policies]]\nkey = "a"', "needs a name"),
        ('[[server.policies]]\nname = "a b"', "policy name must be"),
        ('[[server.policies]]\nname = "a"\nladder = ["rewrite"]', "policy ladder"),
        ('[[server.policies]]\nname = "a"\n[[server.policies]]\nname = "a"', "a appears twice"),
        ('[server]\npolicies = "strict"', "policies must be a list"),
        ('[server]\ntenant_header = "x y"', "tenant_header"),
    ],
)
def test_a_rule_that_cannot_be_is_an_error_that_names_it(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rules(tmp_path, content)


def test_a_key_that_has_no_name_is_an_error_at_the_start(tmp_path: Path) -> None:
    found = Config.load(tmp_path / "guardrail.toml", environ={}) if rules(tmp_path) else None
    assert found is not None
    with pytest.raises(ConfigError, match="no key is named 'alice'; write alice=KEY in GUARDRAIL_PROXY_KEYS"):
        create_app(fake_guard(), settings=found.server, keys=Keys((BOB,)))


def test_a_key_with_a_name_is_good_and_one_that_looks_like_it_stays_good() -> None:
    for key in (ALICE, f"alice={ALICE}", BOB, WHOLE_KEY):
        assert KEYS.admit(f"Bearer {key}")
    assert not KEYS.admit("Bearer alice")
    assert KEYS.names[ALICE] == "alice"


def test_the_configuration_shows_rules_as_it_reads_them(tmp_path: Path) -> None:
    first = rules(tmp_path)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GUARDRAIL_")}
    shown = CliRunner(env=environ).invoke(app, ["config", "show", str(tmp_path / "guardrail.toml")])
    assert shown.exit_code == 0, shown.output
    assert rules(tmp_path, shown.stdout) == first


def test_a_policy_of_a_file_may_monitor_and_have_a_name(tmp_path: Path) -> None:
    file = tmp_path / "guardrail.toml"
    file.write_text('[policy]\nenforce = false\nname = "shadow"\n')
    assert Config.load(file, environ={}).policy == Policy(enforce=False, name="shadow")
    environ: dict[str, Any] = {"GUARDRAIL_POLICY_ENFORCE": "true"}
    assert Config.load(file, environ=environ).policy.enforce
