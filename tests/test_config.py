"""Configuration: a file and variables become settings; a mistake is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from guardrail import Guard, Policy
from guardrail.config import SECTIONS, AuditSettings, Config, ModelSettings, ServerSettings
from guardrail.detectors.lexicon import Lexicon
from guardrail.errors import ConfigError, ManifestError
from guardrail.integrations.cli import app
from guardrail.integrations.config_command import rendered
from guardrail.models.files import read_toml

FULL = """
[policy]
threshold = 0.8
thresholds = { threat = 0.5, insult = 1 }
ladder = ["mask", "block"]
length_ratio = [0.5, 2]
mask = "[removed]"
detect_timeout = "none"
[models]
rewriter = "none"
lexicon = "words.txt"
[audit]
url = "postgresql://officer:s3cret@db.example/audit"
include_text = true
[server]
upstream = "https://llm.example/v1"
allowed_fields = ["service_tier"]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "guardrail.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_sets_every_section_and_the_rest_keeps_its_defaults(tmp_path: Path) -> None:
    config = Config.load(write(tmp_path, FULL), environ={})
    assert config.policy == Policy(
        threshold=0.8,
        thresholds={"threat": 0.5, "insult": 1.0},
        ladder=("mask", "block"),
        length_ratio=(0.5, 2.0),
        mask="[removed]",
        detect_timeout=None,
    )
    assert config.models == ModelSettings(rewriter=None, lexicon=tmp_path / "words.txt")
    assert config.audit.include_text
    assert config.server.allowed_fields == ("service_tier",)
    assert config.server.host == "127.0.0.1"


def test_without_file_and_variables_all_is_default() -> None:
    assert Config.load(environ={}) == Config()


def test_a_variable_goes_before_the_file_and_takes_paths_from_the_current_folder(tmp_path: Path) -> None:
    environ = {
        "GUARDRAIL_CONFIG": str(write(tmp_path, FULL)),
        "GUARDRAIL_POLICY__THRESHOLD": "0.6",
        "GUARDRAIL_POLICY__LADDER": '["block"]',
        "GUARDRAIL_POLICY__REFUSAL": "[no]",
        "GUARDRAIL_MODELS__REWRITER": "adapters/mine",
        "GUARDRAIL_AUDIT__URL": "audit.db",
        "GUARDRAIL_SERVER__PORT": "9000",
        "GUARDRAIL_SERVER_PORT": "tcp://10.0.0.7:80",  # as an orchestrator sets it
        "GUARDRAIL_CACHE": "elsewhere",
    }
    config = Config.load(environ=environ)
    assert config.policy.threshold == 0.6
    assert config.policy.thresholds == {"threat": 0.5, "insult": 1.0}, "from the file"
    assert config.policy.ladder == ("block",)
    assert config.policy.refusal == "[no]"
    assert config.models.rewriter == Path("adapters/mine")
    assert config.audit.url == Path("audit.db")
    assert config.server.port == 9000
    assert config.origins["policy.threshold"] == "GUARDRAIL_POLICY__THRESHOLD"
    assert config.origins["policy.mask"] == str(tmp_path / "guardrail.toml")


def test_a_variable_can_mend_what_the_file_leaves_unfinished(tmp_path: Path) -> None:
    path = write(tmp_path, "[policy]\nsegment_min = 200\n")
    with pytest.raises(ConfigError, match="segment_max"):
        Config.load(path, environ={})
    config = Config.load(path, environ={"GUARDRAIL_POLICY__SEGMENT_MAX": "900"})
    assert (config.policy.segment_min, config.policy.segment_max) == (200, 900)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[policy]\ntreshold = 0.5",
            r"guardrail.toml \[policy\]: unknown key 'treshold'; did you mean 'thresh",
        ),
        ("[polcy]\n", "unknown key 'polcy'; did you mean 'policy'"),
        ("[zzz]\n", "unknown key 'zzz'; known are audit, models, policy, rewriter, server"),
        ("policy = 3", "policy must be a section"),
        ("[policy]\nthreshold = 'high'", "threshold must be a number or 'none', got str"),
        ("[policy]\nthreshold = true", "threshold must be a number or 'none', got True"),
        ("[policy]\nthreshold = 1.5", "policy threshold must be between 0 and 1, got 1.5"),
        ("[policy]\nbatch = 2.5", "batch must be a whole number, got 2.5"),
        ("[policy]\nbatch = true", "batch must be a whole number, got True"),
        ("[policy]\nmask = 1", "mask must be a string, got 1"),
        ("[policy]\nladder = 'mask'", "ladder must be a list, each 'rewrite' or 'mask' or 'block', got str"),
        ("[policy]\nladder = ['hide']", "ladder must be 'rewrite' or 'mask' or 'block', got 'hide'"),
        ("[policy]\nlength_ratio = [1]", "length_ratio must be a list of 2, each a number"),
        ("[policy]\nthresholds = 0.5", "thresholds must be a table, each value a number"),
        ("[policy]\nthresholds = {threat = 'x'}", "thresholds.threat must be a number, got str"),
        (
            "[policy]\non_error = 'opne'",
            "on_error must be 'closed' or 'open' or 'lexicon' or 'raise', got 'opne'",
        ),
        ("[models]\ndetector = 3", "detector must be 'shipped' or a path"),
        ("[models]\nrewriter = 'http://x/y'", "rewriter must be 'shipped' or a path or 'none', got str"),
        ("[audit]\ninclude_text = 'yes'", "include_text must be true or false, got str"),
        ("[server]\nupstream = 'llm.example'", "upstream must be a URL or 'none', got str"),
        ("[server]\nport = 70000", "server port must be between 0 and 65535"),
        ("[rewriter]\nkey = 'sk-1'", "unknown key 'key'; did you mean 'key_env'"),
        ("[rewriter]\nkey_env = 'sk-1'", "rewriter key_env must name an environment variable"),
        ("[rewriter]\nurl = 'llm.example'", "url must be a URL or 'none', got str"),
        ("[rewriter]\nparameters = 3", "parameters must be a table"),
        ("[rewriter]\nseed = 1", "seed must be true or false, got 1"),
        ("[server]\nproxy_keys = ['x']", "unknown key 'proxy_keys'"),
        ("[policy", "is not valid TOML"),
    ],
)
def test_a_mistake_in_the_file_is_an_error_that_names_the_key(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Config.load(write(tmp_path, text), environ={})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("GUARDRAIL_POLICY__TRESHOLD", "1", "GUARDRAIL_POLICY__TRESHOLD: unknown key 'treshold'"),
        ("GUARDRAIL_POLCY__MASK", "x", "GUARDRAIL_POLCY__MASK: unknown key 'polcy'; did you mean 'policy'"),
        ("GUARDRAIL_POLICY__THRESHOLD", "high", "THRESHOLD: threshold must be a number"),
        ("GUARDRAIL_POLICY__BATCH", "", "BATCH: batch must be a whole number"),
    ],
)
def test_a_mistake_in_a_variable_is_an_error_that_names_it(name: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Config.load(environ={name: value})


def test_a_file_that_is_not_there_or_not_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none\.toml"):
        Config.load(tmp_path / "none.toml", environ={})
    (tmp_path / "odd.toml").write_bytes(b"[policy]\nmask = '\xff'")
    with pytest.raises(ConfigError, match="not UTF-8 at byte"):
        Config.load(tmp_path / "odd.toml", environ={})


def test_every_field_of_every_section_can_be_set_by_its_name() -> None:
    assert [type(getattr(Config(), name)) for name in SECTIONS] == list(SECTIONS.values())


@given(
    threshold=st.none() | st.floats(0, 1),
    mask=st.none() | st.text(st.characters(codec="utf-8")),
    thresholds=st.dictionaries(st.text(st.characters(codec="utf-8")), st.floats(0, 1)),
    fields=st.lists(st.text(st.characters(codec="utf-8"))),
)
def test_what_show_prints_is_a_file_with_the_same_settings(
    tmp_path_factory: pytest.TempPathFactory,
    threshold: float | None,
    mask: str | None,
    thresholds: dict[str, float],
    fields: list[str],
) -> None:
    config = Config(
        policy=Policy(threshold=threshold, mask=mask, thresholds=thresholds),
        models=ModelSettings(detector=Path("/models/mine"), rewriter=None),
        server=replace(ServerSettings(), allowed_fields=tuple(fields)),
    )
    path = write(tmp_path_factory.mktemp("shown"), rendered(config))
    assert replace(Config.load(path, environ={}), origins={}) == config
    assert read_toml(path)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://officer:s3cret@db.example/audit",
        "postgresql://officer:s3/cr@et:s3cret@db.example/audit",
        "postgresql://db.example/audit?user=officer&password=s3cret&sslmode=require",
        "https://s3cret@llm.example/v1",
    ],
)
def test_show_hides_the_passwords_of_urls(url: str) -> None:
    shown = rendered(Config(audit=AuditSettings(url=url)))  # type: ignore[arg-type]  # as the file gives it
    assert "s3cret" not in shown
    assert "example/" in shown


def test_the_command_shows_values_with_their_origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDRAIL_POLICY__BATCH", "8")
    result = CliRunner().invoke(app, ["config", "show", str(write(tmp_path, FULL))])
    assert result.exit_code == 0
    lines = {line.split(" = ")[0]: line for line in result.stdout.splitlines()}
    assert lines["batch"].endswith("# GUARDRAIL_POLICY__BATCH")
    assert lines["threshold"].endswith("guardrail.toml")
    assert lines["candidates"].endswith("# default")
    assert "s3cret" not in result.stdout


def test_the_command_checks_a_file_and_opens_its_models(tmp_path: Path) -> None:
    good = write(tmp_path, "[policy]\nthreshold = 0.9\n")
    result = CliRunner().invoke(app, ["config", "check", str(good)])
    assert result.exit_code == 0
    assert f"ok: 1 settings, policy {Guard(policy=Policy(threshold=0.9)).policy.digest()}" in result.stderr
    wrong = write(tmp_path, "[policy]\nthreshhold = 0.9\n")
    result = CliRunner().invoke(app, ["config", "check", str(wrong)])
    assert result.exit_code == 2
    assert "did you mean 'threshold'" in result.stderr
    missing = write(tmp_path, "[models]\nrewriter = 'nowhere'\n")
    result = CliRunner().invoke(app, ["config", "check", str(missing)])
    assert result.exit_code == 1
    assert "no manifest.json" in result.stderr


def test_a_guard_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("zonk\tinsult\t1.0\n", encoding="utf-8")
    path = write(
        tmp_path, "[policy]\nladder = ['block']\n[models]\nlexicon = 'words.txt'\nrewriter = 'none'\n"
    )
    guard = Guard.from_config(path)
    assert guard.policy.ladder == ("block",)
    config = Config.load(path, environ={})
    assert isinstance(Guard.from_config(config)._parts["lexicon"], Lexicon)
    with pytest.raises(ManifestError):
        Guard.from_config(write(tmp_path, "[models]\nrewriter = 'nowhere'\n"))


@pytest.mark.parametrize("command", ["show", "check"])
def test_the_file_of_config_is_an_argument_or_an_option(tmp_path: Path, command: str) -> None:
    path = str(write(tmp_path, "[policy]\nthreshold = 0.9\n"))
    argument = CliRunner().invoke(app, ["config", command, path])
    option = CliRunner().invoke(app, ["config", command, "--config", path])
    assert argument.exit_code == option.exit_code == 0
    assert argument.output == option.output
    both = CliRunner().invoke(app, ["config", command, path, "--config", path])
    assert both.exit_code == 2
    assert "not both" in both.stderr


def test_check_takes_its_policy_from_the_configuration(tmp_path: Path) -> None:
    path = write(tmp_path, "[policy]\nladder = ['block']\nrefusal = '[no]'\nthreshold = 0.0\n")
    result = CliRunner().invoke(app, ["check", "Good morning to everyone.", "--config", str(path)])
    assert result.stdout == "[no]\n"


def test_spinning_is_a_setting_of_the_detector() -> None:
    quick = Config(models=ModelSettings(spinning=True)).arguments()["detector"]
    options = quick._session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "1"
    assert "detector" not in Config().arguments()


REMOTE = """
[rewriter]
url = "http://127.0.0.1:9/v1"
model = "qwen-civil"
key_env = "MODEL_API_KEY"
prompt = "own.toml"
parameters = { temperature = 0.2, stop = ["\\n\\n"], chat_template_kwargs = { enable_thinking = false } }
max_choices = 1
timeout = 20
"""


def test_a_file_names_a_remote_rewriter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from guardrail.rewriters.remote import RemoteRewriter

    monkeypatch.setenv("MODEL_API_KEY", "s3cret")
    (tmp_path / "own.toml").write_text(
        "[[messages]]\nrole = 'user'\ncontent = 'Mend {text}'\n", encoding="utf-8"
    )
    path = write(tmp_path, REMOTE)
    config = Config.load(path, environ={"GUARDRAIL_REWRITER__MODEL": "tenant-a"})
    rewriter = config.arguments()["rewriter"]
    assert isinstance(rewriter, RemoteRewriter)
    assert repr(rewriter) == "RemoteRewriter('http://127.0.0.1:9/v1', model='tenant-a')"
    assert rewriter._parameters["chat_template_kwargs"] == {"enable_thinking": False}
    assert rewriter._prompt.filled("it") == [{"role": "user", "content": "Mend it"}]
    assert (rewriter._max_choices, rewriter._endpoint.server.timeout) == (1, 20.0)
    result = CliRunner().invoke(app, ["config", "check", str(path)])
    assert result.exit_code == 0
    assert "s3cret" not in CliRunner().invoke(app, ["config", "show", str(path)]).output
    shown = write(tmp_path, rendered(config))
    assert Config.load(shown, environ={}).rewriter == config.rewriter


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[rewriter]\nmodel = 'x'", "[rewriter] needs url"),
        ("[rewriter]\ntimeout = 5", "[rewriter] needs url and model"),
        ("[rewriter]\nurl = 'http://127.0.0.1:9'", "[rewriter] needs model"),
        ("[rewriter]\nurl = 'ftp://127.0.0.1:9'\nmodel = 'x'", "rewriter url must begin with http"),
        ("[rewriter]\nurl = 'http://127.0.0.1:9'\nmodel = 'x'\nretries = -1", "rewriter retries must be"),
        (
            "[rewriter]\nurl = 'http://127.0.0.1:9'\nmodel = 'x'\nkey_env = 'NOT_SET_HERE'",
            "is not set in this",
        ),
        ("[rewriter]\nurl = 'http://127.0.0.1:9'\nmodel = 'x'\nprompt = 'none.json'", "cannot read"),
        ("[rewriter]\nurl = 'http://127.0.0.1:9'\nmodel = 'x'\n[models]\nrewriter = 'none'", "leave one out"),
    ],
)
def test_check_names_a_mistake_in_the_rewriters_section(tmp_path: Path, text: str, message: str) -> None:
    result = CliRunner().invoke(app, ["config", "check", str(write(tmp_path, text))])
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
