"""A plain peft adapter becomes a start: checked, its base measured, with a manifest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from guardrail.errors import ConfigError, ModelFileError, UsageError
from guardrail.manifest import FILENAME, Manifest
from guardrail.rewriters.adapter import read_adapter
from guardrail_training.cli import app
from guardrail_training.imported import import_adapter
from guardrail_training.provenance import weights_sha256
from guardrail_training.run import starting_adapter
from tests.conftest import TEMPLATE, MakeAdapter


@pytest.fixture
def plain(make_adapter: MakeAdapter) -> Path:
    """What peft writes: no manifest."""
    folder = make_adapter(seed=1)
    (folder / FILENAME).unlink()
    return folder


def test_an_imported_adapter_is_a_start_for_its_base(plain: Path, tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="manifest"):
        starting_adapter(plain, base=tiny_base)
    given = ["import", str(plain), "--base", str(tiny_base), "--out", str(tmp_path / "ours")]

    done = CliRunner().invoke(app, [*given, "--template", TEMPLATE, "--licence", "MIT", "--name", "theirs"])

    assert done.exit_code == 0, done.output
    start = starting_adapter(tmp_path / "ours", base=tiny_base)
    assert start is not None
    assert len(start.layers) == 14
    manifest = Manifest.load(tmp_path / "ours")
    assert (manifest.name, manifest.licence, manifest.template) == ("theirs", "MIT", TEMPLATE)
    assert weights_sha256(tiny_base) in (manifest.trained_on, *manifest.compatible_bases)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"auto_map": {"x": "code.py"}}, ModelFileError, "unknown keys"),
        ({"use_dora": True}, ModelFileError, "use_dora"),
        ({"target_modules": ".*"}, ModelFileError, "literal layer names"),
        ({"peft_type": "IA3"}, ModelFileError, "peft_type must be LORA"),
    ],
)
def test_a_configuration_outside_the_allow_list_is_refused_and_leaves_nothing(
    plain: Path,
    tiny_base: Path,
    tmp_path: Path,
    wrong: dict[str, object],
    error: type[Exception],
    message: str,
) -> None:
    path = plain / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | wrong), encoding="utf-8")
    before = set(tmp_path.iterdir())

    with pytest.raises(error, match=message):
        import_adapter(plain, base=str(tiny_base), out=tmp_path / "ours", template=TEMPLATE)
    assert set(tmp_path.iterdir()) == before


def test_an_adapter_of_another_base_pickled_weights_and_bad_templates_are_refused(
    plain: Path, tiny_base: Path, tmp_path: Path
) -> None:
    def take(**changes: str) -> Path:
        given = {"base": str(tiny_base), "template": TEMPLATE} | changes
        return import_adapter(plain, out=tmp_path / "ours", **given)

    with pytest.raises(ConfigError, match="exactly one"):
        take(template="no place")
    other = tmp_path / "other"
    other.mkdir()
    for path in tiny_base.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"intermediate_size": 64}))
    with pytest.raises(ModelFileError, match="is it for another base"):
        take(base=str(other))
    (plain / "adapter_model.safetensors").rename(plain / "adapter_model.bin")
    with pytest.raises(UsageError, match="pickled weights are not opened"):
        take()


def test_what_has_a_manifest_needs_no_import(
    make_adapter: MakeAdapter, tiny_base: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="has a manifest already"):
        import_adapter(make_adapter(seed=1), base=str(tiny_base), out=tmp_path / "ours", template=TEMPLATE)
    assert read_adapter(make_adapter(seed=1)).layers
