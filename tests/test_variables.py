"""Environment variables: both spellings of a setting, lists without brackets, misspelt names."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from guardrail.config import SECTIONS, Config
from guardrail.config.variables import OTHER_VARIABLES, variables_of
from guardrail.errors import ConfigError, GuardrailWarning
from guardrail.integrations.cli import app

ROOT = Path(__file__).parents[1]
SETTINGS = [(section, each.name) for section, kind in SECTIONS.items() for each in fields(kind)]


def loaded(**environ: str) -> Config:
    return Config.load(environ=environ)


@pytest.mark.parametrize("between", ["_", "__"])
@pytest.mark.parametrize(
    "value",
    [
        "mask,block",
        "mask, block",
        " mask ,block,",
        '["mask", "block"]',
        "['mask', 'block']",
        '"mask","block"',
        "[mask, block]",
    ],
)
def test_a_ladder_is_written_with_commas_or_as_toml(between: str, value: str) -> None:
    config = loaded(**{f"GUARDRAIL_POLICY{between}LADDER": value})
    assert config.policy.ladder == ("mask", "block")
    assert config.origins == {"policy.ladder": f"GUARDRAIL_POLICY{between}LADDER"}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("POLICY_LADDER", "block", ("block",)),
        ("POLICY_LENGTH_RATIO", "0.5,2", (0.5, 2.0)),
        ("POLICY_THRESHOLDS", "threat=0.5, insult = 1", {"threat": 0.5, "insult": 1.0}),
        ("POLICY_THRESHOLDS", "{threat = 0.5}", {"threat": 0.5}),
        ("POLICY_THRESHOLD", "none", None),
        ("POLICY_THRESHOLD", "0.8", 0.8),
        ("POLICY_REFUSAL", "no, thanks", "no, thanks"),
        ("SERVER_ALLOWED_FIELDS", "service_tier,note", ("service_tier", "note")),
        ("SERVER_ALLOWED_FIELDS", "note", ("note",)),
        ("SERVER_ALLOWED_FIELDS", "", ()),
        ("SERVER_PORT", "9000", 9000),
        ("SERVER_LOG_JSON", "true", True),
        ("AUDIT_URL", "audit.db", Path("audit.db")),
        ("MODELS_REWRITER", "none", None),
        ("REWRITER_KEY_ENV", "GUARDRAIL_REWRITER_KEY", "GUARDRAIL_REWRITER_KEY"),
    ],
)
def test_one_underscore_does_what_two_do(name: str, value: str, expected: Any) -> None:
    section, _, key = name.partition("_")
    for variable in (f"GUARDRAIL_{name}", f"GUARDRAIL_{section}__{key}"):
        config = loaded(**{variable: value})
        assert getattr(getattr(config, section.lower()), key.lower()) == expected


@pytest.mark.parametrize("between", ["_", "__"])
def test_every_setting_has_a_variable(between: str) -> None:
    for section, key in SETTINGS:
        name = f"GUARDRAIL_{section}{between}{key}".upper()
        (found,) = variables_of({name: "1"}, SECTIONS, key_env=None).values()
        assert found == {key: (name, "1")}


def test_two_variables_for_one_setting_are_an_error() -> None:
    with pytest.raises(
        ConfigError, match="GUARDRAIL_POLICY_LADDER and GUARDRAIL_POLICY__LADDER set the same"
    ):
        loaded(GUARDRAIL_POLICY_LADDER="block", GUARDRAIL_POLICY__LADDER="mask,block")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("POLICY_LADDER", "hide,block", "POLICY_LADDER: ladder must be 'rewrite' or 'mask' or 'block'"),
        ("POLICY_LADDER", "mask", "policy ladder must be a part of"),
        ("POLICY_LADDER", "", "policy ladder must be a part of"),
        ("POLICY_LENGTH_RATIO", "1", "LENGTH_RATIO: length_ratio must be a list of 2, each a number"),
        ("POLICY_THRESHOLDS", "threat", "THRESHOLDS: thresholds must be a table, each value a number"),
        ("POLICY_THRESHOLD", "high", "POLICY_THRESHOLD: threshold must be a number"),
        ("SERVER_LOG_LEVEL", "loud", "log_level must be 'debug' or 'info' or"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_variable(name: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loaded(**{f"GUARDRAIL_{name}": value})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("POLICY_LADER", "POLICY__LADDER"),
        ("POLICY_LADDERS", "POLICY__LADDER"),
        ("POLCY_LADDER", "POLICY__LADDER"),
        ("POLICYLADDER", "POLICY__LADDER"),
        ("POLICY_TRESHOLD", "POLICY__THRESHOLD"),
        ("Policy_Threshold", "POLICY__THRESHOLD"),
        ("SERVER_UPSTRAEM", "SERVER__UPSTREAM"),
        ("AUDIT_KEY", "AUDIT_KEYS"),
        ("PROXY_KEY", "PROXY_KEYS"),
        ("HMACKEY", "HMAC_KEY"),
        ("CONFG", "CONFIG"),
        ("CHACHE", "CACHE"),
    ],
)
def test_a_misspelt_name_is_an_error_that_says_what_was_meant(name: str, meant: str) -> None:
    message = f"unknown environment variable GUARDRAIL_{name}; did you mean GUARDRAIL_{meant}"
    with pytest.raises(ConfigError, match=re.escape(message)):
        loaded(**{f"GUARDRAIL_{name}": "s3cret"})
    with pytest.raises(ConfigError) as caught:
        loaded(**{f"GUARDRAIL_{name}": "s3cret"})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("name", ["GUARDRAIL_COLOUR", "GUARDRAIL_", "GUARDRAIL_SERVER_REPLICAS"])
def test_another_name_is_warned_of_and_changes_nothing(name: str) -> None:
    with pytest.warns(GuardrailWarning, match=f"environment variable {name} is not known"):
        assert loaded(**{name: "1"}) == Config()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("GUARDRAIL_LADDER", "GUARDRAIL_POLICY__LADDER"),
        ("GUARDRAIL_PORT", "GUARDRAIL_SERVER__PORT"),
        ("GUARDRAIL_URL", "GUARDRAIL_REWRITER__URL or GUARDRAIL_AUDIT__URL"),
    ],
)
def test_a_setting_without_its_section_is_warned_of_with_the_whole_name(name: str, meant: str) -> None:
    with pytest.warns(
        GuardrailWarning, match=f"{name} is not known and changes nothing; did you mean {meant}"
    ):
        loaded(**{name: "1"})


def test_what_orchestrators_set_for_services_is_left_alone() -> None:
    environ = {
        "GUARDRAIL_PORT": "tcp://10.0.0.7:80",
        "GUARDRAIL_SERVICE_HOST": "10.0.0.7",
        "GUARDRAIL_SERVICE_PORT": "80",
        "GUARDRAIL_SERVICE_PORT_HTTP": "80",
        "GUARDRAIL_PORT_80_TCP": "tcp://10.0.0.7:80",
        "GUARDRAIL_PORT_80_TCP_ADDR": "10.0.0.7",
        "GUARDRAIL_SERVER_PORT": "tcp://10.0.0.7:80",
        "GUARDRAIL_SERVER_SERVICE_HOST": "10.0.0.7",
        "GUARDRAIL_SERVER_PORT_80_TCP_PROTO": "tcp",
        "GUARDRAIL_POLICY_API_PORT": "udp://10.0.0.7:80",
        "OTHER_POLICY_LADER": "x",
    }
    assert loaded(**environ) == Config()


@pytest.mark.parametrize("in_file", [True, False])
def test_the_variable_that_holds_the_rewriters_key_is_known(tmp_path: Path, in_file: bool) -> None:
    file = tmp_path / "guardrail.toml"
    file.write_text('[rewriter]\nkey_env = "GUARDRAIL_REWRITER_KEY"\n' if in_file else "")
    said = {} if in_file else {"GUARDRAIL_REWRITER__KEY_ENV": "GUARDRAIL_REWRITER_KEY"}
    config = Config.load(file, environ={"GUARDRAIL_REWRITER_KEY": "s3cret", **said})
    assert config.rewriter.key_env == "GUARDRAIL_REWRITER_KEY"


def test_every_variable_that_the_code_reads_is_known() -> None:
    found = set()
    for folder in ("guardrail", "training/guardrail_training", "training/research"):
        for path in (ROOT / folder).rglob("*.py"):
            found |= set(re.findall(r'"(GUARDRAIL_[A-Z_]*[A-Z])"', path.read_text(encoding="utf-8")))
    assert found
    found.discard("GUARDRAIL_INTERVENED")  # a word of LiteLLM's protocol
    assert found <= set(OTHER_VARIABLES)
    assert loaded(**dict.fromkeys(OTHER_VARIABLES, "")) == Config()


def test_the_command_line_names_a_misspelt_variable_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDRAIL_POLICY_LADER", "block")
    result = CliRunner().invoke(app, ["check", "Good morning to everyone."])
    assert result.exit_code == 2
    told = "unknown environment variable GUARDRAIL_POLICY_LADER; did you mean GUARDRAIL_POLICY__LADDER?"
    assert result.stderr == f"guardrail: {told}\n"
    monkeypatch.delenv("GUARDRAIL_POLICY_LADER")
    monkeypatch.setenv("GUARDRAIL_POLICY_LADDER", "mask,block")
    assert 'ladder = ["mask", "block"]' in CliRunner().invoke(app, ["config", "show"]).stdout
