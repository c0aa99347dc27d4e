"""Manifests: read strictly, verified before anything is opened, saved as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.errors import ManifestError
from guardrail.manifest import FILENAME, Manifest, Template, sha256_of

BASE: dict[str, Any] = {"kind": "adapter", "name": "a", "version": "1", "licence": "MIT", "files": {}}
HEX = "0" * 64


def folder_with(tmp_path: Path, content: object) -> Path:
    (tmp_path / FILENAME).write_text(json.dumps(content), encoding="utf-8")
    return tmp_path


def model_folder(tmp_path: Path) -> Path:
    (tmp_path / "weights").write_bytes(b"0123456789")
    Manifest(**(BASE | {"files": {"weights": sha256_of(tmp_path / "weights")}})).save(tmp_path)
    return tmp_path


def test_a_manifest_reads_back_as_it_was_saved(tmp_path):
    manifest = Manifest(
        **(BASE | {"files": {"weights": HEX}}),
        trained_on=HEX,
        compatible_bases={"1" * 64: "measured"},
        template="Say: {text}",
        temperature=1.3,
        labels=("toxicity", "insult"),
        threshold=0.5,
        calibration={"toxicity": {"a": 1.0, "b": -0.5}},
        scripts=("Latin",),
        settings={"n": 3},
        data=({"name": "x", "rows": 2},),
        seed=0,
    )
    manifest.save(tmp_path)
    assert Manifest.load(tmp_path, verify=False) == manifest


def test_a_missing_manifest_says_so(tmp_path):
    with pytest.raises(ManifestError, match=r"no manifest\.json"):
        Manifest.load(tmp_path)


def test_a_file_in_place_of_a_folder_is_the_same_error(tmp_path):
    (tmp_path / "adapter.safetensors").write_bytes(b"x")
    with pytest.raises(ManifestError, match=r"no manifest\.json"):
        Manifest.load(tmp_path / "adapter.safetensors")


def test_a_manifest_that_is_not_json_says_so(tmp_path):
    for content in (b"{\xff", b"[" * 100_000):
        (tmp_path / FILENAME).write_bytes(content)
        with pytest.raises(ManifestError, match="not valid JSON"):
            Manifest.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected a JSON object"),
        (BASE | {"surprise": 1}, "unknown keys.*surprise"),
        ({key: value for key, value in BASE.items() if key != "licence"}, "missing keys.*licence"),
        (BASE | {"kind": "pickle"}, "kind must be one of"),
        (BASE | {"files": []}, "files must map"),
        (BASE | {"temperature": 0}, "temperature must be a number above 0 or null, got 0"),
        (BASE | {"temperature": "warm"}, "temperature must be a number above 0"),
        (BASE | {"temperature": True}, "temperature must be a number above 0"),
        (BASE | {"files": {"../weights": HEX}}, "must not contain folders"),
        (BASE | {"files": {"/etc/passwd": HEX}}, "must not contain folders"),
        (BASE | {"files": {"weights": "0" * 63}}, "no sha256 of 64"),
        (BASE | {"files": {"weights": None}}, "no sha256 of 64"),
    ],
)
def test_a_malformed_manifest_is_one_error_that_names_what_is_wrong(tmp_path, content, message):
    with pytest.raises(ManifestError, match=message):
        Manifest.load(folder_with(tmp_path, content))


def test_intact_files_pass(tmp_path):
    assert Manifest.load(model_folder(tmp_path)).name == "a"


@pytest.mark.parametrize("content", [b"", b"012345678", b"0123456780", b"01234567890"])
def test_one_changed_or_missing_byte_is_found(tmp_path, content):
    (model_folder(tmp_path) / "weights").write_bytes(content)
    with pytest.raises(ManifestError, match="altered or cut short"):
        Manifest.load(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    (model_folder(tmp_path) / "weights").unlink()
    with pytest.raises(ManifestError, match="weights is listed in its manifest but missing"):
        Manifest.load(tmp_path)


def test_a_caller_can_bring_remembered_hashes_or_skip_hashing(tmp_path):
    manifest = Manifest.load(model_folder(tmp_path))
    (tmp_path / "weights").write_bytes(b"other")
    manifest.verify(tmp_path, digest=lambda path: None)
    with pytest.raises(ManifestError):
        manifest.verify(tmp_path, digest=lambda path: HEX)


def test_an_adapter_accepts_its_own_and_its_declared_bases_only():
    manifest = Manifest(**BASE, trained_on=HEX, compatible_bases={"1" * 64: "not measured"})
    manifest.check_base(HEX)
    manifest.check_base("1" * 64)
    with pytest.raises(ManifestError, match="guardrail models pull"):
        manifest.check_base("2" * 64)


class Letters:
    """A tokenizer of code points, with one control token that only unsplit text can hold."""

    def encode(self, text: str, *, add_special_tokens: bool, split_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        if not split_special_tokens:
            text = text.replace("<end>", "\0")
        return [ord(letter) for letter in text]


@given(st.text())
def test_the_template_frames_any_text_without_reading_it(text):
    ids = Template("a {b} <end>{text}<end>c").encode(Letters(), text)
    assert ids == [*map(ord, "a {b} \0"), *map(ord, text), *map(ord, "\0c")]
