"""The page on monitor mode: its code runs, its commands work, and its configuration can be read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from guardrail.config import Config
from tests.test_docs import ROOT, blocks, run_shell
from tests.waiting import PATIENCE

PAGE = (ROOT / "docs" / "monitor.md").read_text(encoding="utf-8")


def test_the_python_blocks_run_in_order(tmp_path: Path) -> None:
    command = Path(sys.executable).parent / "guardrail"
    script = "\n".join(blocks(PAGE, "python")).replace('["guardrail"', f'["{command}"')
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "masked would_mask" in done.stdout
    assert "40 reviews: 40 rightly flagged" in done.stdout
    assert "idiot" not in done.stdout


def test_the_shell_blocks_run(tmp_path: Path) -> None:
    for script in blocks(PAGE, "bash"):
        done = run_shell(script, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "would_" in done.stderr


def test_the_configuration_can_be_read(tmp_path: Path) -> None:
    (block,) = blocks(PAGE, "toml")
    (tmp_path / "guardrail.toml").write_text(block)
    config = Config.load(tmp_path / "guardrail.toml", environ={})
    assert [rule.name for rule in config.server.policies] == ["pilot", "drafts"]
    assert config.server.policies[0].policy(config.policy).enforce
