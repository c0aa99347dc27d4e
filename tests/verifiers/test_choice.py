"""Which verifier judges a guard's rewrites, and from which probability it takes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from guardrail import Guard, Policy
from guardrail.config import Config, ModelSettings
from guardrail.engine import plugins
from guardrail.engine.plugins import chosen_verifier, threshold_of
from guardrail.errors import ConfigError, ManifestError
from guardrail.rewriters.onnx import OnnxRewriter
from guardrail.rewriters.verifier import OnnxVerifier


def own_rewriter(segments: Sequence[str], n: int) -> list[list[str]]:
    return [[] for _ in segments]


def own_verifier(sources: Sequence[str], candidates: Sequence[str]) -> list[float]:
    return [1.0 for _ in candidates]


@pytest.fixture
def shipped(verifier_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that has a verifier in it."""
    (tmp_path / "verifier").symlink_to(verifier_folder)
    monkeypatch.setattr(plugins, "SHIPPED", tmp_path)


def test_a_guard_takes_rewrites_from_the_threshold_of_its_verifier(verifier: OnnxVerifier) -> None:
    assert Guard(verifier=verifier).policy.acceptable == verifier.threshold


def test_a_policys_own_limit_goes_before_the_verifiers(verifier: OnnxVerifier) -> None:
    assert Guard(policy=Policy(acceptable=0.9), verifier=verifier).policy.acceptable == 0.9


def test_a_function_as_verifier_is_taken_at_one_half() -> None:
    assert Guard(verifier=own_verifier).policy.acceptable == 0.5


@pytest.mark.usefixtures("shipped")
def test_the_shipped_verifier_judges_the_rewriters_of_this_package() -> None:
    assert chosen_verifier("shipped", rewriter="shipped") == "shipped"
    assert chosen_verifier("shipped", rewriter=OnnxRewriter.__new__(OnnxRewriter)) == "shipped"
    assert threshold_of("shipped") == 0.4
    assert Guard().policy.acceptable == 0.4


@pytest.mark.usefixtures("shipped")
@pytest.mark.parametrize("rewriter", [own_rewriter, None])
def test_other_rewriters_are_left_to_the_checks(rewriter: object) -> None:
    assert chosen_verifier("shipped", rewriter=rewriter) is None
    assert chosen_verifier(own_verifier, rewriter=rewriter) is own_verifier


def test_without_a_verifier_in_the_package_the_checks_alone_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "SHIPPED", tmp_path)
    assert chosen_verifier("shipped", rewriter="shipped") is None
    assert Guard().policy.acceptable is None


@pytest.mark.usefixtures("shipped")
def test_a_guard_can_do_without_the_shipped_verifier() -> None:
    assert Guard(verifier=None).policy.acceptable is None


def test_a_configuration_names_the_verifier_by_its_folder(verifier_folder: Path) -> None:
    arguments = Config(models=ModelSettings(verifier=verifier_folder)).arguments()
    assert isinstance(arguments["verifier"], OnnxVerifier)
    assert Config(models=ModelSettings(verifier=None)).arguments()["verifier"] is None
    assert "verifier" not in Config().arguments()


def test_a_configured_folder_without_a_verifier_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"manifest\.json"):
        Config(models=ModelSettings(verifier=tmp_path)).arguments()


def test_a_wrong_value_in_a_configuration_is_named(tmp_path: Path) -> None:
    (tmp_path / "guardrail.toml").write_text("[models]\nverifier = 3\n")
    with pytest.raises(ConfigError, match="verifier must be 'shipped' or a path or 'none'"):
        Config.load(tmp_path / "guardrail.toml")
